-- A C program that embeds the core (test/host/): every allocation failing in turn, several Lua
-- states in one process, signals whatever the program has set. Each mode prints what failed.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local ns = require 'ns'
local t = require 'support'

local T = {}

-- Blocks the loop meanwhile: nothing else is under way.
local function run(mode, seconds, resolver)
  lu.skipIf(resolver and not ns.has_ares(), 'asio/ares.so was not built')
  local host = os.getenv 'ASIO_BUILD' .. '/test/host'
  local file = io.open(host)
  lu.skipIf(not file, 'the host was not built: it needs a linker with --wrap')
  file:close()
  lu.skipIf(t.stress, 'its states do not collect at every opportunity')
  -- c-ares takes an answer for which it has no memory for a lost one, and asks again after its time.
  local env = ('ASIO_RESOLVER=%s RES_OPTIONS="timeout:1 attempts:1"'):format(resolver or 'getaddrinfo')
  local command = ('%s timeout -k 5 %d %s %s 2>&1; echo "status $?"'):format(
    env, seconds * t.patience, t.quote(host), mode)
  local child = io.popen(command)
  local output = child:read '*a'
  child:close()
  -- What it counted is the last thing it says, unless it died.
  local failed, status = output:match '%d+ passed, (%d+) failed\nstatus (%d+)\n$'
  lu.assertEquals({ failed, status }, { '0', '0' }, output:sub(-8000))
end

-- ASIO_LONG=1 leaves no allocation out.
T.test_every_allocation_failing_in_turn = t.slow(t.long and 1200 or 400, t.main(function()
  run('alloc', t.long and 1200 or 400)
end))

-- Names by the two who can look them up.
T.test_every_allocation_of_c_ares = t.slow(t.long and 600 or 100, t.main(function()
  run('alloc look_ups', t.long and 600 or 100, 'ares')
end))

T.test_every_allocation_of_c_ares_when_connecting = t.slow(60, t.main(function()
  run('alloc by_name', 60, 'ares')
end))

T.test_states_closed_while_c_ares_waits = t.slow(60, t.main(function()
  run('states', 60, 'ares')
end))

T.test_two_states_on_two_threads_with_c_ares = t.slow(t.long and 300 or 60, t.main(function()
  run('threads', t.long and 300 or 60, 'ares')
end))

T.test_states_closed_while_everything_waits = t.slow(60, t.main(function()
  run('states', 60)
end))

T.test_two_states_on_two_threads = t.slow(t.long and 300 or 60, t.main(function()
  run('threads', t.long and 300 or 60)
end))

T.test_signals_whatever_the_program_has_set = t.slow(60, t.main(function()
  run('signals', 60)
end))

T.test_looking_for_delimiters = t.slow(200, t.main(function()
  run('find', 200)
end))

return T
