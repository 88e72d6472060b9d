-- On Linux a TCP connection that its peer has reset goes on to count the bytes that were not acknowledged.
-- One that a relay had broken, and whose peer had ended its way before, waited for them for `linger` seconds.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'

local T = {}

-- A peer that has ended its way, and reads nothing; the system has more for it than it takes.
local function broken()
  local near, client = t.raw_peer(nil, { buffers = 4096 })
  local source, far = t.tcp()
  local relay = asio.spawn(asio.relay, near, far)
  client:shutdown()
  t.wait_until(function() return source:read_some(1) == nil end)
  assert(source:write(('x'):rep(300000)))
  t.wait_until(function() return (select(2, source:pending())) == 0 end)
  asio.sleep(0.1 * t.patience)
  source:abort()
  relay:join()
  return client
end

local function open()
  return asio.stats().connections
end

function T.test_a_reset_ends_it()
  can.need 'unsent'
  local before = open()
  local client = broken()
  asio.sleep(0.1)
  lu.assertEquals(open(), before + 1) -- waits for the client
  client:reset()
  t.wait_until(function() return open() == before end, 'the connection to be given up', 5 * t.patience)
end

function T.test_so_does_a_close_with_bytes_unread()
  local before = open()
  local client = broken()
  client:close()
  t.wait_until(function() return open() == before end, 'the connection to be given up', 5 * t.patience)
end

return T
