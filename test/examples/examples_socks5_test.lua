-- The SOCKS5 proxy among the examples: by curl, and byte by byte.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local raw = require 'raw'
local programs = require 'programs'

local T = {}

-- A web server that says where it was reached, and under which name.
local function web(ip)
  local server, message = asio.server(ip, 0, function(conn)
    local host = ''
    for line in conn:lines() do
      host = line:match '^Host: (.*)$' or host
      if line == '' then break end
    end
    local body = host .. ' at ' .. conn:address() .. '\n'
    conn:write('HTTP/1.0 200 OK\r\nContent-Length: ', #body, '\r\n\r\n', body)
    conn:close()
  end)
  lu.skipIf(not server, message)
  return server, select(2, server:address())
end

local function curl(...)
  return programs.run('curl -sS -m 20 --noproxy "" ' .. (('%s '):rep(select('#', ...)):format(...)))
end

local function proxied(fn, ...)
  return programs.with(fn, 'socks5', { env = 'CONNECT=1' }, '127.0.0.1', 0, ...)
end

function T.test_socks5_curl()
  t.need 'curl'
  local server, port = web '127.0.0.1'
  local rest = proxied(function(proxy)
    local out, status = curl('--socks5', '127.0.0.1:' .. proxy, ('http://127.0.0.1:%d/'):format(port))
    lu.assertEquals({ out, status }, { ('127.0.0.1:%d at 127.0.0.1\n'):format(port), 0 })
    out, status = curl('--socks5-hostname', '127.0.0.1:' .. proxy, ('http://localhost:%d/'):format(port))
    lu.assertEquals({ out, status }, { ('localhost:%d at 127.0.0.1\n'):format(port), 0 })
  end)
  lu.assertEquals(rest, ('127.0.0.1\t127.0.0.1\t%d\tconnected\n127.0.0.1\tlocalhost\t%d\tconnected\n')
    :format(port, port))
  server:close()
end

function T.test_socks5_curl_over_ipv6()
  t.need 'curl'
  local server, port = web '::1'
  proxied(function(proxy)
    local out, status = curl('--socks5', '127.0.0.1:' .. proxy, ("'http://[::1]:%d/'"):format(port))
    lu.assertEquals({ out, status }, { ('[::1]:%d at ::1\n'):format(port), 0 })
  end)
  server:close()
end

function T.test_socks5_curl_with_a_password()
  t.need 'curl'
  local server, port = web '127.0.0.1'
  local url = ('http://127.0.0.1:%d/'):format(port)
  proxied(function(proxy)
    local out, status = curl('-x', 'socks5h://me:se:cret@127.0.0.1:' .. proxy, url)
    lu.assertEquals({ out, status }, { ('127.0.0.1:%d at 127.0.0.1\n'):format(port), 0 })
    for _, who in ipairs { 'me:wrong@', 'you:se:cret@', '' } do
      status = select(2, curl('-x', 'socks5h://' .. who .. '127.0.0.1:' .. proxy, url))
      lu.assertEquals(status, 97) -- CURLE_PROXY
    end
  end, 'me:se:cret')
  server:close()
end

function T.test_socks5_told_nonsense()
  local out, status = programs.run_example('socks5', '127.0.0.1', 0, 'nopassword')
  lu.assertStrContains(out, 'usage: ')
  lu.assertEquals(status, 2)
end

-- Byte by byte ------------------------------------------------------------------------------------

local function open(proxy)
  local conn = assert(asio.connect('127.0.0.1', proxy))
  conn:set_timeout(10 * t.patience)
  return conn
end

local function port_bytes(port)
  return string.char(math.floor(port / 256), port % 256)
end

-- Asks, and returns the code of the reply.
local function code_of(proxy, request)
  local conn = open(proxy)
  conn:write('\5\1\0', request)
  lu.assertEquals(conn:read(2), '\5\0')
  local reply = assert(conn:read(10))
  lu.assertEquals(reply:sub(1, 1) .. reply:sub(3, 4), '\5\0\1')
  if reply:byte(2) ~= 0 then t.failure('EOF', conn:read(1)) end
  conn:close()
  return reply:byte(2)
end

function T.test_socks5_replies()
  local nobody = raw.listen()
  local free = port_bytes(nobody:port())
  nobody:close()
  local full, fillers = raw.full_listener()
  proxied(function(proxy)
    local local_host = '\127\0\0\1'
    lu.assertEquals(code_of(proxy, '\5\1\0\1' .. local_host .. free), 5)
    lu.assertEquals(code_of(proxy, '\5\1\0\3\9localhost' .. free), 5)
    lu.assertEquals(code_of(proxy, '\5\1\0\1' .. local_host .. port_bytes(full:port())), 4)
    lu.assertEquals(code_of(proxy, '\5\1\0\3\17no-such-name.test' .. free), 4)
    lu.assertEquals(code_of(proxy, '\5\2\0\1' .. local_host .. free), 7) -- BIND
    lu.assertEquals(code_of(proxy, '\5\3\0\1\0\0\0\0\0\0'), 7)           -- UDP ASSOCIATE
    lu.assertEquals(code_of(proxy, '\5\1\0\9' .. local_host .. free), 8)
    lu.assertEquals(code_of(proxy, '\5\1\0\1' .. local_host .. '\0\0'), 1)
    lu.assertEquals(code_of(proxy, '\5\1\0\3\0' .. free), 1)
    lu.assertEquals(code_of(proxy, '\5\1\0\3\14unix:/tmp/sock' .. free), 1)
    lu.assertEquals(code_of(proxy, '\5\1\0\3\5a\0b c' .. free), 1)
  end)
  full:close()
  for _, one in ipairs(fillers) do one:close() end
end

function T.test_socks5_no_way_there()
  local out = t.quiet_child(function()
    local lib, beside = require 'asio', require 'programs'
    lib.run(function()
      beside.with(function(port)
        local conn = assert(lib.connect('127.0.0.1', port))
        conn:write '\5\1\0\5\1\0\1\192\0\2\1\0\80'
        io.write(table.concat({ conn:read(12):byte(1, 4) }, ' '))
        conn:close()
      end, 'socks5', {}, '127.0.0.1', 0)
    end)
  end, { wrap = t.network() })
  lu.assertEquals(out, '5 0 5 3')
end

-- The other side may be done before this one: what comes later still arrives, both ways.
function T.test_socks5_half_closed()
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    local text = conn:read_all()
    conn:write(#text, ' bytes')
    conn:close()
  end))
  local _, port = server:address()
  proxied(function(proxy)
    local conn = open(proxy)
    conn:write('\5\1\0', '\5\1\0\1\127\0\0\1', port_bytes(port), 'sent before ', 'the reply')
    lu.assertEquals(conn:read(5), '\5\0\5\0\0')
    lu.assertEquals(conn:read(5), '\1\127\0\0\1') -- our end of the onward connection
    conn:read(2)
    conn:write(('x'):rep(1000000))
    conn:shutdown()
    lu.assertEquals(conn:read_all(), '1000021 bytes')
    conn:close()
  end)
  server:close()
end

function T.test_socks5_clients_that_break_off_or_talk_nonsense()
  local request = '\5\1\2\1\2me\6secret\5\1\0\3\9localhost\0\1'
  local rest = proxied(function(proxy)
    for length = 0, #request - 1 do
      local conn = open(proxy)
      conn:write(request:sub(1, length))
      conn:shutdown()
      local answer = conn:read_all()
      lu.assertTrue(#answer <= 4)
      conn:close()
    end
    for _, wrong in ipairs { 'GET / HTTP/1.0\r\n\r\n', '\4\1\0\80\127\0\0\1\0', '\5\0', '\5\1\9' } do
      local conn = open(proxy)
      conn:write(wrong)
      conn:shutdown()
      local answer, _, code = conn:read_all()
      if answer then
        lu.assertTrue(answer == '' or answer == '\5\255')
      else
        lu.assertEquals(code, 'ECONNRESET')
      end
      conn:close()
    end
  end, 'me:secret')
  lu.assertEquals(rest, '')
end

return T
