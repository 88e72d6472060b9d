-- Lua states that run short of memory, in a program of its own (test/oom): wherever the host of
-- host_alloc_test cannot be built, this is what shows that errors pass through the frames of the module.
--
-- test: 20 s
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

-- Its output and its exit code.
local function oom()
  local program, script = os.getenv 'ASIO_BUILD' .. '/test/oom', t.root .. 'test/oom/script.lua'
  if raw.windows then
    local start = require 'start_windows'
    local process = start.start({ program .. '.exe', script }, {})
    return process:all(), process:wait(5)
  end
  local pipe = io.popen(('%s %s 2>&1; echo "status $?"'):format(t.quote(program), t.quote(script)))
  local text = pipe:read '*a'
  pipe:close()
  return text, tonumber(text:match 'status (%d+)')
end

T.test_short_of_memory_at_every_point = t.slow(120, function()
  can.need 'oom'
  local text, code = oom()
  lu.assertEquals(code, 0, text)
  local failed = tonumber(text:match '(%d+) states ended with an error')
  lu.assertTrue((failed or 0) > 200, text)
end)

return T
