-- Every operation that waits, in every way in which a wait can end: done, end of the stream,
-- time-out, closed or cancelled while it waits, Lua state closed while it waits.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local waits = require 'waits'

local T = {}

local function check(expected, thread)
  local results = { thread:join() }
  lu.assertTrue(results[1], results[2])
  if type(expected) == 'string' then
    t.failure(expected, unpack(results, 2, 4))
  elseif expected[1] == nil then -- a set of codes
    t.failure_among(expected, unpack(results, 2, 4))
  else
    lu.assertEquals({ unpack(results, 2) }, expected)
  end
end

local function ends(operation, way)
  local what = waits[operation]()
  if way == 'time_out' then what.limit(0.02) end
  local thread = asio.spawn(what.wait)
  lu.assertEquals(thread:status(), 'waiting')
  what[way]()
  check(what.expect[way], thread)
  if what.finish then what.finish() end
  if what.quiet then what.quiet() end
end

-- A deadline beside another end: set, and not reached.
local function ends_before_its_limit(operation, way)
  local what = waits[operation]()
  what.limit(60)
  local thread = asio.spawn(what.wait)
  what[way]()
  check(what.expect[way], thread)
  if what.finish then what.finish() end
end

-- The deadline and the end come together: one of the two, and nothing is left behind.
local function races_its_limit(operation, way)
  for round = 1, 10 do
    local what = waits[operation]()
    what.limit(0.002)
    local thread = asio.spawn(what.wait)
    asio.sleep(0.0002 * round)
    what[way]()
    local joined, _, _, code = thread:join()
    lu.assertTrue(joined)
    lu.assertTrue(code == nil or type(code) == 'string')
    if what.finish then what.finish() end
    if what.quiet then what.quiet() end
  end
end

local function is_cancelled(operation)
  local what = waits[operation]()
  local thread = asio.spawn(what.wait)
  lu.assertEquals(thread:status(), 'waiting')
  lu.assertTrue(thread:cancel())
  local ok, err = thread:join()
  lu.assertFalse(ok)
  lu.assertIs(err, asio.cancelled)
  lu.assertFalse(thread:cancel(), 'it has ended')
  -- The place of the one that is gone is free: the next is not woken by its end.
  local again = asio.spawn(what.wait)
  lu.assertEquals(again:status(), 'waiting')
  what.done()
  check(what.expect.done, again)
  if what.finish then what.finish() end
end

-- Swallowing it does not help: the next wait says it again.
local function is_cancelled_for_good(operation)
  local what = waits[operation]()
  local told = 0
  local thread = asio.spawn(function()
    for _ = 1, 3 do
      local ok, err = pcall(what.wait)
      if not ok and err == asio.cancelled then told = told + 1 end
    end
    return 'its own end'
  end)
  thread:cancel()
  lu.assertEquals({ thread:join() }, { true, 'its own end' })
  lu.assertEquals(told, 3)
  what[what.closed and 'closed' or 'done']()
  if what.finish then what.finish() end
  if what.quiet then what.quiet() end
end

local function state_closes(operation)
  t.quiet_child(function(name)
    local lib = require 'asio'
    local held = {}
    for i = 1, 3 do
      local what = require 'waits'[name]()
      if i > 1 and what.limit then what.limit(100) end
      local thread = lib.spawn(what.wait)
      assert(thread:status() == 'waiting')
      held[i] = { what, thread }
    end
    lib.run_once(0)
    -- Everything is reachable to the end, then goes in whatever order.
    package.loaded.held = held
  end, { args = { operation } })
end

local function state_closes_from_inside(operation)
  t.child(function(name)
    local lib = require 'asio'
    local what = require 'waits'[name]()
    lib.spawn(what.wait)
    lib.run(function()
      lib.sleep(0.005)
      os.exit(9, true)
    end)
  end, { args = { operation }, code = 9 })
end

for operation in pairs(waits) do
  T['test_' .. operation .. '_state_closes'] = function() state_closes(operation) end
  T['test_' .. operation .. '_state_closes_from_inside'] = function()
    state_closes_from_inside(operation)
  end
  T['test_' .. operation .. '_is_cancelled'] = function() is_cancelled(operation) end
  T['test_' .. operation .. '_is_cancelled_for_good'] = function()
    is_cancelled_for_good(operation)
  end
  local ways = {
    sleep = { 'done' },
    connect = { 'done', 'the_end', 'time_out' },
  }
  for _, way in ipairs(ways[operation] or { 'done', 'the_end', 'time_out', 'closed' }) do
    local name = 'test_' .. operation .. '_' .. way
    T[name] = function() ends(operation, way) end
    if way ~= 'time_out' and operation ~= 'sleep' then
      T[name .. '_before_its_limit'] = function() ends_before_its_limit(operation, way) end
      if operation ~= 'connect' then
        T[name .. '_racing_its_limit'] = function() races_its_limit(operation, way) end
      end
    end
  end
end

return T
