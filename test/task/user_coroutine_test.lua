-- asio.coroutine: coroutines of the user's own through which waits pass. What happens to Lua's own
-- is in coroutine_test.lua, what becomes of scopes in user_coroutine_scope_test.lua.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/co (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local co = asio.coroutine
local T = {}

local function count(...) return select('#', ...), ... end

local function never() asio.event():wait() end

-- fn at the bottom of so many coroutines; `between` wraps each level.
local function nested(depth, fn, between)
  if depth == 0 then return fn() end
  local function level() return nested(depth - 1, fn, between) end
  return co.wrap(between and between(level) or level)()
end

-- Once broken -----------------------------------------------------------------------------------

-- A resume that the stack was too full for left its record behind: the light thread was told at every
-- later wait that it was inside a coroutine.
T.test_the_stack_overflowing_around_resume = t.slow(90, function()
  for name, call in pairs {
    resume = function() co.resume(co.create(function() end)) end,
    wrap = function() co.wrap(function() end)() end,
  } do
    for pad = 1, t.stress and 1 or 20 do
      local function deep()
        call()
        return 1 + deep()
      end
      local function start(n, ...)
        if n == 0 then return pcall(deep) end
        return start(n - 1, n, ...)
      end
      local thread = asio.spawn(function()
        lu.assertFalse((start(pad)))
        asio.sleep(0.0001)
        return 'fine'
      end)
      lu.assertEquals({ thread:join() }, { true, 'fine' }, name)
    end
  end
end)

-- The record was collected with its coroutine, and still referred to.
T.test_the_stack_overflowing_in_a_scope_and_then_collected = t.slow(90, function()
  local function deep()
    co.wrap(function() return asio.timeout(60, co.yield) end)()
    return 1 + deep()
  end
  for _ = 1, t.stress and 1 or 20 do
    local thread = asio.spawn(function()
      lu.assertFalse((pcall(deep)))
      t.collect()
      for _ = 1, 200 do newproxy() end -- takes the place of what has gone
      local _, _, code = asio.timeout(0.001, asio.sleep, 60)
      return code
    end)
    lu.assertEquals({ thread:join() }, { true, 'ETIMEDOUT' })
  end
end)

-- Passing through -------------------------------------------------------------------------------

local function every_kind_of_wait()
  local a, b = t.pair()
  b:write 'data'
  lu.assertEquals(a:read(4), 'data')
  asio.sleep(0.0001)
  asio.yield()
  lu.assertEquals({ asio.spawn(function()
    asio.yield()
    return 'joined'
  end):join() }, { true, 'joined' })
  t.failure('ETIMEDOUT', asio.timeout(0.0001, never))
  t.failure('ETIMEDOUT', asio.channel():recv(0.0001))
  lu.assertEquals(asio.group(function(g)
    g:spawn(asio.yield)
    return 'group'
  end), 'group')
  return 'through', nil, 3
end

function T.test_waits_at_every_depth()
  for depth = 0, 100, t.stress and 10 or 1 do
    lu.assertEquals({ nested(depth, every_kind_of_wait) }, { 'through', nil, 3 })
  end
end

function T.test_waits_with_pcall_in_between()
  local function guarded(level)
    return function()
      local function check(ok, ...)
        lu.assertTrue(ok, (...))
        return ...
      end
      return check(pcall(xpcall, level, debug.traceback))
    end
  end
  for _, depth in ipairs { 1, 2, 10, 60 } do
    local ok, result = nested(depth, every_kind_of_wait, guarded)
    while ok == true do ok, result = result, nil end
    lu.assertTrue(ok == 'through' or ok ~= false)
  end
end

function T.test_values_in_and_out_with_nils_and_waits_between()
  local c = co.create(function(...)
    local n, list = select('#', ...), { ... }
    for _ = 1, 3 do
      asio.sleep(0.0001)
      n, list[1], list[2], list[3] = count(co.yield(n, list[1], list[2], list[3]))
      asio.yield()
    end
    return 'end', nil
  end)
  lu.assertEquals({ count(co.resume(c, 1, nil, 3)) }, { 5, true, 3, 1, nil, 3 })
  lu.assertEquals({ count(co.resume(c)) }, { 5, true, 0, nil, nil, nil })
  lu.assertEquals({ count(co.resume(c, nil, nil)) }, { 5, true, 2, nil, nil, nil })
  lu.assertEquals({ count(co.resume(c, 'x')) }, { 3, true, 'end', nil })
  lu.assertEquals({ co.resume(c) }, { false, 'cannot resume dead coroutine' })
end

function T.test_an_iterator_that_waits()
  local a, b = t.pair()
  local writer = asio.spawn(function()
    for i = 1, 20 do
      b:write(('%03d'):format(i))
      if i % 3 == 0 then asio.sleep(0.0002) end
    end
    b:close()
  end)
  local sum = 0
  for word in co.wrap(function()
    while true do
      local word = a:read(3)
      if not word then return nil end
      co.yield(word)
    end
  end) do
    asio.yield()
    sum = sum + tonumber(word)
  end
  lu.assertEquals(sum, 210)
  writer:join()
end

function T.test_luas_own_yield_in_a_coroutine_resumed_by_ours()
  local c = coroutine.create(function(x)
    asio.yield()
    local y = coroutine.yield(x + 1)
    asio.yield()
    return y * 2
  end)
  lu.assertEquals({ co.resume(c, 1) }, { true, 2 })
  lu.assertEquals({ co.resume(c, 5) }, { true, 10 })
end

function T.test_many_light_threads_in_coroutines_at_once()
  local ch, sum = asio.channel(), 0
  asio.group(function(g)
    for i = 1, 50 do
      g:spawn(nested, i % 5, function()
        for k = 1, 20 do
          ch:send(k)
          if (i + k) % 3 == 0 then asio.sleep(0.0001) end
        end
      end)
    end
    g:spawn(nested, 3, function()
      for _ = 1, 1000 do sum = sum + ch:recv() end
    end)
  end)
  lu.assertEquals(sum, 50 * 210)
end

function T.test_spawn_inside()
  local c = co.wrap(function()
    local inner = asio.spawn(function()
      lu.assertTrue(co.isyieldable() == false) -- a light thread of its own
      return nested(2, every_kind_of_wait)
    end)
    co.yield(inner)
    return select(2, inner:join())
  end)
  local inner = c()
  lu.assertEquals(inner:status(), 'waiting')
  lu.assertEquals(c(), 'through')
end

-- Errors ----------------------------------------------------------------------------------------

function T.test_errors_of_every_kind()
  local object, none = {}, {}
  for _, value in ipairs { 'text', object, false, 17, newproxy(), none } do
    if value == none then value = nil end
    for _, wait in ipairs { false, true } do
      local function fail()
        if wait then asio.yield() end
        error(value, 0)
      end
      for _, call in ipairs {
        function() return co.resume(co.create(fail)) end,
        function() return pcall(co.wrap(fail)) end,
        function() return pcall(nested, 3, fail) end,
      } do
        local n, ok, err = count(call())
        lu.assertEquals(n, 2)
        lu.assertFalse(ok)
        lu.assertIs(err, value)
      end
    end
  end
end

function T.test_the_report_names_the_line_inside_a_wrap()
  local function culprit()
    asio.yield()
    error {}
  end
  asio.spawn(function()
    co.wrap(function()
      culprit()
      return 1
    end)()
    return 1
  end)
  asio.sleep(0.002)
  asio.yield() -- reports come at the end of the turn
  lu.assertStrContains(t.stderr(), 'culprit')
end

function T.test_a_dead_wrap()
  local f = co.wrap(function() asio.yield() end)
  f()
  t.raises('dead', f)
  t.raises('dead', f)
  f = co.wrap(error)
  t.raises('x', f, 'x')
  t.raises('dead', f, 'x')
end

function T.test_bad_arguments()
  for _, wrong in ipairs { 17, 'x', {}, asio.current() } do
    lu.assertFalse(pcall(co.create, wrong))
    t.bad_argument(1, 'wrap', function() co.wrap(wrong) end)
    t.bad_argument(1, 'resume', function() co.resume(wrong) end)
    lu.assertFalse(pcall(co.status, wrong))
  end
  t.bad_argument(1, 'resume', function() co.resume() end)
  t.bad_argument(1, 'wrap', function() co.wrap() end)
end

-- What a coroutine is called --------------------------------------------------------------------

function T.test_status_running_and_isyieldable()
  local c, seen
  local go = asio.event()
  c = co.create(function()
    seen = { co.status(c), co.running() == c, co.isyieldable() }
    nested(1, function() seen[4] = co.status(c) end)
    go:wait()
    co.yield()
  end)
  lu.assertEquals(co.status(c), 'suspended')
  local thread = asio.spawn(co.resume, c)
  lu.assertEquals(seen, { 'running', true, true, 'normal' })
  lu.assertEquals(co.status(c), 'normal') -- waits on its light thread's behalf
  go:set()
  thread:join()
  lu.assertEquals(co.status(c), 'suspended')
  co.resume(c)
  lu.assertEquals(co.status(c), 'dead')
  lu.assertIsThread(co.running())
  lu.assertIs(co.running(), coroutine.running())
  lu.assertFalse(co.isyieldable())
end

function T.test_yield_at_the_base_raises_and_says_what_to_use()
  t.raises('asio.yield()', co.yield)
  local thread = asio.spawn(function()
    local ok, err = pcall(co.yield, 1)
    asio.yield()
    return ok, err
  end)
  local _, ok, err = thread:join()
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'asio.yield()')
end

