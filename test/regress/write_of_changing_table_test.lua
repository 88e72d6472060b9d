-- A finalizer that put a table into itself while `write` walked through it had `write` recurse without bound.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- Writes a table of numbers, each of which becomes a string: garbage enough for a finalizer to run meanwhile.
local function write_while(conn, change)
  local data, done = {}, false
  for i = 1, 200000 do data[i] = i + 0.5 end
  collectgarbage()
  collectgarbage 'stop' -- no finalizer before the call
  local garbage = newproxy(true)
  getmetatable(garbage).__gc = function()
    change(data)
    done = true
  end
  garbage = nil -- luacheck: ignore
  collectgarbage 'restart'
  local ok, message, code = conn:write(data)
  lu.assertTrue(done, 'no finalizer has run')
  return ok, message, code
end

local function case(change)
  local conn, peer = asio.socketpair()
  conn:set_timeout(nil, 0)
  t.failure('EINVAL', write_while(conn, change))
  t.failure('EINVAL', conn:write 'more')
  conn:close()
  peer:close()
end

function T.test_a_circle()
  case(function(data) for i = 1, #data do data[i] = data end end)
end

function T.test_a_value_that_cannot_be_written()
  case(function(data) for i = 1, #data do data[i] = newproxy() end end)
end

function T.test_a_hole()
  case(function(data) for i = #data, 1, -1 do data[i] = nil end end)
end

function T.test_closed_meanwhile()
  local conn, peer = asio.socketpair()
  conn:set_timeout(nil, 0)
  t.failure('ECANCELED', write_while(conn, function() conn:close() end))
  peer:close()
end

return T
