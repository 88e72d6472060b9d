-- Deadlocks among Lua states, and how a process ends that has workers.
--
-- test: 60 s
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431 (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

local function worker(fn, ...)
  return assert(asio.worker(fn, ...))
end

-- Deadlocks -------------------------------------------------------------------------------------

function T.test_all_states_wait_for_each_other()
  local result = t.child(function()
    local asio = require 'asio'
    local ok, err = pcall(asio.run, function()
      local ch = asio.shared.channel()
      for _ = 1, 2 do asio.worker(function(ch) ch:recv() end, ch) end
      ch:recv()
    end)
    assert(not ok and err:find('deadlock', 1, true), err)
    print 'seen'
  end)
  lu.assertStrContains(result.out, 'seen')
end

-- Its starter joins it, and could send only afterwards.
function T.test_a_worker_that_waits_for_the_state_that_joins_it()
  t.quiet_child(function()
    local asio = require 'asio'
    asio.run(function()
      local ch = asio.shared.channel()
      local ok, err = asio.worker(function(ch) ch:recv() end, ch):join()
      assert(not ok and err:find('deadlock', 1, true), err)
      local w = asio.worker(function(ch)
        local ok, err = asio.worker(function(from) from:recv() end, ch):join()
        error(tostring(ok) .. tostring(err), 0)
      end, ch)
      ok, err = w:join()
      assert(not ok and err:find('deadlock', 1, true), err)
    end)
  end)
end

-- States that hand a message round are never all blocked, however often they wait.
T.test_a_ring_is_no_deadlock = t.slow(60, function()
  local channels, workers, n = {}, {}, 5
  for i = 1, n do channels[i] = asio.shared.channel() end
  for i = 1, n - 1 do
    workers[i] = worker(function(from, to)
      for value in from:iter() do to:send(value + 1) end
    end, channels[i], channels[i + 1])
  end
  for _ = 1, t.count(40000) do
    channels[1]:send(0)
    lu.assertEquals(channels[n]:recv(), n - 1)
  end
  for i = 1, n do channels[i]:close() end
  for i = 1, n - 1 do lu.assertTrue((workers[i]:join())) end
end)

-- One of them has a timer, or a server: it may send yet.
function T.test_a_state_that_may_still_send_prevents_a_deadlock()
  t.quiet_child(function()
    local asio = require 'asio'
    asio.run(function()
      local ch = asio.shared.channel()
      local w = asio.worker(function(ch)
        asio.sleep(0.1)
        ch:send 'after a while'
      end, ch)
      assert(ch:recv() == 'after a while')
      assert(w:join())
      w = asio.worker(function(ch)
        local server
        server = asio.server('127.0.0.1', 0, function(conn)
          ch:send(conn:read_all())
          server:close()
        end)
        ch:send((select(2, server:address())))
      end, ch)
      local conn = asio.connect('127.0.0.1', ch:recv())
      local receiver = asio.spawn(ch.recv, ch)
      asio.sleep(0.1) -- all that waits now waits for the server
      conn:write 'of a client'
      conn:close()
      assert(select(2, receiver:join()) == 'of a client')
      assert(w:join())
    end)
  end)
end

-- The end of the worker and its leaving the states that may wake others were two moments: in between, the
-- main chunk could begin a wait that was no deadlock yet, and was never looked at again.
T.test_a_deadlock_after_the_end_of_a_worker = t.slow(60, function()
  t.quiet_child(function()
    local asio = require 'asio'
    local ch = asio.shared.channel()
    for _ = 1, 50 do
      assert(asio.worker(function() end):join())
      local ok, err = pcall(ch.recv, ch)
      assert(not ok and err:find('deadlock', 1, true), tostring(err))
    end
  end, { seconds = 30 })
end)

-- The end of a process --------------------------------------------------------------------------

-- A worker that waits for long.
local function ends(code, words, fn, options)
  options = options or {}
  options.code = code
  local started = asio.now()
  local result = t.child(fn, options)
  if words then lu.assertStrContains(result.err, words) else lu.assertEquals(result.err, '') end
  return result, asio.now() - started
end

function T.test_the_end_of_the_main_chunk_ends_workers()
  local result = ends(0, nil, function()
    local asio = require 'asio'
    local ready = asio.shared.channel()
    for _ = 1, 5 do
      asio.worker(function()
        ready:send(true)
        local ok = pcall(asio.sleep, 1000)
        assert(not ok)
        io.stdout:write 'ended.'
        io.stdout:flush()
      end)
    end
    for _ = 1, 5 do ready:recv() end
  end)
  lu.assertEquals(result.out, ('ended.'):rep(5))
end

function T.test_run_goes_on_until_workers_have_ended()
  local result = ends(0, nil, function()
    local asio = require 'asio'
    asio.run(function()
      asio.worker(function()
        asio.sleep(0.1)
        io.stdout:write 'worker,'
        io.stdout:flush()
      end)
    end)
    print 'main'
  end)
  lu.assertStrContains(result.out, 'worker,main')
end

function T.test_exit()
  for code, close in pairs { [3] = true, [4] = false } do
    ends(code, nil, function(status, closes)
      local asio = require 'asio'
      asio.run(function()
        local ready = asio.shared.channel()
        for _ = 1, 2 do
          asio.worker(function()
            ready:send(true)
            asio.sleep(1000)
          end)
        end
        for _ = 1, 2 do ready:recv() end
        os.exit(tonumber(status), closes == 'true')
      end)
    end, { args = { tostring(code), tostring(close) }, env = t.ignore_leaks })
  end
end

T.test_a_worker_that_cannot_be_ended = t.slow(60, function()
  can.need 'processor'
  local result, took = ends(0, 'worker #1 does not end: it is left running', function()
    local asio = require 'asio'
    asio.watchdog(0.2)
    asio.run(function()
      local w = asio.worker(function() while true do end end)
      asio.sleep(0.5)
      w:cancel()
      asio.stop()
    end)
  end, { seconds = 30, env = t.ignore_leaks })
  lu.assertStrContains(result.err, 'light thread worker #1 has kept the processor')
  lu.assertTrue(took >= 5 and took < 15 * t.patience, tostring(took))
end)

-- Ends although the function swallows the cancel: all is stopped then.
T.test_a_worker_that_swallows_the_cancel_at_the_end = t.slow(60, function()
  ends(0, nil, function()
    local asio = require 'asio'
    local ready = asio.shared.channel()
    asio.worker(function()
      ready:send(true)
      pcall(asio.sleep, 1000)
      pcall(asio.sleep, 1000)
    end)
    ready:recv()
  end, { seconds = 30 })
end)

T.test_interrupts = t.slow(60, function()
  can.need 'shell'
  local function main(how)
    local asio, ffi = require 'asio', require 'ffi'
    ffi.cdef [[ int kill(int, int); int getpid(void); ]]
    local loops = how == 'loops'
    asio.worker(function(loops)
      local ffi = require 'ffi'
      ffi.cdef [[ int kill(int, int); int getpid(void); ]]
      ffi.C.kill(ffi.C.getpid(), 2)
      if not loops then
        local ok = pcall(asio.sleep, 1000)
        io.stdout:write(ok and 'slept' or 'cancelled')
        io.stdout:flush()
        return
      end
      local until_then = os.time() + 2
      while os.time() < until_then do end
      ffi.C.kill(ffi.C.getpid(), 2)
      while true do end
    end, loops)
    asio.run(function() asio.sleep(1000) end)
  end
  local result = ends(1, 'interrupted!', main)
  lu.assertEquals(result.out, 'cancelled')
  local _, took = ends(130, 'interrupted!', main, { args = { 'loops' }, env = t.ignore_leaks })
  lu.assertTrue(took < 4.5 * t.patience, 'the second one ends at once: ' .. took)
end)

-- Finalizers run in any order when a state closes: a worker's handle may have been collected before an object
-- that calls its methods.
function T.test_finalizers_of_a_state_that_closes()
  local calls = t.quiet_child(function()
    local asio = require 'asio'
    local called = 0
    local w, server
    local last = newproxy(true) -- older than the worker: finalized later
    getmetatable(last).__gc = function()
      for _, f in ipairs {
        function() assert(w:cancel() == false and w:status() == 'running') end,
        function() server:close() end,
        function() assert(not pcall(server.stats, server)) end,
        function() server:shutdown() end,
      } do
        pcall(f)
        called = called + 1
      end
      print(called)
    end
    asio.run(function()
      w = assert(asio.worker(function() require 'asio'.sleep(100) end))
      server = asio.server('127.0.0.1', 0, function() end, { threads = 1 })
      asio.stop()
    end)
  end)
  lu.assertEquals(calls, '4\n')
end

return T
