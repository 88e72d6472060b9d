-- A finalizer that stopped the watchdog while the watchdog copied a light thread's name freed the
-- structure that was being filled in.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'

local M = {}

local function with_finalizer(fn)
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = fn
end

-- Each resume copies a name, and makes the string of one that has no name of its own: an allocation.
-- The collector runs through at each, and finds the proxy that was dropped just before.
local function churn(in_finalizer)
  local pause, stepmul = collectgarbage('setpause', 0), collectgarbage('setstepmul', 1000000)
  collectgarbage() -- from here on the new pace holds
  local stopped = 0
  local function finalizer()
    stopped = stopped + 1
    in_finalizer()
  end
  for _ = 1, 300 do
    asio.spawn(function()
      for _ = 1, 3 do
        with_finalizer(finalizer)
        asio.watchdog(10)
        asio.yield()
      end
    end):join()
  end
  asio.watchdog(nil)
  collectgarbage('setpause', pause)
  collectgarbage('setstepmul', stepmul)
  collectgarbage()
  lu.assertTrue(stopped > 0)
end

function M.test_stopped()
  churn(function() asio.watchdog(nil) end)
end

function M.test_started_again()
  churn(function() asio.watchdog(20) end)
end

return M
