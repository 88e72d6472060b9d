-- A socket that connects to a closed port can be given that very port by the kernel: it was then connected to
-- itself (TCP simultaneous open), and what the script wrote came back.
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

local function closed_port(ip)
  local listener = raw.listen { ip = ip }
  local port = listener:port()
  listener:close()
  return port
end

-- With `bind` it happens at once, instead of once in some thousand tries.
function T.test_an_address()
  local port = closed_port()
  t.failure('ECONNREFUSED', asio.connect('127.0.0.1', port, { bind = { '127.0.0.1', port } }))
end

function T.test_any_address_means_this_host()
  local port = closed_port()
  t.failure('ECONNREFUSED', asio.connect('0.0.0.0', port, { bind = { '127.0.0.1', port } }))
end

function T.test_ipv6()
  local server = asio.server('::1', 0)
  if not server then return end
  local _, port = server:address()
  server:close()
  t.failure('ECONNREFUSED', asio.connect('::1', port, { bind = { '::1', port } }))
end

function T.test_a_name()
  local port = closed_port()
  t.failure('ECONNREFUSED', asio.connect('localhost', port, { bind = { '127.0.0.1', port }, timeout = 5 }))
end

-- Two different sockets on one host are no self-connection.
function T.test_the_same_port_of_another_address()
  if not raw.linux then return end
  local server = asio.server('127.0.0.2', 0, function(conn) conn:write 'x' end)
  local _, port = server:address()
  local conn = assert(asio.connect('127.0.0.2', port, { bind = { '127.0.0.3', port } }))
  assert(conn:read(1) == 'x')
  conn:close()
  server:close()
end

return T
