-- run, run_once, stop, waits in the main chunk, deadlocks, leaving from inside.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- run -----------------------------------------------------------------------------------------

T.test_returns_at_once_when_there_is_nothing_to_do = t.main(function()
  local started = asio.now()
  asio.run()
  lu.assertTrue(asio.now() - started < 0.5)
end)

T.test_returns_the_results_of_its_function = t.main(function()
  local function check(...)
    lu.assertEquals(select('#', ...), 4)
    lu.assertEquals({ ... }, { 1, nil, 'x', nil })
  end
  check(asio.run(function(...)
    asio.sleep(0.001)
    return ...
  end, 1, nil, 'x', nil))
  lu.assertEquals(select('#', asio.run(function() end)), 0)
  lu.assertEquals(asio.run(function() return 'without a wait' end), 'without a wait')
end)

T.test_goes_on_until_nothing_is_left = t.main(function()
  local steps = {}
  asio.spawn(function()
    asio.sleep(0.01)
    steps[#steps + 1] = 'spawned before'
  end)
  asio.run(function()
    asio.spawn(function()
      asio.sleep(0.02)
      steps[#steps + 1] = 'spawned inside'
    end)
    asio.sleep(0.001)
    steps[#steps + 1] = 'the function'
  end)
  lu.assertEquals(steps, { 'the function', 'spawned before', 'spawned inside' })
end)

T.test_an_open_listener_keeps_it_going_and_a_silent_connection_does_not = t.main(function()
  local server
  local closed = false
  local a, b = t.pair()
  asio.run(function()
    server = assert(asio.server('127.0.0.1', 0, function() end))
    asio.spawn(function()
      asio.sleep(0.01)
      closed = true
      server:close()
    end)
  end)
  lu.assertTrue(closed)
  b:close()
  a:close()
end)

T.test_an_error_of_its_function_ends_it_at_once = t.main(function()
  local later, event = false, asio.event()
  asio.spawn(function()
    event:wait()
    later = true
  end)
  local value = { 'the very same' }
  local ok, err = pcall(asio.run, function()
    asio.sleep(0.001)
    error(value)
  end)
  lu.assertFalse(ok)
  lu.assertIs(err, value)
  lu.assertFalse(later)
  -- The others are still there, and run works again.
  event:set()
  asio.run()
  lu.assertTrue(later)
  lu.assertEquals(asio.run(function() return 'again' end), 'again')
end)

T.test_an_error_before_the_first_wait = t.main(function()
  local err = t.raises('no wait', asio.run, function() error 'no wait' end)
  lu.assertStrContains(err, 'run_test.lua')
  local ok, none = pcall(asio.run, function() error() end)
  lu.assertFalse(ok)
  lu.assertNil(none)
  lu.assertEquals(asio.run(function()
    asio.sleep(0.001)
    return 5
  end), 5)
end)

T.test_many_errors_in_turn = t.main(function()
  for i = 1, t.count(20000) do
    local ok, err = pcall(asio.run, function()
      if i % 2 == 0 then asio.yield() end
      error(i, 0)
    end)
    lu.assertFalse(ok)
    lu.assertEquals(err, i)
  end
end)

T.test_checks_its_arguments = t.main(function()
  t.bad_argument(1, 'run', function() asio.run(17) end)
  t.bad_argument(1, 'run', function() asio.run('text', 1) end)
  t.bad_argument(1, 'run_once', function() asio.run_once('soon') end)
  t.bad_argument(1, 'run_once', function() asio.run_once(0 / 0) end)
end)

function T.test_run_inside_a_light_thread_raises()
  lu.assertFalse((pcall(asio.run)))
  lu.assertFalse((pcall(asio.run, function() end)))
  lu.assertFalse((pcall(asio.run_once, 0)))
  -- And has done no harm.
  asio.sleep(0.001)
end

function T.test_run_inside_a_handler_raises()
  local result
  local server = assert(asio.server('127.0.0.1', 0, function()
    result = { pcall(asio.run) }
  end))
  local conn = assert(asio.connect('127.0.0.1', (select(2, server:address()))))
  t.wait_until(function() return result end)
  lu.assertFalse(result[1])
  conn:close()
  server:close()
end

function T.test_run_inside_sort_of_a_light_thread_raises()
  table.sort({ 1, 2 }, function()
    lu.assertFalse((pcall(asio.run)))
    return false
  end)
end

-- stop ----------------------------------------------------------------------------------------

T.test_stop_ends_it_early_and_loses_nothing = t.main(function()
  local done = false
  asio.run(function()
    asio.spawn(function()
      asio.sleep(0.02)
      done = true
    end)
    asio.spawn(function()
      asio.yield()
      asio.stop()
    end)
  end)
  lu.assertFalse(done)
  asio.run()
  lu.assertTrue(done)
end)

T.test_stop_before_run_does_not_count = t.main(function()
  asio.spawn(asio.sleep, 0.001)
  local ran = false
  asio.spawn(function()
    asio.sleep(0.003)
    ran = true
  end)
  asio.run(function()
    asio.stop()
  end)
  asio.run()
  lu.assertTrue(ran)
end)

T.test_stop_in_a_wait_of_the_main_chunk = t.main(function()
  local a, b = t.pair()
  asio.spawn(function()
    asio.sleep(0.002)
    asio.stop()
  end)
  t.failure('ECANCELED', a:read(1))
  b:write 'still in order'
  lu.assertEquals(a:read(14), 'still in order')
end)

-- run_once ------------------------------------------------------------------------------------

T.test_run_once_tells_whether_something_is_left = t.main(function()
  lu.assertFalse(asio.run_once(0))
  lu.assertFalse(asio.run_once())
  local thread = asio.spawn(asio.sleep, 0.005)
  lu.assertTrue(asio.run_once(0))
  local turns = 0
  while asio.run_once() do turns = turns + 1 end
  lu.assertEquals(thread:status(), 'done')
  lu.assertTrue(turns < 20, 'run_once() waits for a turn that does something')
end)

T.test_run_once_waits_no_longer_than_told = t.main(function()
  local later = asio.after(60, error)
  local started = asio.now()
  lu.assertTrue(asio.run_once(0))
  lu.assertTrue(asio.run_once(0.01))
  lu.assertTrue(asio.now() - started < 30)
  later:stop()
  lu.assertFalse(asio.run_once(0))
end)

T.test_run_once_does_ready_threads = t.main(function()
  local steps = 0
  asio.spawn(function()
    for _ = 1, 3 do
      asio.yield()
      steps = steps + 1
    end
  end)
  asio.run_once(0)
  lu.assertEquals(steps, 1)
  while asio.run_once(0) do end -- luacheck: ignore 542
  lu.assertEquals(steps, 3)
end)

-- Waits in the main chunk ---------------------------------------------------------------------

T.test_the_main_chunk_connects_reads_and_writes = t.main(function()
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write(conn:read(4), ' and back')
    conn:close()
  end))
  local _, port = server:address()
  local conn = assert(asio.connect('localhost', port))
  lu.assertTrue(conn:write 'ping')
  lu.assertEquals(conn:read_some(4), 'ping')
  lu.assertEquals(conn:read(9), ' and back')
  t.failure('EOF', conn:read(1))
  server:close()
end)

T.test_the_main_chunk_has_no_end_of_data_to_wait_for = t.main(function()
  local a, b = t.pair()
  a:set_timeout(0.005)
  t.failure('ETIMEDOUT', a:read(1))
  b:write 'x'
  lu.assertEquals(a:read(1), 'x')
end)

T.test_the_main_chunk_writes_and_flushes_a_lot = t.main(function()
  local a, b = t.pair()
  local size = 4 * 2 ^ 20
  local reader = asio.spawn(function()
    local sum = 0
    while sum < size do sum = sum + #b:read_some() end
    return sum
  end)
  lu.assertTrue(a:write(('z'):rep(size)))
  lu.assertTrue(a:flush())
  lu.assertEquals({ reader:join() }, { true, size })
end)

T.test_the_main_chunk_joins = t.main(function()
  local event = asio.event()
  local thread = asio.spawn(function()
    event:wait()
    return 'a', 'b'
  end)
  local later = asio.after(60, error) -- no deadlock
  t.failure('ETIMEDOUT', thread:join(0.001))
  later:stop()
  event:set()
  lu.assertEquals({ thread:join() }, { true, 'a', 'b' })
  local failing = asio.spawn(function()
    asio.yield()
    error('joined', 0)
  end)
  lu.assertEquals({ failing:join() }, { false, 'joined' })
end)

T.test_the_main_chunk_yields = t.main(function()
  local ran = false
  asio.spawn(function()
    asio.yield()
    ran = true
  end)
  asio.yield()
  asio.yield()
  lu.assertTrue(ran)
end)

T.test_others_run_while_the_main_chunk_waits = t.main(function()
  local ticks = 0
  local ticker = asio.spawn(function()
    while true do
      asio.sleep(0.001)
      ticks = ticks + 1
      if ticks == 5 then return end
    end
  end)
  local a, b = t.pair()
  asio.spawn(function()
    ticker:join()
    b:write 'x'
  end)
  lu.assertEquals(a:read(1), 'x')
  lu.assertEquals(ticks, 5)
end)

T.test_writes_of_the_main_chunk_go_out_at_once = t.main(function()
  local conn, peer = t.raw_peer()
  conn:write 'now'
  lu.assertEquals(peer:recv(10, 1), 'now')
  conn:close()
  peer:close()
end)

-- Nobody else's long wait may delay what is due now ---------------------------------------------

-- Runs `fn` while another light thread sleeps for a long time, and stops that in the end.
local function beside_a_sleeper(fn)
  local seconds = 0.5 * t.patience
  local sleeper = asio.spawn(asio.sleep, seconds)
  local started = asio.now()
  local ok, err = pcall(fn)
  local took = asio.now() - started
  sleeper:join()
  if not ok then error(err, 0) end
  lu.assertTrue(took < seconds / 2, took .. ' s')
end

local function busy(seconds)
  local started = asio.now()
  while asio.now() - started < seconds do end -- luacheck: ignore 542
end

T.test_a_join_of_the_main_chunk_ends_with_a_ready_thread = t.main(function()
  beside_a_sleeper(function()
    lu.assertTrue(asio.spawn(asio.yield):join())
  end)
end)

T.test_an_error_of_a_ready_thread_ends_run = t.main(function()
  beside_a_sleeper(function()
    t.raises('at once', asio.run, function()
      asio.yield()
      error 'at once'
    end)
  end)
end)

T.test_stop_by_a_ready_thread = t.main(function()
  beside_a_sleeper(function()
    asio.spawn(function()
      asio.yield()
      asio.stop()
    end)
    asio.run()
  end)
end)

T.test_what_a_late_timer_starts_is_not_late_as_well = t.main(function()
  -- A deadline that has passed when the loop turns is served before it waits for events.
  beside_a_sleeper(function()
    local thread = asio.spawn(function()
      asio.sleep(0.002)
      asio.sleep(0.002)
      asio.yield()
      return 'done'
    end)
    busy(0.01)
    lu.assertEquals({ thread:join() }, { true, 'done' })
  end)
  beside_a_sleeper(function()
    asio.spawn(function()
      asio.sleep(0.002)
      asio.stop()
    end)
    busy(0.01)
    asio.run()
  end)
  beside_a_sleeper(function()
    asio.spawn(function()
      asio.sleep(0.002)
      error 'late'
    end)
    busy(0.01)
    asio.run_once(0)
    lu.assertStrContains(t.stderr(), 'late')
  end)
end)

-- Deadlocks -----------------------------------------------------------------------------------

function T.test_threads_that_wait_for_each_other()
  t.quiet_child(function()
    local asio = require 'asio'
    local ok, err = pcall(asio.run, function()
      local one, two
      one = asio.spawn(function()
        asio.yield()
        two:join()
      end)
      two = asio.spawn(function() one:join() end)
      one:join()
    end)
    assert(not ok)
    assert(tostring(err):find 'deadlock', err)
  end)
end

function T.test_a_main_chunk_that_waits_for_nothing()
  t.quiet_child(function()
    local asio = require 'asio'
    local one, two
    one = asio.spawn(function()
      asio.yield()
      two:join()
    end)
    two = asio.spawn(function() one:join() end)
    local ok, err = pcall(one.join, one)
    assert(not ok)
    assert(tostring(err):find 'deadlock', err)
  end)
end

function T.test_run_without_a_function_sees_a_deadlock_too()
  t.quiet_child(function()
    local asio = require 'asio'
    local one, two
    one = asio.spawn(function()
      asio.yield()
      two:join()
    end)
    two = asio.spawn(function() one:join() end)
    local ok, err = pcall(asio.run)
    assert(not ok)
    assert(tostring(err):find 'deadlock', err)
  end)
end

-- Leaving from inside -------------------------------------------------------------------------

function T.test_exit_with_close_in_a_light_thread()
  for _, code in ipairs { 0, 3 } do
    t.child(function(code_wanted)
      local asio = require 'asio'
      asio.run(function()
        local a = asio.socketpair()
        asio.spawn(function() a:read(1) end)
        local server = asio.server('127.0.0.1', 0, function(conn) conn:read(1) end)
        asio.connect('127.0.0.1', (select(2, server:address())))
        asio.sleep(0.005)
        os.exit(tonumber(code_wanted), true)
      end)
    end, { args = { code }, code = code })
  end
end

function T.test_exit_with_close_in_a_handler_and_in_a_join()
  t.child(function()
    local asio = require 'asio'
    local server = asio.server('127.0.0.1', 0, function() os.exit(4, true) end)
    asio.run(function()
      asio.spawn(asio.connect, '127.0.0.1', (select(2, server:address()))):join()
      asio.sleep(10)
    end)
  end, { code = 4 })
end

function T.test_exit_without_close_in_a_light_thread()
  t.child(function()
    local asio = require 'asio'
    asio.run(function()
      asio.sleep(0.001)
      os.exit(5)
    end)
  end, { code = 5, env = t.ignore_leaks })
end

function T.test_an_error_out_of_run_ends_the_script()
  local result = t.child(function()
    local asio = require 'asio'
    asio.run(function()
      asio.spawn(asio.sleep, 100)
      asio.sleep(0.001)
      error 'the end'
    end)
  end, { code = 1 })
  lu.assertStrContains(result.err, 'the end')
end

function T.test_a_script_that_ends_while_everything_waits()
  t.quiet_child(function()
    local asio = require 'asio'
    local a, b = asio.socketpair()
    for _ = 1, 10 do
      asio.spawn(asio.sleep, 100)
      asio.spawn(function() asio.spawn(function() a:read(1) end):join() end)
      asio.spawn(function() b:read_some() end)
    end
    asio.server('127.0.0.1', 0, function() end)
    asio.run_once(0)
  end)
end

return T
