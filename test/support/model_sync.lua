-- Semaphores, mutexes, events of the model, and select, which waits for everything.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local m = require 'model'
local channels = require 'model_channels'

local M = {}

local check, check_interrupt, check_timed_out = m.check, m.check_interrupt, m.check_timed_out
local pick, chance, pause, moment_or_never = m.pick, m.chance, m.pause, m.moment_or_never
local check_outcome, attempt, steps, random = m.check_outcome, m.attempt, m.steps, math.random

-- Semaphores and mutexes ------------------------------------------------------------------------

function M.new_semaphore()
  local total = random(3)
  return {
    it = asio.semaphore(total), total = total, held = 0, hoard = 0, waiters = 0,
    take = 'acquire', give = 'release',
    enter = function(self)
      self.held = self.held + 1
      check(self.held + self.hoard <= self.total, 'more permits than there are')
    end,
    leave = function(self) self.held = self.held - 1 end,
  }
end

-- First come, first served: tickets are given out when somebody comes.
function M.new_mutex()
  return {
    it = asio.mutex(), ticket = 0, last = 0, waiters = 0, owner = nil,
    take = 'lock', give = 'unlock',
    enter = function(self, me, ticket)
      check(not self.owner, 'two at once hold a mutex')
      check(ticket > self.last, 'overtaken at a mutex')
      self.owner, self.last = me, ticket
    end,
    leave = function(self, me)
      check(self.owner == me, 'the mutex has another owner')
      self.owner = nil
    end,
  }
end

-- Takes it, by hand or with `with`, for as long as `inside` runs.
local function taking(lock, timeout, inside)
  local it = lock.it
  if not timeout and chance(2) then return it:with(inside) end
  local taken, message, code = it[lock.take](it, timeout)
  if not taken then return nil, message, code end
  local ok, err = pcall(inside)
  it[lock.give](it)
  if not ok then error(err, 0) end
  return true
end

-- From the ticket on there is no wait but that for the lock itself.
local function hold(me, lock)
  local timeout, entered = moment_or_never(), false
  local ticket = (lock.ticket or 0) + 1
  lock.ticket = ticket
  lock.waiters = lock.waiters + 1
  local ok, result, _, code = pcall(taking, lock, timeout, function()
    entered = true
    lock.waiters = lock.waiters - 1
    lock:enter(me, ticket)
    local fine, err = pcall(pause, me)
    lock:leave(me)
    if not fine then error(err, 0) end
  end)
  if not entered then lock.waiters = lock.waiters - 1 end
  if not ok then
    check_interrupt(me, result)
    error(result, 0)
  end
  if not entered then check_timed_out(timeout, code) end
end

function steps.acquire(me)
  hold(me, pick(m.world.semaphores))
end

function steps.lock(me)
  local mutex = pick(m.world.mutexes)
  if me.locks[mutex] then return end
  me.locks[mutex] = true
  local ok, err = pcall(hold, me, mutex)
  me.locks[mutex] = nil
  if not ok then error(err, 0) end
end

function M.check_semaphore(s)
  local count = s.it:count()
  local text = ('%d free, %d held, %d of %d waited for'):format(count, s.held + s.hoard, s.waiters, s.total)
  check(count + s.held + s.hoard == s.total, text)
  check(s.waiters == 0 or count == 0, text)
end

function M.check_mutex(mutex)
  local locked = mutex.owner ~= nil
  check(tostring(mutex.it) == (locked and 'mutex (locked)' or 'mutex (free)'), 'locked, or free')
  check(locked or mutex.waiters == 0, 'waits for a mutex that is free')
end

-- Events ----------------------------------------------------------------------------------------

function M.new_event()
  return { it = asio.event(), sets = 0, waiters = 0 }
end

local function check_was_set(event, sets_before, was_set)
  check(was_set or event.sets > sets_before, 'woken by an event that was not set')
end

function steps.wait(me)
  local event, timeout = pick(m.world.events), moment_or_never()
  local sets, was_set = event.sets, event.it:is_set()
  local ok, set, _, code = attempt(me, event, 'waiters', event.it.wait, event.it, timeout)
  if not ok then error(set, 0) end
  if set then return check_was_set(event, sets, was_set) end
  check(not was_set, 'waited for an event that was set')
  check_timed_out(timeout, code)
end

function M.check_event(event)
  check(not event.it:is_set() or event.waiters == 0, 'waits for an event that is set')
end

-- Select ----------------------------------------------------------------------------------------

-- What to wait for: the object, where to count those who wait, and what to do with what comes.
local branches = {
  function(me)
    local channel = pick(m.world.channels)
    if not channels.may_receive(channel) then return nil end
    return channel, 'receivers', function(item, _, code)
      if item then return channels.receive(me, channel, item) end
      channels.check_no_item(channel, nil, code)
    end
  end,
  function()
    local event = pick(m.world.events)
    local sets, was_set = event.sets, event.it:is_set()
    return event, 'waiters', function(set)
      check(set == true)
      check_was_set(event, sets, was_set)
    end
  end,
  function(me)
    local semaphore = pick(m.world.semaphores)
    return semaphore, 'waiters', function(taken)
      check(taken == true)
      semaphore:enter()
      local ok, err = pcall(pause, me)
      semaphore:leave()
      semaphore.it:release()
      if not ok then error(err, 0) end
    end
  end,
  function(me)
    local entry = pick(m.world.threads)
    if not entry or entry.me == me then return nil end
    local target = { it = entry.thread, joiners = 0 }
    return target, 'joiners', function(ok, err) check_outcome(entry, ok, err) end
  end,
}

local function count_all(list, n)
  for _, branch in ipairs(list) do
    branch.object[branch.field] = branch.object[branch.field] + n
  end
end

function steps.select(me)
  local list, chosen, timeout = {}, {}, moment_or_never()
  for _ = 1, random(4) do
    local object, field, take = pick(branches)(me)
    if object then
      table.insert(chosen, { object = object, field = field, take = take })
      table.insert(list, object.it)
      object[field] = object[field] + 1
    end
  end
  if #list == 0 then return end
  list.timeout = timeout
  local results = { pcall(asio.select, list) }
  count_all(chosen, -1)
  if not results[1] then
    check_interrupt(me, results[2])
    error(results[2], 0)
  end
  if not results[2] then return check_timed_out(timeout, results[4]) end
  chosen[results[2]].take(unpack(results, 3, 5))
end

return M
