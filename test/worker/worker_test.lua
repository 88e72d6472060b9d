-- Workers: Lua states on system threads of their own. What they are given and give back, errors, cancelling.
-- Deadlocks among states, and how a process ends that has some: worker_end_test.lua.
--
-- test: 10 s
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431 (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

local function count(...) return select('#', ...), ... end

local function worker(fn, ...)
  return assert(asio.worker(fn, ...))
end

-- Results and errors ----------------------------------------------------------------------------

function T.test_results_come_back()
  local w = worker(function(...) return select('#', ...), ... end, 1, nil, 'x', false, nil)
  lu.assertEquals({ count(w:join()) }, { 7, true, 5, 1, nil, 'x', false, nil })
  lu.assertEquals({ count(w:join()) }, { 7, true, 5, 1, nil, 'x', false, nil }, 'a second time')
  lu.assertEquals(w:status(), 'done')
  lu.assertFalse(w:cancel())
  lu.assertEquals({ count(worker(function() end):join()) }, { 1, true })
end

function T.test_arguments_of_every_kind()
  local ffi = require 'ffi'
  local shared = { 'twice' }
  local channel = asio.shared.channel(1)
  local upvalue = { 7 }
  local function double(n) return n * 2 + upvalue[1] end
  local ok, got = worker(function(list)
    list.called = list.fn(10)
    list.same = list.a == list.b
    list.channel:send 'sent there'
    list.kind = tostring(list.int)
    return list
  end, { a = shared, b = shared, fn = double, int = ffi.new('int64_t', -5), channel = channel,
    text = 'a\0b', yes = true, number = 0.1, print = print, [1] = 'one', [false] = 'no' }):join()
  lu.assertTrue(ok, got)
  lu.assertEquals(got.called, 27)
  lu.assertTrue(got.same)
  lu.assertIs(got.a, got.b)
  lu.assertIs(got.channel, channel)
  lu.assertIs(got.print, print)
  lu.assertEquals({ got.kind, got.text, got.yes, got.number, got[1], got[false] },
    { '-5LL', 'a\0b', true, 0.1, 'one', 'no' })
  lu.assertEquals(channel:recv(0), 'sent there')
end

function T.test_what_cannot_go()
  local thread = coroutine.create(print)
  t.bad_argument(1, 'worker', function() asio.worker(17) end)
  t.bad_argument(1, 'worker', function() asio.worker() end)
  t.bad_argument(2, 'worker', function() asio.worker(print, thread) end)
  t.raises({ "bad argument #3 to 'worker'", "field 'x'", 'coroutine' }, asio.worker, print, 1,
    { x = { thread } })
  t.raises({ "bad argument #1 to 'worker'", "upvalue 'thread'" }, asio.worker, function() return thread end)
  local ok, err = worker(function() return 1, coroutine.create(print) end):join()
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'coroutine')
end

function T.test_errors_have_their_traceback()
  local function deep() error('expected', 0) end
  local w = worker(function() deep() end)
  local ok, err, trace = w:join()
  lu.assertEquals({ ok, err }, { false, 'expected' })
  lu.assertStrContains(trace, 'stack traceback:')
  lu.assertStrContains(trace, 'worker_test.lua')
  lu.assertEquals(w:status(), 'failed')
  ok, err = worker(function() error { code = 7 } end):join()
  lu.assertFalse(ok)
  lu.assertEquals(err, { code = 7 })
  ok, err = worker(function() error(coroutine.create(print)) end):join()
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'thread')
  lu.assertEquals({ (worker(function() error() end):join()) }, { false })
end

-- A receiver hears of it once, and the channel goes on.
function T.test_a_module_that_the_other_state_does_not_find()
  package.preload.only_here = function() return { fn = function() end } end
  local fn = require 'only_here'.fn
  package.preload.only_here = nil
  local missing = "module 'only_here' not found"
  local ok, err = worker(function() fn() end):join()
  lu.assertFalse(ok)
  lu.assertStrContains(err, missing)
  local pool = asio.offload_pool(1)
  t.raises(missing, pool.offload, pool, fn)
  pool:close()
  if can.has 'threaded_servers' then
    t.raises(missing, asio.server, '127.0.0.1', 0, function() fn() end, { threads = 2 })
  end
  local ch = asio.shared.channel(2)
  assert(ch:send(fn) and ch:send 'next')
  local _, first, second = worker(function(from)
    return { pcall(from.recv, from) }, from:recv()
  end, ch):join()
  lu.assertStrContains(first[2], missing)
  lu.assertEquals(second, 'next')
  package.loaded.only_here = nil
end

