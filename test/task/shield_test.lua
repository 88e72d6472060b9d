-- asio.shield: cleaning up while interrupts have to wait.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local function never() asio.event():wait() end

-- Against deadlines -----------------------------------------------------------------------------

function T.test_a_shield_keeps_an_outer_deadline_out()
  local cleaned
  t.failure('ETIMEDOUT', asio.timeout(0.003, function()
    asio.shield(nil, function()
      asio.sleep(0.02)
      cleaned = true
    end)
    asio.yield()
    cleaned = 'went on'
  end))
  lu.assertTrue(cleaned == true)
end

function T.test_cleaning_up_after_the_deadline()
  local cleaned
  local _, _, code = asio.timeout(0.002, function()
    local ok, err = pcall(asio.sleep, 60)
    asio.shield(5, function()
      asio.sleep(0.002)
      cleaned = true
    end)
    if not ok then error(err, 0) end
  end)
  lu.assertEquals(code, 'ETIMEDOUT')
  lu.assertTrue(cleaned)
end

function T.test_a_shield_with_a_limit()
  local began, told = asio.now(), nil
  t.failure('ETIMEDOUT', asio.timeout(0.002, function()
    asio.shield(0.02, function()
      local ok, err = pcall(asio.sleep, 60)
      told = not ok and asio.now() - began
      error(err, 0)
    end)
  end))
  lu.assertTrue(told and told >= 0.02 and told < 10, told)
end

function T.test_a_shield_without_an_outer_deadline_limits_nothing()
  lu.assertTrue(asio.shield(0.002, asio.sleep, 0.02))
  lu.assertTrue(asio.shield(0, asio.sleep, 0.005))
end

function T.test_a_shield_of_no_time_lets_it_in_at_once()
  t.failure('ETIMEDOUT', asio.timeout(0.002, function()
    pcall(asio.sleep, 60)
    asio.shield(0, asio.sleep, 60)
  end))
end

function T.test_deadlines_inside_a_shield_are_heard()
  t.failure('ETIMEDOUT', asio.shield(nil, asio.timeout, 0.002, asio.sleep, 60))
  t.failure('ETIMEDOUT', asio.timeout(60, asio.shield, nil, asio.timeout, 0.002, never))
end

function T.test_shields_nested_with_the_shorter_inside_and_outside()
  for _, pair in ipairs { { nil, 0.002 }, { 0.002, nil }, { 0.02, 0.002 }, { 0.002, 0.02 } } do
    local outer, inner = pair[1], pair[2]
    local began, told = asio.now(), nil
    local longest = math.max(outer or 0.04, inner or 0.04)
    t.failure('ETIMEDOUT', asio.timeout(0.001, function()
      asio.shield(outer, asio.shield, inner, function()
        local ok = pcall(asio.sleep, 0.04)
        told = ok and 'slept' or asio.now() - began
      end)
      asio.yield()
    end))
    if longest >= 0.04 then
      lu.assertEquals(told, 'slept')
    else
      lu.assertTrue(told >= longest, told)
    end
  end
end

-- Against cancelling ----------------------------------------------------------------------------

function T.test_a_shield_keeps_a_cancel_out()
  local slept, after
  local thread = asio.spawn(function()
    asio.shield(nil, function() slept = asio.sleep(0.01) end)
    after = { pcall(asio.yield) }
  end)
  lu.assertTrue(thread:cancel())
  lu.assertEquals(thread:status(), 'waiting')
  thread:join()
  lu.assertTrue(slept)
  lu.assertEquals(after, { false, asio.cancelled })
end

function T.test_a_cancel_comes_in_when_the_shields_time_is_up()
  local began, told = asio.now(), nil
  local thread = asio.spawn(asio.shield, 0.02, function()
    local ok, err = pcall(asio.sleep, 60)
    told = { ok, err, asio.now() - began }
    asio.yield()
  end)
  thread:cancel()
  lu.assertEquals({ thread:join() }, { false, asio.cancelled })
  lu.assertEquals({ told[1], told[2] }, { false, asio.cancelled })
  lu.assertTrue(told[3] >= 0.02, told[3])
