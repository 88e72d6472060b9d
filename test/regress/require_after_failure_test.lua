-- `require` may be repeated after it has failed, any number of times: the table of functions to call when the
-- state closes overflowed, and the process crashed.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local t = require 'support'

local T = {}

function T.test_a_failed_require_may_be_repeated()
  t.child(function()
    local saved = ipairs
    for _ = 1, 30 do
      rawset(_G, 'ipairs', nil)
      assert(not pcall(require, 'asio'))
      package.loaded.asio = nil -- Lua's own mark of a failure
      rawset(_G, 'ipairs', saved)
    end
    local asio = require 'asio'
    assert(asio.run(function()
      asio.sleep(0.001)
      return asio.spawn(function() asio.yield() return true end):join()
    end))
  end)
end

return T
