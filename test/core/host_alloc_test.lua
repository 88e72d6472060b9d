-- C programs that embed the core (test/host/): every allocation fails in turn. ASIO_LONG=1 leaves none out.
--
-- test: 40 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
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

-- Of the handshake as well, and of what it needs: options, contexts, certificates.
T.test_every_allocation_of_tls = t.slow(t.long and 600 or 150, t.main(function()
  can.need('tls', 'openssl', 'processor')
  local env, seconds = 'HOST_CERTS=' .. t.quote(require('certs').dir()), t.long and 600 or 150
  hosts.run_together({ mode = 'alloc tls_plain', seconds = seconds, env = env },
    { mode = 'alloc tls_names', seconds = seconds, env = env },
    { mode = 'alloc tls_server', seconds = seconds, env = env })
end))

-- Of a server's request and a client's, and of loading the plugin.
T.test_every_allocation_of_http = t.slow(t.long and 900 or 150, t.main(function()
  can.need 'http'
  lu.skipIf(not require 'ffi'.abi '64bit', "LuaJIT's own fault, see docs/decisions.md: Known limits")
  hosts.run_together { mode = 'alloc http', seconds = t.long and 900 or 150, env = 'HOST_HTTP=1' }
end))

T.test_allocations_of_openssl = t.slow(t.long and 900 or 150, t.main(function()
  can.need('tls', 'openssl', 'processor')
  local env = 'HOST_OPENSSL=1 HOST_CERTS=' .. t.quote(require('certs').dir())
  hosts.run_together({ mode = 'alloc tls_names', seconds = t.long and 900 or 150, env = env },
    t.long and { mode = 'alloc tls_server', seconds = 900, env = env } or nil)
end))

return T
