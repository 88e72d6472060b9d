-- Light threads: spawn, join, status, names, nesting, fairness.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

function T.test_both_names_are_one_function()
  lu.assertIs(asio.spawn, asio.spawn_light_thread)
end

function T.test_runs_at_once_until_it_first_waits()
  local steps = {}
  local thread = asio.spawn(function()
    steps[#steps + 1] = 'started'
    asio.yield()
    steps[#steps + 1] = 'resumed'
  end)
  steps[#steps + 1] = 'spawned'
  thread:join()
  lu.assertEquals(steps, { 'started', 'spawned', 'resumed' })
end

function T.test_arguments_and_results_with_nils()
  local thread = asio.spawn(function(...)
    lu.assertEquals(select('#', ...), 4)
    asio.yield()
    return ...
  end, nil, 2, nil, nil)
  local function check(...)
    lu.assertEquals(select('#', ...), 5)
    lu.assertEquals({ ... }, { true, nil, 2, nil, nil })
  end
  check(thread:join())
  check(thread:join())
end

function T.test_many_arguments_and_results()
  local many = {}
  for i = 1, 200 do many[i] = i end
  local thread = asio.spawn(function(...)
    asio.yield()
    return ...
  end, unpack(many))
  lu.assertEquals({ select(2, thread:join()) }, many)
end

function T.test_join_of_a_finished_thread()
  local thread = asio.spawn(function() return 'at once' end)
  lu.assertEquals(thread:status(), 'done')
  lu.assertEquals({ thread:join() }, { true, 'at once' })
  lu.assertEquals({ thread:join(0) }, { true, 'at once' })
end

function T.test_join_gives_the_error_itself()
  local object = setmetatable({}, { __tostring = function() return 'an object' end })
  for _, value in ipairs { 'text', object, false, 17 } do
    local thread = asio.spawn(function()
      asio.yield()
      error(value, 0)
    end)
    local ok, err = thread:join()
    lu.assertFalse(ok)
    lu.assertIs(err, value)
    lu.assertEquals(thread:status(), 'failed')
  end
end

function T.test_join_gives_a_nil_error()
  local thread = asio.spawn(function()
    asio.yield()
    error(nil)
  end)
  local function check(n, ok, err)
    lu.assertEquals(n, 2)
    lu.assertFalse(ok)
    lu.assertNil(err)
  end
  local function count(...) return select('#', ...), ... end
  check(count(thread:join()))
end

function T.test_everybody_who_joins_gets_the_results()
  local goal = asio.spawn(function()
    asio.sleep(0.01)
    return 'shared', 2
  end)
  local joiners = {}
  for i = 1, 50 do
    joiners[i] = asio.spawn(function() return goal:join() end)
  end
  for i = 1, 50 do
    lu.assertEquals({ joiners[i]:join() }, { true, true, 'shared', 2 })
  end
end

function T.test_join_times_out_and_can_be_repeated()
  local event = asio.event()
  local thread = asio.spawn(function()
    event:wait()
    return 'late'
  end)
  t.failure('ETIMEDOUT', thread:join(0))
  t.failure('ETIMEDOUT', thread:join(0.01))
  lu.assertEquals(thread:status(), 'waiting')
  event:set()
  lu.assertEquals({ thread:join(60) }, { true, 'late' })
end

function T.test_a_joiner_that_timed_out_is_not_woken_again()
  local event, seconds = asio.event(), nil
  local thread = asio.spawn(event.wait, event)
  local joiner = asio.spawn(function()
    t.failure('ETIMEDOUT', thread:join(0.005))
    asio.after(0, function() event:set() end)
    local started = asio.now()
    asio.sleep(0.05) -- the joined thread ends during this wait
    seconds = asio.now() - started
    lu.assertEquals(thread:status(), 'done')
  end)
  lu.assertEquals({ joiner:join() }, { true })
  lu.assertTrue(seconds > 0.045, 'the sleep was cut short')
end

function T.test_join_checks_its_time_out()
  local thread = asio.spawn(function() end)
  t.bad_argument(1, 'join', function() thread:join(-1) end)
  t.bad_argument(1, 'join', function() thread:join(0 / 0) end)
  t.bad_argument(1, 'join', function() thread:join('soon') end)
  lu.assertTrue(thread:join(math.huge))
end

function T.test_joining_oneself_is_an_error_and_no_hang()
  local result = t.child(function()
    local asio = require 'asio'
    asio.run(function() asio.current():join() end)
  end, { code = 1 })
  lu.assertNotEquals(result.err, '')
end

function T.test_spawn_checks_its_function()
  t.bad_argument(1, 'spawn', function() asio.spawn() end)
  t.bad_argument(1, 'spawn', function() asio.spawn(17) end)
end

function T.test_status()
  local seen, thread
  local event = asio.event()
  thread = asio.spawn(function()
    asio.yield()
    seen = thread:status()
    event:wait()
  end)
  lu.assertEquals(thread:status(), 'ready')
  asio.yield()
  t.wait_until(function() return seen end, 'the other thread')
  lu.assertEquals(seen, 'running')
  lu.assertEquals(thread:status(), 'waiting')
  lu.assertEquals(asio.current():status(), 'running')
  event:set()
  thread:join()
  lu.assertEquals(thread:status(), 'done')
end

function T.test_names()
  local thread = asio.spawn(asio.sleep, 0.001)
  local default = thread:name()
  lu.assertIsString(default)
  lu.assertEquals(thread:name('reader of things'), 'reader of things')
  lu.assertEquals(thread:name(), 'reader of things')
  lu.assertStrContains(tostring(thread), 'reader of things')
  thread:join()
  lu.assertEquals(thread:name(), 'reader of things')
  t.bad_argument(1, 'name', function() thread:name({}) end)
end

function T.test_current_is_what_spawn_returned()
  local thread = asio.spawn(function()
    asio.yield()
    return asio.current()
  end)
  local ok, current = thread:join()
  lu.assertTrue(ok)
  lu.assertIs(current, thread)
end

T.test_current_is_nil_in_the_main_chunk = t.main(function()
  lu.assertNil(asio.current())
  asio.run(function() lu.assertNotNil(asio.current()) end)
  lu.assertNil(asio.current())
end)

function T.test_current_after_a_nested_spawn_is_the_outer_one_again()
  local outer = asio.current()
  asio.spawn(function() lu.assertNotIs(asio.current(), outer) end):join()
  lu.assertIs(asio.current(), outer)
  local inner = asio.spawn(function() asio.yield() end)
  lu.assertIs(asio.current(), outer)
  inner:join()
  lu.assertIs(asio.current(), outer)
end

function T.test_spawns_nested_deeper_than_the_c_stack()
  local reached, depth = 0, t.stress and 2000 or 100000
  local function nest(n)
    reached = reached + 1
    if n > 1 then asio.spawn(nest, n - 1) end
    asio.yield()
  end
  asio.spawn(nest, depth)
  t.wait_until(function() return reached == depth end, 'the innermost', 30)
end

function T.test_a_chain_of_joins()
  local depth = t.count(20000)
  local function chain(n)
    if n == 0 then
      asio.sleep(0.001)
      return 0
    end
    local _, below = asio.spawn(chain, n - 1):join()
    return below + 1
  end
  local ok, result = asio.spawn(chain, depth):join()
  lu.assertTrue(ok, result)
  lu.assertEquals(result, depth)
end

function T.test_yielders_take_turns()
  local order, threads = {}, {}
  for i = 1, 3 do
    threads[i] = asio.spawn(function()
      for _ = 1, 3 do
        asio.yield()
        order[#order + 1] = i
      end
    end)
  end
  for i = 1, 3 do threads[i]:join() end
  lu.assertEquals(table.concat(order), '123123123')
end

function T.test_yielders_do_not_starve_timers_and_sockets()
  local stop = false
  local busy = {}
  for i = 1, 2 do
    busy[i] = asio.spawn(function()
      while not stop do asio.yield() end
    end)
  end
  local a, b = t.pair()
  local echo = asio.spawn(function() b:write(b:read(4)) end)
  asio.sleep(0.01)
  a:write 'ping'
  lu.assertEquals(a:read(4), 'ping')
  stop = true
  for i = 1, 2 do busy[i]:join() end
  lu.assertTrue(echo:join())
end

function T.test_a_thread_nobody_holds_goes_on()
  local done = false
  do
    local a, b = t.pair()
    asio.spawn(function()
      local data = a:read(3)
      asio.sleep(0.001)
      done = data
    end)
    t.collect()
    b:write 'yes'
  end
  t.wait_until(function()
    t.collect()
    return done
  end)
  lu.assertEquals(done, 'yes')
end

function T.test_finished_threads_are_collected()
  local weak, n = setmetatable({}, { __mode = 'v' }), 100
  for i = 1, n do
    weak[i] = asio.spawn(function()
      if i % 2 == 0 then asio.yield() end
    end)
  end
  asio.sleep(0.001)
  t.collect()
  local left = 0
  for _ in pairs(weak) do left = left + 1 end
  -- The one spawned last may still stand in a register.
  lu.assertTrue(left <= 2, left .. ' of ' .. n .. ' are still there')
end

function T.test_results_do_not_pass_from_one_thread_to_the_next()
  -- Finished coroutines are reused: what one left on its stack may not show in another.
  for i = 1, 100 do
    local first = asio.spawn(function(...) return ... end, i, 'left over')
    local second = asio.spawn(function(...)
      local count = select('#', ...)
      asio.yield()
      return count, ...
    end)
    lu.assertEquals({ second:join() }, { true, 0 })
    lu.assertEquals({ first:join() }, { true, i, 'left over' })
  end
end

function T.test_a_great_many_threads_come_and_go()
  local n, finished = t.count(400000), 0
  local function work()
    asio.yield()
    finished = finished + 1
  end
  collectgarbage()
  for i = 1, n do
    asio.spawn(work)
    if i % 100 == 0 then asio.yield() end
  end
  t.wait_until(function() return finished == n end)
  t.collect()
  lu.assertTrue(collectgarbage 'count' < 30 * 1024, 'memory is kept')
end

function T.test_errors_leave_no_traces()
  -- The first version leaked the ids of light threads that failed.
  t.collect()
  local before, n = collectgarbage 'count', t.count(200000)
  for i = 1, n do
    asio.spawn(error, 'expected'):join()
    if i % 2 == 0 then
      asio.spawn(function()
        asio.yield()
        error 'expected'
      end):join()
    end
  end
  t.collect()
  lu.assertTrue(collectgarbage 'count' - before < 512, 'memory is kept')
end

function T.test_waits_inside_pcall_iterators_and_metamethods()
  local ok, err = pcall(function()
    asio.yield()
    error('after the wait', 0)
  end)
  lu.assertFalse(ok)
  lu.assertEquals(err, 'after the wait')
  lu.assertEquals({ xpcall(function()
    asio.sleep(0.001)
    return 'fine'
  end, debug.traceback) }, { true, 'fine' })

  local seen = {}
  for i in function(_, i)
    asio.yield()
    if i < 3 then return i + 1 end
  end, nil, 0 do
    seen[#seen + 1] = i
  end
  lu.assertEquals(seen, { 1, 2, 3 })

  local slow = setmetatable({}, {
    __index = function(_, key)
      asio.sleep(0.001)
      return key
    end,
    __add = function(_, other)
      asio.yield()
      return other
    end,
  })
  lu.assertEquals(slow.key, 'key')
  lu.assertEquals(slow + 5, 5)
end

T.test_a_thread_can_be_spawned_before_run = t.main(function()
  local steps = {}
  local thread = asio.spawn(function()
    steps[#steps + 1] = 'first'
    asio.sleep(0.001)
    steps[#steps + 1] = 'last'
  end)
  lu.assertEquals(steps, { 'first' })
  asio.run()
  lu.assertEquals(steps, { 'first', 'last' })
  lu.assertEquals(thread:status(), 'done')
end)

return T
