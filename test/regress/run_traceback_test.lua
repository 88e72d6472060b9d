-- asio.run(fn) raised the error of fn without the traceback of its light thread, and join had none to give.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local support = require 'support'

local M = {}

local function fails_here() error 'broken' end

M.test_run = support.main(function()
  local ok, err = pcall(asio.run, function()
    asio.sleep(0.001)
    fails_here()
  end)
  lu.assertFalse(ok)
  lu.assertStrMatches(err, '.*run_traceback_test.lua:%d+: broken\nstack traceback:\n.*')
  lu.assertStrContains(err, "in function 'fails_here'")
end)

M.test_run_with_an_object = support.main(function()
  local object = {}
  local ok, err = pcall(asio.run, function() error(object) end)
  lu.assertFalse(ok)
  lu.assertIs(err, object)
end)

function M.test_join()
  local t = asio.spawn(function() asio.sleep(0.001) fails_here() end)
  lu.assertStrContains(t:traceback(), 'run_traceback_test.lua')
  lu.assertFalse((t:join()))
  lu.assertStrContains(t:traceback(), "in function 'fails_here'")
end

-- Functions of asio raise an error once more: the first place is the one that tells.
function M.test_through_a_timeout()
  local t = asio.spawn(asio.timeout, 5, function() fails_here() end)
  lu.assertFalse((t:join()))
  lu.assertStrContains(t:traceback(), "in function 'fails_here'")
end

function M.test_no_traceback()
  local done = asio.spawn(function() end)
  lu.assertNil(done:traceback())
  local cancelled = asio.spawn(asio.sleep, 30)
  cancelled:cancel()
  cancelled:join()
  lu.assertNil(cancelled:traceback())
  lu.assertErrorMsgContains("calling 'traceback' on something", done.traceback, {})
end

return M
