-- asio.timeout. Its deadline and a cancel at every single wait: interrupt_test.lua.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

local function count(...) return select('#', ...), ... end

local function never() asio.event():wait() end

-- Keeps the processor, which no deadline can interrupt.
local function compute(seconds)
  local stop = asio.now() + seconds
  while asio.now() < stop do end
end

-- How many of two inner scopes took a deadline that three of them share.
local function inner_wins(seconds)
  local wins = 0
  asio.timeout(seconds, function()
    asio.timeout(seconds, function()
      asio.timeout(seconds, asio.sleep, 60)
      wins = wins + 1
    end)
    wins = wins + 1
  end)
  return wins
end

-- A time-out of 0 asks the loop once ------------------------------------------------------------

-- Polls until done() or for a second, which is far longer than it should take.
local function poll(done)
  local stop = asio.now() + 1
  local result
  repeat result = done() until result or asio.now() > stop
  return result
end

function T.test_polling_with_a_time_out_of_nothing_starves_nobody()
  local a, b = t.pair()
  asio.spawn(function()
    asio.sleep(0.005)
    b:write 'x'
    asio.sleep(0.005)
    b:write 'y'
  end)
  lu.assertEquals(poll(function() return (asio.timeout(0, a.read, a, 1)) end), 'x')
  a:set_timeout(0)
  lu.assertEquals(poll(function() return (a:read(1)) end), 'y')
  local sleeper = asio.spawn(asio.sleep, 0.005)
  lu.assertTrue(poll(function() return (sleeper:join(0)) end))
end

function T.test_of_several_deadlines_of_nothing_the_outer_wins()
  for _ = 1, 20 do lu.assertEquals(inner_wins(0), 0) end
end

function T.test_what_is_always_ready_cannot_outrun_a_time_out_of_nothing()
  local event, n, stop = asio.event(), 0, asio.now() + 2
  event:set()
  t.failure('ETIMEDOUT', asio.timeout(0, function()
    while n < 10000000 and asio.now() < stop do
      event:wait()
      n = n + 1
    end
    return 'outran it'
  end))
end

-- Results, errors, arguments -------------------------------------------------------------------

function T.test_arguments_and_results_pass_with_nils()
  local function check(n, ...)
    lu.assertEquals(n, 4)
    lu.assertEquals({ ... }, { nil, 2, nil, nil })
  end
  for _, scope in ipairs { asio.timeout, asio.shield } do
    check(count(scope(60, function(...) return ... end, nil, 2, nil, nil)))
    check(count(scope(60, function(...)
      asio.yield()
      return ...
    end, nil, 2, nil, nil)))
    lu.assertEquals(select('#', scope(60, function() end)), 0)
  end
end

function T.test_many_results()
  local many = {}
  for i = 1, 200 do many[i] = i end
  lu.assertEquals({ asio.timeout(60, function(...)
    asio.yield()
    return ...
  end, unpack(many)) }, many)
end

function T.test_the_triple_when_time_is_up()
  local began = asio.now()
  local function check(n, ...)
    lu.assertEquals(n, 3)
    t.failure('ETIMEDOUT', ...)
  end
  check(count(asio.timeout(0.02, asio.sleep, 60)))
  local took = asio.now() - began
  lu.assertTrue(took >= 0.02 and took < 5, took)
end

function T.test_seconds_that_mean_none()
  for _, seconds in ipairs { math.huge, 1e300, 1e18, 60, 'nil' } do
    if seconds == 'nil' then seconds = nil end
    for _, scope in ipairs { asio.timeout, asio.shield } do
      lu.assertEquals(scope(seconds, function()
        asio.sleep(0.001)
        return 'done'
      end), 'done')
    end
  end
end

function T.test_seconds_that_are_none()
  local function nop() end
  for _, wrong in ipairs { -1, -1e-300, 0 / 0, -math.huge, '1', 'soon', true, {} } do
    t.bad_argument(1, 'timeout', function() asio.timeout(wrong, nop) end)
    t.bad_argument(1, 'shield', function() asio.shield(wrong, nop) end)
  end
  t.bad_argument(2, 'timeout', function() asio.timeout(1) end)
  t.bad_argument(2, 'timeout', function() asio.timeout(1, 'fn') end)
  t.bad_argument(2, 'shield', function() asio.shield(1, {}) end)
  asio.sleep(0.001) -- nothing was entered
end

