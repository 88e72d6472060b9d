-- Interrupts at every single wait: cancel and deadlines while it is parked, while it finds at once
-- what it wants, and just after it has completed; what never raises.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

-- thread:cancel ---------------------------------------------------------------------------------

function T.test_cancel_raises_at_the_wait()
  local caught
  local thread = asio.spawn(function()
    local ok, err = pcall(asio.sleep, 60)
    caught = { ok, err }
    error(err, 0)
  end)
  lu.assertTrue(thread:cancel())
  lu.assertEquals(thread:status(), 'ready')
  lu.assertEquals({ thread:join() }, { false, asio.cancelled })
  lu.assertEquals(caught, { false, asio.cancelled })
  lu.assertEquals(thread:status(), 'failed')
  lu.assertEquals(tostring(asio.cancelled), 'cancelled')
end

function T.test_cancel_of_a_thread_that_has_ended()
  local done, failed = asio.spawn(function() return 1 end), asio.spawn(error, 'x')
  lu.assertFalse(done:cancel())
  lu.assertFalse(failed:cancel())
  lu.assertEquals({ done:join() }, { true, 1 })
  lu.assertEquals({ failed:join() }, { false, 'x' })
  local cancelled = asio.spawn(asio.sleep, 60)
  lu.assertTrue(cancelled:cancel())
  lu.assertTrue(cancelled:cancel())
  cancelled:join()
  lu.assertFalse(cancelled:cancel())
end

function T.test_code_that_swallows_it_is_told_again_and_its_results_stand()
  local thread = asio.spawn(function()
    local told = 0
    for _ = 1, 10 do
      if not pcall(asio.sleep, 60) then told = told + 1 end
    end
    return told
  end)
  thread:cancel()
  lu.assertEquals({ thread:join() }, { true, 10 })
end

function T.test_cancelling_oneself()
  local thread = asio.spawn(function()
    lu.assertTrue(asio.current():cancel())
    asio.yield()
  end)
  lu.assertEquals({ thread:join() }, { false, asio.cancelled })
end

function T.test_one_that_is_ready_is_told_at_its_next_wait()
  local steps = 0
  local thread = asio.spawn(function()
    asio.yield()
    steps = 1
    asio.yield()
    steps = 2
  end)
  thread:cancel()
  thread:join()
  lu.assertEquals(steps, 1)
end

function T.test_one_that_never_waits_again_is_not_disturbed()
  local thread = asio.spawn(function()
    asio.yield()
    return 'done'
  end)
  thread:cancel()
  lu.assertEquals({ thread:join() }, { true, 'done' })
end

function T.test_one_that_has_not_started_starts()
  -- Spawned too deep, or by a finalizer, a thread begins later.
  local thread, started
  do
    local dying = newproxy(true)
    getmetatable(dying).__gc = function()
      thread = asio.spawn(function()
        started = true
        asio.yield()
        started = 'went on'
      end)
      thread:cancel()
    end
  end
  t.collect()
  lu.assertNil(started)
  lu.assertEquals({ thread:join() }, { false, asio.cancelled })
  lu.assertTrue(started == true)
end

function T.test_cancel_goes_through_asio_timeout()
  local thread = asio.spawn(asio.timeout, 60, asio.timeout, 0, asio.shield, 0, asio.sleep, 60)
  thread:cancel()
  lu.assertEquals({ thread:join() }, { false, asio.cancelled })
end

function T.test_cancel_wants_a_light_thread()
  local thread = asio.spawn(function() end)
  for _, wrong in ipairs { 17, {}, asio.channel() } do t.raises('cancel', thread.cancel, wrong) end
  t.raises('cancel', thread.cancel)
end

-- Parked ----------------------------------------------------------------------------------------


-- Each is begun by wait(); finish() sees to it that who left has left all as it was.
local parked = {}

function parked.sleep()
  return { wait = function() return asio.sleep(60) end }
end

function parked.read()
  local a, b = t.pair()
  b:write 'half'
  return {
    wait = function() return a:read(8) end,
    finish = function()
      b:write 'half'
      lu.assertEquals(a:read(8), 'halfhalf')
    end,
  }
end

function parked.connect()
  local listener, fillers = raw.full_listener()
  return {
    wait = function() return asio.connect('127.0.0.1', listener:port()) end,
    finish = function()
      for _, filler in ipairs(fillers) do filler:close() end
      listener:close()
    end,
  }
