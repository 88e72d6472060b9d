-- C programs that embed the core (test/host/): every allocation fails in turn. ASIO_LONG=1 leaves none out.
--
-- test: 40 s
--
-- SPDX-License-Identifier: MIT

local hosts = require 'hosts'
local t = require 'support'

local T = {}

-- Half of its time it waits: for time-outs, and for servers without memory that pause.
T.test_every_allocation_failing_in_turn = t.slow(t.long and 1200 or 400, t.main(function()
  local shares, seconds = {}, t.long and 1200 or 400
  for i = 1, 4 do shares[i] = { mode = 'alloc', seconds = seconds, share = i .. '/4' } end
  hosts.run_together(unpack(shares))
end))

T.test_every_allocation_of_c_ares = t.slow(t.long and 600 or 150, t.main(function()
  hosts.skip_without_ares()
  local seconds = t.long and 600 or 150
  hosts.run_together({ mode = 'alloc look_ups', seconds = seconds, resolver = 'ares' },
    { mode = 'alloc by_name', seconds = seconds, resolver = 'ares' })
end))

return T
