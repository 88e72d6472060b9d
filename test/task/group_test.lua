-- asio.group: light threads that end together.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- Sleeps until it is told, then goes on for a while all the same; notes what it saw.
local function stubborn(seen, seconds)
  return function()
    local ok, err = pcall(asio.sleep, 60)
    seen.told = not ok and err
    asio.shield(nil, asio.sleep, seconds or 0.01)
    seen.ended = true
    if not ok then error(err, 0) end
  end
end

-- Once broken -----------------------------------------------------------------------------------

-- A group that nobody waits for any more counted as joining its children when something else stood
-- among their joiners: a mutex that the child held, somebody whose join timed out later.
function T.test_a_dropped_groups_child_that_held_a_mutex_fails_aloud()
  local m = asio.mutex()
  asio.group():spawn(function()
    m:with(pcall, asio.sleep, 60)
    error 'failed while cleaning up'
  end)
  t.collect()
  t.next_turn()
  lu.assertEquals(t.occurrences(t.stderr(), 'failed while cleaning up'), 1)
end

function T.test_a_dropped_groups_child_whose_joiner_gave_up_fails_aloud()
  local child = asio.group():spawn(function()
    pcall(asio.sleep, 60)
    asio.shield(nil, asio.sleep, 0.02)
    error 'failed while cleaning up'
  end)
  local joiner = asio.spawn(child.join, child, 0.01)
  t.collect() -- while it waits
  joiner:join()
  child = nil -- luacheck: ignore 311
  asio.sleep(0.03)
  asio.yield()
  lu.assertEquals(t.occurrences(t.stderr(), 'failed while cleaning up'), 1)
end

-- The failure counted as told, and then nobody came to be told.
function T.test_a_failure_in_a_group_that_is_dropped_later_is_not_silent()
  for _, others in ipairs { false, true } do
    do
      local g = asio.group()
      if others then g:spawn(asio.sleep, 60) end
      g:spawn(error, 'nobody ever asked')
    end
    t.next_turn()
    t.collect()
    t.next_turn()
    lu.assertEquals(t.occurrences(t.stderr(), 'nobody ever asked'), 1)
  end
end

-- The group that is dropped told of it, although a join had.
function T.test_a_failure_that_was_joined_is_not_told_of_when_the_group_is_dropped()
  local order = { 'joined before it fails', 'joined afterwards' }
  for i, when in ipairs(order) do
    local kept = { asio.group() }
    local child = kept[1]:spawn(function()
      asio.sleep(0.005)
      error 'joined once'
    end)
    if i == 2 then asio.sleep(0.02) end
    local joined, err = child:join()
    lu.assertEquals({ joined, err:match 'joined once' }, { false, 'joined once' }, when)
    kept[1] = nil
    t.next_turn()
    t.collect()
    t.next_turn()
    lu.assertEquals(t.stderr(), '', when)
  end
end

-- The end of a turn came before the light thread that waited for the child.
function T.test_a_later_failure_that_is_being_joined_is_not_told_of()
  local g = asio.group()
  for _ = 1, 2 do
    local child = g:spawn(function() asio.shield(1, asio.sleep, 0.005) error 'joined once' end)
    asio.spawn(function() lu.assertFalse((child:join())) end)
  end
  asio.sleep(0.02)
  t.next_turn()
  t.raises('joined once', g.wait, g)
  lu.assertEquals(t.stderr(), '')
end

-- It was told only at what it waited for after its start.
function T.test_what_is_spawned_while_cancelling_is_told_at_its_first_wait()
  local g, steps = asio.group(), {}
  g:cancel()
  g:spawn(function()
    steps[1] = 'started'
    asio.semaphore(1):acquire() -- free
    steps[2] = 'went on'
  end)
  g:wait()
  lu.assertEquals(steps, { 'started' })
end

