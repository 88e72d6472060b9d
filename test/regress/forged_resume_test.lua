-- A light thread that waits in select, or in relay, was resumed by hand: what the wait had on its stack was
-- collected while it was in use. One that waits in lines lost a line.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- The light thread that runs fn, and its coroutine.
local function start(fn)
  local co
  local thread = asio.spawn(function()
    co = coroutine.running()
    return fn()
  end)
  return thread, co
end

local function resume_by_hand(co)
  for _ = 1, 2 do coroutine.resume(co, 1, 'forged') end
  t.collect()
  for _ = 1, 200 do newproxy() end -- takes the place of what has gone
  t.collect()
end

function T.test_select_goes_on()
  local e, ch = asio.event(), asio.channel()
  local thread, co = start(function() return asio.select { e, ch } end)
  resume_by_hand(co)
  ch:send 'item'
  lu.assertEquals({ thread:join() }, { true, 2, 'item' })
  e:set()
end

function T.test_select_whose_objects_nothing_else_holds()
  local thread, co = start(function() return asio.select { asio.event(), asio.channel(), timeout = 0.02 } end)
  resume_by_hand(co)
  lu.assertEquals({ thread:join() }, { true, nil, 'operation timed out', 'ETIMEDOUT' })
end

function T.test_lines_go_on()
  local a, b = t.pair()
  local thread, co = start(function()
    local lines = {}
    for line in a:lines() do lines[#lines + 1] = line end
    return lines
  end)
  resume_by_hand(co)
  b:write 'one\ntwo\n'
  b:close()
  lu.assertEquals({ thread:join() }, { true, { 'one', 'two' } })
end

function T.test_relay_of_connections_that_nothing_else_holds()
  local near, far, thread, co
  do
    local a, b
    near, a = t.pair()
    b, far = t.pair()
    thread, co = start(function()
      local first, second = a, b
      a, b = nil, nil
      return asio.relay(first, second)
    end)
  end
  resume_by_hand(co)
  near:write 'through'
  lu.assertEquals(far:read(7), 'through')
  near:close()
  far:close()
  lu.assertEquals({ thread:join() }, { true, 7, 0 })
end

return T
