-- A debug hook ran between the firing of a timer and what the library does then. It may stop the timer, which
-- was used all the same.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

function T.test_a_hook_stops_the_timer_that_fires()
  local out = t.quiet_child(function()
    local lib = require 'asio'
    local timers = {}
    local function hook()
      for i = 1, #timers do
        timers[i]:stop()
        timers[i] = nil
      end
      collectgarbage()
      for _ = 1, 50 do newproxy() end -- takes the place of what has gone
    end
    for _ = 1, 200 do
      for i = 1, 3 do timers[i] = lib.after(1e-4, function() end) end
      debug.sethook(hook, 'c')
      lib.run_once(0.001)
      debug.sethook()
    end
    assert(debug.gethook() == nil)
    io.write 'done'
  end, { seconds = 30 })
  lu.assertEquals(out, 'done')
end

function T.test_the_hook_is_still_there()
  t.quiet_child(function()
    local lib = require 'asio'
    local calls = 0
    local function hook() calls = calls + 1 end
    debug.sethook(hook, 'c')
    lib.after(1e-3, function() calls = 0 for _ = 1, 5 do math.abs(1) end end)
    lib.run()
    assert(debug.gethook() == hook and calls >= 5, calls)
    debug.sethook()
  end)
end

return T