function T.test_a_coroutine_that_got_known_is_used_by_nobody_else()
  local known
  asio.spawn(function() known = co.running() end)
  lu.assertEquals(co.status(known), 'dead')
  for _ = 1, 5 do
    asio.spawn(function() lu.assertNotIs(coroutine.running(), known) end):join()
  end
  lu.assertFalse((co.resume(known, print)))
end

-- Refused ---------------------------------------------------------------------------------------

function T.test_one_that_waits_cannot_be_resumed()
  local go = asio.event()
  local c = co.create(function()
    go:wait()
    return 'its own end'
  end)
  local f = co.wrap(function() return (go:wait()) end)
  local thread, wrapper = asio.spawn(co.resume, c), asio.spawn(f)
  for _ = 1, 3 do
    local ok, err = co.resume(c, 'forged')
    lu.assertFalse(ok)
    lu.assertStrContains(err, 'waits')
    t.raises('waits', f, 'forged')
  end
  go:set()
  lu.assertEquals({ thread:join() }, { true, true, 'its own end' })
  lu.assertEquals({ wrapper:join() }, { true, true })
end

function T.test_one_that_runs_cannot_be_resumed()
  local c
  c = co.create(function()
    local itself = { co.resume(c) }
    lu.assertFalse(itself[1])
    nested(2, function() lu.assertFalse((co.resume(c))) end)
    asio.yield()
    return 'fine'
  end)
  lu.assertEquals({ co.resume(c) }, { true, 'fine' })
  lu.assertFalse((co.resume(co.running())))
  asio.yield()
