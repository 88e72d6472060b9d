-- Every operation that waits, in every way in which a wait can end: done, end of the stream,
-- time-out of its own, deadline of a scope, closed or cancelled while it waits, Lua state closed
-- while it waits; each in all surroundings (a scope, a coroutine, both) at the same time.
--
-- test: 60 s
-- test: over TLS
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/waits (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local t = require 'support'
local waits = require 'waits'
local over_tls = require 'over_tls'

local T = {}

if over_tls.on and not can.has 'processor' then
  function T.test_over_tls() can.need 'processor' end
  return T
end

local SOON = 0.01 * t.patience -- after a wait has begun, and before a sleep of the matrix ends

-- Phases of a case: each is done for all surroundings before the next ---------------------------

-- Says in which surrounding something went wrong.
local function each(all, phase, ...)
  for _, one in ipairs(all) do
    local ok, err = pcall(phase, one, ...)
    if not ok then
      error(type(err) == 'string' and ('%s (%s)'):format(err, one.name) or err, 0)
    end
  end
end

-- The operation once for every surrounding; `wrap` says what else there is, around or inside of that.
local function prepare(operation, wrap)
  local all = {}
  for i, surrounding in ipairs(waits.surroundings) do
    local what, enter = waits.operations[operation].prepare(), surrounding.enter
    local wait = wrap and wrap(enter, what.wait) or enter(what.wait)
    all[i] = { name = surrounding.name, what = what, wait = wait }
  end
  return all
end

local function scope_around(seconds)
  return function(enter, wait) return waits.in_scope(seconds, enter(wait)) end
end

local function scope_inside(seconds)
  return function(enter, wait) return enter(waits.in_scope(seconds, wait)) end
end

local function limit(one, seconds)
  one.what.limit(seconds)
end

local function start(one)
  one.thread = asio.spawn(one.wait)
end

local function begin(one)
  start(one)
  lu.assertEquals(one.thread:status(), 'waiting')
end

-- One that goes on when its time is over, to wait for something else.
local function begin_and_go_on(one)
  one.told, one.gate = asio.event(), asio.event()
  one.first = asio.spawn(function()
    one.results = { one.wait() }
    one.told:set()
    return one.gate:wait()
  end)
  lu.assertEquals(one.first:status(), 'waiting')
end

local function make_end(one, way)
  one.what[way]()
end

local function cancel(one)
  lu.assertTrue(one.thread:cancel())
end

local function same(expected, ...)
  if type(expected) == 'string' then
    t.failure(expected, ...)
  elseif expected[1] == nil then -- a set of codes
    t.failure_among(expected, ...)
  else
    lu.assertEquals({ ... }, expected)
  end
end

local function joined(expected, ok, ...)
  lu.assertTrue(ok, (...))
  same(expected, ...)
end

local function has_ended(one, way)
  joined(one.what.expect[way], one.thread:join())
end

local function has_timed_out(one)
  lu.assertTrue(one.told:wait(10 * t.patience))
  same('ETIMEDOUT', unpack(one.results, 1, 3))
end

-- What would have ended its first wait has not ended the next.
local function was_left_alone(one)
  lu.assertEquals(one.first:status(), 'waiting')
  one.gate:set()
  lu.assertEquals({ one.first:join() }, { true, true })
end

local function was_cancelled(one)
  local ok, err = one.thread:join()
  lu.assertFalse(ok)
  lu.assertIs(err, asio.cancelled)
  lu.assertFalse(one.thread:cancel(), 'it has ended')
end

-- The place of one that is gone is free: the next is served as if nobody had been there.
local function wait_again(one)
  one.thread = asio.spawn(one.what.wait)
  lu.assertEquals(one.thread:status(), one.what.spent and 'done' or 'waiting')
end

local function finish(all, operation, way)
  each(all, function(one)
    if one.what.finish then one.what.finish() end
  end)
  local report = waits.operations[operation].reports
  if not report or not report[way] then return end
  asio.yield() -- reports come at the end of the turn
  lu.assertStrContains(t.stderr(), report[way])
end

local function next_is_served(all, operation)
  if waits.operations[operation].limited then each(all, limit, nil) end
  each(all, wait_again)
  each(all, make_end, 'done')
  each(all, has_ended, 'done')
  finish(all, operation, 'done')
end

-- The cases -------------------------------------------------------------------------------------

local function ends(operation, way)
  local all = prepare(operation)
  each(all, begin)
  each(all, make_end, way)
  each(all, has_ended, way)
  finish(all, operation, way)
end

-- A deadline beside another end: set, and not reached.
local function ends_before_its_limit(operation, way)
  local all = prepare(operation)
  each(all, limit, 60)
  each(all, begin)
  each(all, make_end, way)
  each(all, has_ended, way)
  finish(all, operation, way)
end

local function times_out(operation)
  local all = prepare(operation)
  each(all, limit, SOON)
  each(all, begin_and_go_on)
  each(all, has_timed_out)
  next_is_served(all, operation)
  each(all, was_left_alone)
end

local function scope_times_out(operation, where)
  local all = prepare(operation, where)
  each(all, begin_and_go_on)
  each(all, has_timed_out)
  next_is_served(all, operation)
  each(all, was_left_alone)
end

local function is_cancelled(operation)
  local all = prepare(operation)
  each(all, begin)
  each(all, cancel)
  each(all, was_cancelled)
  next_is_served(all, operation)
end

-- Swallowing it does not help: the next wait says it again.
local function is_cancelled_for_good(operation)
  local all = prepare(operation)
  local way = waits.operations[operation].ends.closed and 'closed' or 'done'
  each(all, function(one)
    local told = 0
    local thread = asio.spawn(function()
      for _ = 1, 3 do
        local ok, err = pcall(one.wait)
        if not ok and err == asio.cancelled then told = told + 1 end
      end
      return 'its own end'
    end)
    thread:cancel()
    lu.assertEquals({ thread:join() }, { true, 'its own end' })
    lu.assertEquals(told, 3)
  end)
  each(all, make_end, way)
  finish(all, operation, way)
end

-- An interrupt and an end at the same time: one of the two, both sides know which, and nothing is
-- left behind.
local races = {
  its_limit = {
    needs = 'limited',
    prepare = function(operation)
      local all = prepare(operation)
      each(all, limit, 0.002)
      return all
    end,
  },
  a_scope = {
    prepare = function(operation) return prepare(operation, scope_around(0.002)) end,
  },
  cancel = { prepare = prepare, strike = cancel },
}

local function came_first(one, way, ok, ...)
  if not ok then
    lu.assertIs((...), asio.cancelled)
  elseif select(3, ...) == 'ETIMEDOUT' then
    lu.assertNil((...))
  else
    same(one.what.expect[way], ...)
    return true
  end
  return false
end

local function races_with(kind, operation, way)
  for round = 1, 10 do
    local all = kind.prepare(operation)
    each(all, start) -- may be over already, on a busy machine
    if round > 1 then asio.sleep(0.0002 * round) end
    local first, second = make_end, kind.strike or make_end
    if round % 2 == 0 then first, second = second, first end
    each(all, function(one)
      first(one, way)
      if second ~= first then pcall(second, one, way) end -- cancelling one that has ended is false
    end)
    each(all, function(one)
      local ended = came_first(one, way, one.thread:join())
      if one.what.agree and way == 'done' then one.what.agree(ended) end
    end)
    finish(all, operation, way)
  end
end

-- The main chunk drives the loop itself while it waits. One surrounding after the other.
local function ends_in_the_main_chunk(operation, way)
  local surroundings = waits.surroundings
  for i = waits.operations[operation].slow and #surroundings or 1, #surroundings do
    local what
    local function here()
      what = waits.operations[operation].prepare()
    end
    lu.assertTrue(asio.spawn(here):join())
    local wait = surroundings[i].enter(what.wait)
    local served = way
    if way == 'scope' then
      same('ETIMEDOUT', asio.timeout(SOON, wait))
      served = 'done' -- as if nothing had been
    end
    local other = asio.spawn(function()
      asio.yield()
      what[served]()
    end)
    same(what.expect[served], wait())
    other:join()
    finish({ { name = surroundings[i].name, what = what } }, operation, served)
  end
end

-- In child processes ----------------------------------------------------------------------------

-- The network is the child's own, with nothing else in it.
local function child(fn, operation, options)
  if not waits.operations[operation].network then return t.child(fn, options) end
  local wrap, clean = t.slow_names(30)
  options.wrap, options.env = wrap, t.ignore_leaks .. ' ' .. (options.env or '')
  local ok, result = pcall(t.child, fn, options)
  clean()
  if not ok then error(result, 0) end
  return result
end

local function state_closes(operation)
  local result = child(function(name)
    local lib, waits = require 'asio', require 'waits'
    local held = {}
    for _, surrounding in ipairs(waits.surroundings) do
      for seconds = 0, waits.operations[name].limited and 100 or 0, 100 do
        local what = waits.operations[name].prepare()
        if seconds > 0 then what.limit(seconds) end
        local thread = lib.spawn(surrounding.enter(what.wait))
        assert(thread:status() == 'waiting')
        held[#held + 1] = { what, thread }
      end
    end
    lib.run_once(0)
    -- Everything is reachable to the end, then goes in whatever order.
    package.loaded.held = held
  end, operation, { args = { operation } })
  lu.assertEquals(result.err, '')
end

local function state_closes_from_inside(operation)
  child(function(name)
    local lib, waits = require 'asio', require 'waits'
    lib.run(function()
      for _, surrounding in ipairs(waits.surroundings) do
        local what = waits.operations[name].prepare()
        assert(lib.spawn(surrounding.enter(what.wait)):status() == 'waiting')
      end
      lib.sleep(0.005)
      os.exit(9, true)
    end)
  end, operation, { args = { operation }, code = 9 })
end

-- All of it ---------------------------------------------------------------------------------------

-- What needs a network of its own runs whole in a child, which finds the case by its name.
local in_its_network = os.getenv 'ASIO_TEST_NETWORK' == '1'

local function case(operation, title, fn, ...)
  local name, arguments, count = ('test_%s_%s'):format(operation, title), { ... }, select('#', ...)
  local function run() return fn(unpack(arguments, 1, count)) end
  if waits.operations[operation].network and not in_its_network then
    T[name] = function()
      local result = child(function(which, file)
        local asio = require 'asio'
        asio.run(dofile(file)[which])
      end, operation, { args = { name, debug.getinfo(1, 'S').source:sub(2) }, env = 'ASIO_TEST_NETWORK=1' })
      lu.assertEquals(result.err, '')
    end
  else
    T[name] = run
  end
  return name
end

local function cases(operation, about)
  for way in pairs(about.ends) do
    case(operation, way, ends, operation, way)
    if about.limited then
      case(operation, way .. '_before_its_limit', ends_before_its_limit, operation, way)
    end
    for kind, race in pairs(about.slow and {} or races) do
      if about[race.needs or 'ends'] then
        case(operation, ('%s_racing_%s'):format(way, kind), races_with, race, operation, way)
      end
    end
  end
  if about.limited then case(operation, 'time_out', times_out, operation) end
  case(operation, 'deadline_of_a_scope_around', scope_times_out, operation, scope_around(SOON))
  case(operation, 'deadline_of_a_scope_inside', scope_times_out, operation, scope_inside(SOON))
  case(operation, 'is_cancelled', is_cancelled, operation)
  case(operation, 'is_cancelled_for_good', is_cancelled_for_good, operation)
end

if over_tls.on or not waits.open_network() then
  waits.operations.udp_send, waits.operations.udp_flush = nil, nil
end

if over_tls.on then -- the others have no connections
  for operation, about in pairs(waits.operations) do
    if not about.stream then waits.operations[operation] = nil end
  end
end

for operation, about in pairs(waits.operations) do
  cases(operation, about)
  if not in_its_network and not about.lingers then
    T['test_' .. operation .. '_state_closes'] = function() state_closes(operation) end
    T['test_' .. operation .. '_state_closes_from_inside'] = function()
      state_closes_from_inside(operation)
    end
  end
  for _, way in ipairs(about.network and {} or { 'done', 'the_end', 'closed', 'scope' }) do
    if way == 'scope' or about.ends[way] then
      T[('test_%s_%s_in_the_main_chunk'):format(operation, way)] = t.main(function()
        ends_in_the_main_chunk(operation, way)
      end)
    end
  end
end

return T
