-- asio.after and asio.every.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local function compute(seconds)
  local stop = asio.now() + seconds
  while asio.now() < stop do end
end

-- Ends the timer after so many calls, and the case when it has ended.
local function ticks(interval, n, fn)
  local done, count, timer = asio.event(), 0, nil
  timer = asio.every(interval, function()
    count = count + 1
    if fn then fn(count) end
    if count == n then
      lu.assertTrue(timer:stop())
      done:set()
    end
  end)
  lu.assertTrue(done:wait(10))
  return count
end

function T.test_after_calls_once()
  local began, called, done = asio.now(), 0, asio.event()
  local timer = asio.after(0.01, function(...)
    lu.assertEquals(select('#', ...), 0)
    called = called + 1
    done:set()
  end)
  lu.assertStrContains(tostring(timer), 'after')
  done:wait(5)
  lu.assertTrue(asio.now() - began >= 0.01)
  asio.sleep(0.02)
  lu.assertEquals(called, 1)
  lu.assertFalse(timer:stop())
  lu.assertStrContains(tostring(timer), 'stopped')
end

function T.test_after_nothing_is_later_all_the_same()
  local called, done = false, asio.event()
  asio.after(0, function()
    called = true
    done:set()
  end)
  lu.assertFalse(called)
  lu.assertTrue(done:wait(5))
end

