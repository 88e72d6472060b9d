-- A server without a handler kept asio.run going for ever, also when no light thread waited in accept.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

T.test_nobody_accepts = t.main(function()
  local server = assert(asio.server('127.0.0.1', 0))
  asio.run()
  asio.run(function() asio.sleep(0.001) end)
  server:close()
end)

T.test_a_light_thread_that_accepts = t.main(function()
  local server = assert(asio.server('127.0.0.1', 0))
  local got
  asio.spawn(function()
    got = server:accept(0.05) or 'nothing'
    asio.spawn(function() got = server:accept() end)
    asio.spawn(function() asio.connect(server:address()):close() end)
  end)
  asio.run()
  lu.assertStrContains(tostring(got), 'connection')
  got:close()
  asio.run()
  server:close()
end)

T.test_a_client_that_waits_is_still_there = t.main(function()
  local server = assert(asio.server('127.0.0.1', 0))
  local client = asio.connect(server:address())
  asio.run()
  local conn = assert(server:accept(1))
  conn:close()
  client:close()
  server:close()
end)

T.test_a_handler_does = t.main(function()
  local server = assert(asio.server('127.0.0.1', 0, print))
  local turns = 0
  asio.spawn(function()
    for _ = 1, 3 do
      asio.sleep(0.001)
      turns = turns + 1
    end
    asio.stop()
  end)
  asio.run()
  lu.assertEquals(turns, 3)
  server:close()
  asio.run()
end)

return T