function T.test_a_module_as_function()
  can.need 'shell' -- for the names of files
  local name = os.tmpname()
  local dir, module = name:match '^(.*)/([^/]*)$'
  local path = ('%s/%s.lua'):format(dir, module)
  local function write(text)
    local file = assert(io.open(path, 'w'))
    file:write(text)
    file:close()
  end
  local before = package.path
  package.path = dir .. '/?.lua;' .. before
  write 'return function(a, b) return a + b end'
  lu.assertEquals({ worker(module, 1, 2):join() }, { true, 3 })
  write 'result = 1 return { 1 }'
  lu.assertEquals({ count(worker(module):join()) }, { 1, true })
  write 'error("expected", 0)'
  local ok, err = worker(module):join()
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'expected')
  package.path = before
  ok, err = worker('no.such.module'):join()
  lu.assertFalse(ok)
  lu.assertStrContains(err, "module 'no.such.module' not found")
  os.remove(path)
  os.remove(name)
end

function T.test_settings_go_along()
  local path, cpath = package.path, package.cpath
  package.path, package.cpath = path .. ';/no/such/?.lua', cpath .. ';/no/such/?.so'
  local expected = { true, package.path, package.cpath }
  local w = worker(function() return package.path, package.cpath end)
  package.path, package.cpath = path, cpath
  lu.assertEquals({ w:join() }, expected)
  if jit.status() then
    jit.off()
    w = worker(function() return (jit.status()) end)
    jit.on()
    lu.assertEquals({ w:join() }, { true, false })
  end
end

-- A result that refers to a module that is not to be found here.
function T.test_an_outcome_that_cannot_be_received()
  local w = worker(function()
    package.loaded['only.there'] = { text = function() return 1 end }
    local there = require 'only.there'
    return function() return there end
  end)
  local ok, err = w:join(20)
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'only.there')
end

function T.test_states_are_apart()
  _G.of_this_state = 'here'
  local w = worker(function()
    local found = _G.of_this_state
    _G.of_this_state = 'there'
    return found == nil
  end)
  lu.assertEquals({ w:join() }, { true, true })
  lu.assertEquals(_G.of_this_state, 'here')
  _G.of_this_state = nil
end

-- Joining ---------------------------------------------------------------------------------------

function T.test_join_with_a_time_out()
  local go = asio.shared.channel()
  local w = worker(function(from)
    error(from:recv(), 0)
  end, go)
  t.failure('ETIMEDOUT', w:join(0))
  t.failure('ETIMEDOUT', w:join(0.002))
  local others = {}
  for i = 1, 3 do others[i] = asio.spawn(w.join, w) end
  t.failure('ETIMEDOUT', w:join(0.002)) -- leaves the error to the others
  local cancelled = asio.spawn(w.join, w)
  asio.yield()
  cancelled:cancel()
  lu.assertEquals({ cancelled:join() }, { false, asio.cancelled })
  go:send 'expected'
  for i = 1, 3 do
    local joined, ok, err = others[i]:join()
    lu.assertEquals({ joined, ok, err }, { true, false, 'expected' })
  end
  lu.assertEquals({ (w:join(0)) }, { false })
  t.next_turn()
end

function T.test_an_unjoined_error_is_reported_once()
  local w = worker(function() error('alone', 0) end)
  t.wait_until(function() return w:status() == 'failed' end)
  t.next_turn()
  local text = t.stderr()
  lu.assertEquals(t.occurrences(text, 'alone'), 1, text)
  lu.assertStrContains(text, w:name() .. ' failed')
  lu.assertEquals({ (w:join()) }, { false })
end

-- The light thread that joined has been cancelled: nothing has taken the error.
function T.test_the_error_of_a_join_that_was_cancelled_is_reported()
  local go = asio.shared.channel()
  local w = worker(function(from) error(from:recv(), 0) end, go)
  local joiner = asio.spawn(w.join, w)
  asio.yield()
  joiner:cancel()
  joiner:join()
  go:send 'alone'
  t.wait_until(function() return w:status() == 'failed' end)
  t.next_turn()
  lu.assertEquals(t.occurrences(t.stderr(), 'alone'), 1)
end

function T.test_errors_of_light_threads_in_a_worker_are_reported_here()
  local w = worker(function()
    asio.spawn(error, 'of a light thread', 0)
    asio.sleep(0.01)
    return 'goes on'
  end)
  lu.assertEquals({ w:join() }, { true, 'goes on' })
  local text = t.stderr()
  lu.assertStrContains(text, 'of a light thread')
  lu.assertStrContains(text, w:name())
end

-- Cancelling ------------------------------------------------------------------------------------

