-- asio.watchdog: who keeps the processor, while it lasts and where it was.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local function compute(seconds)
  local stop = asio.now() + seconds
  while asio.now() < stop do end
end

-- Keeps the processor until the helper has said these words; returns what it said.
local function hog(words)
  local text, stop = '', asio.now() + 5 * t.patience
  repeat
    compute(0.01)
    text = text .. t.stderr()
  until text:find(words, 1, true) or asio.now() > stop
  lu.assertStrContains(text, words)
  return text
end

function T.test_it_names_the_hog_while_a_compiled_loop_lasts_and_the_place_afterwards()
  -- A companion process kills the child in the middle of it: what is on stderr by then was said
  -- while the loop could not run, in code that knows no hooks.
  local result = t.child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.watchdog(0.05)
    os.execute(('(sleep 1; kill -KILL %d) &'):format(raw.pid()))
    asio.run(function()
      asio.current():name 'the hog'
      asio.yield()
      local x = 0
      while true do x = x + 1 end
    end)
  end, { code = false })
  lu.assertNotEquals(result.code, 0)
  lu.assertStrContains(result.err, 'the hog')
  lu.assertTrue(t.occurrences(result.err, 'the hog') <= 6, result.err) -- 0.05, 0.1, 0.2, ...
end

function T.test_afterwards_it_says_where_it_was()
  asio.watchdog(0.02)
  local function culprit()
    hog 'the hog'
    asio.yield()
    return 1
  end
  local thread = asio.spawn(function()
    asio.current():name 'the hog'
    asio.yield()
    culprit()
    return 1
  end)
  lu.assertTrue(thread:join())
  asio.watchdog(nil)
  local text = t.stderr()
  lu.assertStrContains(text, 'the hog')
  lu.assertStrContains(text, "in function 'culprit'")
end

function T.test_it_says_nothing_of_those_who_wait()
  asio.watchdog(0.1 * t.patience)
  local sleepers = {}
  for i = 1, 10 do sleepers[i] = asio.spawn(asio.sleep, 0.3 * t.patience) end
  for i = 1, 10 do sleepers[i]:join() end
  asio.watchdog(math.huge)
  lu.assertEquals(t.stderr(), '')
end

function T.test_it_is_told_of_a_thread_that_ends_without_waiting_again()
  asio.watchdog(0.02)
  asio.spawn(function()
    asio.current():name 'short of breath'
    hog 'has kept the processor'
  end)
  lu.assertStrContains(t.stderr(), 'short of breath kept')
  local failed = asio.spawn(function()
    asio.current():name 'short of luck'
    hog 'has kept the processor'
    error 'expected'
  end)
  failed:join()
  asio.watchdog()
  lu.assertStrContains(t.stderr(), 'short of luck kept')
end

function T.test_started_and_stopped_by_the_hog_itself()
  local thread = asio.spawn(function()
    asio.current():name 'the hog'
    lu.assertTrue(asio.watchdog(0.02))
    hog 'the hog'
    lu.assertTrue(asio.watchdog(0.02)) -- anew
    hog 'the hog'
    asio.watchdog(nil)
    t.stderr()
    compute(0.1)
    lu.assertEquals(t.stderr(), '')
    asio.spawn(function() asio.watchdog(0.02) end)
    asio.yield()
    asio.watchdog(nil)
  end)
  lu.assertTrue(thread:join())
  t.stderr()
end

function T.test_the_one_that_spawned_the_hog_is_no_hog_by_name()
  asio.watchdog(0.05)
  local outer = asio.spawn(function()
    asio.current():name 'the outer one'
    asio.spawn(function()
      asio.current():name 'the inner one'
      asio.yield()
      hog 'the inner one'
      asio.yield()
    end):join()
  end)
  lu.assertTrue(outer:join())
  asio.watchdog(nil)
  lu.assertStrContains(t.stderr(), 'the inner one')
end

function T.test_names_of_any_length_and_kind()
  asio.watchdog(0.01)
  for name, told in pairs { [('long '):rep(1000)] = 'long long', ['%s%n%d'] = '%s%n%d',
    ['with\0zero'] = 'with', [''] = 'has kept' } do
    local thread = asio.spawn(function()
      asio.current():name(name)
      asio.yield()
      hog(told)
      asio.yield()
    end)
    local ok, err = thread:join()
    lu.assertTrue(ok, err)
  end
  asio.watchdog(nil)
  t.stderr()
end

function T.test_bad_arguments()
  for _, wrong in ipairs { -1, 0, 0.0001, 0 / 0, 'soon', {} } do
    t.bad_argument(1, 'watchdog', function() asio.watchdog(wrong) end)
  end
  for _, right in ipairs { 0.001, 1e300, math.huge } do
    lu.assertTrue(asio.watchdog(right))
  end
  lu.assertTrue(asio.watchdog())
  t.stderr()
end

T.test_in_the_main_chunk = t.main(function()
  asio.watchdog(0.02)
  compute(0.05) -- nobody's business: no light thread runs
  lu.assertEquals(t.stderr(), '')
  asio.run(function()
    asio.current():name 'under run'
    asio.yield()
    hog 'under run'
  end)
  asio.watchdog(nil)
  lu.assertStrContains(t.stderr(), 'under run')
end)

function T.test_started_and_stopped_many_times()
  for i = 1, 200 do
    asio.watchdog(i % 3 == 0 and nil or 0.001 * i)
    asio.yield()
  end
  asio.watchdog(nil)
  t.stderr()
end

function T.test_the_state_closes_while_it_watches()
  t.quiet_child(function()
    local asio = require 'asio'
    asio.watchdog(10)
    asio.spawn(asio.sleep, 60)
  end)
  t.child(function()
    local asio = require 'asio'
    asio.watchdog(0.01)
    asio.run(function()
      local stop = asio.now() + 0.1
      while asio.now() < stop do end
      os.exit(9, true)
    end)
  end, { code = 9 })
end

return T
