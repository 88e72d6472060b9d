-- asio.server and asio.udp said "invalid argument" to 'localhost' and '*'.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local function greeter(ip, opts)
  local server = assert(asio.server(ip, 0, function(conn) conn:write 'hello' end, opts))
  return server, (select(2, server:address()))
end

local function greets(ip, port)
  local conn = assert(asio.connect(ip, port))
  lu.assertEquals(conn:read(5), 'hello')
  conn:close()
end

local function has_ipv6()
  local probe = asio.server('::1', 0)
  if probe then probe:close() end
  return probe ~= nil
end

function T.test_localhost()
  local server, port = greeter 'localhost'
  lu.assertEquals((server:address()), '127.0.0.1')
  greets('127.0.0.1', port)
  server:close()
end

function T.test_all_addresses()
  for _, name in ipairs { '*', '' } do
    local server, port = greeter(name)
    greets('127.0.0.1', port)
    greets(server:address())
    if has_ipv6() then
      greets('::1', port)
      lu.assertEquals((server:address()), '::')
    end
    server:close()
  end
end

function T.test_all_addresses_of_ipv6()
  lu.skipIf(not has_ipv6(), 'no IPv6 here')
  local server, port = greeter('*', { ipv6only = true })
  greets('::1', port)
  t.failure('ECONNREFUSED', asio.connect('127.0.0.1', port))
  server:close()
end

-- A kernel without IPv6, and one on which it is switched off.
function T.test_all_addresses_without_ipv6()
  for _, fault in ipairs { 'socket:error=EAFNOSUPPORT', 'bind:error=EADDRNOTAVAIL' } do
    local out = t.quiet_child(function()
      local lib = require 'asio'
      local server = assert(lib.server('*', 0, print))
      io.write((server:address()))
      server:close()
    end, { env = t.ignore_leaks, wrap = t.strace('-o /dev/null -e inject=' .. fault .. ':when=1') })
    lu.assertEquals(out, '0.0.0.0')
  end
end

function T.test_other_names()
  for _, name in ipairs { 'example.org', '127.0.0.1.5', 'LOCALHOST ', '**', '[127.0.0.1]' } do
    local server, message, code = asio.server(name, 0, print)
    lu.assertNil(server)
    lu.assertEquals(message, ("'%s' is not a numeric address"):format(name))
    lu.assertEquals(code, 'EINVAL')
  end
end

function T.test_datagram_sockets_too()
  local all = assert(asio.udp('*', 0))
  local near = assert(asio.udp('localhost', 0))
  lu.assertEquals((near:address()), '127.0.0.1')
  near:send('hello', '127.0.0.1', (select(2, all:address())))
  all:set_timeout(5)
  lu.assertEquals(all:recv(), 'hello')
  all:close()
  near:close()
  local none, message, code = asio.udp('example.org', 0)
  lu.assertEquals({ none, message, code }, { nil, "'example.org' is not a numeric address", 'EINVAL' })
end

return T
