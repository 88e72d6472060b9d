-- The example port_forwarder.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local t = require 'support'

local T = {}

local root = debug.getinfo(1, 'S').source:match '^@(.*)test/examples_port_forwarder_test%.lua$'
  or debug.getinfo(1, 'S').source:match '^@(.*)examples_port_forwarder_test%.lua$' .. '../'
local launcher, example = root .. 'test/luajit', root .. 'examples/port_forwarder.lua'

-- Forwards to an echo server, then to a port where nobody listens.
function T.test_port_forwarder()
  lu.assertEquals(t.quiet_child(function(command, path)
    local asio = require 'asio'
    local function forward_to(port)
      local run = ("timeout --foreground 60 '%s' '%s' 0 127.0.0.1 %d 2>&1 & echo $!; wait")
      local forwarder = io.popen(run:format(command, path, port))
      local pid, its_port
      while not (pid and its_port) do -- whichever is printed first
        local line = assert(forwarder:read '*l', 'the forwarder has ended')
        pid = pid or line:match '^(%d+)$'
        its_port = its_port or line:match '^listening\t0%.0%.0%.0\t(%d+)$'
      end
      return assert(asio.connect('127.0.0.1', its_port)), function()
        local line = forwarder:read '*l'
        os.execute('kill -TERM ' .. pid)
        forwarder:close()
        return line
      end
    end
    local port
    asio.run(function()
      local server = assert(asio.server('127.0.0.1', 0, function(conn)
        conn:write('you said ', conn:read_all())
        conn:close()
      end))
      port = select(2, server:address())
      local conn, told = forward_to(port)
      conn:write 'something'
      conn:shutdown()
      print(conn:read_all())
      conn:close()
      print((told():gsub('^127%.0%.0%.1\t%d+\t', ''):gsub('^127%.0%.0%.1\t', '')))
      server:close()
    end)
    local conn, told = forward_to(port)
    print(select(3, conn:read(1)))
    print((told():gsub(':%d+:', ':PORT:')))
  end, { args = { launcher, example }, seconds = 30 }),
    'you said something\n9 bytes up, 18 down\nECONNRESET\n127.0.0.1:PORT: connection refused\n')
end

return T