-- In the main chunk asio.stop ended the waiting, and the function's results came back as if all
-- were well, with a child alive.
function T.test_asio_stop_does_not_make_the_function_form_leave_its_children()
  t.quiet_child(function()
    local asio = require 'asio'
    local child
    local result = asio.group(function(g)
      child = g:spawn(asio.sleep, 0.05)
      asio.after(0.005, asio.stop)
      return 'all have ended'
    end)
    assert(result ~= 'all have ended' or child:status() == 'done', child:status())
  end)
end

-- Where it cannot wait, its children went on behind the error.
function T.test_where_it_cannot_wait_nothing_is_started()
  local started = false
  local ok, err = pcall(table.sort, { 2, 1 }, function()
    asio.group(function() started = true end)
  end)
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'cannot wait here')
  lu.assertFalse(started)
end

-- The simple form -------------------------------------------------------------------------------

function T.test_wait_waits_for_all()
  local g, ended = asio.group(), 0
  for i = 1, 10 do
    lu.assertEquals(g:spawn(function(x)
      asio.sleep(0.001 * x)
      ended = ended + 1
    end, i):status(), 'waiting')
  end
  lu.assertStrContains(tostring(g), '10')
  lu.assertEquals({ g:wait() }, { true })
  lu.assertEquals(ended, 10)
  lu.assertEquals({ g:wait() }, { true })
end

function T.test_spawn_gives_arguments_and_a_thread_to_join()
  local g = asio.group()
  local thread = g:spawn(function(...)
    asio.yield()
    return select('#', ...), ...
  end, 1, nil, 3, nil)
  lu.assertEquals({ thread:join() }, { true, 4, 1, nil, 3, nil })
  local at_once = g:spawn(function() return 'at once' end)
  lu.assertEquals(at_once:status(), 'done')
  lu.assertTrue(g:wait())
end

function T.test_an_empty_group()
  lu.assertTrue(asio.group():wait())
  lu.assertEquals({ asio.group(function() return 1, nil, 3 end) }, { 1, nil, 3 })
end

function T.test_bad_arguments()
  local g = asio.group()
  t.bad_argument(1, 'spawn', function() g:spawn() end)
  t.bad_argument(1, 'spawn', function() g:spawn('fn') end)
  t.bad_argument(1, 'group', function() asio.group(17) end)
  t.raises('not a group', g.spawn, {}, print)
  t.raises('not a group', g.wait, asio.channel())
  t.raises('not a group', g.cancel)
end

function T.test_spawn_after_the_end()
  local g = asio.group()
  g:spawn(function() end)
  t.next_turn()
  g:spawn(function() end) -- nobody has waited yet
  g:wait()
  t.raises('the group has ended', g.spawn, g, print)
  local kept
  asio.group(function(inner) kept = inner end)
  t.raises('the group has ended', kept.spawn, kept, print)
end

function T.test_a_child_spawns_more_while_the_group_waits()
  local g, count = asio.group(), 0
  local function breed(n)
    asio.yield()
    count = count + 1
    if n > 0 then
      g:spawn(breed, n - 1)
      g:spawn(breed, n - 1)
    end
  end
  g:spawn(breed, 6)
  g:wait()
  lu.assertEquals(count, 127)
end

-- Failures --------------------------------------------------------------------------------------

function T.test_the_first_error_cancels_the_rest_and_is_raised()
  local g, seen, object = asio.group(), {}, {}
  local other = g:spawn(stubborn(seen))
  g:spawn(function()
    asio.sleep(0.002)
    error(object, 0)
  end)
  local ok, err = pcall(g.wait, g)
  lu.assertFalse(ok)
  lu.assertIs(err, object)
  lu.assertIs(seen.told, asio.cancelled)
  lu.assertTrue(seen.ended, 'not waited for')
  lu.assertEquals(other:status(), 'failed')
  t.next_turn()
  lu.assertEquals(t.stderr(), '')
end

function T.test_a_child_that_fails_during_its_start()
  local g, seen = asio.group(), {}
  g:spawn(stubborn(seen))
  local failed = g:spawn(error, 'at once')
  lu.assertEquals(failed:status(), 'failed')
  t.raises('at once', g.wait, g)
  lu.assertTrue(seen.ended)
  t.raises('at once', asio.group, function(inner) inner:spawn(error, 'at once') end)
  t.next_turn()
  lu.assertEquals(t.stderr(), '')
