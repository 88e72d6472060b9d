-- Servers behind a proxy: the PROXY protocol, by hand and by HAProxy.
--
-- test: 9 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local programs = require 'programs'
local raw = require 'raw'
local rawunix = require 'rawunix'
local t = require 'support'
local can = require 'can'

local T = {}

local SIGNATURE = '\r\n\r\n\0\r\nQUIT\n'
local FOUR = '\1\2\3\4\5\6\7\8\3\232\0\80'                       -- 1.2.3.4:1000 -> 5.6.7.8:80
local SIX = ('\0'):rep(15) .. '\1' .. ('\0'):rep(15) .. '\2' .. '\3\232\0\80' -- ::1 -> ::2
local LONG = '/' .. ('x'):rep(107) -- a path that fills its place
local HERE = { from = '127.0.0.0/8' }

local function length(n)
  return string.char(math.floor(n / 256), n % 256)
end

-- command: 0x20 LOCAL, 0x21 PROXY; `claimed`: the length it says.
local function v2(command, family, body, claimed)
  return SIGNATURE .. string.char(command, family) .. length(claimed or #body) .. body
end

local function zeros(text, n)
  return text .. ('\0'):rep(n - #text)
end

-- A server whose handler tells what it has, as text, and then gives back what it reads.
local function listen(trust)
  return assert(asio.server('127.0.0.1', 0, function(conn)
    local ip, port = conn:peer()
    local own, own_port = conn:address()
    if not ip then return conn:close() end -- HAProxy's checks are over with a reset
    conn:write(ip, ' ', port, ' ', own, ' ', own_port, '\n')
    for data in function() return conn:read_some() end do conn:write(data) end
    conn:close()
  end, { proxy_protocol = trust or HERE }))
end

local function with_server(trust, fn)
  local server = listen(trust)
  local ip, port = server:address()
  fn(function() return assert(asio.connect(ip, port)) end, port)
  server:close()
end

-- Sends the pieces; the first line that comes back, the code, and the connection.
local function say(connect, ...)
  local conn = connect()
  for _, piece in ipairs { ... } do
    conn:write(piece)
    conn:flush()
    if select('#', ...) > 1 then asio.sleep(0.001) end
  end
  conn:set_timeout(5 * t.patience)
  local line, _, code = conn:read_line()
  return line, code, conn
end

local function refused(connect, header)
  local line, code, conn = say(connect, header)
  lu.assertNil(line, ('%q'):format(header))
  lu.assertTrue(code == 'EOF' or code == 'ECONNRESET', code)
  conn:close()
end

-- Headers -------------------------------------------------------------------------------------

local GOOD = {
  ['v1 4'] = { 'PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n', '1.2.3.4 1000 5.6.7.8 80' },
  ['v1 6'] = { 'PROXY TCP6 ::1 fe80::2 1000 80\r\n', '::1 1000 fe80::2 80' },
  ['v1, the longest'] = { ('PROXY TCP6 %s %s 65535 65535\r\n'):format(('ffff:'):rep(7) .. 'ffff',
    ('ffff:'):rep(7) .. 'ffff'), nil },
  ['v1, port 0'] = { 'PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n', '1.2.3.4 0 5.6.7.8 65535' },
  ['v2 4'] = { v2(0x21, 0x11, FOUR), '1.2.3.4 1000 5.6.7.8 80' },
  ['v2 6'] = { v2(0x21, 0x21, SIX), '::1 1000 ::2 80' },
  ['v2, datagrams'] = { v2(0x21, 0x12, FOUR), '1.2.3.4 1000 5.6.7.8 80' },
  ['v2, TLVs'] = { v2(0x21, 0x11, FOUR .. '\4\0\1x\1\0\2h2'), '1.2.3.4 1000 5.6.7.8 80' },
  ['v2, the longest'] = { v2(0x21, 0x11, zeros(FOUR, 65535)), '1.2.3.4 1000 5.6.7.8 80' },
}

function T.test_the_client_is_the_one_in_the_header()
  with_server(nil, function(connect)
    for name, case in pairs(GOOD) do
      local line, _, conn = say(connect, case[1])
      if case[2] then lu.assertEquals(line, case[2], name) end
      lu.assertNotNil(line, name)
      conn:close()
    end
  end)
end

-- Nobody in particular: the addresses of the connection itself.
function T.test_headers_without_a_client()
  with_server(nil, function(connect, port)
    for _, header in ipairs {
      'PROXY UNKNOWN\r\n', 'PROXY UNKNOWN ffff::1 1.2.3.4 and so on\r\n',
      'PROXY UNKNOWN ' .. ('x'):rep(107 - 16) .. '\r\n',
      v2(0x20, 0x00, ''), v2(0x20, 0x11, FOUR), v2(0x20, 0xff, 'whatever'),
      v2(0x21, 0x00, ''), v2(0x21, 0x10, FOUR), v2(0x21, 0x00, '\4\0\1x'),
    } do
      local line, code, conn = say(connect, header)
      local _, own = conn:address()
      lu.assertEquals(line, ('127.0.0.1 %d 127.0.0.1 %d'):format(own, port), tostring(code))
      conn:close()
    end
  end)
end

function T.test_malformed_headers_close()
  with_server(nil, function(connect)
    for _, header in ipairs {
      'GET / HTTP/1.1\r\n\r\n', 'x', '\r\nQ', 'PROXX', 'proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n',
      'PROXY\r\n', 'PROXY \r\n', 'PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n', 'PROXY UNKNOWNx\r\n',
      'PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n',
      'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n',
      'PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n',
      'PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n', 'PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n',
      'PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2x\r\n',
      'PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n', 'PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n',
      'PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n', 'PROXY TCP4 ::1 ::2 1 2\r\n',
      'PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n', 'PROXY TCP6 ::1%lo ::2 1 2\r\n',
      'PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n', 'PROXY UNKNOWN ' .. ('x'):rep(107 - 15) .. '\r\n',
      'PROXY UNKNOWN ' .. ('x'):rep(1000), 'PROXY ' .. ('x'):rep(101),
      v2(0x11, 0x11, FOUR), v2(0x31, 0x11, FOUR), v2(0x22, 0x11, FOUR), v2(0x21, 0x41, zeros('', 300)),
      v2(0x21, 0x13, FOUR), v2(0x21, 0x11, FOUR:sub(1, 11)), v2(0x21, 0x21, FOUR), v2(0x21, 0x31, SIX),
      SIGNATURE:sub(1, 11) .. '\r', SIGNATURE .. '\0',
    } do
      refused(connect, header)
    end
  end)
end

function T.test_byte_by_byte()
  with_server(nil, function(connect)
    for _, header in ipairs { GOOD['v1 4'][1], GOOD['v2 4'][1], GOOD['v2, TLVs'][1] } do
      local pieces = {}
      for i = 1, #header do pieces[i] = header:sub(i, i) end
      pieces[#pieces + 1] = 'behind'
      local line, _, conn = say(connect, unpack(pieces))
      lu.assertEquals(line, '1.2.3.4 1000 5.6.7.8 80')
      lu.assertEquals(conn:read(6), 'behind')
      conn:close()
    end
  end)
end

-- Only the header is taken; another one behind it is data.
function T.test_what_is_behind_the_header_is_for_the_handler()
  local large = ('0123456789'):rep(20000)
  with_server(nil, function(connect)
    for _, name in ipairs { 'v1 4', 'v2 4', 'v2, TLVs', 'v2, the longest' } do
      local header, line = unpack(GOOD[name])
      for _, behind in ipairs { 'x', header, large } do
        local said, _, conn = say(connect, header .. behind)
        lu.assertEquals(said, line)
        t.same_bytes(conn:read(#behind), behind)
        conn:close()
      end
    end
  end)
end

-- The length lies: what it counts is not there, or belongs to the data.
function T.test_lengths_that_lie()
  with_server({ from = '127.0.0.1', timeout = 0.1 }, function(connect)
    refused(connect, v2(0x21, 0x11, FOUR, 65535))
    local line, _, conn = say(connect, v2(0x21, 0x11, FOUR, #FOUR + 3) .. 'abcdef')
    lu.assertEquals(line, '1.2.3.4 1000 5.6.7.8 80')
    lu.assertEquals(conn:read(3), 'def')
    conn:close()
  end)
end

function T.test_unix_addresses()
  local accepted
  local server = assert(asio.server('127.0.0.1', 0, function(conn) accepted = conn end,
    { proxy_protocol = HERE }))
  for _, row in ipairs {
    { '/client', '/server', 'unix:/client', 'unix:/server', 'connection (unix:/client)' },
    { '', '\0abstract', 'unix:', 'unix:@abstract', 'connection (unix:@abstract)' },
    { LONG, '', 'unix:' .. LONG, 'unix:', 'connection (unix:' .. LONG .. ')' },
  } do
    local conn = asio.connect(server:address())
    conn:write(v2(0x21, 0x31, zeros(row[1], 108) .. zeros(row[2], 108)), 'behind')
    t.wait_until(function() return accepted end)
    lu.assertEquals({ accepted:peer(), (accepted:address()) }, { row[3], row[4] })
    lu.assertEquals(tostring(accepted), row[5])
    lu.assertEquals(accepted:read(6), 'behind')
    accepted:close()
    conn:close()
    accepted = nil
  end
  server:close()
end

function T.test_on_a_unix_socket()
  can.need('unix_sockets', 'numbers')
  local dir, remove = rawunix.directory()
  local name = 'unix:' .. dir .. '/s'
  for _, trust in ipairs { 'unix', '127.0.0.1', '::/0 0.0.0.0/0' } do
    local accepted
    local server = assert(asio.server(name, function(conn) accepted = { conn:peer() } end,
      { proxy_protocol = { from = trust } }))
    local conn = assert(asio.connect(name))
    conn:write 'PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n'
    if trust == 'unix' then
      t.wait_until(function() return accepted end)
      lu.assertEquals(accepted, { '1.2.3.4', 1000 })
    else
      t.failure_among(t.codes('EOF', 'ECONNRESET'), conn:read(1))
      lu.assertNil(accepted)
    end
    conn:close()
    server:close()
  end
  remove()
end

function T.test_tostring_names_the_client()
  local text
  local server = assert(asio.server('127.0.0.1', 0, function(conn) text = tostring(conn) end,
    { proxy_protocol = HERE }))
  local conn = asio.connect(server:address())
  conn:write 'PROXY TCP6 2001::1 ::2 1000 80\r\n'
  t.wait_until(function() return text end)
  lu.assertEquals(text, 'connection (tcp [2001::1]:1000)')
  conn:close()
  server:close()
end

-- Who is trusted ------------------------------------------------------------------------------

function T.test_networks()
  local header = GOOD['v1 4'][1]
  for _, row in ipairs {
    { '127.0.0.1', true }, { '127.0.0.2', false }, { '127.0.0.1/32', true }, { '127.0.0.0/31', true },
    { '127.0.0.2/31', false }, { '0.0.0.0/0', true }, { '128.0.0.0/1', false }, { '10.0.0.0/8', false },
    { '::1', false }, { '::/0', false }, { '::ffff:127.0.0.0/104', true }, { '::ffff:0:0/96', true },
    { '::ffff:10.0.0.0/104', false }, { '127.9.9.9/8', true }, { 'unix', false },
    { '10.0.0.0/8,127.0.0.0/8', true }, { ' 10.0.0.0/8 ,\n 127.0.0.1 ', true },
    { { '10.0.0.0/8', '::1, 127.0.0.1' }, true }, { { '10.0.0.0/8' }, false },
  } do
    with_server({ from = row[1] }, function(connect)
      if not row[2] then return refused(connect, header) end
      local line, code, conn = say(connect, header)
      lu.assertEquals(line, GOOD['v1 4'][2], tostring(row[1]) .. ': ' .. tostring(code))
      conn:close()
    end)
  end
end

function T.test_networks_of_version_6()
  local works = asio.server('::', 0, print)
  lu.skipIf(not works, 'no IPv6 here')
  works:close()
  for _, row in ipairs {
    { '::1', '::1', true }, { '::1', '::/0', true }, { '::1', '0.0.0.0/0', false }, { '::1', '::/127', true },
    { '::1', '::2/127', false }, { '127.0.0.1', '127.0.0.0/8', true }, { '127.0.0.1', '::1', false },
    { '127.0.0.1', '::/0', false },
  } do
    local server = assert(asio.server('::', 0, function(conn)
      conn:write 'yes\n'
      conn:close()
    end, { proxy_protocol = { from = row[2] } }))
    local _, port = server:address()
    local function connect() return assert(asio.connect(row[1], port)) end
    if row[3] then
      local line, _, conn = say(connect, GOOD['v1 4'][1])
      lu.assertEquals(line, 'yes', row[2])
      conn:close()
    else
      refused(connect, GOOD['v1 4'][1])
    end
    server:close()
  end
end

function T.test_bad_options_raise()
  for _, option in ipairs {
    true, 'trust everybody', 1, {}, { from = '' }, { from = {} }, { from = 1 }, { from = { 1 } },
    { from = true },
    { from = 'localhost' }, { from = '10.0.0.0/33' }, { from = '::/129' }, { from = '10.0.0.0/' },
    { from = '10.0.0.0/x' }, { from = '10.0.0.0/-1' }, { from = '10.0.0.0/8/8' }, { from = '10.0.0/8' },
    { from = '/8' }, { from = '10.0.0.0/0008' }, { from = 'fe80::1%lo' }, { from = ('1'):rep(100) },
    { from = { '127.0.0.1', 'nonsense' } }, { from = '127.0.0.1', timeout = 0 },
    { from = '127.0.0.1', timeout = -1 }, { from = '127.0.0.1', timeout = 0 / 0 },
    { from = '127.0.0.1', timeout = '1' }, { from = '127.0.0.1', to = 1 }, { '127.0.0.1' },
  } do
    t.bad_argument(4, 'server', function()
      asio.server('127.0.0.1', 0, print, { proxy_protocol = option })
    end)
  end
  local err = t.raises("'10.0.0.0/33'", asio.server, '127.0.0.1', 0, print,
    { proxy_protocol = { from = '::1 10.0.0.0/33' } })
  lu.assertStrContains(err, 'not a network')
  assert(asio.server('127.0.0.1', 0, print, { proxy_protocol = false })):close()
end

-- Waiting for the header ----------------------------------------------------------------------

function T.test_a_late_header_closes()
  with_server({ from = '127.0.0.1', timeout = 0.05 }, function(connect)
    local started = asio.now()
    refused(connect, 'PROXY TCP4 1.2.3.4')
    lu.assertTrue(asio.now() - started >= 0.05)
    refused(connect, '')
    -- One that is there in time is not disturbed by its limit later.
    local line, _, conn = say(connect, GOOD['v1 4'][1])
    asio.sleep(0.1)
    conn:write 'still'
    lu.assertEquals({ line, conn:read(5) }, { GOOD['v1 4'][2], 'still' })
    conn:close()
  end)
end

-- The limit without an option, while another case would be as long.
T.test_five_seconds = t.slow(30, function()
  with_server(nil, function(connect)
    local started = asio.now()
    local conn = connect()
    t.failure_among(t.codes('EOF', 'ECONNRESET'), conn:read(1))
    local took = asio.now() - started
    lu.assertTrue(took >= 4.9 and took < 20 * t.patience, tostring(took))
    conn:close()
  end)
end)

function T.test_a_header_that_waits_holds_up_nobody()
  with_server({ from = '127.0.0.1', timeout = 30 }, function(connect)
    local slow = {}
    for i = 1, 100 do
      slow[i] = connect()
      slow[i]:write 'PROXY '
    end
    for _ = 1, 10 do
      local line, _, conn = say(connect, GOOD['v2 4'][1])
      lu.assertEquals(line, GOOD['v2 4'][2])
      conn:close()
    end
    slow[50]:write 'UNKNOWN\r\n'
    lu.assertNotNil(slow[50]:read_line())
    for i = 1, 100 do slow[i]:close() end
  end)
end

function T.test_a_peer_that_goes_before_its_header()
  local called = 0
  local server = assert(asio.server('127.0.0.1', 0, function() called = called + 1 end,
    { proxy_protocol = HERE }))
  local _, port = server:address()
  local before = asio.stats().connections
  for _, text in ipairs { '', 'PROXY', GOOD['v2 4'][1]:sub(1, 20) } do
    local conn = assert(asio.connect('127.0.0.1', port))
    if text ~= '' then conn:write(text) end
    conn:close()
    local peer = raw.connect(port)
    if text ~= '' then peer:send(text) end
    peer:reset()
  end
  t.wait_until(function() return asio.stats().connections <= before end)
  lu.assertEquals(called, 0)
  server:close()
end

function T.test_it_counts_as_a_connection()
  local served = 0
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    served = served + 1
    conn:close()
  end, { proxy_protocol = { from = '127.0.0.1', timeout = 30 }, max_connections = 1 }))
  local _, port = server:address()
  local first = assert(asio.connect('127.0.0.1', port))
  first:write 'PROXY '
  first:flush()
  asio.sleep(0.02)
  local second = assert(asio.connect('127.0.0.1', port))
  second:write 'PROXY UNKNOWN\r\n'
  asio.sleep(0.05)
  lu.assertEquals(served, 0)
  first:close()
  t.wait_until(function() return served == 1 end)
  second:close()
  server:close()
end

function T.test_closing_the_server_closes_those_that_wait()
  for _, how in ipairs { 'close', 'shutdown', 'collect' } do
    local called
    local server = assert(asio.server('127.0.0.1', 0, function() called = true end,
      { proxy_protocol = { from = '127.0.0.1', timeout = 30 } }))
    local conns = {}
    for i = 1, 3 do
      conns[i] = assert(asio.connect(server:address()))
      conns[i]:write 'PROXY TCP4'
    end
    asio.sleep(0.02)
    if how == 'close' then
      server:close()
    elseif how == 'shutdown' then
      lu.assertTrue(server:shutdown())
    end
    server = nil -- luacheck: ignore 311
    if how == 'collect' then t.collect() end
    for i = 1, 3 do
      t.failure_among(t.codes('EOF', 'ECONNRESET'), conns[i]:read(1))
      conns[i]:close()
    end
    lu.assertNil(called)
  end
end

function T.test_the_state_closes_while_one_waits()
  for _, handler in ipairs { 'yes', 'no' } do
    t.quiet_child(function(handled)
      local asio = require 'asio' -- luacheck: ignore 431
      local server = assert(asio.server('127.0.0.1', 0, handled == 'yes' and print or nil,
        { proxy_protocol = { from = '127.0.0.1' } }))
      _G.SERVER = server
      asio.run(function()
        local conns = {}
        _G.CONNS = conns
        for i = 1, 5 do
          local conn = assert(asio.connect(server:address()))
          conn:write(handled == 'no' and i > 2 and 'PROXY UNKNOWN\r\n' or 'PROXY ')
          conns[i] = conn
          if handled == 'no' then server:accept(0.01) end
        end
        asio.stop()
      end)
    end, { args = { handler } })
  end
end

-- Accepting by hand ---------------------------------------------------------------------------

function T.test_accept_returns_those_that_are_complete()
  local server = assert(asio.server('127.0.0.1', 0, nil,
    { proxy_protocol = { from = '127.0.0.1', timeout = 30 } }))
  local function connect(text)
    local conn = assert(asio.connect(server:address()))
    conn:write(text)
    conn:flush()
    return conn
  end
  local slow = connect 'PROXY '
  local quick = connect 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nquick'
  local conn = assert(server:accept(5))
  lu.assertEquals({ conn:peer() }, { '1.2.3.4', 1 })
  lu.assertEquals(conn:read(5), 'quick')
  t.failure('ETIMEDOUT', server:accept(0.02))
  slow:write 'TCP4 1.1.1.1 2.2.2.2 3 4\r\nslow'
  slow:flush()
  asio.sleep(0.02) -- nobody waits for it
  local other = assert(server:accept(0))
  lu.assertEquals({ other:peer() }, { '1.1.1.1', 3 })
  lu.assertEquals({ other:address() }, { '2.2.2.2', 4 })
  lu.assertEquals(other:read(4), 'slow')
  -- Complete, and never accepted.
  local left = connect 'PROXY '
  t.failure('ETIMEDOUT', server:accept(0.02))
  left:write 'UNKNOWN\r\n'
  asio.sleep(0.02)
  server:close()
  t.failure_among(t.codes('EOF', 'ECONNRESET'), left:read(1))
  for _, c in ipairs { slow, quick, conn, other, left } do c:close() end
end

function T.test_many_at_once()
  local n = t.count(2000)
  local seen = 0
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    local ip, port = conn:peer()
    assert(ip == '1.2.3.4' and conn:read_line() == tostring(port))
    seen = seen + 1
    conn:close()
  end, { proxy_protocol = HERE }))
  local _, at = server:address()
  asio.group(function(g)
    for i = 1, n do
      g:spawn(function()
        local conn = assert(asio.connect('127.0.0.1', at))
        conn:write('PROXY TCP4 1.2.3.4 5.6.7.8 ', i, ' 80\r\n')
        if i % 2 == 0 then asio.yield() end
        conn:write(i, '\n')
        conn:read(1)
        conn:close()
      end)
      if i % 50 == 0 then asio.sleep(0.001) end
    end
  end)
  lu.assertEquals(seen, n)
  server:close()
end

-- The parser, and HAProxy ---------------------------------------------------------------------

T.test_the_parser = t.slow(60, function()
  local file = io.popen(('timeout 60 %s/test/proxy_fuzz %d; echo $?'):format(
    os.getenv 'ASIO_BUILD', t.long and 2000000 or t.sanitized and 20000 or 100000))
  local said = file:read '*a'
  file:close()
  lu.assertStrMatches(said, '%d+ headers, %d+ mangled ones are still good\n0\n', nil, nil, said)
end)

local CONFIG = [[
global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend one
  bind 127.0.0.1:%d
  default_backend one
frontend two
  bind 127.0.0.1:%d
  default_backend two
backend one
  server s 127.0.0.1:%d send-proxy
backend two
  server s 127.0.0.1:%d send-proxy-v2 proxy-v2-options unique-id,crc32c check-send-proxy check inter 50
]]

T.test_haproxy = t.slow(40, function()
  local server = listen()
  local _, port = server:address()
  local one, two = programs.free_port(), programs.free_port()
  local text = CONFIG:format(one, two, port, port)
  local ok, err = pcall(programs.with_file, 'haproxy', 'haproxy -db -f %s', text, one, function()
    programs.listening(two)
    for _, at in ipairs { one, two } do
      for _ = 1, 20 do
        local conn = assert(asio.connect('127.0.0.1', at))
        local _, own = conn:address()
        conn:write 'hello'
        lu.assertEquals(conn:read_line(), ('127.0.0.1 %d 127.0.0.1 %d'):format(own, at))
        lu.assertEquals(conn:read(5), 'hello')
        conn:close()
      end
    end
  end)
  server:close()
  if not ok then error(err, 0) end
end)

return T