end

function parked.join()
  local e = asio.event()
  local goal = asio.spawn(function() return e:wait() end)
  return {
    wait = function() return goal:join() end,
    finish = function()
      e:set()
      lu.assertEquals({ goal:join() }, { true, true })
    end,
  }
end

function parked.a_name()
  return { wait = function() return asio.connect('localhost', 1) end }
end

function parked.accept()
  local server = assert(asio.server('127.0.0.1', 0))
  return {
    wait = function() return server:accept() end,
    finish = function() -- the place of the one who left is free
      local peer = raw.connect((select(2, server:address())))
      lu.assertNotNil(server:accept(5))
      peer:close()
      server:close()
    end,
  }
end

function parked.send()
  local ch = asio.channel(1)
  ch:send 'first'
  return {
    wait = function() return ch:send 'withdrawn' end,
    finish = function()
      lu.assertEquals(ch:recv(0), 'first')
      t.failure('ETIMEDOUT', ch:recv(0))
    end,
  }
end

function parked.recv()
  local ch = asio.channel()
  return {
    wait = function() return ch:recv() end,
    finish = function() t.failure('ETIMEDOUT', ch:send('to nobody', 0)) end,
  }
end

function parked.acquire()
  local s = asio.semaphore(0)
  return {
    wait = function() return s:acquire() end,
    finish = function()
      s:release()
      lu.assertEquals(s:count(), 1)
    end,
  }
end

function parked.lock()
  local m = asio.mutex()
  m:lock()
  return {
    wait = function() return m:lock() end,
    finish = function()
      m:unlock()
      lu.assertStrContains(tostring(m), 'free')
    end,
  }
end

function parked.event()
  local e = asio.event()
  return { wait = function() return e:wait() end, finish = function() e:set() end }
end

function parked.select()
  local ch, e, s = asio.channel(), asio.event(), asio.semaphore(0)
  local goal = asio.spawn(function() return asio.event():wait(0.05) end)
  return {
    wait = function() return asio.select { ch, e, s, goal, ch, timeout = 60 } end,
    finish = function()
      t.failure('ETIMEDOUT', ch:send('to nobody', 0))
      s:release()
      lu.assertEquals(s:count(), 1)
      goal:join()
    end,
  }
end

function parked.group()
  local g, e = asio.group(), asio.event()
  local ended
  g:spawn(function()
    local ok, err = pcall(e.wait, e)
    ended = { ok, err }
    error(err, 0)
  end)
  return {
    wait = function() return g:wait() end,
    finish = function() lu.assertEquals(ended, { false, asio.cancelled }) end,
  }
end

function parked.wait_fd()
  local near, far = raw.pair()
  return {
    wait = function() return asio.wait_fd(near.fd, 'r') end,
    finish = function()
      near:close()
      far:close()
    end,
  }
end

local function each_parked(check)
  for name, prepare in pairs(parked) do
    local operation = prepare()
    check(name, operation)
    if operation.finish then operation.finish() end
  end
end

function T.test_cancelled_while_parked()
  each_parked(function(name, operation)
    local returned
    local thread = asio.spawn(function() returned = { operation.wait() } end)
    lu.assertEquals(thread:status(), 'waiting', name)
    lu.assertTrue(thread:cancel())
    lu.assertEquals({ thread:join(5) }, { false, asio.cancelled }, name)
    lu.assertNil(returned, name)
  end)
end

function T.test_a_deadline_while_parked()
  each_parked(function(name, operation)
    if name ~= 'a_name' then -- which may be in time
      local began, function_returned = asio.now(), false
      local thread = asio.spawn(asio.timeout, 0.01, function()
        operation.wait()
        function_returned = true
      end)
      local ok, result, _, code = thread:join(5)
      lu.assertEquals({ ok, code }, { true, 'ETIMEDOUT' }, name .. ': ' .. tostring(result))
      lu.assertFalse(function_returned, name)
      lu.assertTrue(asio.now() - began >= 0.01, name)
    end
  end)
end

function T.test_swallowed_a_hundred_times_while_parked()
  each_parked(function(name, operation)
    local told = 0
    local thread = asio.spawn(function()
      for _ = 1, 100 do
        local ok, err = pcall(operation.wait)
        if not ok and err == asio.cancelled then told = told + 1 end
      end
    end)
    thread:cancel()
    lu.assertEquals({ thread:join(5) }, { true }, name)
    lu.assertEquals(told, 100, name)
  end)
