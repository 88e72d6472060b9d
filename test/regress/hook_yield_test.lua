-- Light threads and hooks: while a debug hook, an event of the VM or a finalizer runs, LuaJIT's lua_yield
-- takes its path for hooks, whatever coroutine calls it. The process crashed when such a light thread was
-- woken.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- Runs fn once inside a hook; with `clears` the hook removes itself before that.
local function in_hook(fn, clears)
  local done
  debug.sethook(function()
    if done then return end
    done = true
    if clears then debug.sethook() end
    fn()
  end, 'c')
  local _ = tostring(1)
  debug.sethook()
  lu.assertTrue(done)
end

local function in_event(fn)
  local done
  local function handler()
    if done then return end
    done = true
    fn()
  end
  jit.attach(handler, 'bc') -- a function has been compiled to bytecode
  collectgarbage 'stop' -- LuaJIT 2.1 itself crashes when it collects during this event
  assert(loadstring 'return 1')
  collectgarbage 'restart'
  jit.attach(handler)
  lu.assertTrue(done)
end

local function in_finalizer(fn)
  local done
  getmetatable(newproxy(true)).__gc = function()
    done = true
    fn()
  end
  t.collect()
  lu.assertTrue(done)
end

local function in_cleared_hook(fn) in_hook(fn, true) end

local places = { in_hook, in_cleared_hook, in_event, in_finalizer }

local function spawns()
  for i, place in ipairs(places) do
    local thread, woken
    place(function()
      thread = asio.spawn(function()
        asio.sleep(0.001)
        woken = pcall(asio.sleep, 0.001)
        return i
      end)
    end)
    lu.assertEquals({ thread:join() }, { true, i })
    lu.assertTrue(woken)
  end
end

function T.test_spawn_by_a_light_thread() spawns() end
T.test_spawn_by_the_main_chunk = t.main(spawns)

-- The coroutine can yield, though the hook is active.
function T.test_spawn_by_a_coroutine_inside()
  for i, place in ipairs(places) do
    local thread
    place(function()
      coroutine.wrap(function()
        thread = asio.spawn(function() asio.sleep(0.001) return i end)
      end)()
    end)
    lu.assertEquals({ thread:join() }, { true, i })
  end
end

local function waits_are_refused()
  local other = asio.spawn(function() asio.sleep(0.005) return 'slept' end)
  for _, place in ipairs(places) do
    for _, wait in ipairs {
      function() asio.sleep(0.001) end,
      function() asio.yield() end,
      function() other:join() end,
      function() asio.run() end,
      function() asio.run_once(0) end,
      function() asio.coroutine.wrap(asio.sleep)(0.001) end,
    } do
      local ok, err
      place(function() ok, err = pcall(wait) end)
      lu.assertFalse(ok)
      lu.assertIsString(err)
    end
  end
  lu.assertEquals({ other:join() }, { true, 'slept' })
end

function T.test_waits_of_a_light_thread_are_refused() waits_are_refused() end
T.test_waits_of_the_main_chunk_are_refused = t.main(waits_are_refused)

-- A light thread, or a coroutine inside of one, that waits and is resumed by hand goes on waiting.
function T.test_resuming_by_hand()
  for _, place in ipairs(places) do
    local co
    local thread = asio.spawn(function()
      return asio.coroutine.wrap(function()
        co = coroutine.running()
        asio.sleep(0.005)
        return 'inner'
      end)()
    end)
    local base
    local plain = asio.spawn(function()
      base = coroutine.running()
      asio.sleep(0.005)
      return 'outer'
    end)
    local message, outer
    place(function()
      message = select(3, coroutine.resume(co))
      outer = select(3, coroutine.resume(base))
    end)
    lu.assertStrContains(message, 'only asio can resume it')
    lu.assertStrContains(outer, 'only asio can resume it')
    lu.assertEquals({ thread:join() }, { true, 'inner' })
    lu.assertEquals({ plain:join() }, { true, 'outer' })
  end
end

-- Ends a wait on a connection, whose reader must not run inside the hook.
function T.test_waking_by_closing()
  for _, place in ipairs(places) do
    local a, b = asio.socketpair()
    local inside, ran_inside = false, false
    local reader = asio.spawn(function()
      local _, _, code = a:read(1)
      ran_inside = inside
      asio.sleep(0.001)
      return code
    end)
    place(function()
      inside = true
      a:close()
      b:close()
      inside = false
    end)
    lu.assertEquals({ reader:join() }, { true, 'ECANCELED' })
    lu.assertFalse(ran_inside)
  end
end

-- A hook of the script's is still there after asio has asked for the state of hooks.
T.test_the_script_keeps_its_hook = t.main(function()
  local calls = 0
  local function hook() calls = calls + 1 end
  debug.sethook(hook, 'l')
  local thread = asio.spawn(function() asio.sleep(0.001) return 1 end)
  asio.sleep(0.001)
  local found, mask = debug.gethook()
  debug.sethook()
  lu.assertEquals({ thread:join() }, { true, 1 })
  lu.assertIs(found, hook)
  lu.assertEquals(mask, 'l')
  lu.assertTrue(calls > 0)
end)

return T
