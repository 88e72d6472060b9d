-- Lua states that run short of memory, in a program of its own (test/oom): wherever the host of
-- host_alloc_test cannot be built, this is what shows that errors pass through the frames of the module.
--
-- test: 20 s
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'
local oom = require 'oom'

local T = {}

T.test_short_of_memory_at_every_point = t.slow(120, function()
  local text, code = oom 'script'
  lu.assertEquals(code, 0, text)
  local failed = tonumber(text:match '(%d+) states ended with an error')
  lu.assertTrue((failed or 0) > 200, text)
end)

return T
