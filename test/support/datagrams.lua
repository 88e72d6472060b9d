-- Datagram sockets for the tests of them.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'

local M = {}

function M.socket(opts)
  return assert(asio.udp('127.0.0.1', 0, opts))
end

--- A socket, and one that is connected to it.
function M.server_and_client(opts)
  local server, client = M.socket(opts), M.socket()
  assert(client:connect(server:address()))
  return server, client
end

--- Two that are connected to each other.
function M.connected_pair()
  local a, b = M.server_and_client()
  assert(a:connect(b:address()))
  return a, b
end

return M
