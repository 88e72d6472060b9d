-- Runs a script of test/oom in Lua states that run short of memory: a program of its own (test/oom/oom.c).
-- There is memory for loading the module, if one is named. Returns its output and its exit code.
--
-- SPDX-License-Identifier: MIT

local can = require 'can'
local raw = require 'raw'
local t = require 'support'

return function(name, module)
  can.need 'oom'
  local program, script = os.getenv 'ASIO_BUILD' .. '/test/oom', t.root .. 'test/oom/' .. name .. '.lua'
  if raw.windows then
    local process = require('start_windows').start({ program .. '.exe', script, module }, {})
    return process:all(), process:wait(5)
  end
  local line = ('%s %s %s 2>&1; echo "status $?"'):format(t.quote(program), t.quote(script), module or '')
  local pipe = io.popen(line)
  local text = pipe:read '*a'
  pipe:close()
  return text, tonumber(text:match 'status (%d+)')
end
