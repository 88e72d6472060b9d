-- A relay whose source was reset dropped what it had passed on, if the other peer had ended its way before.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'

local T = {}

local N = 1000000

-- Two connected ends.
local function tcp()
  local server = assert(asio.server('127.0.0.1', 0, nil))
  local connecting = asio.spawn(asio.connect, server:address())
  local far = assert(server:accept())
  local _, near = assert(connecting:join())
  server:close()
  return near, far
end

-- How many bytes a client gets that reads slowly, and how they end.
local function passed_on(half_closed)
  local client, near = tcp()
  local source, far = tcp()
  local relay = asio.spawn(asio.relay, near, far)
  if half_closed then client:shutdown() end
  assert(source:write(('x'):rep(N)))
  t.wait_until(function() return (select(2, source:pending())) == 0 end)
  asio.sleep(0.1 * t.patience)
  source:abort()
  asio.sleep(0.1 * t.patience) -- looks whether the client has everything come every 20 ms
  local count = 0
  local data, _, code
  repeat
    data, _, code = client:read_some()
    count = count + #(data or '')
  until not data
  client:close()
  relay:join()
  return count, code
end

function T.test_the_client_has_ended_its_way()
  can.need 'unsent'
  local count, code = passed_on(true)
  lu.assertEquals(count, N)
  lu.assertEquals(code, 'ECONNRESET')
end

function T.test_the_client_goes_on()
  can.need 'unsent'
  local count, code = passed_on(false)
  lu.assertEquals(count, N)
  lu.assertEquals(code, 'ECONNRESET')
end

return T