function T.test_cancel()
  for _, wait in ipairs {
    function() asio.sleep(1000) end,
    function(ch) ch:recv() end,
    function(ch) ch:send(1) end,
    function(ch) asio.select { ch, asio.event() } end,
    function() asio.worker(function() asio.sleep(1000) end):join() end,
  } do
    local ready = asio.shared.channel()
    local w = worker(function(body, ready, ch)
      ready:send(true)
      body(ch)
    end, wait, ready, asio.shared.channel())
    ready:recv()
    lu.assertEquals(w:status(), 'running')
    lu.assertTrue(w:cancel())
    lu.assertEquals({ count(w:join()) }, { 2, false, asio.cancelled })
    lu.assertEquals(w:status(), 'failed')
    lu.assertFalse(w:cancel())
  end
end

function T.test_cancel_before_it_begins()
  for _ = 1, 20 do
    local w = worker(function() asio.sleep(1000) end)
    lu.assertTrue(w:cancel())
    lu.assertEquals({ w:join() }, { false, asio.cancelled })
  end
end

function T.test_a_cancel_that_is_swallowed()
  local ready = asio.shared.channel()
  local w = worker(function(ready)
    ready:send(true)
    pcall(asio.sleep, 1000)
    return 'swallowed'
  end, ready)
  ready:recv()
  lu.assertTrue(w:cancel())
  lu.assertEquals({ w:join() }, { true, 'swallowed' })
end

function T.test_cancel_of_what_a_function_has_left_running()
  local ready = asio.shared.channel()
  local w = worker(function(ready)
    asio.spawn(function()
      ready:send(true)
      asio.sleep(1000)
    end)
    return 'result'
  end, ready)
  ready:recv()
  t.failure('ETIMEDOUT', w:join(0.01))
  lu.assertTrue(w:cancel())
  lu.assertEquals({ w:join() }, { true, 'result' })
end

-- Many ------------------------------------------------------------------------------------------

function T.test_nested()
  local function down(depth, again)
    if depth == 0 then return 'the deepest' end
    local ok, result = asio.worker(again, depth - 1, again):join()
    assert(ok, result)
    return result
  end
  lu.assertEquals({ worker(down, 5, down):join() }, { true, 'the deepest' })
end

T.test_a_hundred_at_once = t.slow(60, function()
  local workers, sum = {}, 0
  local gate = asio.shared.channel()
  for i = 1, 100 do
    workers[i] = worker(function(n, gate)
      gate:recv()
      return n
    end, i, gate)
  end
  gate:close()
  for i = 1, 100 do sum = sum + select(2, workers[i]:join()) end
  lu.assertEquals(sum, 5050)
end)

-- Misuse ----------------------------------------------------------------------------------------

function T.test_methods_of_something_else()
  local w = worker(function() end)
  w:join()
  for _, name in ipairs { 'join', 'cancel', 'status', 'name' } do
    for _, self in ipairs { false, 1, {}, { handle = io.stdout }, io.stdout, asio.event() } do
      local why = ("calling '%s' on something that is not a worker"):format(name)
      lu.assertErrorMsgContains(why, w[name], self)
    end
    lu.assertErrorMsgContains('not a worker', w[name])
  end
end

-- Shortages -------------------------------------------------------------------------------------

function T.test_out_of_threads()
  can.need('numbers', 'real_kernel')
  t.quiet_child(function()
    local asio = require 'asio'
    asio.shared.channel()
    if not require 'raw'.forbid_threads() then return end
    asio.run(function()
      local w, message, code = asio.worker(function() end)
      assert(w == nil and code == 'EAGAIN', tostring(code) .. tostring(message))
    end)
  end, { env = t.ignore_leaks }) -- which takes a thread
end

-- With every number of descriptors that are left: the worker works, or says that it cannot.
T.test_out_of_descriptors = t.slow(60, function()
  can.need 'descriptors'
  t.quiet_child(function()
    local asio, ffi = require 'asio', require 'ffi'
    ffi.cdef [[ int dup(int); int close(int); ]]
    local well, failed = 0, 0
    asio.on_error(function() end)
    asio.run(function()
      assert(asio.worker(function() end):join())
      for spare = 0, 12 do
        local taken = {}
        repeat
          taken[#taken + 1] = ffi.C.dup(0)
        until taken[#taken] < 0
        taken[#taken] = nil
        for _ = 1, spare do ffi.C.close(table.remove(taken)) end
        local w, message, code = asio.worker(function() return 'well' end)
        if w then
          local ok, result = w:join()
          assert(ok and result == 'well' or type(result) == 'string')
          if ok then well = well + 1 else failed = failed + 1 end
        else
          assert(code == 'EMFILE', message)
          failed = failed + 1
        end
        for i = 1, #taken do ffi.C.close(taken[i]) end
        assert(asio.worker(function() end):join())
      end
    end)
    assert(well > 0 and failed > 0, well .. ' ' .. failed)
  end, { wrap = 'prlimit --nofile=100', seconds = 30, env = t.ignore_races })
end)

return T