end

function T.test_what_is_spawned_after_a_failure_is_cancelled()
  local g, steps = asio.group(), {}
  g:spawn(error, 'first')
  local late = g:spawn(function()
    steps[1] = 'started'
    asio.sleep(60)
    steps[2] = 'went on'
  end)
  t.raises('first', g.wait, g)
  lu.assertEquals(steps, { 'started' })
  lu.assertEquals({ late:join() }, { false, asio.cancelled })
end

function T.test_errors_of_every_kind()
  local object, none = {}, {}
  for _, value in ipairs { 'text', object, 17, false, newproxy(), none } do
    if value == none then value = nil end
    for _, wait in ipairs { false, true } do
      local ok, err = pcall(asio.group, function(g)
        g:spawn(function()
          if wait then asio.yield() end
          error(value, 0)
        end)
      end)
      lu.assertFalse(ok)
      lu.assertIs(err, value)
      ok, err = pcall(asio.group, function()
        if wait then asio.yield() end
        error(value, 0)
      end)
      lu.assertFalse(ok)
      lu.assertIs(err, value)
    end
  end
end

function T.test_a_second_failure_is_reported()
  for _, waits in ipairs { false, true } do
    t.raises('first', asio.group, function(g)
      g:spawn(function()
        pcall(asio.sleep, 60)
        if waits then asio.shield(nil, asio.sleep, 0.001) end
        error 'second'
      end)
      asio.sleep(0.001)
      g:spawn(error, 'first')
    end)
    t.next_turn()
    local text = t.stderr()
    lu.assertEquals(t.occurrences(text, 'second'), 1)
    lu.assertEquals(t.occurrences(text, 'first'), 0)
  end
  t.raises('first', asio.group, function(g)
    g:spawn(error, 'first')
    g:spawn(error, 'second')
  end)
  t.next_turn()
  lu.assertEquals(t.occurrences(t.stderr(), 'second'), 1)
end

function T.test_a_second_failure_that_somebody_joins_is_not()
  local second
  t.raises('first', asio.group, function(g)
    second = g:spawn(function()
      pcall(asio.sleep, 60)
      error('second', 0)
    end)
    g:spawn(error, 'first')
  end)
  lu.assertEquals({ second:join() }, { false, 'second' })
  t.next_turn()
  lu.assertEquals(t.stderr(), '')
end

function T.test_a_child_that_was_cancelled_is_no_failure()
  local g = asio.group()
  local first = g:spawn(asio.sleep, 60)
  local other = g:spawn(function()
    asio.sleep(0.01)
    return 'undisturbed'
  end)
  first:cancel()
  lu.assertTrue(g:wait())
  lu.assertEquals({ other:join() }, { true, 'undisturbed' })
end

function T.test_a_failing_child_started_by_a_child_that_is_starting()
  local steps = {}
  t.raises('inner', asio.group, function(g)
    g:spawn(function()
      g:spawn(error, 'inner')
      steps[1] = 'outer goes on'
      asio.sleep(60)
      steps[2] = 'not told'
    end)
  end)
  lu.assertEquals(steps, { 'outer goes on' })
end

-- The function form -----------------------------------------------------------------------------

function T.test_the_function_returns_before_its_children_end()
  local ended = 0
  lu.assertEquals(asio.group(function(g)
    for _ = 1, 5 do
      g:spawn(function()
        asio.sleep(0.002)
        ended = ended + 1
      end)
    end
    return 'results'
  end), 'results')
  lu.assertEquals(ended, 5)
end

function T.test_the_function_fails()
  local seen = {}
  t.raises('of the function', asio.group, function(g)
    g:spawn(stubborn(seen))
    asio.yield()
    error 'of the function'
  end)
  lu.assertIs(seen.told, asio.cancelled)
  lu.assertTrue(seen.ended)
end

