-- Operations on light threads, scopes, groups, coroutines, channels, locks, timers.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local w = require 'fuzz.world'
local values = require 'fuzz.values'

local M = {}

local random, pick, chance, call, check = w.random, w.pick, w.chance, w.call, w.check
local moment, moment_or_never = w.moment, w.moment_or_never
local TIMED = w.codes 'ETIMEDOUT'
local STOPPED = w.codes('ETIMEDOUT', 'ECANCELED') -- asio.stop ends a wait of the main chunk

-- Light threads -------------------------------------------------------------------------------------

function M.spawn()
  local spawn = chance(2) and asio.spawn or asio.spawn_light_thread
  local seen
  local thread = call('asio.spawn', spawn, function(a, b, ...)
    seen = a == 1 and b == nil and select('#', ...) == 1
    for _ = 1, random(3) do w.act() end
    return 'results'
  end, 1, nil, 'x')
  check(seen ~= false, 'spawn: other arguments')
  w.keep(thread)
  if chance(4) then call('thread.cancel', thread.cancel, thread) end
end

-- asio.stop ends a wait of the main chunk.
local function waited(name, ok, message, code)
  if ok ~= true then w.check_failure(name, asio.current() and {} or w.codes 'ECANCELED', message, code) end
end

function M.sleep() waited('asio.sleep', call('asio.sleep', asio.sleep, moment())) end
function M.yield() waited('asio.yield', call('asio.yield', asio.yield)) end

function M.current()
  local thread = call('asio.current', asio.current)
  check(thread == nil or w.class(thread) == 'thread', 'current: %s', tostring(thread))
  check(type(call('asio.now', asio.now)) == 'number', 'now')
end

function M.join()
  local thread = w.any 'thread'
  if not thread or thread == asio.current() then return end
  local ok, _, code = call('thread.join', thread.join, thread, moment_or_never())
  if ok == nil then
    w.check_failure('thread.join', STOPPED, _, code)
  else
    local status = thread:status()
    check(status == (ok and 'done' or 'failed'), 'join says %s, status %s', tostring(ok), status)
  end
end

local STATUS = w.codes('running', 'ready', 'waiting', 'done', 'failed')

function M.thread_facts()
  local thread = w.any 'thread'
  if not thread then return end
  check(STATUS[call('thread.status', thread.status, thread)], 'status')
  check(type(call('thread.name', thread.name, thread, chance(2) and 'a name' or nil)) == 'string', 'name')
  local _ = tostring(thread)
end

function M.cancel()
  local thread = w.any 'thread'
  if not thread or thread == asio.current() then return end
  local ended = thread:status() == 'done' or thread:status() == 'failed'
  local active = call('thread.cancel', thread.cancel, thread)
  check(active == not ended, 'cancel says %s of a thread that had%s ended', tostring(active), ended
    and '' or ' not')
end

