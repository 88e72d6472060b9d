-- Coroutines of the user's own beside light threads, and everything that can be done wrong:
-- waits where none is possible, and light threads resumed by hand.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- Waiting where it cannot be done -------------------------------------------------------------

-- Every operation that waits, on a connection that has nothing to give and takes nothing.
local function waits()
  local a, b = t.pair()
  a:set_timeout(nil, 0)
  a:write(('x'):rep(16 * 2 ^ 20)) -- more than goes out at once: the rest keeps flush waiting
  a:set_timeout(nil, nil)
  local sleeper = asio.spawn(asio.sleep, 0.02)
  return {
    read = function() a:read(1) end,
    read_some = function() a:read_some() end,
    write = function() a:write(('y'):rep(2 ^ 20)) end,
    flush = function() a:flush() end,
    connect = function() asio.connect('127.0.0.1', 1) end,
    join = function() sleeper:join() end,
    sleep = function() asio.sleep(1) end,
    yield = function() asio.yield() end,
  }, function()
    sleeper:join()
    b:close()
    a:close()
  end
end

local function each_wait(words, inside)
  local operations, finish = waits()
  for name, operation in pairs(operations) do
    local ok, err = inside(operation)
    lu.assertFalse(ok, name .. ' went through')
    for _, word in ipairs(words) do lu.assertStrContains(tostring(err), word) end
  end
  finish()
end

function T.test_in_a_foreign_coroutine()
  each_wait({ 'asio.coroutine.install()' }, function(wait)
    return coroutine.resume(coroutine.create(wait))
  end)
  each_wait({ 'asio.coroutine.install()' }, function(wait)
    return pcall(coroutine.wrap(wait))
  end)
end

function T.test_inside_sort_and_gsub()
  each_wait({ 'cannot wait here' }, function(wait)
    return pcall(table.sort, { 1, 2, 3 }, function() wait() end)
  end)
  each_wait({ 'cannot wait here' }, function(wait)
    return pcall(string.gsub, 'x', '.', function() wait() end)
  end)
end

function T.test_inside_a_finalizer()
  each_wait({ 'cannot wait here' }, function(wait)
    local result
    local dying = newproxy(true)
    getmetatable(dying).__gc = function() result = { pcall(wait) } end
    dying = nil -- luacheck: ignore 311
    t.collect()
    return unpack(result, 1, 2)
  end)
end

function T.test_inside_require()
  package.preload['asio_test_waits'] = function() asio.sleep(0.01) end
  t.raises('cannot wait here', require, 'asio_test_waits')
  package.preload['asio_test_waits'] = nil
end

function T.test_nothing_has_started_when_it_is_refused()
  local a, b = t.pair()
  pcall(table.sort, { 1, 2 }, function() a:read(4) end)
  coroutine.resume(coroutine.create(function() a:read_some() end))
  -- Neither reads on behind our back, nor holds the reader's place.
  local reader = asio.spawn(function() return a:read(4) end)
  b:write 'data'
  lu.assertEquals({ reader:join() }, { true, 'data' })
end

function T.test_what_need_not_wait_may_still_be_refused_but_loses_nothing()
  local a, b = t.pair()
  b:write 'abcd'
  lu.assertEquals(a:read(1), 'a')
  local ok, data = pcall(coroutine.wrap(function() return a:read(1) end))
  lu.assertEquals(a:read(2), ok and 'cd' or 'bc')
  lu.assertTrue(not ok or data == 'b')
end

T.test_a_foreign_coroutine_in_the_main_chunk = t.main(function()
  local ok, err = coroutine.resume(coroutine.create(function() asio.sleep(0.001) end))
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'asio.coroutine.install()')
end)

function T.test_spawning_from_a_foreign_coroutine()
  local ok, thread = coroutine.resume(coroutine.create(function()
    return asio.spawn(function()
      asio.sleep(0.001)
      return 'a light thread of its own'
    end)
  end))
  lu.assertTrue(ok, thread)
  lu.assertEquals({ thread:join() }, { true, 'a light thread of its own' })
end

function T.test_spawning_inside_sort()
  local threads = {}
  table.sort({ 3, 1, 2 }, function(x, y)
    threads[#threads + 1] = asio.spawn(function()
      asio.sleep(0.001)
      return x
    end)
    return x < y
  end)
  for _, thread in ipairs(threads) do lu.assertTrue((thread:join())) end
end

function T.test_generators_between_waits()
  local numbers = coroutine.wrap(function()
    for i = 1, 3 do coroutine.yield(i) end
  end)
  local sum = 0
  for _ = 1, 3 do
    sum = sum + numbers()
    asio.sleep(0.001)
  end
  lu.assertEquals(sum, 6)
end

-- Yielding past the library -------------------------------------------------------------------

function T.test_a_bare_yield_ends_the_thread()
  for _, when in ipairs { 'at once', 'later' } do
    local went_on = false
    local thread = asio.spawn(function()
      if when == 'later' then asio.yield() end
      coroutine.yield 'lost'
      went_on = true
    end)
    local ok, err = thread:join(1)
    lu.assertFalse(ok)
    lu.assertStrContains(err, 'asio.yield')
    lu.assertEquals(thread:status(), 'failed')
    lu.assertFalse(went_on)
  end
end

function T.test_a_bare_yield_that_looks_like_a_wait()
  local tokens = { nil, true, false, 0, 1, 'wait', {}, asio.current(), print, asio }
  for i = 1, 10 do
    local thread = asio.spawn(function() coroutine.yield(tokens[i], tokens[i], tokens[i]) end)
    lu.assertFalse((thread:join(1)))
  end
  local userdata = newproxy()
  lu.assertFalse((asio.spawn(coroutine.yield, userdata):join(1)))
  lu.assertFalse((asio.spawn(coroutine.yield):join(1)))
