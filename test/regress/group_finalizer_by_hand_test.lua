-- A script can get at the finalizer of a group. Called while a child was being started, or by the function of
-- the group that a failing child had interrupted, it freed records that were still in use.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'

local M = {}

local function drop(g) getmetatable(g).__gc(g) end

function M.test_while_a_child_starts()
  local told
  local before = asio.on_error(function(message) told = message end)
  local g = asio.group()
  local first = g:spawn(asio.sleep, 10)
  local child = g:spawn(function()
    drop(g)
    asio.sleep(10)
  end)
  lu.assertEquals({ first:join() }, { false, asio.cancelled })
  lu.assertEquals({ child:join() }, { false, asio.cancelled })
  asio.sleep(0.001) -- it is told at the end of a turn
  asio.on_error(before)
  lu.assertStrContains(told, 'collected before a wait')
end

function M.test_while_a_child_fails()
  asio.spawn(function()
    asio.group(function(g)
      local child = g:spawn(function()
        asio.sleep(0.005)
        error('failed', 0)
      end)
      lu.assertFalse(pcall(asio.sleep, 10)) -- interrupted
      lu.assertEquals(child:status(), 'failed')
      lu.assertEquals({ child:join() }, { false, 'failed' })
      drop(g)
    end)
  end):join()
end

return M
