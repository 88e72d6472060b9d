-- A C program that embeds the core (test/host/): several Lua states in one process, signals whatever the
-- program has set. Memory that runs out is in host_alloc_test.lua.
--
-- test: 30 s
--
-- SPDX-License-Identifier: MIT

local can = require 'can'
local hosts = require 'hosts'
local t = require 'support'

local T = {}

T.test_states_closed_while_c_ares_waits = t.slow(60, t.main(function()
  hosts.run('states', 60, 'ares')
end))

T.test_two_states_on_two_threads_with_c_ares = t.slow(t.long and 300 or 60, t.main(function()
  hosts.run('threads', t.long and 300 or 60, 'ares')
end))

T.test_states_closed_while_everything_waits = t.slow(60, t.main(function()
  can.need 'real_kernel'
  hosts.run('states', 60)
end))

T.test_two_states_on_two_threads = t.slow(t.long and 300 or 60, t.main(function()
  hosts.run('threads', t.long and 300 or 60)
end))

T.test_signals_whatever_the_program_has_set = t.slow(60, t.main(function()
  can.need 'real_kernel'
  hosts.run('signals', 60)
end))

T.test_streams_over_streams = t.slow(120, t.main(function()
  hosts.run('layers', 120)
end))

T.test_looking_for_delimiters = t.slow(200, t.main(function()
  hosts.run('find', 200)
end))

return T
