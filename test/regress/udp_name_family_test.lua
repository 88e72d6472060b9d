-- A datagram to a name goes to the first address of the family that the socket has: from a socket of `::1`
-- the IPv4 address of localhost, when it came first, was tried, and could not be reached.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local four, six = { address = '127.0.0.1', family = 'inet' }, { address = '::1', family = 'inet6' }

-- What localhost is, in this order.
local function with_names(list, fn)
  local resolve = asio.resolve
  asio.resolve = function() return list end
  local ok, err = pcall(fn)
  asio.resolve = resolve
  if not ok then error(err, 0) end
end

local function arrives(ip)
  local server, message = asio.udp(ip, 0)
  lu.skipIf(not server, message)
  local _, port = server:address()
  local client = assert(asio.udp(ip, 0))
  for _, list in ipairs { { four, six }, { six, four } } do
    with_names(list, function()
      lu.assertTrue(client:send('hello', 'localhost', port))
      lu.assertEquals({ server:recv(nil, 5) }, { 'hello', client:address() })
    end)
  end
  with_names({ four, six, four }, function()
    lu.assertTrue(client:connect('localhost', port))
    lu.assertEquals({ client:peer() }, { ip, port })
  end)
end

function T.test_a_socket_of_ipv4() arrives '127.0.0.1' end
function T.test_a_socket_of_ipv6() arrives '::1' end

-- An IPv6 socket with an IPv4 address reaches IPv4 alone.
function T.test_a_mapped_address()
  local server = assert(asio.udp('127.0.0.1', 0))
  local _, port = server:address()
  local client, message = asio.udp('::ffff:127.0.0.1', 0)
  lu.skipIf(not client, message)
  with_names({ six, four }, function()
    lu.assertTrue(client:send('hello', 'localhost', port))
    lu.assertEquals((server:recv(nil, 5)), 'hello')
  end)
end

-- Without an address the first one counts; without one of its family the first one fails.
function T.test_no_address_of_the_family()
  local client = assert(asio.udp('127.0.0.1', 0))
  with_names({ six }, function() t.failure('EAFNOSUPPORT', client:send('x', 'localhost', 9)) end)
  local fresh = assert(asio.udp())
  with_names({ four, six }, function() lu.assertTrue(fresh:send('x', 'localhost', 9)) end)
  lu.assertEquals((fresh:address()), '0.0.0.0')
end

return T