function T.test_no_time_at_all_takes_what_is_there()
  local a, b = t.pair()
  t.failure('ETIMEDOUT', asio.timeout(0, a.read, a, 1))
  b:write 'xy'
  b:flush()
  lu.assertEquals(asio.timeout(0, a.read, a, 1), 'x') -- out of the kernel
  lu.assertEquals(asio.timeout(0, a.read, a, 1), 'y') -- out of the buffer
  t.failure('ETIMEDOUT', asio.timeout(0, a.read, a, 1))
  t.failure('ETIMEDOUT', asio.timeout(0, never))
  t.failure('ETIMEDOUT', asio.timeout(1e-9, never))
end

function T.test_errors_of_every_kind_pass()
  local object, nothing = setmetatable({}, {}), {}
  for _, value in ipairs { 'text', object, newproxy(true), 17, false, print, nothing } do
    if value == nothing then value = nil end
    for _, scope in ipairs { asio.timeout, asio.shield } do
      for _, wait in ipairs { false, true } do
        local n, ok, err = count(pcall(scope, 60, function()
          if wait then asio.yield() end
          error(value, 0)
        end))
        lu.assertEquals(n, 2)
        lu.assertFalse(ok)
        lu.assertIs(err, value)
      end
    end
  end
  asio.sleep(0.001)
end

function T.test_a_scope_that_was_left_interrupts_no_more()
  asio.timeout(0.005, asio.yield)
  pcall(asio.timeout, 0.005, error, 'x')
  asio.shield(0.005, asio.yield)
  asio.sleep(0.02)
  lu.assertNil(asio.timeout(60, function() asio.sleep(0.001) end))
end

-- Nesting --------------------------------------------------------------------------------------

function T.test_the_inner_deadline_comes_first()
  local inner
  lu.assertEquals(asio.timeout(60, function()
    inner = { asio.timeout(0.005, asio.sleep, 60) }
    asio.sleep(0.001)
    return 'outer goes on'
  end), 'outer goes on')
  lu.assertEquals(inner[3], 'ETIMEDOUT')
end

function T.test_the_outer_deadline_ends_the_inner_function()
  local went_on = false
  t.failure('ETIMEDOUT', asio.timeout(0.005, function()
    asio.timeout(60, asio.sleep, 60)
    went_on = true
  end))
  lu.assertFalse(went_on)
end

function T.test_of_equal_deadlines_the_outer_wins()
  for _, seconds in ipairs { 1e-9, 0.001, 0.003, 0.005 } do
    for _ = 1, 5 do lu.assertEquals(inner_wins(seconds), 0) end
  end
end

function T.test_when_both_have_passed_the_outer_wins()
  local went_on = false
  t.failure('ETIMEDOUT', asio.timeout(0.005, function()
    asio.timeout(0.001, function()
      compute(0.008)
      asio.yield()
    end)
    went_on = true
  end))
  lu.assertFalse(went_on)
end

function T.test_a_hundred_scopes_deep()
  local function nest(n, seconds)
    if n == 0 then return asio.sleep(60) end
    return asio.timeout(seconds, nest, n - 1, seconds)
  end
  t.failure('ETIMEDOUT', asio.timeout(0.01, nest, 100, 60))
  local levels = 0
  local function count_levels(n)
    if n == 0 then return asio.sleep(60) end
    local _, _, code = asio.timeout(n == 50 and 0.01 or nil, count_levels, n - 1)
    levels = levels + 1
    return code
  end
  count_levels(100)
  lu.assertEquals(levels, 51)
end

function T.test_each_scope_knows_its_own_object_alone()
  local first
  asio.timeout(0, function()
    local _, err = pcall(never)
    first = err
  end)
  lu.assertEquals(tostring(first), 'operation timed out')
  local ok, err = pcall(asio.timeout, 60, error, first)
  lu.assertFalse(ok)
  lu.assertIs(err, first)
  asio.timeout(0, function()
    local _, second = pcall(never)
    lu.assertNotIs(second, first)
    local again = { pcall(never) }
    lu.assertIs(again[2], second)
  end)
end

-- Swallowed ------------------------------------------------------------------------------------

function T.test_code_that_swallows_it_is_told_again()
  local told = 0
  lu.assertEquals({ asio.timeout(0.002, function()
    for _ = 1, 20 do
      if not pcall(asio.sleep, 60) then told = told + 1 end
    end
    return 'results', 'stand'
  end) }, { 'results', 'stand' })
  lu.assertEquals(told, 20)
  asio.sleep(0.001)
end

function T.test_swallowed_and_an_error_of_its_own_raised()
  local ok, err = pcall(asio.timeout, 0.001, function()
    pcall(asio.sleep, 60)
    error('its own', 0)
  end)
  lu.assertEquals({ ok, err }, { false, 'its own' })