function T.test_after_in_order_of_their_times()
  local order, done = {}, asio.event()
  for _, i in ipairs { 3, 1, 5, 2, 4 } do
    asio.after(i * 0.005, function()
      order[#order + 1] = i
      if i == 5 then done:set() end
    end)
  end
  done:wait(5)
  lu.assertEquals(order, { 1, 2, 3, 4, 5 })
end

function T.test_a_stopped_one_is_not_called()
  local timers = { asio.after(0.005, lu.fail), asio.every(0.005, lu.fail), asio.after(1e300, lu.fail),
    asio.every(1e300, lu.fail) }
  for _, timer in ipairs(timers) do
    lu.assertTrue(timer:stop())
    lu.assertFalse(timer:stop())
  end
  asio.sleep(0.02)
end

function T.test_it_runs_in_a_light_thread_of_its_own_and_may_wait()
  local threads, done = {}, asio.event()
  ticks(0.002, 3, function(n)
    threads[n] = asio.current()
    asio.sleep(0.0005)
  end)
  lu.assertNotIs(threads[1], threads[2])
  lu.assertNotIs(threads[1], asio.current())
  local inside
  asio.after(0.001, function()
    asio.sleep(0.001)
    inside = asio.timeout(0.001, asio.sleep, 60)
    done:set()
  end)
  lu.assertTrue(done:wait(5))
  lu.assertNil(inside)
end

function T.test_every_stops_inside_and_at_once()
  lu.assertEquals(ticks(0.001, 1), 1)
  lu.assertEquals(ticks(0.001, 5), 5)
  asio.sleep(0.01)
end

function T.test_every_keeps_its_times_and_skips_what_it_missed()
  for _, busy in ipairs { asio.sleep, compute } do
    local began, at = asio.now(), {}
    ticks(0.02, 5, function(n)
      at[n] = asio.now() - began
      if n == 2 then busy(0.05) end -- from 0.04 on: over 0.06 and 0.08
    end)
    for i = 1, 5 do lu.assertTrue(at[i] >= 0.02 * i, i) end
    -- What could not run at its time comes late once, never twice.
    lu.assertTrue(at[3] >= (busy == compute and 0.09 or 0.1), at[3])
    lu.assertTrue(at[4] >= 0.1 and at[5] >= 0.12, at[4])
  end
end

function T.test_every_never_overlaps_itself()
  local inside, calls, timer = 0, 0, nil
  local done = asio.event()
  timer = asio.every(0.001, function()
    inside, calls = inside + 1, calls + 1
    lu.assertEquals(inside, 1)
    asio.sleep(0.008)
    inside = inside - 1
    if calls == 4 then
      timer:stop()
      done:set()
    end
  end)
  lu.assertTrue(done:wait(10))
end

function T.test_a_stop_from_outside_lets_the_call_end()
  local ended, started = false, asio.event()
  local timer = asio.every(0.001, function()
    started:set()
    asio.sleep(0.01)
    ended = true
  end)
  started:wait(5)
  lu.assertTrue(timer:stop())
  asio.sleep(0.02)
  lu.assertTrue(ended)
end

function T.test_errors_are_reported_and_every_goes_on()
  local calls, done, timer = 0, asio.event(), nil
  timer = asio.every(0.002, function()
    calls = calls + 1
    if calls == 3 then
      timer:stop()
      done:set()
    end
    error('expected ' .. calls, 0)
  end)
  asio.after(0.001, function() error('expected of after', 0) end)
  lu.assertTrue(done:wait(5))
  asio.yield()
  asio.yield()
  local text = t.stderr()
  for _, words in ipairs { 'expected 1', 'expected 2', 'expected 3', 'expected of after' } do
    lu.assertStrContains(text, words)
  end
end

function T.test_one_whose_handle_is_collected_fires_all_the_same()
  local calls, done = 0, asio.event()
  do
    asio.after(0.002, function() calls = calls + 1 end)
    local timer
    timer = asio.every(0.002, function()
      calls = calls + 1
      t.collect()
      if calls == 4 then
        timer:stop()
        done:set()
      end
    end)
  end
  t.collect()
  lu.assertTrue(done:wait(10))
end

function T.test_those_that_are_over_are_collected()
  local weak, done = setmetatable({}, { __mode = 'k' }), asio.event()
  weak[asio.after(0.001, function() done:set() end)] = true
  local stopped = asio.every(0.001, lu.fail)
  weak[stopped] = true
  stopped:stop()
  stopped = nil -- luacheck: ignore 311
  done:wait(5)
  asio.yield()
  t.collect()
  lu.assertNil(next(weak))
end

function T.test_bad_arguments()
  local function nop() end
  for _, wrong in ipairs { -1, 0 / 0, math.huge, 'soon', {}, true } do
    t.bad_argument(1, 'after', function() asio.after(wrong, nop) end)
    t.bad_argument(1, 'every', function() asio.every(wrong, nop) end)
  end
  t.bad_argument(1, 'after', function() asio.after(nil, nop) end)
  t.bad_argument(1, 'every', function() asio.every(0, nop) end)
  t.bad_argument(1, 'every', function() asio.every(1e-9, nop) end)
  t.bad_argument(2, 'after', function() asio.after(1) end)
  t.bad_argument(2, 'every', function() asio.every(1, 'fn') end)
  local timer = asio.after(60, nop)
  t.raises('not a timer', timer.stop, {})
  t.raises('not a timer', timer.stop)
  timer:stop()
end

T.test_an_active_one_keeps_run_going = t.main(function()
  local calls, timer = 0, nil
  timer = asio.every(0.001, function()
    calls = calls + 1
    if calls == 3 then timer:stop() end
  end)
  asio.run()
  lu.assertEquals(calls, 3)
  asio.after(0.001, function() calls = 'after' end)
  asio.run()
  lu.assertEquals(calls, 'after')
  local forgotten = asio.after(60, error)
  asio.after(0.001, function() forgotten:stop() end)
  asio.run()
end)

T.test_a_timer_wakes_the_main_chunk = t.main(function()
  local ch = asio.channel()
  asio.after(0.002, function() ch:send 'from the timer' end)
  lu.assertEquals(ch:recv(), 'from the timer')
  asio.after(0.001, asio.stop)
  t.failure('ECANCELED', ch:recv())
end)

function T.test_started_in_odd_places()
  local calls, done = 0, asio.event()
  local function tick()
    calls = calls + 1
    if calls == 4 then done:set() end
  end
  do
    local dying = newproxy(true)
    getmetatable(dying).__gc = function() asio.after(0.001, tick) end
  end
  t.collect()
  table.sort({ 2, 1 }, function() asio.after(0.001, tick) end)
  coroutine.wrap(function() asio.after(0.001, tick) end)()
  asio.after(0.001, function() asio.after(0, tick) end)
  lu.assertTrue(done:wait(5))
end

function T.test_cancelling_the_light_thread_of_a_tick()
  local calls, done, timer = 0, asio.event(), nil
  timer = asio.every(0.001, function()
    calls = calls + 1
    if calls == 2 then
      timer:stop()
      done:set()
      return
    end
    asio.current():cancel()
    asio.sleep(60)
  end)
  lu.assertTrue(done:wait(5))
end

function T.test_a_great_many()
  local n = t.count(200000)
  local left, done = n, asio.event()
  local function tick()
    left = left - 1
    if left == 0 then done:set() end
  end
  for i = 1, n do
    local timer = asio.after(i % 100 * 0.0001, tick)
    if i % 10 == 0 then
      timer:stop()
      tick()
    end
  end
  lu.assertTrue(done:wait(20 * t.patience))
end

function T.test_the_state_closes_while_they_are_active()
  t.quiet_child(function()
    local asio = require 'asio'
    package.loaded.held = { asio.after(60, error), asio.every(60, error) }
    asio.after(60, error)
    asio.every(0.001, function() asio.sleep(60) end)
    asio.after(0.02, asio.stop)
    asio.run()
  end)
  t.child(function()
    local asio = require 'asio'
    asio.every(0.001, function() os.exit(9, true) end)
    asio.run()
  end, { code = 9 })
end

return T
