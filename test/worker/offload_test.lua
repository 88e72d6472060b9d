-- asio.offload and asio.offload_pool: functions that run in other Lua states while a light thread waits. How
-- pools and their states end: offload_pool_test.lua.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (functions that run in other states require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local pools = require 'pools'
local t = require 'support'

local T = {}

asio.shared.channel() -- opens what this state keeps

local function count(...) return select('#', ...), ... end

local with_pool, start, hold = pools.with_pool, pools.start, pools.hold
local running, waiting = pools.running, pools.waiting

-- Results -----------------------------------------------------------------------------------------

function T.test_results_come_back()
  with_pool(1, nil, function(pool)
    lu.assertEquals({ count(pool:offload(function() end)) }, { 0 })
    lu.assertEquals({ count(pool:offload(function(...) return ... end, 1, nil, 'x', nil)) },
      { 4, 1, nil, 'x', nil })
    local given = { list = { 1, 2, 3 } }
    given.self = given
    local got = pool:offload(function(value)
      value.list[4] = 4
      return value
    end, given)
    lu.assertEquals(got.list, { 1, 2, 3, 4 })
    lu.assertIs(got.self, got)
    lu.assertEquals(given.list, { 1, 2, 3 }, 'the pool has a copy')
    lu.assertEquals({ pool:offload(function() return false, nil, 'x' end) }, { false, nil, 'x' })
  end)
end

function T.test_many_results()
  with_pool(1, nil, function(pool)
    local got = { count(pool:offload(function(n)
      local list = {}
      for i = 1, n do list[i] = i end
      return unpack(list)
    end, 200)) }
    lu.assertEquals(got[1], 200)
    lu.assertEquals(got[201], 200)
  end)
end

function T.test_upvalues_go_along()
  local base, calls = { 10 }, 0
  local function add(x)
    calls = calls + 1
    return base[1] + x
  end
  with_pool(1, nil, function(pool)
    lu.assertEquals({ pool:offload(function(x) return add(x), add(x + 1), calls end, 5) }, { 15, 16, 2 })
    base[1] = 20
    lu.assertEquals(pool:offload(add, 5), 25, 'copied anew for each call')
    lu.assertEquals(calls, 0)
  end)
end

function T.test_modules_are_those_of_the_pool()
  with_pool(1, nil, function(pool)
    local name = asio.current():name() or ''
    local other, seen = pool:offload(function(n)
      asio.sleep(0.001)
      return asio.current():name(), n
    end, name)
    lu.assertEquals(other, 'offload #1')
    lu.assertEquals(seen, name)
  end)
end

function T.test_the_loop_goes_on()
  with_pool(1, nil, function(pool)
    local gate, ticks = asio.shared.channel(), 0
    local thread = start(pool, hold, gate)
    running(pool, 1)
    for _ = 1, 5 do
      asio.sleep(0.001)
      ticks = ticks + 1
    end
    lu.assertEquals(thread:status(), 'waiting')
    gate:send 'go'
    lu.assertEquals({ thread:join() }, { true, 'go' })
    lu.assertEquals(ticks, 5)
  end)
end

-- The wait of the main chunk ends then.
function T.test_stop_while_the_main_chunk_waits()
  t.quiet_child(function()
    local asio = require 'asio'
    asio.after(0.05, asio.stop)
    local result, message, code = asio.offload(function() require 'asio'.sleep(0.5) end)
    assert(result == nil and code == 'ECANCELED', tostring(message))
  end)
end

T.test_in_the_main_chunk = t.main(function()
  with_pool(1, nil, function(pool)
    lu.assertEquals(pool:offload(math.max, 1, 3), 3)
  end)
end)

function T.test_a_state_keeps_its_globals()
  with_pool(1, nil, function(pool)
    pool:offload(function() counter = 1 end) -- luacheck: ignore 111
    lu.assertEquals(pool:offload(function() counter = counter + 1 return counter end), 2) -- luacheck: ignore
    lu.assertNil(rawget(_G, 'counter'))
  end)
end

-- Errors ------------------------------------------------------------------------------------------

local function fails_deeply() error 'it went wrong' end

function T.test_an_error_has_the_traceback_of_its_state_once()
  with_pool(1, nil, function(pool)
    local err = t.raises({ 'it went wrong', 'stack traceback:', 'offload_test.lua' },
      pool.offload, pool, function() fails_deeply() end)
    lu.assertEquals(t.occurrences(err, 'stack traceback:'), 1)
    lu.assertEquals(t.occurrences(err, 'it went wrong'), 1)
    lu.assertNotStrContains(err, '[asio]')
    lu.assertEquals(pool:offload(function() return 'goes on' end), 'goes on')
  end)
end

function T.test_errors_that_are_no_strings_are_copied()
  with_pool(1, nil, function(pool)
    local ok, err = pcall(pool.offload, pool, function() error { code = 7, list = { 1 } } end)
    lu.assertFalse(ok)
    lu.assertEquals(err, { code = 7, list = { 1 } })
    lu.assertEquals({ pcall(pool.offload, pool, function() error() end) }, { false, nil })
    lu.assertEquals({ pcall(pool.offload, pool, error, 12, 0) }, { false, 12 })
  end)
end

function T.test_what_cannot_come_back_is_an_error()
  with_pool(1, nil, function(pool)
    t.raises({ 'result of an offloaded function', 'coroutine' }, pool.offload, pool,
      function() return coroutine.create(print) end)
    t.raises('table: ', pool.offload, pool, function() error { coroutine.create(print) } end)
    lu.assertEquals(pool:offload(function() return 1 end), 1)
  end)
end

function T.test_a_module_that_the_state_does_not_find_is_an_error()
  local module = { fn = function() end }
  package.loaded['module of the offload test'] = module
  with_pool(1, nil, function(pool)
    local function get() return module end
    t.raises("module 'module of the offload test' not found", pool.offload, pool, get)
    lu.assertEquals(pool:offload(function() return 1 end), 1)
  end)
  package.loaded['module of the offload test'] = nil
end

function T.test_misuse()
  with_pool(1, nil, function(pool)
    t.bad_argument(1, 'offload', function()
      pool:offload(1)
    end)
    t.bad_argument(1, 'offload', function()
      asio.offload()
    end)
    t.raises({ "bad argument #3 to 'offload'", 'coroutine' },
      function() pool:offload(print, 1, coroutine.create(print)) end)
    local co = coroutine.create(print)
    t.raises({ "bad argument #1 to 'offload'", "'co'" }, pool.offload, pool, function() return co end)
    t.raises('offload', pool.offload, {}, print)
    t.raises('offload', pool.offload, asio.shared.channel(), print)
    lu.assertEquals(pool:stats().waiting, 0)
  end)
  t.bad_argument(1, 'offload_pool', function()
    asio.offload_pool(0)
  end)
  t.bad_argument(1, 'offload_pool', function()
    asio.offload_pool(1.5)
  end)
  t.bad_argument(2, 'offload_pool', function()
    asio.offload_pool(1, { sice = 2 })
  end)
  for _, options in ipairs {
    { queue = -1 }, { queue = 0.5 }, { timeout = 'x' }, { init = 1 }, { name = 1 },
  } do
    t.raises("bad argument #2 to 'offload_pool' (option", asio.offload_pool, 1, options)
  end
end

-- Many --------------------------------------------------------------------------------------------

function T.test_states_start_when_none_is_idle()
  with_pool(3, nil, function(pool)
    lu.assertEquals(pool:stats().states, 0)
    for _ = 1, 3 do pool:offload(function() end) end
    lu.assertEquals(pool:stats().states, 1)
    local gate, threads = asio.shared.channel(), {}
    for i = 1, 5 do threads[i] = start(pool, hold, gate) end
    running(pool, 3)
    lu.assertEquals(pool:stats(), { size = 3, states = 3, running = 3, waiting = 2 })
    lu.assertEquals(tostring(pool), 'offload pool (3 running, 2 waiting)')
    for i = 1, 5 do gate:send(i) end
    local sum = 0
    for i = 1, 5 do sum = sum + select(2, threads[i]:join()) end
    lu.assertEquals(sum, 15)
  end)
end

function T.test_the_order_of_jobs_in_one_state()
  with_pool(1, nil, function(pool)
    local ch, threads = asio.shared.channel(100), {}
    for i = 1, 50 do threads[i] = start(pool, function() ch:send(i) end) end
    for i = 1, 50 do
      lu.assertTrue(threads[i]:join())
      lu.assertEquals(ch:recv(0), i)
    end
  end)
end

T.test_many_jobs_over_few_states = t.slow(60, function()
  with_pool(2, nil, function(pool)
    local n, done = t.count(40000), 0
    local group = asio.group()
    for k = 1, 40 do
      group:spawn(function()
        for i = k, n, 40 do
          local a, b = pool:offload(function(x) return x, 2 * x end, i)
          assert(a == i and b == 2 * i)
          done = done + 1
        end
      end)
    end
    group:wait()
    lu.assertEquals(done, n)
    lu.assertEquals(pool:stats().states, 2)
  end)
end)

-- Giving up ---------------------------------------------------------------------------------------

function T.test_cancel_before_a_job_begins()
  with_pool(1, nil, function(pool)
    local gate, seen = asio.shared.channel(), asio.shared.channel(10)
    local first = start(pool, hold, gate)
    running(pool, 1)
    local second = start(pool, function() seen:send 'second' end)
    local third = start(pool, function() seen:send 'third' end)
    waiting(pool, 2)
    second:cancel()
    lu.assertEquals({ second:join() }, { false, asio.cancelled })
    lu.assertEquals(pool:stats().waiting, 1)
    gate:send 'go'
    lu.assertEquals({ first:join() }, { true, 'go' })
    lu.assertTrue(third:join())
    lu.assertEquals(seen:recv(0), 'third')
    t.failure('ETIMEDOUT', seen:recv(0))
  end)
end

function T.test_cancel_during_a_job()
  with_pool(1, nil, function(pool)
    local gate = asio.shared.channel()
    local first = start(pool, hold, gate)
    running(pool, 1)
    first:cancel()
    lu.assertEquals({ first:join() }, { false, asio.cancelled })
    lu.assertEquals(pool:stats().running, 1, 'it goes on')
    local second = start(pool, function() return 'second' end)
    gate:send 'go'
    lu.assertEquals({ second:join() }, { true, 'second' })
  end)
end

function T.test_cancel_before_the_call()
  with_pool(1, nil, function(pool)
    local thread = asio.spawn(function()
      pcall(asio.sleep, 60)
      pool:offload(function() end)
    end)
    thread:cancel()
    lu.assertEquals({ thread:join() }, { false, asio.cancelled })
    lu.assertEquals(pool:stats().states, 0)
  end)
end

function T.test_a_deadline()
  with_pool(1, nil, function(pool)
    local gate = asio.shared.channel()
    pool:offload(function() end) -- a state is there
    t.failure('ETIMEDOUT', asio.timeout(0.1 * t.patience, pool.offload, pool, hold, gate))
    running(pool, 1)
    t.failure('ETIMEDOUT', asio.timeout(0.01, pool.offload, pool, hold, gate))
    lu.assertEquals(pool:stats().waiting, 0)
    gate:send 'go'
    lu.assertEquals(asio.timeout(60, pool.offload, pool, function() return 'in time' end), 'in time')
  end)
end

T.test_jobs_are_given_up_at_any_moment = t.slow(60, function()
  with_pool(2, nil, function(pool)
    local group = asio.group()
    for _ = 1, 20 do
      group:spawn(function()
        for _ = 1, t.count(4000) do
          local thread = start(pool, function(x) return x end, 1)
          for _ = 1, math.random(0, 4) do asio.yield() end
          if math.random() < 0.3 then asio.sleep(math.random() * 1e-4) end
          thread:cancel()
          local ok, value = thread:join()
          assert(ok and value == 1 or value == asio.cancelled)
        end
      end)
    end
    group:wait()
    lu.assertEquals(pool:stats().waiting, 0)
    lu.assertEquals(pool:offload(function() return 'fine' end), 'fine')
  end)
end)

-- The bound of the queue --------------------------------------------------------------------------

function T.test_callers_beyond_the_queue_wait_for_a_place()
  with_pool(1, { queue = 2 }, function(pool)
    local gate, threads = asio.shared.channel(), {}
    for i = 1, 6 do threads[i] = start(pool, hold, gate) end
    running(pool, 1)
    waiting(pool, 2)
    for i = 1, 6 do
      gate:send(i)
      lu.assertEquals({ threads[i]:join() }, { true, i })
    end
  end)
end

function T.test_a_place_is_waited_for_so_long()
  with_pool(1, { queue = 0, timeout = 0.01 }, function(pool)
    local gate = asio.shared.channel()
    local first = start(pool, hold, gate)
    t.failure('ETIMEDOUT', pool:offload(function() end))
    gate:send 'go'
    lu.assertEquals({ first:join() }, { true, 'go' })
    lu.assertEquals(pool:offload(function() return 1 end), 1)
  end)
end

function T.test_errors_and_cancels_give_their_place_back()
  with_pool(1, { queue = 0, timeout = 5 }, function(pool)
    local co = coroutine.create(print)
    for _ = 1, 3 do
      t.raises('an error', pool.offload, pool, function() error 'an error' end)
      t.raises('coroutine', pool.offload, pool, print, co)
      t.failure('ETIMEDOUT', asio.timeout(0.001, pool.offload, pool, asio.sleep, 0.1 * t.patience))
    end
    lu.assertEquals(pool:offload(function() return 1 end), 1)
  end)
end

-- Jobs that do more -------------------------------------------------------------------------------

function T.test_jobs_that_spawn()
  with_pool(1, nil, function(pool)
    lu.assertEquals(pool:offload(function()
      local asio = require 'asio'
      local a = asio.spawn(function() asio.sleep(0.002) return 1 end)
      local b = asio.spawn(function() asio.sleep(0.001) return 2 end)
      return select(2, a:join()) + select(2, b:join())
    end), 3)
    -- What a job leaves behind goes on beside later ones.
    local ch = asio.shared.channel()
    pool:offload(function() require 'asio'.spawn(ch.send, ch, 'late') end)
    lu.assertEquals(ch:recv(5), 'late')
    -- ... and ends with the state.
    pool:offload(function() require 'asio'.spawn(function() require 'asio'.sleep(60) end) end)
  end)
end

function T.test_jobs_use_connections()
  with_pool(1, nil, function(pool)
    local server = asio.server('127.0.0.1', 0, function(conn) conn:write(conn:read_line() .. '\n') end)
    local _, port = server:address()
    lu.assertEquals(pool:offload(function(p)
      local conn = assert(require 'asio'.connect('127.0.0.1', p))
      conn:write 'hello\n'
      local line = conn:read_line()
      conn:close()
      return line
    end, port), 'hello')
    server:close()
  end)
end

T.test_jobs_that_offload = t.slow(30, function()
  with_pool(1, nil, function(pool)
    lu.assertEquals(pool:offload(function(x)
      local own = require 'asio'.offload_pool(1)
      local y = own:offload(function(z) return z + 1 end, x)
      own:close()
      return y * 2
    end, 20), 42)
    local err = t.raises('inner', pool.offload, pool, function()
      local asio = require 'asio'
      local x = asio.offload(function() error 'inner' end)
      return x
    end)
    lu.assertEquals(t.occurrences(err, 'stack traceback:'), 2)
  end)
end)

function T.test_a_pool_in_another_state()
  with_pool(1, nil, function(pool)
    t.raises('belongs to another Lua state', pool.offload, pool, function() pool:offload(print) end)
    t.raises('belongs to another Lua state', pool.offload, pool, function() pool:close() end)
  end)
end

function T.test_out_of_memory_and_of_stack_are_errors()
  with_pool(1, nil, function(pool)
    t.raises('not enough memory', pool.offload, pool, function()
      return ('xx'):rep(2^31 - 1) -- refused at once
    end)
    t.raises('stack overflow', pool.offload, pool, function()
      local function deeper() return 1 + deeper() end
      return deeper()
    end)
    lu.assertEquals(pool:offload(function() return 'fine' end), 'fine')
  end)
end

return T