end

-- The coroutines of a light thread that waits with three in one another; `open` lets it go on.
local function chain()
  local all, a, b = {}, t.pair()
  local thread = asio.spawn(function()
    all[1] = coroutine.running()
    return nested(3, function() return a:read(6) end, function(level)
      return function()
        all[#all + 1] = coroutine.running()
        return level()
      end
    end)
  end)
  return thread, all, function(text)
    b:write(text)
    b:flush()
  end
end

function T.test_forged_resumes_by_hand_of_every_coroutine_of_one_that_waits()
  for which = 1, 4 do
    local thread, all, open = chain()
    lu.assertEquals(#all, 4)
    open 'abc'
    for i = 1, 4 do
      for _ = 1, 3 do
        pcall(coroutine.resume, all[(which + i) % 4 + 1], 'forged', i)
        pcall(co.resume, all[(which + i) % 4 + 1], 'forged', i)
      end
    end
    pcall(coroutine.resume, all[which], 'forged')
    t.collect()
    open 'def'
    lu.assertEquals({ thread:join(5) }, { true, 'abcdef' })
    for i = 1, 4 do lu.assertEquals(coroutine.status(all[i]), 'dead') end
  end
end

function T.test_forged_resumes_from_inside_another_light_thread_that_waits()
  local thread, all, open = chain()
  local forger = asio.spawn(nested, 2, function()
    for i = 4, 1, -1 do pcall(co.resume, all[i], 'forged') end
    asio.sleep(0.001)
    for i = 1, 4 do pcall(coroutine.resume, all[i], 'forged') end
    return 'forged'
  end)
  lu.assertEquals({ forger:join(5) }, { true, 'forged' })
  open 'abcdef'
  lu.assertEquals({ thread:join(5) }, { true, 'abcdef' })
end

function T.test_one_of_ours_resumed_by_hand_after_a_yield()
  -- Then it runs beside asio: it can do everything but wait.
  local c = co.create(function()
    co.yield 'first'
    local ok, err = pcall(asio.yield)
    co.yield(ok, err)
    asio.yield()
    return 'last'
  end)
  lu.assertEquals({ co.resume(c) }, { true, 'first' })
  local resumed, ok, err = coroutine.resume(c)
  lu.assertEquals({ resumed, ok }, { true, false })
  lu.assertStrContains(err, 'asio.coroutine.install()')
  lu.assertEquals({ co.resume(c) }, { true, 'last' })
end

function T.test_where_nothing_can_wait()
  local function wait() nested(2, asio.yield) end
  for _ = 1, 3 do
    t.raises('cannot wait here', table.sort, { 2, 1 }, wait)
    t.raises('cannot wait here', string.gsub, 'x', '.', co.wrap(asio.yield))
    t.raises('cannot wait here', nested, 2, function() table.sort({ 2, 1 }, wait) end)
    local ok, err = coroutine.resume(coroutine.create(wait))
    lu.assertFalse(ok)
    lu.assertStrContains(err, 'cannot wait here')
  end
  nested(3, asio.yield) -- nothing is left of that
end

function T.test_generators_where_nothing_can_wait()
  local numbers = co.wrap(function() while true do co.yield(1) end end)
  table.sort({ 3, 2, 1 }, function(x, y) return x < y and numbers() == 1 end)
  lu.assertEquals(('aaa'):gsub('a', function() return numbers() end), '111')
  lu.assertEquals(numbers(), 1)
end

-- Interrupted -----------------------------------------------------------------------------------

function T.test_cancelled_inside()
  for _, depth in ipairs { 1, 3, 30 } do
    local told
    local thread = asio.spawn(nested, depth, function()
      local _, err = pcall(asio.sleep, 60)
      told = err
      error(err, 0)
    end)
    thread:cancel()
    lu.assertEquals({ thread:join() }, { false, asio.cancelled })
    lu.assertIs(told, asio.cancelled)
  end
  local steps = {}
  local thread = asio.spawn(function()
    steps[1] = { co.resume(co.create(never)) }
    steps[2] = { pcall(asio.yield) }
  end)
  thread:cancel()
  thread:join()
  lu.assertEquals(steps, { { false, asio.cancelled }, { false, asio.cancelled } })
end

function T.test_deadlines_around_inside_and_between()
  t.failure('ETIMEDOUT', asio.timeout(0.002, nested, 3, never))
  t.failure('ETIMEDOUT', nested(3, function() return asio.timeout(0.002, never) end))
  t.failure('ETIMEDOUT', nested(2, function() return asio.timeout(0.002, nested, 2, never) end))
  t.failure('ETIMEDOUT', asio.timeout(0.002, nested, 2, function()
    asio.timeout(60, nested, 2, function() asio.shield(0, never) end)
    lu.fail 'went on'
  end))
  nested(2, asio.yield)
end

function T.test_a_coroutine_nobody_holds_is_collected()
  local weak = setmetatable({}, { __mode = 'k' })
  for _ = 1, 10 do
    local c = co.create(function()
      asio.yield()
      co.yield()
    end)
    co.resume(c)
    weak[c] = true
  end
  nested(3, asio.yield)
  t.collect()
  lu.assertNil(next(weak))
end

-- The main chunk, the whole state ---------------------------------------------------------------

T.test_in_the_main_chunk = t.main(function()
  lu.assertFalse(co.isyieldable())
  lu.assertNil((co.running()))
  for _, depth in ipairs { 0, 1, 2, 30 } do
    lu.assertEquals({ nested(depth, every_kind_of_wait) }, { 'through', nil, 3 })
  end
  local c = co.create(function() return co.yield(1), asio.sleep(0.001) end)
  co.resume(c)
  lu.assertEquals({ asio.run(co.resume, c, 2) }, { true, 2, true }) -- goes on in a light thread
  lu.assertFalse((pcall(co.yield)))
  t.raises('deadlock', nested, 2, never)
  t.failure('ETIMEDOUT', asio.timeout(0.001, nested, 2, never))
  t.raises('expected', nested, 2, function()
    asio.yield()
    error 'expected'
  end)
  asio.sleep(0.0001)
end)

function T.test_install()
  local out = t.quiet_child(function()
    local asio = require 'asio'
    local own = coroutine.resume
    asio.coroutine.install()
    asio.coroutine.install()
    assert(coroutine.resume == asio.coroutine.resume and rawget(coroutine, 'install') == nil)
    local function library() -- which has never heard of asio
      local c = coroutine.create(function()
        for i = 1, 3 do
          asio.sleep(0.0005)
          coroutine.yield(i)
        end
      end)
      local sum = 0
      while true do
        local ok, value = coroutine.resume(c)
        assert(ok, value)
        if not value then return sum end
        sum = sum + value
      end
    end
    local sum = asio.run(function() return library() + coroutine.wrap(library)() end)
    local main_sum = library()
    local ok, err = asio.run(function() return pcall(coroutine.yield, 1) end)
    assert(not ok and err:find('asio.yield()', 1, true), err)
    assert(not own(coroutine.create(function() asio.sleep(0.001) end)))
    asio.run(asio.sleep, 0.001)
    io.write(sum, ' ', main_sum)
  end)
  lu.assertEquals(out, '12 6')
end

function T.test_the_state_closes_while_coroutines_wait()
  t.quiet_child(function()
    local asio = require 'asio'
    local co, held = asio.coroutine, {}
    for i = 1, 5 do
      local function inner() asio.timeout(50, asio.group, function() asio.sleep(60) end) end
      for _ = 1, i do
        local before = inner
        inner = function() co.wrap(before)() end
      end
      held[#held + 1] = asio.spawn(inner)
      local c = co.create(function() asio.timeout(50, co.yield) end)
      co.resume(c)
      held[#held + 1] = c
    end
    asio.run_once(0)
    package.loaded.held = held
  end)
end

return T
