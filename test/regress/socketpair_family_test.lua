-- The ends of asio.socketpair called themselves tcp, and had neither address nor peer. They are Unix sockets.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'

local T = {}

function T.test_it_is_a_unix_socket_in_every_respect()
  can.need 'unix_sockets'
  local a, b = asio.socketpair()
  for _, conn in ipairs { a, b } do
    lu.assertEquals({ conn:address() }, { 'unix:' })
    lu.assertEquals({ conn:peer() }, { 'unix:' })
    lu.assertEquals(tostring(conn), 'connection (unix)')
    lu.assertIsTable((assert(conn:credentials())))
  end
  a:write 'x'
  a:close()
  lu.assertEquals(b:read_all(), 'x')
  b:close()
end

return T