end

-- Ready at once ---------------------------------------------------------------------------------

-- Every wait that finds what it wants at once. Prepared by a function that returns the wait.
local ready_waits = {
  read = function()
    local a, b = t.pair()
    b:write(('x'):rep(60000))
    a:read(1)
    return function() return a:read(1) end
  end,
  send = function()
    local ch = asio.channel(math.huge)
    return function() return ch:send(1) end
  end,
  recv = function()
    local ch = asio.channel(1)
    ch:send(1)
    return function()
      local value = ch:recv()
      ch:send(value)
    end
  end,
  acquire = function()
    local s = asio.semaphore(2 ^ 50)
    return function() return s:acquire() end
  end,
  lock = function()
    local m = asio.mutex()
    return function() return m:with(function() end) end
  end,
  event = function()
    local e = asio.event()
    e:set()
    return function() return e:wait() end
  end,
  select = function()
    local e = asio.event()
    e:set()
    return function() return asio.select { e } end
  end,
  join = function()
    local done = asio.spawn(function() end)
    return function() return done:join() end
  end,
  group = function()
    return function() return asio.group(function(g) g:spawn(function() end) end) end
  end,
  flush = function()
    local a, b = t.pair()
    return function() return a:flush(), b end
  end,
}

ready_waits.sleep = function() return function() return asio.sleep(0) end end
ready_waits.yield = function() return asio.yield end

function T.test_what_is_ready_at_once_is_interrupted_all_the_same()
  for name, prepare in pairs(ready_waits) do
    local thread = asio.spawn(function()
      local wait = prepare()
      asio.current():cancel()
      wait()
    end)
    lu.assertEquals({ thread:join(5) }, { false, asio.cancelled }, name)
  end
end

function T.test_what_is_always_ready_cannot_outrun_a_deadline()
  for name, prepare in pairs(ready_waits) do
    local wait, stop = prepare(), asio.now() + 3 * t.patience
    local result = asio.timeout(0.01, function()
      while name ~= 'read' and asio.now() < stop do wait() end
      return name == 'read' and 'not for ever' or 'outran it'
    end)
    lu.assertTrue(result == nil or result == 'not for ever', name)
  end
end

function T.test_arguments_are_checked_first()
  local thread = asio.spawn(function()
    asio.current():cancel()
    t.bad_argument(1, 'sleep', function() asio.sleep(-1) end)
    t.bad_argument(1, 'recv', function() asio.channel():recv(0 / 0) end)
    t.bad_argument(1, 'send', function() asio.channel():send(nil) end)
    asio.sleep(0)
  end)
  lu.assertEquals({ thread:join() }, { false, asio.cancelled })
end

-- What need not park never raises -----------------------------------------------------------------

function T.test_what_never_raises()
  local a, b = t.pair()
  local server = assert(asio.server('127.0.0.1', 0, function() end))
  local signal = assert(asio.signal(raw.signal_name))
  local handed
  local thread = asio.spawn(function()
    local e, s, m, ch = asio.event(), asio.semaphore(1), asio.mutex(), asio.channel(1)
    m:lock()
    asio.current():cancel()
    lu.assertTrue(a:write 'last words')
    a:pending()
    a:peer()
    a:set_timeout(1, 1)
    a:close()
    server:close()
    signal:close()
    e:set()
    e:clear()
    s:release()
    m:unlock()
    ch:close()
    asio.after(60, error):stop()
    asio.spawn(function() handed = 'spawned' end)
    asio.group():cancel()
    lu.assertIsTable(asio.threads())
    lu.assertEquals(asio.timeout(60, function() return 'no wait' end), 'no wait')
    return 'unharmed'
  end)
  lu.assertEquals({ thread:join() }, { true, 'unharmed' })
  lu.assertEquals(handed, 'spawned')
  lu.assertEquals(b:read(10), 'last words')
  b:close()
end

-- Completed first -------------------------------------------------------------------------------

