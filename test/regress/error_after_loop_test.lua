-- An error that a C function raises after it has run other light threads: LuaJIT does not note, when the
-- error is caught, which coroutine runs again. Compiled code that ran next, and left a trace or collected
-- garbage, took another coroutine for its own: the process crashed after a Ctrl-C that a pcall had caught.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local t = require 'support'

local T = {}

function T.test_interrupted()
  t.child(function()
    local asio, raw = require 'asio', require 'raw'
    -- Compiled, with exits that are taken.
    local function hot(k)
      local s = 0
      for i = 1, 300 do s = s + (i % k == 0 and i or s % 3) end
      return s
    end
    for n = 1, 60 do
      asio.spawn(function()
        for _ = 1, 3 do asio.sleep(0.0002) end
        raw.kill(raw.SIGINT)
        asio.sleep(0.001)
      end)
      local ok, err = pcall(asio.sleep, 1)
      for k = n, n + 5 do hot(k) end
      assert(not ok and err == 'interrupted!', err)
      collectgarbage()
      for k = n, n + 5 do hot(k) end
    end
  end)
end

-- Waits are refused where traces end, and light threads that are spawned there run later. What handles the
-- end of a trace is not compiled: LuaJIT takes an exit of a trace there for the one that it is about.
function T.test_events_of_the_compiler()
  t.child(function()
    local asio = require 'asio'
    local events, woken, refused = 0, 0, 0
    local function handler()
      events = events + 1
      if events > 1000 then return end
      asio.spawn(function() asio.sleep(0.0001) woken = woken + 1 end)
      if not pcall(asio.sleep, 0) then refused = refused + 1 end
    end
    jit.off(handler)
    jit.off(asio.sleep)
    local function work(each)
      for k = 1, 50 do
        local text = 'local s = 0 for i = 1, 200 do s = s + (i %% %d == 0 and i or s %% 3) end'
        local f = loadstring(text:format(k))
        f()
        f()
        each()
      end
    end
    for _, event in ipairs { 'trace', 'record', 'texit' } do
      events, woken, refused = 0, 0, 0
      jit.attach(handler, event)
      asio.run(work, asio.yield)
      work(function() end)
      jit.attach(handler)
      asio.run()
      assert(events > 0)
      assert(woken == math.min(events, 1000), event)
      assert(refused == woken, event)
    end
  end)
end

return T