end

function T.test_an_inner_scope_in_time_that_is_up_is_told_too()
  local told
  asio.timeout(0.001, function()
    pcall(asio.sleep, 60)
    told = { pcall(asio.timeout, 60, asio.sleep, 60) }
  end)
  lu.assertFalse(told[1])
  lu.assertEquals(tostring(told[2]), 'operation timed out')
end

function T.test_buffered_data_cannot_outrun_a_deadline()
  local a, b = t.pair()
  local n = 0
  b:write(('x'):rep(1000))
  a:read(1)
  t.failure('ETIMEDOUT', asio.timeout(0.005, function()
    while a:pending() > 0 do
      a:read(1)
      n = n + 1
      compute(0.001)
    end
  end))
  lu.assertTrue(n < 100, n)
  lu.assertEquals(a:pending(), 999 - n) -- told before anything was taken
end

-- Nothing is lost ------------------------------------------------------------------------------

function T.test_no_byte_is_lost_between_deadlines()
  local a, b = t.pair()
  local total, got, told = t.count(40000), {}, 0
  local text = {}
  for i = 1, total do text[i] = string.char(33 + i % 90) end
  text = table.concat(text)
  local writer = asio.spawn(function()
    local at = 1
    while at <= total do
      local n = at % 7 + 1
      b:write(text:sub(at, at + n - 1))
      at = at + n
      if at % 3 == 0 then asio.sleep(0.0002) else asio.yield() end
    end
    b:close()
  end)
  while true do
    local data, _, code = asio.timeout(told % 4 * 0.0001, a.read_some, a, 5)
    if data then got[#got + 1] = data elseif code == 'EOF' then break else told = told + 1 end
  end
  t.same_bytes(table.concat(got), text)
  lu.assertTrue(told > 0)
  writer:join()
end

function T.test_no_item_is_lost_or_sent_twice_between_deadlines()
  local ch, total, sent, got, told = asio.channel(), t.count(40000), 0, {}, 0
  local sender = asio.spawn(function()
    while sent < total do
      local value = sent + 1
      if asio.timeout(value % 3 * 0.00005, ch.send, ch, value) then
        sent = value
      else
        told = told + 1
        asio.yield()
      end
      if value % 5 == 0 then asio.sleep(0.0001) end
    end
    ch:close()
  end)
  while true do
    local value, _, code = asio.timeout(told % 4 * 0.00007, ch.recv, ch)
    if value then got[#got + 1] = value elseif code == 'EBADF' then break else asio.yield() end
  end
  lu.assertEquals(#got, total)
  for i = 1, total do lu.assertEquals(got[i], i) end
  lu.assertTrue(sender:join())
end

-- The main chunk -------------------------------------------------------------------------------

T.test_in_the_main_chunk = t.main(function()
  t.failure('ETIMEDOUT', asio.timeout(0.005, asio.sleep, 60))
  t.failure('ETIMEDOUT', asio.timeout(0.005, never))
  t.failure('ETIMEDOUT', asio.timeout(0, never))
  local told = 0
  lu.assertEquals(asio.timeout(0.002, function()
    for _ = 1, 5 do
      if not pcall(asio.sleep, 60) then told = told + 1 end
    end
    return 'stands'
  end), 'stands')
  lu.assertEquals(told, 5)
  t.failure('ETIMEDOUT', asio.timeout(0.002, function()
    asio.timeout(0.002, never)
    lu.fail 'the inner one took it'
  end))
  lu.assertTrue(asio.timeout(0.002, asio.shield, nil, asio.sleep, 0.01))
  t.raises('deadlock', never)
  t.raises('deadlock', asio.timeout, nil, never)
  asio.sleep(0.001)
end)

T.test_around_run = t.main(function()
  local event, steps = asio.event(), 0
  local function work()
    event:wait()
    steps = steps + 1
    return 'worked'
  end
  local later = asio.after(60, error)
  t.failure('ETIMEDOUT', asio.timeout(0.005, asio.run, work))
  lu.assertEquals(steps, 0)
  later:stop()
  event:set()
  asio.run() -- what was going on goes on
  lu.assertEquals(steps, 1)
  lu.assertEquals(asio.timeout(60, asio.run, work), 'worked')
  t.failure('ETIMEDOUT', asio.timeout(0, asio.run, asio.sleep, 0.005))
  t.raises('its own', asio.timeout, 60, asio.run, error, 'its own')
  asio.run()
  local server = assert(asio.server('127.0.0.1', 0, function() end))
  t.failure('ETIMEDOUT', asio.timeout(0.005, asio.run))
  server:close()
end)

T.test_a_light_thread_is_not_in_the_main_chunks_scope = t.main(function()
  local event, thread = asio.event(), nil
  t.failure('ETIMEDOUT', asio.timeout(0.005, function()
    thread = asio.spawn(event.wait, event)
    asio.sleep(60)
  end))
  lu.assertEquals(thread:status(), 'waiting')
  event:set()
  lu.assertEquals({ thread:join() }, { true, true })
end)

-- Odd places -----------------------------------------------------------------------------------

function T.test_where_nothing_can_wait()
  local function scopes()
    lu.assertEquals(asio.timeout(60, function() return 'no wait' end), 'no wait')
    lu.assertEquals(asio.shield(60, function() return 'no wait' end), 'no wait')
    t.raises('cannot wait here', asio.timeout, 0.001, asio.sleep, 60)
    t.raises('cannot wait here', asio.shield, 0.001, asio.sleep, 60)
    return true
  end
  lu.assertTrue(pcall(table.sort, { 2, 1 }, scopes))
  lu.assertEquals(string.gsub('x', '.', function() return scopes() and 'y' end), 'y')
  local result
  do
    local dying = newproxy(true)
    getmetatable(dying).__gc = function() result = { pcall(scopes) } end
  end
  t.collect()
  lu.assertEquals(result, { true, true })
  local foreign = { coroutine.resume(coroutine.create(function() return asio.timeout(1, print) end)) }
  lu.assertFalse(foreign[1])
  lu.assertStrContains(foreign[2], 'asio.coroutine.install()')
  asio.sleep(0.005)
end

function T.test_a_stray_yield_inside_a_scope()
  for _, scope in ipairs { asio.timeout, asio.shield } do
    local thread = asio.spawn(scope, 0.003, function() coroutine.yield 'lost' end)
    local ok, err = thread:join(5)
    lu.assertFalse(ok)
    lu.assertStrContains(err, 'asio.yield')
  end
  asio.sleep(0.01) -- their deadlines pass
end

function T.test_the_stack_overflowing_around_scopes()
  local function deep()
    asio.timeout(0.001, function() end)
    return 1 + deep()
  end
  local function start(pad, ...)
    if pad == 0 then return pcall(deep) end
    return start(pad - 1, pad, ...)
  end
  for pad = 1, t.stress and 1 or 20 do
    local thread = asio.spawn(function()
      lu.assertFalse((start(pad)))
      asio.sleep(0.005)
      return 'fine'
    end)
    lu.assertEquals({ thread:join() }, { true, 'fine' })
  end
end

-- Tracebacks -----------------------------------------------------------------------------------

function T.test_reports_name_the_first_line()
  local function culprit()
    asio.yield()
    error {}
  end
  local ways = {
    function() asio.timeout(60, function() culprit() return 1 end) end,
    function() asio.shield(60, function() culprit() return 1 end) end,
    function() asio.group(function() culprit() return 1 end) end,
    function() asio.mutex():with(function() culprit() return 1 end) end,
    function() asio.semaphore(1):with(function() culprit() return 1 end) end,
    function() asio.group(function(g) g:spawn(function() culprit() return 1 end) end) end,
    function()
      asio.timeout(60, asio.shield, nil, asio.group, function(g)
        g:spawn(function() asio.timeout(60, function() culprit() return 1 end) end)
      end)
    end,
  }
  for i, way in ipairs(ways) do
    asio.spawn(function()
      way()
      return 1
    end)
    t.reported("in function 'culprit'", 'way ' .. i)
  end
end

function T.test_a_swallowed_error_does_not_lend_its_traceback()
  asio.spawn(function()
    pcall(asio.timeout, 60, function() error('same', 0) end)
    local function second_culprit() error('same', 0) end
    second_culprit()
    return 1
  end)
  t.reported 'second_culprit'
end

-- Memory ---------------------------------------------------------------------------------------

function T.test_a_great_many_scopes_take_no_memory()
  for _ = 1, 1000 do asio.timeout(60, asio.yield) end
  local before = raw.status 'VmRSS'
  for _ = 1, t.count(1000000) do asio.timeout(60, function() end) end
  for _ = 1, t.count(20000) do asio.timeout(1e-6, never) end
  local kept = raw.status 'VmRSS' - before
  lu.assertTrue(t.sanitized or kept < 8 * 1024, kept .. ' KiB kept')
end

return T
