-- sleep, now and every kind of time-out argument.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

function T.test_sleeps_at_least_as_long_as_asked()
  for _, seconds in ipairs { 0.001, 0.0105, 0.03 } do
    local started = asio.now()
    asio.sleep(seconds)
    local slept = asio.now() - started
    lu.assertTrue(slept >= seconds - 1e-6, ('%g of %g s'):format(slept, seconds))
    lu.assertTrue(slept < seconds + 0.1 * t.patience, ('%g of %g s'):format(slept, seconds))
  end
end

function T.test_wakes_in_the_order_of_the_deadlines()
  local order, threads = {}, {}
  math.randomseed(20)
  local started = asio.now()
  local first = 0.02 * t.patience -- none is due before all sleep
  for i = 1, 300 do
    local one = { at = first + math.random(1, 50) / 1000 }
    local asked
    threads[i] = asio.spawn(function()
      asked = asio.now()
      asio.sleep(math.max(0, started + one.at - asked))
      order[#order + 1] = one
    end)
    one.late = asio.now() - asked -- its deadline is so much later at most
  end
  for _, thread in ipairs(threads) do lu.assertTrue(thread:join()) end
  for i = 2, #order do
    local before, one = order[i - 1], order[i]
    lu.assertTrue(one.at + one.late >= before.at - 0.0009, before.at .. ' before ' .. one.at)
  end
end

function T.test_bad_arguments()
  t.bad_argument(1, 'sleep', function() asio.sleep(-1) end)
  t.bad_argument(1, 'sleep', function() asio.sleep(-1e-9) end)
  t.bad_argument(1, 'sleep', function() asio.sleep(-math.huge) end)
  t.bad_argument(1, 'sleep', function() asio.sleep(0 / 0) end)
  t.bad_argument(1, 'sleep', function() asio.sleep('a while') end)
  t.bad_argument(1, 'sleep', function() asio.sleep({}) end)
end

function T.test_bad_time_outs_everywhere()
  local a = t.pair()
  local thread = asio.spawn(function() end)
  for _, bad in ipairs { -1, 0 / 0, -math.huge, 'soon', true } do
    t.raises("bad argument #1 to 'set_timeout'", a.set_timeout, a, bad)
    t.raises("bad argument #2 to 'set_timeout'", a.set_timeout, a, 1, bad)
    t.raises("bad argument #1 to 'join'", thread.join, thread, bad)
    t.raises("'connect'", asio.connect, '127.0.0.1', 1, { timeout = bad })
    -- run_once turns the loop and may not be called here, but its arguments come first.
    t.raises("'run_once'", asio.run_once, bad)
  end
end

function T.test_for_ever()
  lu.assertEquals(t.quiet_child(function()
    local asio = require 'asio'
    local threads = {}
    for i, seconds in ipairs { math.huge, 1e300, 1e18, 2 ^ 63, 2 ^ 53 } do
      threads[i] = asio.spawn(asio.sleep, seconds)
    end
    local done = asio.spawn(function()
      asio.sleep(0.03)
      return 1
    end)
    assert(done:join(math.huge))
    assert(done:join(1e300))
    for i = 1, #threads do
      assert(threads[i]:status() == 'waiting')
      local ok, _, code = threads[i]:join(0.001)
      assert(ok == nil and code == 'ETIMEDOUT')
    end
    io.write 'fine'
    os.exit(0, true)
  end), 'fine')
end

function T.test_huge_time_outs_do_not_fire()
  local a, b = t.pair()
  for _, seconds in ipairs { math.huge, 1e300, 2 ^ 53 } do
    a:set_timeout(seconds, seconds)
    local reader = asio.spawn(function() return a:read(1) end)
    asio.sleep(0.005)
    lu.assertEquals(reader:status(), 'waiting')
    b:write 'x'
    lu.assertEquals({ reader:join() }, { true, 'x' })
  end
end

function T.test_tiny_ones_return_and_do_not_spin()
  for _, seconds in ipairs { 0, 1e-9, 1e-300, 5e-324, 1e-6 } do
    local started = asio.now()
    asio.sleep(seconds)
    lu.assertTrue(asio.now() - started < 0.05 * t.patience)
  end
  local a = t.pair()
  a:set_timeout(1e-9)
  t.failure('ETIMEDOUT', a:read(1))
  t.failure('ETIMEDOUT', asio.spawn(asio.sleep, 0.01):join(1e-9))
  asio.sleep(0.02)
end

function T.test_waiting_for_less_than_a_millisecond_takes_no_processor()
  lu.skipIf(t.sanitized or t.stress, 'measures processor time')
  local cpu, started = raw.cpu(), asio.now()
  for _ = 1, 300 do asio.sleep(0.0007) end
  local share = (raw.cpu() - cpu) / (asio.now() - started)
  lu.assertTrue(share < 0.6, ('%d%% of the time on the processor'):format(share * 100))
end

function T.test_sleep_zero_lets_the_others_run()
  local ran = false
  asio.spawn(function()
    asio.yield()
    ran = true
  end)
  asio.sleep(0)
  asio.yield()
  lu.assertTrue(ran)
end

function T.test_now_moves_forward()
  local last = asio.now()
  for _ = 1, 1000 do
    local now = asio.now()
    lu.assertTrue(now >= last)
    last = now
  end
  -- Also while the loop does not turn: a busy script still sees time pass.
  local cpu = raw.cpu()
  while raw.cpu() - cpu < (can.has 'cpu_clock' and 0.01 or 0.05) do last = last + 0 end
  lu.assertTrue(asio.now() - last > 0.005, 'the clock stood still')
end

function T.test_a_deadline_that_is_moved_again_and_again()
  local a, b = t.pair()
  local limit = 0.15 * t.patience
  a:set_timeout(limit)
  asio.spawn(function()
    for _ = 1, 15 do
      asio.sleep(limit / 5)
      b:write 'x'
    end
  end)
  local reads = 0
  while true do
    local last = asio.now()
    local data, _, code = a:read(1)
    if not data then
      lu.assertEquals(code, 'ETIMEDOUT')
      local waited = asio.now() - last
      lu.assertTrue(waited >= limit - 1e-3 and waited < limit * 3, waited)
      break
    end
    reads = reads + 1
  end
  lu.assertEquals(reads, 15)
end

function T.test_an_earlier_deadline_after_a_later_one()
  local late = asio.spawn(asio.sleep, 0.2 * t.patience)
  local started = asio.now()
  asio.spawn(asio.sleep, 0.005):join()
  lu.assertTrue(asio.now() - started < 0.15 * t.patience)
  lu.assertEquals(late:status(), 'waiting')
  late:join()
end

function T.test_a_great_many_at_once()
  local n, woken, last = t.count(2000000), 0, 0
  local started = asio.now()
  for i = 1, n do
    local at = (i * 7919 % n) / n * 0.2
    asio.spawn(function()
      asio.sleep(math.max(0, started + at - asio.now()))
      woken = woken + 1
      last = math.max(last, at)
    end)
  end
  t.wait_until(function() return woken == n end, 'all sleepers', 30)
end

T.test_in_the_main_chunk = t.main(function()
  local started = asio.now()
  local ticks = 0
  asio.spawn(function()
    for _ = 1, 3 do
      asio.sleep(0.002)
      ticks = ticks + 1
    end
  end)
  asio.sleep(0.03)
  lu.assertTrue(asio.now() - started >= 0.03 - 1e-6)
  lu.assertTrue(ticks >= 1) -- all, unless the process had to wait for a processor
  t.wait_until(function() return ticks == 3 end, 'the ticks')
end)

function T.test_idle_means_idle()
  can.need 'proc'
  lu.assertEquals(t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.run(function()
      local keep = {}
      local server = assert(asio.server('127.0.0.1', 0, function(conn)
        keep[#keep + 1] = conn
        conn:read(1)
      end))
      local _, port = server:address()
      for _ = 1, 50 do
        local conn = assert(asio.connect('127.0.0.1', port))
        conn:set_timeout(3600)
        keep[#keep + 1] = conn
      end
      while #keep < 100 do asio.sleep(0.001) end
      collectgarbage()
      local switches, cpu = raw.status 'voluntary_ctxt_switches', raw.cpu()
      asio.sleep(1)
      switches, cpu = raw.status 'voluntary_ctxt_switches' - switches, raw.cpu() - cpu
      assert(switches <= 3, switches .. ' wake-ups in a second')
      assert(cpu < 0.05, cpu .. ' s of processor time in a second')
      io.write 'fine'
      os.exit(0, true)
    end)
  end), 'fine')
end

return T
