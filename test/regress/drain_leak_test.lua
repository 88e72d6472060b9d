-- What counts the light threads of a server leaked when the state closed while one of them still waited,
-- and server and connections were gone already. Only a sanitized build sees it.
-- SPDX-License-Identifier: MIT

local t = require 'support'

local T = {}

function T.test_a_handler_outlives_its_server()
  t.child(function()
    local asio = require 'asio'
    local served = 0
    local server = assert(asio.server('127.0.0.1', 0, function(conn)
      served = served + 1
      conn:close()
      asio.sleep(1000)
    end))
    local _, port = server:address()
    asio.run(function()
      local conn = assert(asio.connect('127.0.0.1', port))
      conn:read(1)
      conn:close()
      server:close()
      server = nil
      for _ = 1, 3 do
        collectgarbage()
        asio.sleep(0.03)
      end
      asio.stop()
    end)
    assert(served == 1)
  end)
end

return T
