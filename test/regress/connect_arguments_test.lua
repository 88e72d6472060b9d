-- asio.connect: an IPv6 address in brackets was taken for a name; the boolean that was the third argument of
-- the C++ library raised; a long string without a port was "invalid argument" of the kernel.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local function listen(ip)
  local server, message, code = asio.server(ip, 0, function(conn) conn:write(ip) end)
  lu.skipIf(not server, tostring(message))
  assert(server, code)
  return server, (select(2, server:address()))
end

local function reads(expected, conn, message)
  lu.assertNotNil(conn, message)
  lu.assertEquals(conn:read(#expected), expected)
  conn:close()
end

function T.test_brackets()
  local server, port = listen '::1'
  reads('::1', asio.connect('[::1]', port))
  reads('::1', asio.connect('::1', port))
  server:close()
end

function T.test_brackets_of_a_server_and_of_bind()
  local server, port = listen '[::1]'
  lu.assertEquals((server:address()), '::1')
  reads('[::1]', asio.connect('::1', port, { bind = '[::1]' }))
  server:close()
end

function T.test_what_is_not_an_address_in_brackets()
  local hosts = { '[', '[]', ']', '[::1', '::1]', '[127.0.0.1]', '[localhost]', '[[::1]]', '[::1]:80' }
  for _, host in ipairs(hosts) do
    local conn, message, code = asio.connect(host, 80)
    lu.assertNil(conn)
    lu.assertIsString(message)
    lu.assertStrMatches(code, 'EAI_%u+')
  end
end

function T.test_false_means_ipv4()
  local server, port = listen '127.0.0.1'
  reads('127.0.0.1', asio.connect('localhost', port, false))
  reads('127.0.0.1', asio.connect('127.0.0.1', port, false))
  reads('127.0.0.1', asio.connect('127.0.0.1', port, true)) -- an address is what it is
  server:close()
end

function T.test_true_means_ipv6()
  local server, port = listen '::1'
  reads('::1', asio.connect('::1', port, true))
  local conn, _, code = asio.connect('localhost', port, true)
  if conn then
    reads('::1', conn)
  else
    lu.assertStrMatches(code, 'EAI_%u+') -- localhost has no IPv6 address here
  end
  server:close()
  local v4, port4 = listen '127.0.0.1'
  local wrong = asio.connect('localhost', port4, true)
  lu.assertNil(wrong)
  v4:close()
end

function T.test_no_port_and_no_address()
  t.bad_argument(1, 'connect', function() asio.connect(('x'):rep(70)) end)
  t.bad_argument(1, 'connect', function() asio.connect(('\0'):rep(128)) end)
  t.bad_argument(1, 'connect', function() asio.connect(('x'):rep(70), { timeout = 1 }) end)
  t.bad_argument(1, 'connect', function() asio.connect(('x'):rep(70), nil, { timeout = 1 }) end)
  t.bad_argument(2, 'connect', function() asio.connect(('x'):rep(63)) end)
end

return T