-- Completes what a thread waits for, then cancels it before it has run: it has to get what it
-- waited for, and be told at its next wait.
local completions = {
  recv = function()
    local ch = asio.channel()
    return function() return ch:recv() end, function() ch:send 'item' end, 'item'
  end,
  send = function()
    local ch = asio.channel()
    return function() return ch:send 'item' end,
      function() lu.assertEquals(ch:recv(), 'item') end, true
  end,
  acquire = function()
    local s = asio.semaphore(0)
    return function() return s:acquire() end, function() s:release() end, true
  end,
  lock = function()
    local m = asio.mutex()
    m:lock()
    return function()
      local ok = m:lock()
      m:unlock()
      return ok
    end, function() m:unlock() end, true
  end,
  event = function()
    local e = asio.event()
    return function() return e:wait() end, function()
      e:set()
      e:clear()
    end, true
  end,
  select = function()
    local ch = asio.channel()
    return function() return select(2, asio.select { asio.event(), ch }) end,
      function() ch:send 'chosen' end, 'chosen'
  end,
  closed = function()
    local a = t.pair()
    return function() return select(3, a:read(1)) end, function() a:close() end, 'ECANCELED'
  end,
}

function T.test_a_completed_wait_wins_over_a_later_cancel()
  for name, prepare in pairs(completions) do
    local wait, complete, expected = prepare()
    local got, told
    local thread = asio.spawn(function()
      got = wait()
      told = not pcall(asio.yield)
    end)
    complete()
    lu.assertEquals(thread:status(), 'ready', name)
    thread:cancel()
    lu.assertEquals({ thread:join(5) }, { true }, name)
    lu.assertEquals({ got, told }, { expected, true }, name)
  end
end

function T.test_a_completed_wait_wins_over_a_deadline_that_has_passed()
  for name, prepare in pairs(completions) do
    local wait, complete, expected = prepare()
    local thread = asio.spawn(asio.timeout, 0.001, wait)
    local passed = asio.now() + 0.003
    while asio.now() < passed do end -- the loop does not get to see it
    complete()
    lu.assertEquals({ thread:join(5) }, { true, expected }, name)
  end
end

function T.test_of_two_waiters_one_cancels_the_other_that_is_served_already()
  local near, far = raw.pair()
  local second
  local first = asio.spawn(function()
    local ready = asio.wait_fd(near.fd, 'r')
    second:cancel()
    return ready
  end)
  second = asio.spawn(function() return (asio.wait_fd(near.fd, 'r')) end)
  far:send 'x'
  lu.assertEquals({ first:join(5) }, { true, 'r' })
  lu.assertEquals({ second:join(5) }, { true, 'r' })
  near:close()
  far:close()
end

-- Being cancelled is no error -------------------------------------------------------------------

function T.test_asio_cancelled_is_never_reported()
  local reported = {}
  local before = asio.on_error(function(err) reported[#reported + 1] = err end)
  for i = 1, 4 do
    local thread = asio.spawn(function()
      if i == 1 then asio.sleep(60) end
      if i == 2 then asio.timeout(60, asio.shield, 0, asio.group, function() asio.sleep(60) end) end
      if i == 3 then asio.coroutine.wrap(asio.sleep)(60) end
      asio.yield()
      error(asio.cancelled, 0)
    end)
    if i < 4 then thread:cancel() end
  end
  asio.sleep(0.005)
  asio.yield()
  asio.on_error(before)
  lu.assertEquals(reported, {})
  lu.assertEquals(t.stderr(), '')
end

T.test_the_function_of_run_cancelled = t.main(function()
  local ok, err = pcall(asio.run, function()
    local me = asio.current()
    asio.after(0.001, function() me:cancel() end)
    asio.sleep(60)
  end)
  lu.assertFalse(ok)
  lu.assertIs(err, asio.cancelled)
end)

function T.test_a_handler_cancelled_resets_its_connection_without_a_report()
  local handler
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    handler = asio.current()
    conn:read(1)
  end))
  local conn = assert(asio.connect('127.0.0.1', (select(2, server:address()))))
  t.wait_until(function() return handler end, 'the handler')
  handler:cancel()
  t.failure('ECONNRESET', conn:read(1))
  conn:close()
  server:close()
end

function T.test_cancelling_a_great_many_takes_no_memory()
  local function park() asio.timeout(60, asio.sleep, 60) end
  local function round(n)
    for _ = 1, n do
      local thread = asio.spawn(park)
      thread:cancel()
      thread:join()
    end
    t.collect()
  end
  round(1000)
  local before = collectgarbage 'count'
  round(t.count(100000))
  lu.assertTrue(collectgarbage 'count' - before < 512, 'memory is kept')
end

return T
