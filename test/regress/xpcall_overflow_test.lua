-- An error handler that fails again and again overflows the stack. What had entered a scope, or taken
-- a lock, at that moment never left it: every later wait of the light thread timed out, the lock stayed
-- held.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'

local M = {}

-- `enter` runs again in each error handler, until the stack is full.
local function overflow(enter)
  xpcall(error, enter)
end

function M.test_timeout()
  overflow(function() asio.timeout(0.01, error, 'x') end)
  lu.assertTrue((pcall(asio.sleep, 0.03)))
end

function M.test_shield()
  overflow(function() asio.shield(30, error, 'x') end)
  local me = asio.current()
  asio.spawn(me.cancel, me)
  local ok, err = pcall(asio.sleep, 0.01)
  lu.assertFalse(ok)
  lu.assertEquals(err, asio.cancelled)
end

function M.test_group()
  overflow(function() asio.group(function() error 'x' end) end)
  lu.assertTrue((pcall(asio.sleep, 0.01)))
end

function M.test_semaphore()
  local s = asio.semaphore(1)
  overflow(function() s:with(error, 'x') end)
  lu.assertEquals(s:count(), 1)
end

function M.test_mutex()
  local m = asio.mutex()
  overflow(function() m:with(error, 'x') end)
  lu.assertTrue(m:lock(0))
  m:unlock()
end

-- Many arguments take stack too.
function M.test_arguments()
  local s = asio.semaphore(1)
  overflow(function() s:with(error, unpack({}, 1, 2000)) end)
  lu.assertEquals(s:count(), 1)
end

return M
