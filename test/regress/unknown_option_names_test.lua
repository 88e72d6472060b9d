-- A misspelt option of udp or resolve raises: `{ recv_quue = 1 }` was ignored.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

function T.test_udp()
  local message = "bad argument #3 to 'udp' (unknown option 'recv_quue'"
  t.raises(message, asio.udp, '127.0.0.1', 0, { recv_quue = 1 })
  t.raises("did you mean 'recv_queue'", asio.udp, { recv_quue = 1 })
  t.raises("unknown option 'timeout'", asio.udp, '127.0.0.1', 0, { timeout = 1 })
  t.raises("bad argument #3 to 'udp' (names of options", asio.udp, '127.0.0.1', 0, { 'broadcast' })
  t.raises("option 'broadcast'", asio.udp, '127.0.0.1', 0, { broadcast = 1 })
  local all = { reuseaddr = true, reuseport = false, ipv6only = true, broadcast = true, recv_buffer = 65536,
    send_buffer = 65536, recv_queue = 1, send_queue = 1 }
  lu.assertNotNil(asio.udp('127.0.0.1', 0, all))
end

-- They stand at the third place, or alone: where they are not looked for they are a mistake.
function T.test_udp_options_in_another_place()
  t.raises("bad argument #1 to 'udp'", asio.udp, nil, { broadcast = true })
  t.raises("bad argument #1 to 'udp'", asio.udp, nil, 5353)
  lu.assertNotNil(asio.udp(nil, nil, { broadcast = true }))
end

function T.test_resolve()
  t.raises("bad argument #2 to 'resolve' (unknown option 'tpye'", asio.resolve, 'localhost', { tpye = 'A' })
  t.raises("unknown option 'server'", asio.resolve, '127.0.0.1', { server = { '127.0.0.1' } })
  local all = { type = 'A', timeout = 1, cache = false, servers = { '127.0.0.1' } }
  lu.assertNotNil(asio.resolve('127.0.0.1', all))
end

return T
