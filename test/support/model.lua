-- The model of model_test (test/task/): who does what at random, and whether that may end as it did.
--
-- A step is one operation of a light thread on something shared. What can be shared has files of its
-- own, which add their steps: model_channels, model_sync, model_links.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'

local M = {}

-- Of the case that runs, see new_world in model_test.
M.world = nil

M.CROWD = 120 -- light threads, then no new ones are spawned by steps

local random = math.random

function M.check(condition, message, ...)
  if condition then return condition end
  error(debug.traceback((message or 'wrong'):format(...), 2), 0)
end
local check = M.check

function M.pick(list)
  return list[#list > 0 and random(#list) or 1]
end
local pick = M.pick

function M.chance(n)
  return random(n) == 1
end
local chance = M.chance

--- Seconds, most often few enough to come in the middle of something.
function M.moment()
  local choice = random(5)
  if choice <= 2 then return 0 end
  if choice == 3 then return 1e-5 end
  return random() * (choice == 4 and 3e-4 or 1e-3)
end
local moment = M.moment

function M.moment_or_never()
  if chance(2) then return moment() end
  return nil
end

--- Counts the failures by code, so that a case can see whether every kind came up.
function M.failed_with(code)
  local codes = M.world.codes
  codes[code] = (codes[code] or 0) + 1
end
local failed_with = M.failed_with

-- Light threads: who they are, and what may interrupt them -------------------------------------

-- `me` stands for a light thread in all that follows:
--   cancelled   somebody has cancelled it, or may at any time
--   deadlines   scopes with a deadline around what it does now
--   depth       of operations inside operations
--   locks       the mutexes that it holds or waits for, which it must not lock again
--   last        the ticket of the last item it received, by channel
--   kept        nobody cancels it
function M.new_me()
  return { deadlines = 0, depth = 0, locks = {}, last = {} }
end
local new_me = M.new_me

-- Whatever is caught is an interrupt that had a reason, or else goes on as the failure of the case.
function M.check_interrupt(me, err)
  if err == asio.cancelled then
    check(me.cancelled, 'cancelled by nobody')
  elseif type(err) == 'userdata' then
    check(me.deadlines > 0, 'interrupted by no scope')
  else
    error(err, 0)
  end
  failed_with(err == asio.cancelled and 'cancelled' or 'interrupted')
end
local check_interrupt = M.check_interrupt

local function traced(err)
  if type(err) ~= 'string' or err:find('stack traceback', 1, true) then return err end
  return debug.traceback(err, 2)
end

-- The one who is interrupted ends of it. Anything else is the end of the case.
function M.guard(me, fn)
  return function()
    local ok, err = xpcall(fn, traced, me)
    if ok then return 'its own end' end
    if type(err) == 'string' and not M.world.failure then M.world.failure = err end
    error(err, 0)
  end
end
local guard = M.guard

function M.register(thread, me)
  local entry = { thread = thread, me = me }
  table.insert(M.world.threads, entry)
  return entry
end
local register = M.register

function M.launch(fn)
  local me = new_me()
  return register(asio.spawn(guard(me, fn)), me)
end
local launch = M.launch

function M.cancel(entry)
  if entry.me.kept then return end
  entry.me.cancelled = true
  entry.thread:cancel()
end
local cancel = M.cancel

function M.check_outcome(entry, ok, err)
  if ok then return check(err == 'its own end', 'its results are not its own') end
  check(ok == false and err == asio.cancelled and entry.me.cancelled, 'a failure: %s', tostring(err))
end
local check_outcome = M.check_outcome

-- Calls what may wait, and counts those who may wait at the object in one of its fields meanwhile.
local function settle(me, object, field, ok, ...)
  object[field] = object[field] - 1
  if not ok then check_interrupt(me, (...)) end
  return ok, ...
end

function M.attempt(me, object, field, fn, ...)
  object[field] = object[field] + 1
  return settle(me, object, field, pcall(fn, ...))
end
local attempt = M.attempt

function M.check_timed_out(timeout, code)
  check(code == 'ETIMEDOUT' and timeout, 'no reason to fail with %s', tostring(code))
  failed_with(code)
end
local check_timed_out = M.check_timed_out

-- The operations by name; each is one step of a light thread. Which of them come up, and how
-- often, is for the cases to say.
M.steps = {}
local steps = M.steps

-- While the books are looked at nobody begins anything.
local function rest(me, lull)
  local ok, err = attempt(me, M.world, 'resting', lull.wait, lull)
  if not ok then error(err, 0) end
end

function M.step(me)
  if M.world.lull then rest(me, M.world.lull) end
  M.world.count = M.world.count + 1
  me.depth = me.depth + 1
  local name = pick(me.depth < 4 and M.world.choices or M.world.leaves)
  steps[name](me)
  me.depth = me.depth - 1
end

local step = M.step

-- Light threads, scopes, coroutines around all that ---------------------------------------------

function steps.sleep()
  asio.sleep(moment())
end

function steps.yield()
  asio.yield()
end

-- Ends by itself or by the deadline of this scope; what is thrown through it belongs to another.
function steps.scope(me)
  local deadlines = me.deadlines
  me.deadlines = deadlines + 1
  local depth = me.depth
  local result, _, code = asio.timeout(moment(), function()
    for _ = 1, random(3) do step(me) end
    return 'done'
  end)
  me.deadlines, me.depth = deadlines, depth
  if result ~= 'done' then check_timed_out(true, code) end
end

-- What one does while holding something: never for long.
function M.pause(me)
  local choice = random(4)
  if choice == 1 then
    asio.yield()
  elseif choice == 2 then
    asio.sleep(moment())
  elseif choice == 3 then
    steps.scope(me)
  end
end
local pause = M.pause

function steps.shield(me)
  check(asio.shield(moment(), function()
    step(me)
    return 'done'
  end) == 'done')
end

-- Who keeps an interrupt to himself is told again.
function steps.swallow(me)
  local deadlines, depth = me.deadlines, me.depth
  local ok, err = pcall(step, me)
  me.deadlines, me.depth = deadlines, depth
  if ok then return end
  check_interrupt(me, err)
  ok, err = pcall(asio.yield)
  check(not ok, 'an interrupt was forgotten')
  check_interrupt(me, err)
  error(err, 0)
end

local function resume(me, co)
  local ok, err = asio.coroutine.resume(co)
  if ok then return end
  check_interrupt(me, err)
  error(err, 0)
end

-- Suspended between operations, now and then inside a scope.
function steps.coroutine(me)
  local function two_steps()
    step(me)
    asio.coroutine.yield()
    step(me)
  end
  local deadlines, depth = me.deadlines, me.depth
  local co = asio.coroutine.create(function()
    if chance(2) then return two_steps() end
    me.deadlines = deadlines + 1
    asio.timeout(moment(), two_steps)
  end)
  resume(me, co)
  me.depth = depth
  step(me)
  if asio.coroutine.status(co) == 'suspended' then resume(me, co) end
  check(asio.coroutine.status(co) == 'dead')
  me.deadlines, me.depth = deadlines, depth
end

local function some_steps(me)
  for _ = 1, random(3) do step(me) end
end

function steps.spawn(me)
  if #M.world.threads > M.CROWD then return end
  local entry = launch(some_steps)
  local choice = random(4)
  if choice == 1 then return end -- left to itself
  if choice == 2 then cancel(entry) end
  local timeout = choice == 3 and moment() or nil
  local join, target = entry.thread.join, { joiners = 0 }
  local ok, joined, err, code = attempt(me, target, 'joiners', join, entry.thread, timeout)
  if not ok then error(joined, 0) end
  if joined == nil then return check_timed_out(timeout, code) end
  check_outcome(entry, joined, err)
end

function steps.group(me)
  if #M.world.threads > M.CROWD then return end
  local children = {}
  local ok, err = pcall(asio.group, function(g)
    for i = 1, random(3) do
      local child = new_me()
      child.cancelled = true -- whenever this one is interrupted
      children[i] = register(g:spawn(guard(child, some_steps)), child)
    end
    if chance(3) then g:cancel() end
    if chance(3) then pause(me) end
  end)
  for _, child in ipairs(children) do
    local status = child.thread:status()
    check(status == 'done' or status == 'failed', 'a child outlives its group')
  end
  if ok then return end
  check_interrupt(me, err)
  error(err, 0)
end

return M
