-- A short run of the fuzzer of the public API (test/fuzz/api.lua): a few seconds, a minute under the
-- sanitizers. With ASIO_LONG=1 twenty minutes, with seeds that no run before had.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

local root = debug.getinfo(1, 'S').source:match '^@(.*)module/api_fuzz_test%.lua$'

T.test_random_operations = t.main(t.slow(t.long and 2000 or 300, function()
  local seconds = t.long and 1200 or t.sanitized and 60 or 8
  local first = t.long and os.time() % 1000000 or 1
  local command = '%s %s --seconds %d --first %d --ops %d --stop 3 --limit 30 --confirm 4 %s 2>&1; echo $?'
  local pipe = io.popen(command:format(
    t.quote(root .. 'luajit'), t.quote(root .. 'fuzz/api.lua'), seconds, first, t.long and 20000 or 4000,
    t.long and '' or 'jit=off')) -- LuaJIT's compiler of 2022 has crashes of its own
  local text = pipe:read '*a'
  pipe:close()
  lu.assertEquals(text:match '(%d+)%s*$', '0', text:sub(-8000))
end))

return T
