-- A light thread that waits for a group around its own, or two groups whose light threads wait for
-- each other, could not be ended: the wait after a cancel is shielded, and each waited for the other.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'

local M = {}

local circle = 'cannot wait for its own group, or for one that waits for it'

local function around(sleep_inside)
  asio.group(function(outer)
    outer:spawn(function()
      asio.group(function(inner)
        inner:spawn(function()
          asio.sleep(0.005)
          outer:wait()
        end)
        asio.sleep(sleep_inside)
      end)
    end)
  end)
end

function M.test_the_inner_wait_comes_last()
  local ok, err = pcall(around, 0)
  lu.assertFalse(ok)
  lu.assertStrContains(err, circle)
end

function M.test_the_outer_wait_comes_last()
  local ok, err = pcall(around, 0.02)
  lu.assertFalse(ok)
  lu.assertStrContains(err, circle)
end

function M.test_the_line_of_the_script_is_blamed()
  local _, err = pcall(around, 0)
  lu.assertStrContains(err, 'group_circle_test.lua:18:')
end

function M.test_cancelled_before_it_closes()
  local t = asio.spawn(around, 30)
  asio.sleep(0.02)
  lu.assertEquals(t:status(), 'waiting')
  t:cancel()
  lu.assertEquals((t:join(5)), false)
end

function M.test_two_groups()
  local one, two = asio.group(), asio.group()
  one:spawn(function() asio.sleep(0.005) two:wait() end)
  two:spawn(function() asio.sleep(0.01) one:wait() end)
  local ok, err = pcall(two.wait, two)
  lu.assertFalse(ok)
  lu.assertStrContains(err, circle)
  pcall(one.wait, one)
end

function M.test_three_groups_cancelled()
  local groups = { asio.group(), asio.group(), asio.group() }
  for i, group in ipairs(groups) do
    group:spawn(function()
      asio.sleep(0.01)
      groups[i % 3 + 1]:wait()
    end)
  end
  groups[1]:cancel()
  for _, group in ipairs(groups) do
    group:cancel()
    lu.assertNotNil(select('#', asio.timeout(5, pcall, group.wait, group)))
  end
  for _, group in ipairs(groups) do lu.assertStrContains(tostring(group), '(0 light') end
end

-- The wait comes in the start of the light thread, which the group knew only when that was over.
function M.test_a_wait_at_the_start_in_a_cancelled_group()
  local group = asio.group()
  group:cancel()
  local t = group:spawn(function() group:wait() end)
  lu.assertEquals((t:join(5)), false)
  pcall(group.wait, group)
end

function M.test_a_wait_at_the_start()
  local one, two = asio.group(), asio.group()
  local ok, err
  one:spawn(function()
    two:spawn(function() one:wait() end)
    ok, err = pcall(two.wait, two)
  end)
  lu.assertEquals(ok, false)
  lu.assertStrContains(err, circle)
  two:cancel()
  pcall(one.wait, one)
  pcall(two.wait, two)
end

-- The light thread of a function has to wait for its group: the waits that it closes a circle with give way,
-- even after a cancel, when nothing else ends them.
function M.test_closed_by_the_end_of_a_function()
  local open = asio.group()
  local inner, ok, err
  local outer = open:spawn(function()
    asio.group(function(g)
      inner = g:spawn(function()
        ok, err = pcall(function() open:wait() end)
        error(err, 0)
      end)
      inner:cancel()
      asio.sleep(10)
    end)
  end)
  lu.assertEquals((outer:join(5)), false)
  lu.assertEquals(inner:status(), 'failed')
  lu.assertEquals(ok, false)
  lu.assertStrContains(err, circle)
  lu.assertStrContains(err, 'group_circle_test.lua:')
  pcall(open.wait, open)
end

function M.test_closed_by_the_end_of_a_function_far_away()
  local one, two = asio.group(), asio.group()
  local go = asio.event()
  local inner
  local far = two:spawn(function()
    go:wait()
    one:wait()
  end)
  local outer = one:spawn(function()
    asio.group(function(g)
      inner = g:spawn(function() two:wait() end)
      asio.sleep(10)
    end)
  end)
  go:set()
  asio.yield()
  inner:cancel()
  for _, thread in ipairs { inner, outer, far } do lu.assertEquals((thread:join(5)), false) end
  pcall(one.wait, one)
  pcall(two.wait, two)
end

-- The last child has ended, and another begins before the light thread that waited is resumed.
function M.test_a_child_that_begins_as_the_wait_ends()
  local event, late = asio.event(), nil
  asio.group(function(g)
    g:spawn(event.wait, event)
    asio.spawn(function()
      event:wait()
      late = g:spawn(asio.sleep, 0.005)
    end)
    asio.after(0.001, function() event:set() end)
  end)
  lu.assertEquals(late:status(), 'done')
end

function M.test_waits_that_are_no_circle()
  local first, second = asio.group(), asio.group()
  first:spawn(asio.sleep, 0.01)
  for _ = 1, 3 do second:spawn(function() first:wait() end) end
  lu.assertTrue(second:wait())
  lu.assertTrue(first:wait())
end

return M
