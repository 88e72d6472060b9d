-- Many handshakes, those that fail and contexts that change: memory stays as it is.
--
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local raw = require 'raw'
local t = require 'support'

local T = {}

local function dir()
  return require 'certs'.dir()
end

local function identity(options)
  options.server, options.cert, options.key = true, dir() .. 'server.pem', dir() .. 'server.key'
  return options
end

-- Both sides over a socket pair; the codes of their failures.
local function shake(server, client, between)
  local a, b = asio.socketpair()
  local other = asio.spawn(b.start_tls, b, server)
  if between then between(a, b) end
  local ok, _, code = a:start_tls(client)
  local _, its_ok, _, its_code = other:join()
  if ok and its_ok then
    a:write 'question'
    assert(b:read(8) == 'question')
    b:write(('answer'):rep(1000))
    assert(a:read(6000))
  end
  a:close()
  b:close()
  return code, its_code
end

-- Runs fn(i) so often and says by how many KiB the process has grown since a quarter of it: an allocator
-- takes a while to find its size.
local function grown(n, fn)
  local before
  for i = 1, n do
    fn(i)
    if i == math.ceil(n / 4) then
      t.collect()
      before = raw.status 'VmRSS'
    end
    if i % 50 == 0 then asio.yield() end
  end
  t.collect()
  return raw.status 'VmRSS' - before
end

local function is_flat(n, fn)
  can.need('proc', 'tls', 'openssl', 'real_kernel')
  local kib = grown(t.count(n), fn)
  if t.sanitized or t.stress then return end -- leaks are looked for at the end
  lu.assertTrue(kib < 2048, kib .. ' KiB')
end

T.test_handshakes = t.slow(120, function()
  is_flat(20000, function()
    lu.assertNil((shake(identity {}, { verify = false })))
  end)
end)

-- Without a session of before: the peer has to prove its name, and the client its own.
T.test_handshakes_with_certificates_on_both_sides = t.slow(120, function()
  local ca, keys = dir() .. 'ca.pem', {}
  is_flat(4000, function(i)
    keys[1] = ('%080d'):format(i) -- what was encrypted with others cannot be resumed
    local server = identity { verify = 'require', ca = ca, ticket_keys = i % 8 == 0 and keys or nil }
    local client = { ca = ca, server_name = 'localhost' }
    client.cert, client.key = dir() .. 'client.pem', dir() .. 'client.key'
    lu.assertNil((shake(server, client)))
  end)
end)

T.test_handshakes_that_fail = t.slow(120, function()
  local ca = dir() .. 'ca.pem'
  local ways = {
    function() return shake(identity {}, { ca = ca, server_name = 'elsewhere.example' }) end,
    function() return shake(identity { verify = 'require', ca = ca }, { verify = false }) end,
    function() return shake(identity { alpn = 'a' }, { verify = false, alpn = 'b' }) end,
    function() return shake(identity {}, { verify = false }, function(a) a:write 'GET / HTTP/1.1' end) end,
    function() return shake(identity {}, { verify = false }, function(_, b) b:abort() end) end,
    function()
      return shake(identity { handshake_timeout = 0 }, { verify = false, handshake_timeout = 0 })
    end,
    function()
      return shake(identity { names = function() return { cert = 'none' } end },
        { verify = false, server_name = 'localhost' })
    end,
  }
  is_flat(7000, function(i) ways[i % #ways + 1]() end)
end)

-- More than are kept: no two have the same options.
T.test_contexts = t.slow(120, function()
  is_flat(4000, function(i)
    lu.assertNil((shake(identity { alpn = 'a' .. i }, { verify = false, alpn = { 'a' .. i, 'b' } })))
  end)
end)

T.test_servers_and_set_tls = t.slow(120, function()
  local options = identity {}
  options.server = nil
  can.need('tls', 'openssl')
  local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:close() end, { tls = options }))
  local _, port = server:address()
  is_flat(4000, function(i)
    if i % 10 == 0 then assert(server:set_tls(options)) end
    local conn = assert(asio.connect('127.0.0.1', port, { tls = { verify = false } }))
    t.failure('EOF', conn:read(1))
    conn:close()
  end)
  server:close()
end)

return T
