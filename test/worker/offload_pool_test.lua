-- Pools of asio.offload: how they and their Lua states end, by themselves and by accident.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (functions that run in other states require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local pools = require 'pools'
local t = require 'support'

local T = {}

asio.shared.channel() -- opens what this state keeps

local with_pool, start, hold = pools.with_pool, pools.start, pools.hold
local running = pools.running

-- The end of a pool -------------------------------------------------------------------------------

function T.test_a_closed_pool()
  with_pool(1, nil, function(pool)
    local gate = asio.shared.channel()
    local first, second = start(pool, hold, gate), start(pool, hold, gate)
    running(pool, 1)
    pool:close()
    pool:close()
    t.failure('ECANCELED', select(2, second:join()))
    t.failure('EBADF', pool:offload(function() end))
    lu.assertStrContains(tostring(pool), 'closed')
    gate:send 'go'
    lu.assertEquals({ first:join() }, { true, 'go' }, 'what runs ends by itself')
  end)
end

function T.test_a_pool_that_was_never_used()
  asio.offload_pool(4):close()
  asio.offload_pool()
  t.collect()
end

function T.test_a_collected_pool_is_closed()
  local ended = asio.shared.channel(1)
  do
    local pool = asio.offload_pool(1)
    pool:offload(function(ch)
      local dying = newproxy(true) -- when its state ends
      getmetatable(dying).__gc = function() ch:close() end
      kept = dying -- luacheck: ignore 111
    end, ended)
  end
  t.wait_until(function()
    t.collect()
    local _, _, code = ended:recv(0)
    return code == 'EBADF'
  end, 'the end of the state', 10)
end

function T.test_a_pool_is_not_collected_while_it_works()
  local thread
  do
    local pool = asio.offload_pool(1)
    thread = start(pool, function()
      require 'asio'.sleep(0.05)
      return 'done'
    end)
  end
  t.collect()
  lu.assertEquals({ thread:join() }, { true, 'done' })
end

function T.test_idle_states_do_not_keep_run_going()
  local out = t.quiet_child(function()
    local asio = require 'asio'
    asio.run(function()
      print(asio.offload(function() return 'one' end))
    end)
    print 'over'
    asio.run(function() print(asio.offload(function() return 'two' end)) end)
  end)
  lu.assertEquals(out, 'one\nover\ntwo\n')
end

function T.test_a_job_keeps_run_going()
  local out = t.quiet_child(function()
    local asio = require 'asio'
    asio.spawn(function()
      print(asio.offload(function()
        require 'asio'.sleep(0.05)
        return 'done'
      end))
    end)
    asio.run()
    print 'over'
  end)
  lu.assertEquals(out, 'done\nover\n')
end

function T.test_deadlocks_are_found_beside_a_pool()
  local out = t.quiet_child(function()
    local asio = require 'asio'
    asio.run(function() asio.offload(function() end) end)
    print(pcall(asio.run, function() asio.channel():recv() end))
    local ch = asio.shared.channel()
    print(pcall(asio.run, function() ch:recv() end))
  end)
  lu.assertEquals(t.occurrences(out, 'deadlock'), 2, out)
end

function T.test_a_job_that_waits_for_ever_for_its_owner_is_a_deadlock()
  local out = t.quiet_child(function()
    local asio = require 'asio'
    local ch = asio.shared.channel()
    print(pcall(asio.run, function() asio.offload(function() ch:recv() end) end))
  end)
  lu.assertStrContains(out, 'deadlock')
  lu.assertStrContains(out, 'offload')
end

function T.test_the_process_ends_while_jobs_run()
  local out = t.quiet_child(function()
    local asio = require 'asio'
    local before = asio.now()
    local ch = asio.shared.channel(2)
    for _ = 1, 4 do
      asio.spawn(asio.offload, function()
        ch:send 'runs'
        require 'asio'.sleep(60)
      end)
    end
    ch:recv()
    io.write(asio.now() - before < 30 and 'ends' or 'late')
  end, { seconds = 20 })
  lu.assertEquals(out, 'ends')
end

-- States that die ---------------------------------------------------------------------------------

function T.test_a_state_that_stops_takes_its_job_with_it_and_no_other()
  with_pool(1, nil, function(pool)
    local dying = start(pool, function()
      require 'asio'.stop()
      require 'asio'.sleep(60)
    end)
    local next = start(pool, function() return 'next' end)
    local ok, err = dying:join()
    lu.assertFalse(ok)
    lu.assertStrContains(err, 'Lua state of the pool has ended')
    lu.assertEquals({ next:join() }, { true, 'next' })
    lu.assertEquals(pool:stats().states, 1)
  end)
end

function T.test_init()
  with_pool(1, { init = function() made_by_init = 'made' end, name = 'cook' }, function(pool) -- luacheck: ignore
    lu.assertEquals({ pool:offload(function()
      return made_by_init, require 'asio'.current():name() -- luacheck: ignore
    end) }, { 'made', 'cook #1' })
  end)
end

function T.test_states_that_cannot_start()
  with_pool(2, { init = function() error 'no such thing' end }, function(pool)
    local threads = {}
    for i = 1, 4 do threads[i] = asio.spawn(pcall, pool.offload, pool, function() end) end
    for i = 1, 4 do
      local _, ok, err = threads[i]:join()
      lu.assertFalse(ok)
      lu.assertStrContains(err, 'no such thing')
    end
  end)
end

function T.test_no_thread_for_a_state()
  require('can').need('numbers', 'real_kernel')
  t.quiet_child(function()
    local asio = require 'asio'
    asio.shared.channel()
    if not require 'raw'.forbid_threads() then return end
    asio.run(function()
      local result, message, code = asio.offload_pool(1):offload(function() return 'started' end)
      assert(result == nil and code == 'EAGAIN', tostring(message))
    end)
  end, { env = t.ignore_leaks }) -- which takes a thread
end

function T.test_errors_of_what_jobs_leave_behind_are_reported()
  with_pool(1, nil, function(pool)
    pool:offload(function()
      require 'asio'.spawn(function()
        require 'asio'.sleep(0.001)
        error('left behind', 0)
      end)
    end)
    local printed = ''
    t.wait_until(function()
      printed = printed .. t.stderr()
      return printed:find 'left behind'
    end, 'the report')
    lu.assertStrContains(printed, 'offload #1')
  end)
end

-- All at once ------------------------------------------------------------------------------------

-- A call gives what it was asked for, or says why not.
local function job(x, how)
  local asio = require 'asio'
  if how < 0.02 then asio.stop() asio.sleep(60) end
  if how < 0.2 then asio.sleep(0.0005) end
  if how < 0.25 then error('wanted ' .. x, 0) end
  if how < 0.3 then asio.spawn(function() asio.sleep(0.001) end) end
  return x
end

local given_up = t.codes('ETIMEDOUT', 'EBADF', 'ECANCELED')

local function call_somehow(pool)
  local x, how, seconds = math.random(1e9), math.random(), math.random() < 0.1 and math.random() * 0.002 or 60
  local thread = asio.spawn(pcall, asio.timeout, seconds, pool.offload, pool, job, x, how)
  if math.random() < 0.1 then
    for _ = 1, math.random(3) do asio.yield() end
    thread:cancel()
  end
  local joined, ok, value, _, code = thread:join()
  local text = tostring(value)
  assert(joined)
  assert(ok and (value == x or given_up[code]) or value == asio.cancelled
    or text:find('has ended', 1, true) or text:find('wanted ' .. x, 1, true), text)
  if math.random() < 0.002 then pool:close() end
end

T.test_calls_cancels_deaths_and_closes_in_any_order = t.slow(90, function()
  for _ = 1, t.count(400) do
    with_pool(math.random(1, 4), { queue = math.random(0, 5) }, function(pool)
      asio.group(function(g)
        for _ = 1, math.random(1, 20) do
          g:spawn(function()
            for _ = 1, math.random(1, 20) do call_somehow(pool) end
          end)
        end
      end)
    end)
  end
end)

return T
