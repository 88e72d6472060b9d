-- A child of a group that failed within its start, and that something had begun to join by then, gave its
-- place among the living light threads back twice: two later ones shared it, and the coroutine of the first
-- was collected while it waited.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local M = {}

-- A child that another light thread joins before it ends within its start.
local function joined_child(g, ending)
  local outcome
  local child = g:spawn(function()
    local self = asio.current()
    asio.spawn(function() outcome = { self:join() } end)
    return ending(self)
  end)
  return child, function() return outcome end
end

local function all_stay_alive()
  local event, ended = asio.event(), 0
  for _ = 1, 5 do
    asio.spawn(function()
      event:wait()
      ended = ended + 1
    end)
  end
  t.collect()
  t.collect()
  lu.assertEquals(#asio.threads(), 6) -- with this one
  event:set()
  t.wait_until(function() return ended == 5 end)
end

local function failing() error('failed', 0) end

function M.test_the_first_failure()
  local g = asio.group()
  local child, outcome = joined_child(g, failing)
  lu.assertEquals({ pcall(g.wait, g) }, { false, 'failed' })
  lu.assertEquals({ child:join() }, { false, 'failed' })
  t.wait_until(outcome)
  lu.assertEquals(outcome(), { false, 'failed' })
  all_stay_alive()
end

function M.test_a_second_failure()
  local g = asio.group()
  g:spawn(failing)
  local _, outcome = joined_child(g, failing)
  lu.assertEquals({ pcall(g.wait, g) }, { false, 'failed' })
  t.wait_until(outcome)
  all_stay_alive()
end

function M.test_a_cancelled_one()
  local g = asio.group()
  local _, outcome = joined_child(g, function(self)
    self:cancel()
    asio.yield()
  end)
  lu.assertTrue(g:wait())
  t.wait_until(outcome)
  lu.assertEquals(outcome(), { false, asio.cancelled })
  all_stay_alive()
end

function M.test_a_group_that_is_dropped()
  local g = asio.group()
  local _, outcome = joined_child(g, failing)
  t.wait_until(outcome)
  g = nil -- luacheck: ignore 311
  t.collect()
  t.next_turn()
  all_stay_alive()
end

return M
