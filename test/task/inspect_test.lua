-- Looking at what goes on: asio.on_error, the deadlock report, asio.threads, asio.dump, asio.stats.
-- The watchdog is in watchdog_test.lua.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

-- Runs fn with this on_error.
local function with_handler(handler, fn)
  local before = asio.on_error(handler)
  local ok, err = pcall(fn)
  local own = asio.on_error(before)
  lu.assertTrue(ok, err)
  lu.assertIs(own, handler)
end

-- Once broken -----------------------------------------------------------------------------------

-- What was still to be reported when the Lua state was closed went to a light thread that was
-- never run.
function T.test_what_is_left_when_the_state_closes_is_not_silent()
  local result = t.child(function()
    local asio = require 'asio'
    asio.on_error(function(err) io.stderr:write('handler: ', err, '\n') end)
    asio.spawn(error, 'at the very end')
  end)
  lu.assertStrContains(result.err, 'at the very end')
end

-- The state closes with a mutex's, or a group's, report still to be told.
function T.test_other_reports_when_the_state_closes_are_not_silent()
  local result = t.child(function()
    local asio = require 'asio'
    local m = asio.mutex()
    asio.spawn(function() m:lock() end)
  end)
  lu.assertStrContains(result.err, 'mutex')
end

-- asio.on_error ---------------------------------------------------------------------------------

