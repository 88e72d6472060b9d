-- The switch of test.lua --tls (ASIO_TEST_TLS=1): connections that the cases make by support.lua, by
-- asio.socketpair or by M.server and M.connect have TLS at both ends, and the handshake is done.
--
-- Without the switch all functions here leave things as they are. What needs the bytes below asks for the
-- capability 'plain' (can.lua).
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'

local M = { on = os.getenv 'ASIO_TEST_TLS' == '1' }

--- asio.socketpair itself.
M.plain_pair = asio.socketpair

--- Options of start_tls for a server.
function M.server_options()
  local dir = require 'certs'.dir()
  return { server = true, cert = dir .. 'server.pem', key = dir .. 'server.key' }
end

--- Makes two connected ends ends of TLS, by light threads of their own; returns them.
function M.both(server, client)
  if not M.on then return server, client end
  local accepted = asio.spawn(server.start_tls, server, M.server_options())
  assert(client:start_tls { verify = false })
  local joined, ok, message = accepted:join()
  assert(joined and ok, message)
  return server, client
end

--- As asio.socketpair.
function M.pair()
  local a, b, code = M.plain_pair()
  if not a then return a, b, code end
  return M.both(a, b)
end

if M.on then
  asio.socketpair = M.pair -- luacheck: ignore 122
end

--- As asio.server, for a port to which only M.connect connects.
function M.server(host, port, handler, options)
  if not M.on then return asio.server(host, port, handler, options) end
  local all = { tls = M.server_options(), on_tls_error = function() end }
  all.tls.server = nil
  for name, value in pairs(options or {}) do all[name] = value end
  return asio.server(host, port, handler, all)
end

--- As asio.connect, to a server of M.server.
function M.connect(host, port, options)
  if not M.on then return asio.connect(host, port, options) end
  local all = { tls = { verify = false } }
  for name, value in pairs(options or {}) do all[name] = value end
  return asio.connect(host, port, all)
end

-- A connection with the methods of a raw socket (raw.lua), as far as they mean something above TLS: it does
-- nothing by itself, and a call does not wait for bytes unless it says for how long.
local peer = {}
peer.__index = peer

function M.peer(conn)
  return setmetatable({ conn = conn, fd = 0 }, peer)
end

-- How many bytes it has taken.
function peer:send(data, seconds)
  if select(2, self.conn:pending()) > 0 and seconds == 0 then
    asio.yield()
    return 0
  end
  self.conn:set_timeout(nil, seconds)
  self.conn:write(data)
  self.conn:flush()
  return #data
end

-- Bytes; '' at the end; false after an error; nil: none have come.
function peer:recv(n, seconds)
  self.conn:set_timeout(seconds)
  local data, _, code = self.conn:read_some(n)
  if data then return data end
  if code == 'EOF' then return '' end
  if code == 'ETIMEDOUT' then return nil end
  return false
end

function peer:discard()
  local data
  repeat data = self:recv(65536, 0) until not data or data == ''
  return data == nil
end

function peer:shutdown()
  self.conn:shutdown()
end

function peer:close()
  self.conn:close()
  self.fd = -1
end

function peer:reset()
  self.conn:abort()
  self.fd = -1
end

return M
