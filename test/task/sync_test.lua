-- Semaphore, mutex, event. Channels and asio.select are in channel_test.lua.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local function count(...) return select('#', ...), ... end

local function never() asio.event():wait() end

-- Semaphore -------------------------------------------------------------------------------------

function T.test_a_semaphore_counts()
  local s = asio.semaphore(2)
  lu.assertEquals({ count(s:acquire()) }, { 1, true })
  lu.assertTrue(s:acquire(0))
  lu.assertEquals(s:count(), 0)
  t.failure('ETIMEDOUT', s:acquire(0))
  t.failure('ETIMEDOUT', s:acquire(0.001))
  lu.assertEquals({ count(s:release()) }, { 0 })
  s:release(3)
  lu.assertEquals(s:count(), 4)
  lu.assertStrContains(tostring(s), '4')
end

function T.test_semaphore_first_come_first_served_and_handed_on_directly()
  local s, order, threads = asio.semaphore(0), {}, {}
  for i = 1, 10 do
    threads[i] = asio.spawn(function()
      s:acquire()
      order[#order + 1] = i
    end)
  end
  s:release(4)
  lu.assertEquals(s:count(), 0)
  t.failure('ETIMEDOUT', s:acquire(0)) -- nobody comes between
  t.next_turn()
  lu.assertEquals(order, { 1, 2, 3, 4 })
  s:release(8)
  lu.assertEquals(s:count(), 2)
  for i = 1, 10 do threads[i]:join() end
  for i = 1, 10 do lu.assertEquals(order[i], i) end
end

function T.test_one_who_gave_up_gets_nothing_and_keeps_nobody_waiting()
  local s = asio.semaphore(0)
  local impatient, cancelled = asio.spawn(s.acquire, s, 0.001), asio.spawn(s.acquire, s)
  local patient = asio.spawn(s.acquire, s)
  cancelled:cancel()
  t.failure('ETIMEDOUT', select(2, impatient:join()))
  cancelled:join()
  s:release()
  lu.assertEquals({ patient:join() }, { true, true })
  lu.assertEquals(s:count(), 0)
end

function T.test_semaphore_bad_arguments()
  for _, wrong in ipairs { -1, 0.5, 0 / 0, math.huge, 'x', {}, true } do
    t.bad_argument(1, 'semaphore', function() asio.semaphore(wrong) end)
  end
  t.bad_argument(1, 'semaphore', function() asio.semaphore() end)
  local s = asio.semaphore(1)
  for _, wrong in ipairs { 0, -1, 0.5, 0 / 0, math.huge, 'x', {} } do
    t.bad_argument(1, 'release', function() s:release(wrong) end)
  end
  for _, wrong in ipairs { -1, 0 / 0, 'x', {} } do
    t.bad_argument(1, 'acquire', function() s:acquire(wrong) end)
  end
  lu.assertEquals(s:count(), 1)
  t.raises('not a semaphore', s.acquire, asio.mutex())
end

function T.test_a_semaphore_limits_how_many_work_at_once()
  local s, now, most = asio.semaphore(3), 0, 0
  asio.group(function(g)
    for i = 1, 20 do
      g:spawn(s.with, s, function()
        now = now + 1
        most = math.max(most, now)
        asio.sleep(0.0005 * (i % 3))
        now = now - 1
      end)
    end
  end)
  lu.assertEquals({ most, now, s:count() }, { 3, 0, 3 })
end

-- with ------------------------------------------------------------------------------------------

local function with_each(check)
  local s, m = asio.semaphore(1), asio.mutex()
  check(s, function() return s:count() == 1 end)
  check(m, function() return tostring(m):find('free', 1, true) ~= nil end)
end

function T.test_with_passes_arguments_and_results()
  with_each(function(lock, is_free)
    lu.assertEquals({ count(lock:with(function(...)
      lu.assertFalse(is_free())
      asio.yield()
      return select('#', ...), ...
    end, nil, 2, nil)) }, { 4, 3, nil, 2, nil })
    lu.assertTrue(is_free())
    t.bad_argument(1, 'with', function() lock:with() end)
    t.bad_argument(1, 'with', function() lock:with({}) end)
    lu.assertTrue(is_free())
  end)
end

function T.test_with_gives_back_after_errors_of_every_kind()
  with_each(function(lock, is_free)
    local object, none = {}, {}
    for _, value in ipairs { 'text', object, false, newproxy(), none } do
      if value == none then value = nil end
      for _, wait in ipairs { false, true } do
        local ok, err = pcall(lock.with, lock, function()
          if wait then asio.yield() end
          error(value, 0)
        end)
        lu.assertFalse(ok)
        lu.assertIs(err, value)
        lu.assertTrue(is_free())
      end
    end
  end)
end

function T.test_with_gives_back_when_interrupted()
  with_each(function(lock, is_free)
    t.failure('ETIMEDOUT', asio.timeout(0.001, lock.with, lock, never))
    lu.assertTrue(is_free())
    local thread = asio.spawn(lock.with, lock, never)
    lu.assertFalse(is_free())
    thread:cancel()
    lu.assertEquals({ thread:join() }, { false, asio.cancelled })
    lu.assertTrue(is_free())
  end)
end

function T.test_with_interrupted_while_it_waits_for_the_lock()
  with_each(function(lock, is_free)
    local called = false
    lock:with(function()
      t.failure('ETIMEDOUT', select(2, asio.spawn(asio.timeout, 0.001, lock.with, lock, function()
        called = true
      end):join()))
      lu.assertFalse(is_free())
    end)
    t.next_turn()
    lu.assertTrue(is_free())
    lu.assertFalse(called)
  end)
end

-- Mutex -----------------------------------------------------------------------------------------

function T.test_a_mutex_lets_one_in_at_a_time()
  local m, inside, order = asio.mutex(), false, {}
  asio.group(function(g)
    for i = 1, 10 do
      g:spawn(function()
        lu.assertEquals({ count(m:lock()) }, { 1, true })
        lu.assertFalse(inside)
        inside = true
        if i % 2 == 0 then asio.yield() else asio.sleep(0.0005) end
        order[#order + 1] = i
        inside = false
        lu.assertEquals({ count(m:unlock()) }, { 0 })
      end)
    end
  end)
  for i = 1, 10 do lu.assertEquals(order[i], i) end
end

function T.test_mutex_hand_off_is_direct()
  local m, order = asio.mutex(), {}
  m:lock()
  local waiter = asio.spawn(function()
    m:lock()
    order[#order + 1] = 'waiter'
    m:unlock()
  end)
  m:unlock()
  t.failure('ETIMEDOUT', m:lock(0)) -- it is the waiter's already, though that has not run
  m:lock()
  order[#order + 1] = 'again'
  m:unlock()
  waiter:join()
  lu.assertEquals(order, { 'waiter', 'again' })
end

function T.test_mutex_owner_rules()
  local m = asio.mutex()
  t.raises('unlock', m.unlock, m)
  m:lock()
  t.raises('holds the mutex already', m.lock, m)
  t.raises('holds the mutex already', m.lock, m, 0)
  t.raises('holds the mutex already', m.with, m, print)
  local other = asio.spawn(function()
    t.raises('does not hold the mutex', m.unlock, m)
    t.failure('ETIMEDOUT', m:lock(0))
    t.failure('ETIMEDOUT', m:lock(0.001))
  end)
  lu.assertEquals({ other:join() }, { true })
  m:unlock()
  t.raises('does not hold the mutex', m.unlock, m)
  for _, wrong in ipairs { -1, 0 / 0, 'x', {} } do
    t.bad_argument(1, 'lock', function() m:lock(wrong) end)
  end
  t.raises('not a mutex', m.lock, asio.semaphore(1))
  lu.assertStrContains(tostring(m), 'free')
end

function T.test_a_mutex_belongs_to_the_light_thread_and_not_to_its_coroutines()
  local m = asio.mutex()
  asio.coroutine.wrap(function() m:lock() end)()
  t.raises('holds the mutex already', m.lock, m)
  asio.coroutine.wrap(function() asio.coroutine.wrap(function() m:unlock() end)() end)()
  lu.assertTrue(m:lock(0))
  m:unlock()
end

function T.test_a_mutex_and_two_light_threads_of_the_same_coroutine()
  -- Coroutines are used again: the next light thread on one is not the owner.
  local m = asio.mutex()
  asio.spawn(function() m:lock() end)
  local next_one = asio.spawn(function() return m:lock(0) end)
  lu.assertTrue(select(2, next_one:join()))
  t.next_turn()
  t.stderr()
end

function T.test_dying_with_it_held_frees_it_with_a_report()
  for _, way in ipairs { 'return', 'error', 'cancel' } do
    local m = asio.mutex()
    local owner = asio.spawn(function()
      asio.current():name('owner by ' .. way)
      m:lock()
      asio.yield()
      if way == 'error' then error 'expected' end
      if way == 'cancel' then never() end
    end)
    local waiters, order = {}, {}
    for i = 1, 3 do
      waiters[i] = asio.spawn(function()
        m:lock()
        order[#order + 1] = i
        m:unlock()
      end)
    end
    if way == 'cancel' then owner:cancel() end
    owner:join()
    for i = 1, 3 do waiters[i]:join() end
    lu.assertEquals(order, { 1, 2, 3 })
    t.next_turn()
    local text = t.stderr()
    lu.assertStrContains(text, 'owner by ' .. way)
    lu.assertStrContains(text, 'mutex')
    lu.assertEquals(select(2, text:gsub('mutex', '')), 1)
    lu.assertTrue(m:lock(0))
    m:unlock()
  end
end

function T.test_dying_with_many_held()
  local all = {}
  local owner = asio.spawn(function()
    for i = 1, 50 do
      all[i] = asio.mutex()
      all[i]:lock()
    end
    for i = 1, 50, 2 do all[i]:unlock() end
  end)
  owner:join()
  t.next_turn()
  lu.assertEquals(select(2, t.stderr():gsub('mutex', '')), 25)
  for i = 1, 50 do
    lu.assertTrue(all[i]:lock(0))
    all[i]:unlock()
  end
end

function T.test_a_heir_that_dies_at_once_passes_it_on()
  local m = asio.mutex()
  m:lock()
  for _ = 1, 5 do asio.spawn(function() m:lock() end) end
  local last = asio.spawn(function()
    m:lock()
    m:unlock()
    return 'last'
  end)
  m:unlock()
  lu.assertEquals({ last:join() }, { true, 'last' })
  t.next_turn()
  lu.assertEquals(select(2, t.stderr():gsub('mutex', '')), 5)
end

function T.test_an_error_is_reported_beside_the_mutex()
  -- The mutex stands among those who wait for the end of its owner, but joins nobody.
  local m = asio.mutex()
  asio.spawn(function()
    m:lock()
    asio.yield()
    error 'not swallowed'
  end)
  t.next_turn()
  local text = t.stderr()
  lu.assertStrContains(text, 'not swallowed')
  lu.assertStrContains(text, 'mutex')
end

function T.test_collected_while_held()
  local weak = setmetatable({}, { __mode = 'k' })
  do
    local m = asio.mutex()
    m:lock()
    weak[m] = true
  end
  local other = asio.spawn(function()
    for _ = 1, 10 do asio.mutex():lock() end
    t.collect()
    asio.yield()
    asio.mutex():lock()
    t.collect()
  end)
  t.collect()
  lu.assertNil(next(weak))
  other:join()
  t.next_turn()
  t.stderr() -- of those that were still there
end

T.test_the_main_chunk_owns_too = t.main(function()
  local m = asio.mutex()
  m:lock()
  t.raises('holds the mutex already', m.lock, m)
  local waiter = asio.spawn(function()
    t.raises('does not hold the mutex', m.unlock, m)
    m:lock()
    asio.sleep(0.001)
    m:unlock()
    return 'had it'
  end)
  m:unlock()
  m:lock() -- waits for the waiter
  m:unlock()
  lu.assertEquals({ waiter:join() }, { true, 'had it' })
  local s = asio.semaphore(0)
  asio.after(0.001, function() s:release() end)
  lu.assertTrue(s:acquire())
  t.failure('ETIMEDOUT', s:acquire(0.001))
  lu.assertEquals(m:with(function() return 'with' end), 'with')
  t.raises('deadlock', s.acquire, s)
end)

function T.test_where_nothing_can_wait()
  local m, s, e = asio.mutex(), asio.semaphore(0), asio.event()
  local holder = asio.spawn(m.with, m, asio.sleep, 0.005)
  for _, wait in ipairs { function() m:lock() end, function() s:acquire() end, function() e:wait() end } do
    t.raises('cannot wait here', table.sort, { 2, 1 }, wait)
    local ok, err = coroutine.resume(coroutine.create(wait))
    lu.assertFalse(ok)
    lu.assertStrContains(err, 'asio.coroutine.install()')
  end
  holder:join()
  s:release()
  lu.assertEquals(s:count(), 1) -- nobody stands in the queue
  lu.assertTrue(m:lock(0))
  m:unlock()
end

-- Event -----------------------------------------------------------------------------------------

function T.test_an_event_wakes_all()
  local e, woken, threads = asio.event(), 0, {}
  lu.assertFalse(e:is_set())
  for i = 1, 10 do
    threads[i] = asio.spawn(function()
      lu.assertEquals({ count(e:wait()) }, { 1, true })
      woken = woken + 1
    end)
  end
  lu.assertEquals({ count(e:set()) }, { 0 })
  e:clear() -- those who waited have been woken all the same
  lu.assertFalse(e:is_set())
  local late = asio.spawn(e.wait, e, 0.002)
  for i = 1, 10 do threads[i]:join() end
  lu.assertEquals(woken, 10)
  t.failure('ETIMEDOUT', select(2, late:join()))
  e:set()
  e:set()
  lu.assertTrue(e:is_set())
  lu.assertTrue(e:wait())
  lu.assertTrue(e:wait(0))
  lu.assertStrContains(tostring(e), 'set')
end

function T.test_event_bad_arguments()
  local e = asio.event()
  for _, wrong in ipairs { -1, 0 / 0, 'x', {} } do
    t.bad_argument(1, 'wait', function() e:wait(wrong) end)
  end
  t.failure('ETIMEDOUT', e:wait(0))
  t.raises('that is not a', e.wait, {})
end

function T.test_event_set_by_a_finalizer()
  local e = asio.event()
  local waiter = asio.spawn(e.wait, e)
  do
    local dying = newproxy(true)
    getmetatable(dying).__gc = function() e:set() end
  end
  t.collect()
  lu.assertEquals({ waiter:join() }, { true, true })
end

function T.test_waiting_on_something_that_nobody_else_holds()
  local thread = asio.spawn(function()
    t.failure('ETIMEDOUT', asio.event():wait(0.002))
    t.failure('ETIMEDOUT', asio.semaphore(0):acquire(0.002))
    t.failure('ETIMEDOUT', asio.channel():recv(0.002))
    return 'survived'
  end)
  while thread:status() == 'waiting' do
    t.collect()
    asio.sleep(0.0005)
  end
  lu.assertEquals({ thread:join() }, { true, 'survived' })
end

function T.test_whatever_is_held_when_the_state_closes()
  t.quiet_child(function()
    local asio = require 'asio'
    local m, s, e, ch = asio.mutex(), asio.semaphore(0), asio.event(), asio.channel()
    m:lock()
    for _ = 1, 3 do
      asio.spawn(m.lock, m)
      asio.spawn(s.acquire, s, 100)
      asio.spawn(e.wait, e)
      asio.spawn(ch.recv, ch)
      asio.spawn(asio.select, { s, e, ch })
      asio.spawn(asio.timeout, 50, asio.shield, 40, asio.mutex().with, asio.mutex(), e.wait, e)
      asio.spawn(function()
        asio.mutex():lock()
        asio.mutex():with(asio.sleep, 1)
      end)
    end
    asio.run_once(0)
    package.loaded.held = { m, s, e, ch }
  end)
end

function T.test_errors_of_with_name_it()
  t.raises("calling 'with' on something that is not a semaphore", asio.semaphore(1).with, asio.event(), print)
  t.raises("calling 'with' on something that is not a mutex", asio.mutex().with, nil, print)
  local m = asio.mutex()
  t.raises('with: this light thread holds the mutex already', m.with, m, function()
    m:with(print)
  end)
end

return T