end

-- Resuming by hand ----------------------------------------------------------------------------

-- Each entry waits for something and returns what it got; `finish` makes it complete.
local function parked_operations()
  local a, b = t.pair()
  local c, d = t.pair()
  local listener = assert(asio.server('127.0.0.1', 0, function(conn) conn:close() end))
  local _, port = listener:address()
  local goal = asio.spawn(function()
    a:read(1)
    return 'goal'
  end)
  return {
    { wait = function() return (asio.sleep(0.02)) end, finish = function() end, anything = true },
    { wait = function() return c:read(4) end, finish = function() d:write 'real' end, gets = 'real' },
    { wait = function() return select(2, goal:join()) end, finish = function() b:write '!' end,
      gets = 'goal' },
    { wait = function() return (asio.connect('127.0.0.1', port)):read_some() end,
      finish = function() end, anything = true },
  }, function() listener:close() end
end

function T.test_a_parked_thread_resumed_by_hand()
  local operations, finish = parked_operations()
  for _, operation in ipairs(operations) do
    local co, returned
    local thread = asio.spawn(function()
      co = coroutine.running()
      returned = { operation.wait() }
      return returned[1]
    end)
    lu.assertEquals(thread:status(), 'waiting')
    for _ = 1, 3 do coroutine.resume(co, 'forged', 'results', nil, 17) end
    pcall(coroutine.resume, co)
    operation.finish()
    local ok, result = thread:join(5)
    -- Refused: the wait goes on. Harmless: the thread may end with an error of its own, but
    -- never with forged results.
    if ok then
      lu.assertNotEquals(result, 'forged')
      if not operation.anything then lu.assertEquals(result, operation.gets) end
    else
      lu.assertNotNil(result, 'the join timed out')
      lu.assertNil(returned)
    end
  end
  finish()
end

function T.test_a_forged_resume_loses_no_data()
  local a, b = t.pair()
  local co
  local thread = asio.spawn(function()
    co = coroutine.running()
    return a:read(6)
  end)
  b:write 'abc'
  t.wait_until(function() return a:pending() == 3 end)
  coroutine.resume(co, 'forged')
  b:write 'def'
  local ok, data = thread:join(5)
  if ok then
    lu.assertEquals(data, 'abcdef')
  else
    lu.assertEquals(a:read(6), 'abcdef')
  end
end

function T.test_a_ready_thread_resumed_by_hand()
  local co
  local count = 0
  local thread = asio.spawn(function()
    co = coroutine.running()
    for _ = 1, 3 do
      asio.yield()
      count = count + 1
    end
    return 'done'
  end)
  coroutine.resume(co, 'forged')
  coroutine.resume(co)
  local ok, result = thread:join(5)
  lu.assertTrue(not ok or count == 3)
  lu.assertTrue(not ok or result == 'done')
end

function T.test_a_running_thread_resumed_by_hand()
  local ok, err = coroutine.resume(coroutine.running())
  lu.assertFalse(ok)
  lu.assertIsString(err)
end

function T.test_a_finished_coroutine_resumed_by_hand()
  -- Where the last result is a function, a careless resume of the dead coroutine calls it.
  local co
  local called = false
  local function stray() called = true end
  local thread = asio.spawn(function()
    co = coroutine.running()
    asio.yield()
    return stray, stray
  end)
  thread:join()
  for _ = 1, 3 do pcall(coroutine.resume, co, stray) end
  lu.assertFalse(called)
  -- The coroutine may wait in a pool for its next light thread: that one is not disturbed.
  local threads = {}
  for i = 1, 10 do
    threads[i] = asio.spawn(function(x)
      asio.yield()
      return x
    end, i)
  end
  pcall(coroutine.resume, co, stray)
  for i = 1, 10 do lu.assertEquals({ threads[i]:join() }, { true, i }) end
  lu.assertFalse(called)
end

function T.test_a_failed_coroutine_resumed_by_hand()
  local co
  local thread = asio.spawn(function()
    co = coroutine.running()
    asio.yield()
    error 'failed'
  end)
  lu.assertFalse((thread:join()))
  lu.assertFalse((coroutine.resume(co, print)))
  lu.assertEquals({ asio.spawn(function() return 'fine' end):join() }, { true, 'fine' })
end

function T.test_a_light_thread_resumed_from_another_and_then_joined_by_it()
  local co
  local inner = asio.spawn(function()
    co = coroutine.running()
    asio.sleep(0.01)
    return 'slept'
  end)
  local outer = asio.spawn(function()
    coroutine.resume(co)
    return inner:join(5)
  end)
  local ok, joined, result = outer:join()
  lu.assertTrue(ok, joined)
  lu.assertTrue(joined == false or result == 'slept')
end

function T.test_forging_in_a_frenzy_does_not_crash()
  lu.assertEquals(t.child(function()
    local asio = require 'asio'
    local coroutines = {}
    local a, b = asio.socketpair()
    asio.spawn(function()
      for _ = 1, 200 do
        asio.sleep(0.0005)
        b:write 'x'
      end
    end)
    for i = 1, 20 do
      asio.spawn(function()
        for _ = 1, 100 do
          coroutines[i] = coroutine.running()
          if i == 1 then a:read(1) elseif i % 2 == 0 then asio.yield() else asio.sleep(0.0003) end
        end
      end)
    end
    asio.run(function()
      for round = 1, 300 do
        for i = 1, 20 do
          if (round + i) % 7 == 0 then pcall(coroutine.resume, coroutines[i], round) end
        end
        asio.sleep(0.0002)
      end
      os.exit(7, true)
    end)
  end, { code = 7 }).out, '')
end

return T
