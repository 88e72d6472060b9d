-- The example port_forwarder.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'
local programs = require 'programs'

local T = {}

local function connect(port)
  local conn = assert(asio.connect('127.0.0.1', port))
  conn:set_timeout(10 * t.patience)
  return conn
end

function T.test_port_forwarder()
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write('you said ', conn:read_all())
    conn:close()
  end))
  local rest = programs.with(function(port)
    local conn = connect(port)
    conn:write 'something'
    conn:shutdown()
    lu.assertEquals(conn:read_all(), 'you said something')
    conn:close()
  end, 'port_forwarder', {}, 0, '127.0.0.1', (select(2, server:address())))
  lu.assertEquals(rest, '127.0.0.1\t9 bytes up, 18 down\n')
  server:close()
end

function T.test_port_forwarder_lets_go_of_clients_at_the_end()
  local server = assert(asio.server('127.0.0.1', 0))
  local conn, served
  programs.with(function(port)
    conn = connect(port)
    served = assert(server:accept(10 * t.patience)) -- held: one that is collected ends in order
    served:write 'hello'
    lu.assertEquals(conn:read(5), 'hello')
  end, 'port_forwarder', {}, 0, '127.0.0.1', (select(2, server:address())))
  t.failure(can.has 'resets' and 'ECONNRESET' or 'EOF', conn:read(1))
  served:close()
  server:close()
end

function T.test_port_forwarder_where_nobody_listens()
  local nobody = raw.listen()
  local port_of_nobody = nobody:port()
  nobody:close()
  local rest = programs.with(function(port)
    local conn, _, code = asio.connect('127.0.0.1', port)
    if conn then code = select(3, conn:read(1)) end -- the reset may come before we know that we are connected
    lu.assertTrue(code == 'ECONNRESET' or code == 'EOF' and not can.has 'resets', code)
  end, 'port_forwarder', {}, 0, '127.0.0.1', port_of_nobody)
  lu.assertEquals(rest, ('127.0.0.1 port %d: connection refused\n'):format(port_of_nobody))
end

return T
