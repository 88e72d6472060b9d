-- Pools of Lua states for asio.offload, for the tests of them.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local t = require 'support'

local M = {}

--- Runs body(pool); then the pool's states have to end.
function M.with_pool(size, options, body)
  local pool = asio.offload_pool(size, options)
  local function trace(err) return type(err) == 'string' and debug.traceback(err, 2) or err end
  local ok, err = xpcall(body, trace, pool)
  pool:close()
  t.wait_until(function() return pool:stats().states == 0 end, 'the end of the states', 10)
  if not ok then error(err, 0) end
end

--- A light thread that offloads.
function M.start(pool, fn, ...)
  return asio.spawn(pool.offload, pool, fn, ...)
end

--- Waits until so many calls run.
function M.running(pool, n)
  t.wait_until(function() return pool:stats().running == n end, n .. ' running', 10)
end

--- Waits until so many calls wait.
function M.waiting(pool, n)
  t.wait_until(function() return pool:stats().waiting == n end, n .. ' waiting', 10)
end

--- Runs until the channel is closed, or has a value for it.
function M.hold(gate) return (gate:recv()) end

return M