end

function T.test_a_shield_that_is_over_when_the_cancel_comes_is_none()
  local thread = asio.spawn(asio.shield, 0.002, asio.sleep, 60)
  asio.sleep(0.01)
  lu.assertEquals(thread:status(), 'waiting')
  thread:cancel()
  lu.assertEquals({ thread:join(5) }, { false, asio.cancelled })
end

function T.test_a_cancelled_thread_cleans_up()
  local steps = {}
  local thread = asio.spawn(function()
    local ok, err = pcall(asio.sleep, 60)
    for i = 1, 3 do
      steps[#steps + 1] = pcall(asio.sleep, 0) and 'slept' or 'told'
      asio.shield(5, function()
        asio.sleep(0.001)
        steps[#steps + 1] = i
      end)
    end
    if not ok then error(err, 0) end
  end)
  thread:cancel()
  lu.assertEquals({ thread:join() }, { false, asio.cancelled })
  lu.assertEquals(steps, { 'told', 1, 'told', 2, 'told', 3 })
end

function T.test_a_deadline_inside_a_shield_in_a_cancelled_thread()
  local inside
  local thread = asio.spawn(function()
    pcall(asio.sleep, 60)
    asio.shield(nil, function() inside = { asio.timeout(0.002, asio.sleep, 60) } end)
  end)
  thread:cancel()
  thread:join()
  lu.assertEquals(inside[3], 'ETIMEDOUT')
end

function T.test_two_deadlines_and_a_cancel_around_a_shield()
  -- The outermost of what comes in is told.
  local seen = {}
  local thread = asio.spawn(function()
    local _, _, code = asio.timeout(0.001, function()
      asio.timeout(0.002, asio.shield, 0.01, asio.sleep, 60)
      seen[#seen + 1] = 'inner went on'
    end)
    seen[#seen + 1] = code
  end)
  thread:cancel()
  lu.assertEquals({ thread:join(5) }, { false, asio.cancelled })
  lu.assertEquals(seen, {})
end

-- Leaving it ------------------------------------------------------------------------------------

function T.test_an_error_ends_the_shield_too()
  local thread = asio.spawn(function()
    pcall(asio.shield, nil, function()
      asio.yield()
      error 'inside'
    end)
    asio.sleep(60)
  end)
  asio.yield()
  asio.yield()
  thread:cancel()
  lu.assertEquals({ thread:join(5) }, { false, asio.cancelled })
end

function T.test_a_thread_spawned_in_a_shield_is_not_shielded()
  local child
  local thread = asio.spawn(asio.shield, nil, function()
    child = asio.spawn(asio.sleep, 60)
    return child:join()
  end)
  child:cancel()
  lu.assertEquals({ thread:join(5) }, { true, false, asio.cancelled })
end

T.test_in_the_main_chunk = t.main(function()
  lu.assertTrue(asio.timeout(0.002, asio.shield, nil, asio.sleep, 0.01))
  t.failure('ETIMEDOUT', asio.timeout(0.002, asio.shield, 0.005, asio.sleep, 60))
  t.failure('ETIMEDOUT', asio.timeout(0.002, asio.shield, 0.005, asio.run, asio.sleep, 0.05))
end)

function T.test_what_a_shield_keeps_waiting_for_ever_is_a_deadlock()
  -- The outer deadline keeps run going until it has passed; then nothing can wake the wait.
  t.quiet_child(function()
    local asio = require 'asio'
    local began = asio.now()
    local ok, err = pcall(asio.run, asio.timeout, 0.05, asio.shield, nil, function()
      asio.event():wait()
    end)
    assert(not ok and tostring(err):find('deadlock', 1, true), tostring(err))
    assert(asio.now() - began >= 0.05)
  end)
end

function T.test_a_limited_shield_around_what_lasts_for_ever_is_none()
  t.quiet_child(function()
    local asio = require 'asio'
    local _, _, code = asio.run(asio.timeout, 0.01, asio.shield, 0.05, function()
      asio.event():wait()
    end)
    assert(code == 'ETIMEDOUT', code)
  end)
end

return T