function T.test_function_and_child_fail_together()
  t.raises('of the function', asio.group, function(g)
    g:spawn(function()
      pcall(asio.sleep, 60)
      error 'of the child'
    end)
    error 'of the function'
  end)
  t.next_turn()
  lu.assertEquals(t.occurrences(t.stderr(), 'of the child'), 1)
end

function T.test_a_failing_child_interrupts_the_function()
  local told, again
  t.raises('of the child', asio.group, function(g)
    g:spawn(function()
      asio.sleep(0.001)
      error 'of the child'
    end)
    told = not pcall(asio.sleep, 60)
    again = not pcall(asio.sleep, 60)
    return 'swallowed'
  end)
  lu.assertTrue(told and again)
end

function T.test_a_shield_in_the_function_keeps_a_failing_child_out()
  local slept
  t.raises('of the child', asio.group, function(g)
    g:spawn(error, 'of the child')
    asio.shield(nil, function() slept = asio.sleep(0.005) end)
    asio.yield()
    slept = 'went on'
  end)
  lu.assertTrue(slept == true)
end

function T.test_wait_inside_the_function()
  local order = {}
  asio.group(function(g)
    g:spawn(function()
      asio.sleep(0.002)
      order[#order + 1] = 'child'
    end)
    g:wait()
    order[#order + 1] = 'function'
    t.raises('the group has ended', g.spawn, g, print)
  end)
  lu.assertEquals(order, { 'child', 'function' })
end

function T.test_cancel_inside_the_function()
  local seen = {}
  lu.assertEquals(asio.group(function(g)
    g:spawn(stubborn(seen))
    g:cancel()
    asio.yield() -- does not concern the function itself
    return 'went on'
  end), 'went on')
  lu.assertTrue(seen.ended)
end

function T.test_nested_groups()
  local seen, outer_seen = {}, {}
  t.raises('deep inside', asio.group, function(outer)
    outer:spawn(stubborn(outer_seen))
    asio.group(function(inner)
      inner:spawn(stubborn(seen))
      inner:spawn(function()
        asio.sleep(0.001)
        asio.group(function(innermost) innermost:spawn(error, 'deep inside') end)
      end)
    end)
  end)
  lu.assertTrue(seen.ended and outer_seen.ended)
  lu.assertIs(outer_seen.told, asio.cancelled)
end

function T.test_an_inner_failure_that_is_caught_stays_inside()
  local caught
  lu.assertEquals(asio.group(function(outer)
    local sibling = outer:spawn(function()
      asio.sleep(0.005)
      return 'undisturbed'
    end)
    caught = { pcall(asio.group, function(inner) inner:spawn(error, 'inside') end) }
    return select(2, sibling:join())
  end), 'undisturbed')
  lu.assertFalse(caught[1])
end

-- Interrupted -----------------------------------------------------------------------------------

function T.test_a_deadline_around_the_function_form()
  local seen = {}
  t.failure('ETIMEDOUT', asio.timeout(0.003, asio.group, function(g)
    g:spawn(stubborn(seen))
    asio.sleep(60)
  end))
  lu.assertTrue(seen.ended)
  seen = {}
  t.failure('ETIMEDOUT', asio.timeout(0.003, asio.group, function(g) g:spawn(stubborn(seen)) end))
  lu.assertTrue(seen.ended)
  lu.assertIs(seen.told, asio.cancelled)
end

function T.test_wait_interrupted_by_a_deadline_cancels_and_waits()
  local g, seen = asio.group(), {}
  g:spawn(stubborn(seen))
  t.failure('ETIMEDOUT', asio.timeout(0.003, g.wait, g))
  lu.assertTrue(seen.ended)
  t.raises('the group has ended', g.spawn, g, print)
end

function T.test_wait_interrupted_by_a_cancel()
  local g, seen = asio.group(), {}
  g:spawn(stubborn(seen))
  local waiter = asio.spawn(g.wait, g)
  waiter:cancel()
  lu.assertEquals({ waiter:join() }, { false, asio.cancelled })
  lu.assertTrue(seen.ended)
end

function T.test_a_child_that_fails_when_its_group_is_interrupted()
  local outcome
  asio.timeout(0.002, function()
    outcome = { pcall(asio.group, function(g)
      g:spawn(function()
        pcall(asio.sleep, 60)
        error('while cleaning up', 0)
      end)
      asio.sleep(60)
    end) }
  end)
  lu.assertEquals(outcome, { false, 'while cleaning up' })
  t.next_turn()
  lu.assertEquals(t.stderr(), '')
end

-- Several who wait, and who must not ------------------------------------------------------------

function T.test_everybody_who_waits_is_told()
  local g, waiters = asio.group(), {}
  g:spawn(function()
    asio.sleep(0.003)
    error('shared', 0)
  end)
  for i = 1, 5 do waiters[i] = asio.spawn(g.wait, g) end
  for i = 1, 5 do lu.assertEquals({ waiters[i]:join() }, { false, 'shared' }) end
  t.raises('shared', g.wait, g)
end

function T.test_a_child_cannot_wait_for_its_own_group()
  local g = asio.group()
  local child = g:spawn(function()
    asio.yield()
    g:wait()
  end)
  t.raises('own group', g.wait, g)
  lu.assertEquals(child:status(), 'failed')
end

function T.test_wait_where_it_cannot()
  local g = asio.group()
  g:spawn(asio.sleep, 0.002)
  t.raises('cannot wait here', table.sort, { 2, 1 }, function() g:wait() end)
  local ok, err = coroutine.resume(coroutine.create(function() g:wait() end))
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'asio.coroutine.install()')
  lu.assertTrue(g:wait())
end

T.test_in_the_main_chunk = t.main(function()
  local seen = {}
  local g = asio.group()
  g:spawn(asio.sleep, 0.002)
  lu.assertTrue(g:wait())
  t.raises('of a child', asio.group, function(inner)
    inner:spawn(stubborn(seen))
    inner:spawn(function()
      asio.sleep(0.001)
      error 'of a child'
    end)
    asio.sleep(60)
  end)
  lu.assertTrue(seen.ended)
  t.failure('ETIMEDOUT', asio.timeout(0.002, asio.group, function(inner)
    inner:spawn(asio.sleep, 60)
  end))
  lu.assertEquals(asio.group(function() return 'results' end), 'results')
end)

-- Dropped ---------------------------------------------------------------------------------------

function T.test_a_dropped_group_cancels_its_children_with_one_report()
  local seen = {}
  do
    local g = asio.group()
    for i = 1, 10 do
      seen[i] = {}
      g:spawn(stubborn(seen[i], 0.001))
    end
  end
  t.collect()
  for i = 1, 10 do
    t.wait_until(function() return seen[i].ended end)
    lu.assertIs(seen[i].told, asio.cancelled)
  end
  t.next_turn()
  local text = t.stderr()
  lu.assertEquals(t.occurrences(text, '\n'), 1, text)
  lu.assertStrContains(text, 'group')
end

function T.test_a_dropped_group_whose_children_have_ended_is_silent()
  asio.group():spawn(function() end)
  asio.group():spawn(asio.yield)
  t.next_turn()
  t.collect()
  t.next_turn()
  lu.assertEquals(t.stderr(), '')
end

function T.test_the_collector_in_everything()
  for i = 1, 50 do
    pcall(asio.group, function(g)
      for j = 1, 5 do
        g:spawn(function()
          asio.yield()
          if (i + j) % 4 == 0 then error 'expected' end
          if i % 7 == 0 then t.collect() end
        end)
      end
      if i % 5 == 0 then error 'expected' end
    end)
    asio.timeout(0, asio.group, function(g) g:spawn(asio.sleep, 60) end)
  end
  t.next_turn()
  t.stderr() -- second failures
end

function T.test_a_great_many_groups_take_no_memory()
  local function nop() asio.yield() end
  local function body(g)
    g:spawn(nop)
    g:spawn(nop)
  end
  t.collect()
  local before = collectgarbage 'count'
  for _ = 1, t.count(40000) do asio.group(body) end
  t.collect()
  lu.assertTrue(collectgarbage 'count' - before < 512, 'memory is kept')
end

return T