function M.inspect()
  local choice = random(4)
  if choice == 1 then
    for _, info in ipairs(call('asio.threads', asio.threads)) do
      check(w.class(info.thread) == 'thread' and info.traceback, 'threads')
    end
  elseif choice == 2 then
    check(call('asio.stats', asio.stats).threads >= 0, 'stats')
  elseif choice == 3 then
    local text = {}
    call('asio.dump', asio.dump, { write = function(_, ...) text[#text + 1] = table.concat { ... } end })
    check(type(table.concat(text)) == 'string', 'dump')
  else
    call('asio.dump_on', asio.dump_on, 'SIGUSR2', chance(2))
  end
end

-- Scopes --------------------------------------------------------------------------------------------

function M.timeout()
  local result, message, code = call('asio.timeout', asio.timeout, moment_or_never(), function(x)
    for _ = 1, random(3) do w.act() end
    return x
  end, 'in time')
  if result ~= 'in time' then w.check_failure('asio.timeout', TIMED, message, code) end
end

function M.timeout_that_raises()
  local ok, err = w.try('asio.timeout', asio.timeout, moment_or_never(), error, w.OWN)
  check(not ok and (err == w.OWN or w.is_interrupt(err)
    or err == 'error in error handling'), 'timeout: %s', tostring(err)) -- LuaJIT's, in a handler
  if w.is_interrupt(err) then error(err, 0) end
end

function M.shield()
  check(call('asio.shield', asio.shield, moment_or_never(), function(...)
    if chance(2) then w.act() end
    return ...
  end, 'done') == 'done', 'shield')
end

function M.swallow()
  local ok, err = pcall(w.act)
  if not ok and chance(2) then error(err, 0) end
end

function M.handle()
  local ok, err = xpcall(w.act, function(err)
    if chance(2) and not w.open_defect.handlers then pcall(w.act) end
    return err
  end)
  if not ok then error(err, 0) end
end

-- Groups --------------------------------------------------------------------------------------------

local function some_acts()
  for _ = 1, random(3) do w.act() end
end

function M.group()
  local threads, spawned = {}, random(0, 3)
  local fails = chance(6)
  local ok, err = w.try('asio.group', asio.group, function(g)
    for i = 1, spawned do threads[i] = call('group.spawn', g.spawn, g, some_acts) end
    if chance(4) then call('group.cancel', g.cancel, g) end
    if chance(2) then w.act() end
    if fails then error(w.OWN, 0) end
    return true
  end)
  -- asio.stop sends the main chunk away
  local all_ended = asio.current() and (ok or type(err) ~= 'string' or not w.may_refuse(err))
  for i = 1, all_ended and #threads or 0 do
    local status = threads[i]:status()
    check(status == 'done' or status == 'failed', 'a light thread outlives its group: %s', status)
  end
  if not ok and (w.is_interrupt(err) or not chance(3)) then error(err, 0) end
end

function M.open_group()
  local g = w.any 'group'
  if not g or chance(4) then
    w.keep(call('asio.group', asio.group))
    return
  end
  local choice = random(4)
  if choice == 1 then
    call('group.cancel', g.cancel, g)
  elseif choice == 2 and not w.open_defect.group_cycles then
    call('group.wait', g.wait, g)
  else
    local ok, thread = w.try('group.spawn', g.spawn, g, some_acts)
    if ok then w.keep(thread) end
  end
end

-- Coroutines ----------------------------------------------------------------------------------------

local function steps(co, resume, status)
  local ok, err
  repeat
    ok, err = resume(co)
    if not ok then
      if type(err) == 'string' and err:find 'cannot resume' then return end
      error(err, 0)
    end
  until status(co) == 'dead'
end

function M.coroutine()
  local c = asio.coroutine
  local co = call('coroutine.create', c.create, function()
    w.act()
    if chance(2) then call('coroutine.yield', c.yield, 1) end
    check(type(c.running()) == 'thread' and c.isyieldable(), 'running')
    w.act()
  end)
  steps(co, c.resume, c.status)
  w.calls['coroutine.resume'], w.calls['coroutine.status'] = 1, 1
  w.calls['coroutine.running'], w.calls['coroutine.isyieldable'] = 1, 1
end

function M.wrapped()
  local fn = call('coroutine.wrap', asio.coroutine.wrap, function()
    w.act()
    return 'end'
  end)
  fn() -- returns, or a wild call inside yields
end

-- One that is left in the middle.
function M.left_coroutine()
  local co = asio.coroutine.create(function()
    asio.timeout(moment_or_never(), function()
      w.act()
      asio.coroutine.yield()
      w.act()
    end)
  end)
  asio.coroutine.resume(co)
  if chance(2) then asio.coroutine.resume(co) end
end

-- A coroutine beside asio: waits are refused in it, and everything else works.
function M.foreign_coroutine()
  local co = coroutine.create(function() pcall(w.act) end)
  coroutine.resume(co)
end

-- A light thread's coroutine is resumed by hand.
function M.forged_resume()
  local co = w.coroutines[random(#w.coroutines + 1)]
  if co then pcall(coroutine.resume, co, 1, 'forged') end
end

function M.remember_coroutine()
  if not asio.current() then return end
  w.coroutines[random(8)] = coroutine.running()
end

-- Inside of what cannot be suspended.
function M.inside_c()
  local ok, err = pcall(table.sort, { 3, 1, 2 }, function(a, b)
    pcall(w.act)
    return a < b
  end)
  check(ok, 'sort: %s', tostring(err))
  if chance(2) then ('ab'):gsub('.', function() pcall(w.act) end) end
end

-- Channels and select -------------------------------------------------------------------------------

function M.channel()
  w.keep(call('asio.channel', asio.channel, pick { 0, 0, 1, 2, 20, math.huge }))
end

local SEND = w.codes('ETIMEDOUT', 'EBADF', 'ECANCELED')

function M.send()
  local channel = w.any 'channel'
  if not channel then return M.channel() end
  local item = { offered = true }
  local ok, message, code = call('channel.send', channel.send, channel, item, moment_or_never())
  if ok then return end
  check(not item.taken or w.torn, 'not sent, and received')
  w.check_failure('channel.send', SEND, message, code)
end

local function received(item)
  if type(item) ~= 'table' or not rawget(item, 'offered') then return end -- a wild one's
  check(not item.taken, 'received twice')
  item.taken = true
end

function M.recv()
  local channel = w.any 'channel'
  if not channel then return M.channel() end
  local item, message, code = call('channel.recv', channel.recv, channel, moment_or_never())
  if type(item) ~= 'nil' then return received(item) end -- a null pointer equals nil
  w.check_failure('channel.recv', SEND, message, code)
end

function M.iter()
  local channel = w.any 'channel'
  if not channel then return M.channel() end
  local following = call('channel.iter', channel.iter, channel)
  for _ = 1, 2 do received(call('channel.iter', following)) end
end

function M.close_channel()
  local channel = chance(3) and w.any 'channel'
  if channel then call('channel.close', channel.close, channel) end
end

function M.select()
  local list = { timeout = moment_or_never() }
  for i = 1, random(4) do
    list[i] = w.any(pick { 'channel', 'channel', 'event', 'semaphore', 'thread' })
      or asio.event()
    if list[i] == asio.current() then list[i] = asio.channel() end
  end
  local n = #list
  local index, a, b = call('asio.select', asio.select, list)
  if index == nil then return w.check_failure('asio.select', STOPPED, a, b) end
  check(index >= 1 and index <= n, 'select: %s', tostring(index))
  if w.class(list[index]) == 'channel' then received(a) end
end

-- Locks ---------------------------------------------------------------------------------------------

local owners = setmetatable({}, { __mode = 'k' })

local function locked(mutex)
  local before = owners[mutex] -- a thread that ended in a coroutine that it left has not unlocked it
  check(not before or before:status() == 'done' or before:status() == 'failed', 'two hold a mutex')
  owners[mutex] = asio.current()
end

function M.mutex()
  local mutex = w.any 'mutex'
  if not mutex or chance(10) then return w.keep(call('asio.mutex', asio.mutex)) end
  if not asio.current() then return end -- the main chunk may be several callers, one inside the other
  if chance(2) then
    local results = { w.try('mutex.with', mutex.with, mutex, function()
      if chance(2) then w.act() end
      return 'within'
    end) }
    if not results[1] and w.is_interrupt(results[2]) then error(results[2], 0) end
    return
  end
  local own = asio.mutex() -- nobody else's wild call unlocks it
  w.own_mutexes[random(4)] = own
  own = w.own_mutexes[random(4)] or own
  if owners[own] == asio.current() then return end
  local ok, message, code = call('mutex.lock', own.lock, own, moment_or_never())
  if not ok then return w.check_failure('mutex.lock', STOPPED, message, code) end
  locked(own)
  local fine, err = pcall(w.act)
  owners[own] = nil
  call('mutex.unlock', own.unlock, own)
  if not fine then error(err, 0) end
end

function M.semaphore()
  local s = w.any 'semaphore'
  if not s or chance(10) then return w.keep(call('asio.semaphore', asio.semaphore, random(0, 3))) end
  local choice = random(4)
  if choice == 1 then
    if call('semaphore.count', s.count, s) < 1e6 then
      w.try('semaphore.release', s.release, s, chance(2) and random(3) or nil) -- may be full of wild ones
    end
  elseif choice == 2 then
    local ok, message, code = call('semaphore.acquire', s.acquire, s, moment_or_never())
    if not ok then w.check_failure('semaphore.acquire', STOPPED, message, code) end
  else
    call('semaphore.with', s.with, s, w.act)
  end
end

function M.event()
  local e = w.any 'event'
  if not e or chance(10) then return w.keep(call('asio.event', asio.event)) end
  local choice = random(3)
  if choice == 1 then
    call('event.set', e.set, e)
    check(type(call('event.is_set', e.is_set, e)) == 'boolean', 'is_set')
  elseif choice == 2 then
    call('event.clear', e.clear, e)
  else
    local ok, message, code = call('event.wait', e.wait, e, moment_or_never())
    if not ok then w.check_failure('event.wait', STOPPED, message, code) end
  end
end

-- Timers --------------------------------------------------------------------------------------------

function M.timer()
  local timer = w.any 'timer'
  if timer and chance(2) then
    check(type(call('timer.stop', timer.stop, timer)) == 'boolean', 'stop')
  elseif chance(2) then
    w.keep(call('asio.after', asio.after, moment(), values.fn()))
  else
    w.keep(call('asio.every', asio.every, 1e-3 + moment(), values.fn()))
  end
end

-- In another Lua state ------------------------------------------------------------------------------

local NOT_OFFLOADED = w.codes('EAGAIN', 'EMFILE', 'ENFILE', 'ENOMEM')
local NOT_OFFLOADED_BY_MAIN = w.codes('EAGAIN', 'EMFILE', 'ENFILE', 'ENOMEM', 'ECANCELED')

function M.offload()
  local n = random(100)
  local result, message, code = call('asio.offload', asio.offload, function(a) return a + 1 end, n)
  if result == nil then
    w.check_failure('asio.offload', asio.current() and NOT_OFFLOADED or NOT_OFFLOADED_BY_MAIN, message, code)
  else
    check(result == n + 1, 'offload: %s', tostring(result))
  end
end

M.weights = {
  spawn = 3, sleep = 4, yield = 4, current = 2, join = 3, thread_facts = 2, cancel = 2, inspect = 1,
    timeout = 4,
  timeout_that_raises = 1, shield = 2, swallow = 2, handle = 2, group = 2, open_group = 3, coroutine = 3,
  wrapped = 1, left_coroutine = 1, foreign_coroutine = 1, forged_resume = 1, remember_coroutine = 1,
    inside_c = 1,
  channel = 1, send = 5, recv = 5, iter = 1, close_channel = 1, select = 4, mutex = 4, semaphore = 3,
    event = 3,
  timer = 2, offload = 1,
}

return M