function T.test_on_error_gets_the_error_the_traceback_and_the_thread()
  local calls, object = {}, {}
  local function culprit()
    asio.yield()
    error(object)
  end
  with_handler(function(...) calls[#calls + 1] = { select('#', ...), ... } end, function()
    local thread = asio.spawn(function()
      culprit()
      return 1
    end)
    t.next_turn()
    lu.assertEquals(#calls, 1)
    local n, err, traceback, dead = unpack(calls[1])
    lu.assertEquals(n, 3)
    lu.assertIs(err, object)
    lu.assertStrContains(traceback, 'culprit')
    lu.assertIs(dead, thread)
    lu.assertEquals({ dead:join() }, { false, object })
  end)
  lu.assertEquals(t.stderr(), '')
end

function T.test_on_error_with_errors_of_every_kind()
  local got, none = {}, {}
  with_handler(function(err) got[#got + 1] = err == nil and none or err end, function()
    local values = { 'text', {}, false, 17, newproxy(), print, none }
    for i = 1, #values do
      asio.spawn(function()
        if values[i] == none then error() end
        error(values[i], 0)
      end)
    end
    t.next_turn()
    for i = 1, #values do lu.assertIs(got[i], values[i]) end
  end)
end

function T.test_on_error_runs_in_a_light_thread_and_may_wait()
  local told
  with_handler(function(err)
    lu.assertNotNil(asio.current())
    asio.sleep(0.002)
    told = err
  end, function()
    asio.spawn(error, 'expected', 0)
    t.wait_until(function() return told end)
    lu.assertEquals(told, 'expected')
  end)
end

function T.test_on_error_that_fails_is_told_on_stderr_once()
  local calls = 0
  with_handler(function(err)
    calls = calls + 1
    if calls == 2 then asio.yield() end
    error('the handler: ' .. err, 0)
  end, function()
    for i = 1, 2 do
      asio.spawn(error, 'original', 0)
      t.next_turn()
      t.next_turn()
      lu.assertEquals(calls, i)
      lu.assertEquals(t.occurrences(t.stderr(), 'the handler: original'), 1)
    end
  end)
end

function T.test_what_on_error_spawns_is_reported_to_it_too()
  local seen = {}
  with_handler(function(err)
    seen[#seen + 1] = err
    if #seen < 5 then asio.spawn(error, 'again ' .. #seen, 0) end
  end, function()
    asio.spawn(error, 'first', 0)
    t.wait_until(function() return #seen == 5 end)
    lu.assertEquals(seen, { 'first', 'again 1', 'again 2', 'again 3', 'again 4' })
  end)
end

function T.test_on_error_gives_the_one_before_and_nil_restores_stderr()
  local function first() end
  local function second() end
  local original = asio.on_error(first)
  lu.assertIs(asio.on_error(second), first)
  lu.assertIs(asio.on_error(nil), second)
  lu.assertNil(asio.on_error())
  asio.spawn(error, 'on stderr again')
  t.next_turn()
  lu.assertEquals(t.occurrences(t.stderr(), 'on stderr again'), 1)
  for _, wrong in ipairs { 17, 'x', {}, false } do
    t.bad_argument(1, 'on_error', function() asio.on_error(wrong) end)
  end
  asio.on_error(original)
end

function T.test_on_error_is_not_called_for_what_is_joined()
  local calls = 0
  with_handler(function() calls = calls + 1 end, function()
    asio.spawn(error, 'x'):join()
    pcall(asio.group, function(g) g:spawn(error, 'x') end)
    local thread = asio.spawn(asio.sleep, 60)
    thread:cancel()
    t.next_turn()
    lu.assertEquals(calls, 0)
  end)
end

function T.test_other_reports_go_to_on_error_too()
  local texts = {}
  with_handler(function(...) texts[#texts + 1] = { ... } end, function()
    local m = asio.mutex()
    asio.spawn(function() m:lock() end)
    asio.group():spawn(asio.sleep, 60)
    t.collect()
    t.next_turn()
    lu.assertEquals(#texts, 2)
    lu.assertStrContains(texts[1][1], 'mutex')
    lu.assertStrContains(texts[2][1], 'group')
  end)
  lu.assertEquals(t.stderr(), '')
end

T.test_on_error_in_run_once_and_outside = t.main(function()
  local calls = 0
  with_handler(function() calls = calls + 1 end, function()
    asio.spawn(error, 'x')
    asio.run_once(0)
    lu.assertEquals(calls, 1)
    asio.spawn(error, 'x')
    asio.run()
    lu.assertEquals(calls, 2)
  end)
end)

-- The deadlock report ---------------------------------------------------------------------------

function T.test_the_deadlock_report_says_who_waits_for_what_where_and_since_when()
  local result = t.child(function()
    local asio = require 'asio'
    local ch, m = asio.channel(), asio.mutex()
    local function in_recv() ch:recv() end
    local function in_lock()
      asio.current():name 'the second'
      m:lock()
      return 1
    end
    asio.spawn(function()
      m:lock()
      in_recv()
      return 1
    end)
    asio.spawn(in_lock)
    asio.spawn(asio.coroutine.wrap(function()
      asio.event():wait()
      return 1
    end))
    asio.run(function()
      asio.sleep(0.001)
      return 'fine'
    end)
  end, { code = 1 })
  for _, words in ipairs { 'deadlock', '3 light threads', 'receive', 'lock', 'event', 'in_recv',
    'the second', 'stack traceback', 'resumed by' } do
    lu.assertStrContains(result.err, words)
  end
  lu.assertEquals(t.occurrences(result.err, 'in_recv'), 1)
end

function T.test_the_deadlock_report_can_be_returned()
  t.quiet_child(function()
    local asio = require 'asio'
    local function check(n, result, text, code)
      assert(n == 3 and result == nil and code == 'EDEADLK', code)
      assert(text:find('deadlock', 1, true) and text:find('event', 1, true), text)
    end
    local function count(...) return select('#', ...), ... end
    local e = asio.event()
    check(count(asio.run({ deadlock = 'return' }, function() e:wait() end)))
    check(count(asio.run { deadlock = 'return' })) -- it waits still
    assert(not pcall(asio.run, { deadlock = 'raise' }))
    assert(not pcall(asio.run))
    assert(not pcall(asio.run, {}))
    e:set()
    assert(asio.run { deadlock = 'return' } == nil)
    assert(asio.run({ deadlock = 'return' }, function(...) return ... end, 1, 2) == 1)
    local ok, err = pcall(asio.run, { deadlock = 'return' }, error, 'its own')
    assert(not ok and err:find('its own', 1, true))
    assert(not pcall(asio.run, { deadlock = 'return' }, 17))
  end)
end

T.test_the_deadlock_of_the_main_chunk = t.main(function()
  t.raises({ 'deadlock', 'main chunk' }, function() asio.channel():recv() end)
end)

function T.test_what_is_no_deadlock()
  t.quiet_child(function()
    local asio = require 'asio'
    local e = asio.event()
    asio.spawn(function() e:wait() end)
    asio.after(0.02, function() e:set() end) -- can wake it
    asio.run()
    e:clear()
    asio.spawn(function() e:wait(0.01) end)
    asio.run()
    asio.spawn(asio.timeout, 0.01, e.wait, e)
    asio.run()
    asio.spawn(function() asio.group(function(g) g:spawn(asio.sleep, 0.01) end) end)
    asio.run()
  end)
end

-- asio.threads ----------------------------------------------------------------------------------

function T.test_threads_lists_every_light_thread()
  local ch = asio.channel()
  local waiting = asio.spawn(function()
    asio.current():name 'the waiting one'
    ch:recv()
    return 1
  end)
  local ready = asio.spawn(asio.yield)
  asio.spawn(function() end) -- has ended
  local by_thread, n = {}, 0
  for _, entry in ipairs(asio.threads()) do
    by_thread[entry.thread], n = entry, n + 1
  end
  lu.assertEquals(n, 3)
  local one = by_thread[waiting]
  lu.assertEquals({ one.name, one.status, one.wait }, { 'the waiting one', 'waiting', 'receive' })
  lu.assertIsNumber(one.id)
  lu.assertTrue(one.age >= 0 and one.age < 60 and one.waiting >= 0 and one.waiting <= one.age)
  lu.assertStrContains(one.traceback, 'inspect_test.lua')
  lu.assertEquals(by_thread[ready].status, 'ready')
  lu.assertNil(by_thread[ready].wait)
  local me = by_thread[asio.current()]
  lu.assertEquals(me.status, 'running')
  lu.assertStrContains(me.traceback, 'inspect_test.lua')
  ch:send(1)
  ready:join()
end

function T.test_threads_names_every_wait()
  local a, b = t.pair()
  local ch, e, s, m, g = asio.channel(), asio.event(), asio.semaphore(0), asio.mutex(), asio.group()
  m:lock()
  g:spawn(e.wait, e)
  local waits = {
    read = function() a:read(1) end,
    send = function() ch:send(1) end,
    event = function() e:wait() end,
    acquire = function() s:acquire() end,
    lock = function() m:lock() end,
    sleep = function() asio.sleep(60) end,
    group = function() g:wait() end,
    select = function() asio.select { e, s } end,
    join = function() asio.spawn(e.wait, e):join() end,
  }
  for name, wait in pairs(waits) do
    local thread = asio.spawn(wait)
    for _, entry in ipairs(asio.threads()) do
      if entry.thread == thread then lu.assertEquals(entry.wait, name) end
    end
    thread:cancel()
    thread:join()
  end
  m:unlock()
  e:set()
  b:close()
  a:close()
end

function T.test_threads_shows_the_coroutines_inside()
  local e = asio.event()
  local function innermost() e:wait() end
  local thread = asio.spawn(asio.coroutine.wrap(function()
    asio.coroutine.wrap(function()
      innermost()
      return 1
    end)()
    return 1
  end))
  for _, entry in ipairs(asio.threads()) do
    if entry.thread == thread then
      lu.assertStrContains(entry.traceback, 'innermost')
      lu.assertEquals(t.occurrences(entry.traceback, 'resumed by'), 2)
    end
  end
  e:set()
  thread:join()
end

function T.test_threads_of_odd_moments()
  -- By a finalizer, by a thread that another one has spawned, inside sort.
  local counts = {}
  do
    local dying = newproxy(true)
    getmetatable(dying).__gc = function() counts[1] = #asio.threads() end
  end
  t.collect()
  asio.spawn(function() counts[2] = #asio.threads() end)
  table.sort({ 2, 1 }, function() counts[3] = #asio.threads() end)
  lu.assertEquals(counts, { 1, 2, 1 })
end

T.test_threads_in_the_main_chunk = t.main(function()
  lu.assertEquals(asio.threads(), {})
  local thread = asio.spawn(asio.sleep, 0.001)
  lu.assertEquals(#asio.threads(), 1)
  lu.assertIs(asio.threads()[1].thread, thread)
  asio.run()
  lu.assertEquals(asio.threads(), {})
end)

-- asio.dump -------------------------------------------------------------------------------------

local function dumped()
  local parts = {}
  asio.dump { write = function(_, text) parts[#parts + 1] = text end }
  return table.concat(parts)
end

function T.test_dump_groups_those_that_are_alike()
  local e, n = asio.event(), t.stress and 500 or 10000
  local threads = {}
  local function alike() e:wait() end
  for i = 1, n do threads[i] = asio.spawn(alike) end
  local odd = asio.spawn(function()
    asio.current():name 'the odd one'
    e:wait()
    return 1
  end)
  local text = dumped()
  lu.assertStrContains(text, ('%d light threads'):format(n + 2))
  lu.assertStrContains(text, ('%d light threads ('):format(n))
  lu.assertStrContains(text, 'the odd one')
  lu.assertTrue(#text < 10000, #text)
  e:set()
  for i = 1, n do threads[i]:join() end
  odd:join()
end

function T.test_dump_to_stderr_a_file_and_a_connection()
  asio.current():name 'who dumps'
  asio.dump()
  lu.assertStrContains(t.stderr(), 'who dumps')
  local path = os.tmpname()
  local file = assert(io.open(path, 'w'))
  asio.dump(file)
  file:close()
  file = assert(io.open(path))
  lu.assertStrContains(file:read '*a', 'who dumps')
  file:close()
  os.remove(path)
  local a, b = t.pair()
  asio.dump(a)
  lu.assertStrContains(b:read_some(), 'asio: ')
  a:close()
  b:close()
end

T.test_dump_with_nobody_there = t.main(function()
  lu.assertStrContains(dumped(), '0 light threads')
end)

function T.test_dump_on_a_signal()
  local result = t.child(function()
    local asio, raw = require 'asio', require 'raw'
    local name = raw.signal_name
    assert(asio.dump_on(name) == true)
    assert(asio.dump_on(name) == true) -- once is enough
    local function work()
      asio.current():name 'at work'
      raw.kill(raw.signal)
      asio.sleep(0.05)
      assert(asio.dump_on(name, false) == true)
      assert(asio.dump_on(name, false) == true)
      return 1
    end
    asio.run(work)
    if not raw.windows then assert(raw.disposition(raw.signal, 'default') == 'default') end
    for _, wrong in ipairs { 'SIGNOTHING', 17, {} } do assert(not pcall(asio.dump_on, wrong)) end
    assert(not pcall(asio.dump_on))
  end)
  lu.assertEquals(t.occurrences(result.err, 'at work'), 1, result.err)
  lu.assertStrContains(result.err, 'stack traceback')
end

function T.test_dump_on_does_not_keep_run_going()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    assert(asio.dump_on(raw.signal_name))
    collectgarbage()
    collectgarbage()
    asio.run(asio.sleep, 0.001)
  end)
end

-- asio.stats ------------------------------------------------------------------------------------

function T.test_stats_count()
  local before = asio.stats()
  local a, b = t.pair()
  b:write(('x'):rep(1000))
  a:read(1000)
  local e, threads = asio.event(), {}
  for i = 1, 10 do threads[i] = asio.spawn(e.wait, e) end
  local during = asio.stats()
  lu.assertEquals(during.threads, before.threads + 10)
  lu.assertEquals(during.threads_spawned, before.threads_spawned + 10)
  lu.assertTrue(during.threads_peak >= during.threads)
  lu.assertEquals(during.connections, before.connections + 2)
  lu.assertEquals(during.connections_opened, before.connections_opened + 2)
  lu.assertEquals(during.bytes_in, before.bytes_in + 1000)
  lu.assertEquals(during.bytes_out, before.bytes_out + 1000)
  e:set()
  for i = 1, 10 do threads[i]:join() end
  a:close()
  b:close()
  t.wait_until(function() return asio.stats().connections == before.connections end, 'the closing')
  local after = asio.stats()
  lu.assertEquals(after.threads, before.threads)
  lu.assertEquals(after.connections_opened, during.connections_opened)
  lu.assertTrue(after.turns > before.turns)
end

function T.test_the_longest_turn_is_time_kept_and_not_waited()
  t.quiet_child(function()
    local asio = require 'asio'
    asio.run(asio.sleep, 0.3)
    local waited = asio.stats().longest_turn
    asio.run(function()
      asio.yield()
      local stop = asio.now() + 0.2
      while asio.now() < stop do end
    end)
    local kept = asio.stats().longest_turn
    assert(waited < 0.2, waited)
    assert(kept >= 0.199 and kept < 20, kept)
  end)
end

function T.test_a_great_many_dumps_take_no_memory()
  local before
  for i = 1, 600 do
    dumped()
    asio.threads()
    asio.stats()
    if i == 100 then
      t.collect()
      before = raw.status 'VmRSS'
    end
  end
  t.collect()
  lu.assertTrue(t.sanitized or raw.status 'VmRSS' - before < 4096)
end

function T.test_dump_wants_something_to_write_to()
  for _, stream in ipairs { 1, 'text', false, {}, newproxy(), { write = true } } do
    t.raises("bad argument #1 to 'dump' (an object with a method write expected", asio.dump, stream)
  end
  lu.assertErrorMsgEquals('full', asio.dump, { write = function() error('full', 0) end })
end

return T
