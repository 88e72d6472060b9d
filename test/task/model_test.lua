-- Light threads do at random whatever they can do to one another, and every outcome is held against
-- a model of it that is simple enough to be right: nothing is lost, nothing is received twice, what
-- was given up is not received at all, everybody's order is kept, no permit and no lock is lost, and
-- nobody is left behind waiting for what is there.
--
-- A failure says the seed: ASIO_SEED=n makes the same choices again. What ends by the clock may still
-- come out otherwise. ASIO_VERBOSE=1 tells how often what came up.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local m = require 'model'
local channels = require 'model_channels'
local links = require 'model_links'
local locks = require 'model_sync'

local T = {}

-- So many different ways are taken that LuaJIT's usual half megabyte of machine code is thrown away
-- and made again all the time.
jit.opt.start('maxmcode=8192', 'sizemcode=512', 'maxtrace=8000')

local WORKERS = 30
local LULL = 100 -- steps from one look at the books to the next

local check, pick, chance, random = m.check, m.pick, m.chance, math.random

local world -- m.world, of the case that runs

-- Workers ---------------------------------------------------------------------------------------

local function worker(me)
  for _ = 1, random(60) do
    if world.over then return end
    m.step(me)
  end
end

-- Those that have ended are looked at and forgotten.
local function sweep()
  local threads = world.threads
  for i = #threads, 1, -1 do
    local entry = threads[i]
    local status = entry.thread:status()
    if status == 'done' or status == 'failed' then
      m.check_outcome(entry, entry.thread:join())
      threads[i] = threads[#threads]
      threads[#threads] = nil
    end
  end
end

-- What happens to them --------------------------------------------------------------------------

local deeds = {}

function deeds.cancel()
  m.cancel(pick(world.threads))
end

function deeds.close_channel()
  local i = random(#world.channels)
  local channel = world.channels[i]
  if channel.closed then
    table.insert(world.retired, channel)
    world.channels[i] = channels.new_channel()
  elseif chance(4) then
    channel.it:close()
    channel.closed = true
  end
end

function deeds.turn_event()
  local event = pick(world.events)
  if event.it:is_set() then
    event.it:clear()
  else
    event.it:set()
    event.sets = event.sets + 1
  end
end

-- Permits are taken one by one, and released several at once.
function deeds.hoard()
  local s = pick(world.semaphores)
  if s.it:acquire(0) then
    s.hoard = s.hoard + 1
  elseif s.hoard > 0 then
    local n = random(s.hoard)
    s.hoard = s.hoard - n
    s.it:release(n)
  end
end

function deeds.close_link()
  if not chance(10) or world.closing > 5 then return end
  local i = random(#world.links)
  world.closing = world.closing + 1
  m.launch(links.close_link(world.links[i]))
  world.links[i] = links.new_link()
end

local deed_names = { 'cancel', 'close_channel', 'turn_event', 'hoard', 'close_link' }

-- The books -------------------------------------------------------------------------------------

-- All wait, and nothing is on its way from one to another: then the books balance.
local function is_quiet()
  for _, entry in ipairs(world.threads) do
    if entry.thread:status() ~= 'waiting' then return false end
  end
  return true
end

local function check_books()
  world.balanced = world.balanced + 1
  for _, channel in ipairs(world.channels) do channels.check_channel(channel) end
  for _, semaphore in ipairs(world.semaphores) do locks.check_semaphore(semaphore) end
  for _, mutex in ipairs(world.mutexes) do locks.check_mutex(mutex) end
  for _, event in ipairs(world.events) do locks.check_event(event) end
end

-- The beginning of a lull waits for quiet; its end lets all go on.
local function look_at_books()
  local quiet = is_quiet()
  if quiet then check_books() end
  if world.lull and quiet then
    world.lull:set()
    world.lull, world.next_lull = nil, world.count + LULL
  elseif not world.lull and world.count >= world.next_lull then
    world.lull = asio.event()
  end
  return quiet
end

local function control()
  sweep()
  while #world.threads < WORKERS do m.launch(worker) end
  if look_at_books() or chance(8) then
    world.count = world.count + 1
    deeds[pick(deed_names)]()
  end
end

-- The end ---------------------------------------------------------------------------------------

local function end_workers()
  local deadline = asio.now() + 10 * t.patience
  world.over = true
  while #world.threads > 0 do
    for _, entry in ipairs(world.threads) do m.cancel(entry) end
    asio.yield()
    sweep()
    check(asio.now() < deadline, '%d light threads do not end', #world.threads)
  end
end

local function end_objects()
  for _, list in ipairs { world.channels, world.retired } do
    for _, channel in ipairs(list) do channels.empty_channel(channel) end
  end
  for _, s in ipairs(world.semaphores) do
    if s.hoard > 0 then s.it:release(s.hoard) end
    check(s.it:count() == s.total, 'a permit is lost')
  end
  for _, mutex in ipairs(world.mutexes) do
    check(mutex.it:lock(0), 'a mutex is not free')
    mutex.it:unlock()
  end
  for _, link in ipairs(world.links) do
    local entry = m.launch(links.close_link(link))
    m.check_outcome(entry, entry.thread:join())
  end
end

-- The cases ---------------------------------------------------------------------------------------

local AROUND = { scope = 6, shield = 2, swallow = 2, coroutine = 2, spawn = 2, group = 2 }
local CHANNELS = { send = 10, flood = 1, receive = 8, iterate = 3, select = 5, sleep = 2, yield = 2 }
local LOCKS = { acquire = 8, lock = 8, wait = 6, select = 4, sleep = 2, yield = 2 }
local LINKS = { write = 8, flush = 2, read = 10, sleep = 2 }

-- The names of steps, as often as their weights say, in the same order in every process.
local function choices(...)
  local list = {}
  for _, weights in ipairs { ... } do
    for name, weight in pairs(weights) do
      for _ = 1, weight do table.insert(list, name) end
    end
  end
  table.sort(list)
  return list
end

local function several(n, make)
  local list = {}
  for i = 1, n do list[i] = make() end
  return list
end

local function new_world(...)
  world = {
    choices = choices(AROUND, ...), leaves = choices(...),
    count = 0, written = 0, balanced = 0, closing = 0, resting = 0, next_lull = LULL,
    threads = {}, retired = {}, codes = {}, me = m.new_me(),
  }
  m.world = world
  world.channels = several(6, channels.new_channel)
  world.semaphores = several(2, locks.new_semaphore)
  world.mutexes = several(2, locks.new_mutex)
  world.events = several(3, locks.new_event)
  world.links = several(3, links.new_link)
end

local function play(count)
  while world.count < count and not world.failure do
    control()
    asio.yield()
  end
  if world.failure then return end
  end_workers()
  check_books()
  end_objects()
end

-- After a failure: so that what others say does not hide it.
local function abandon()
  world.over = true
  for _, entry in ipairs(world.threads) do
    m.cancel(entry)
    pcall(entry.thread.join, entry.thread, 0.01)
  end
end

local function tell()
  io.stdout:write(('%d steps, %d balances'):format(world.count, world.balanced))
  for code, times in pairs(world.codes) do io.stdout:write((', %d %s'):format(times, code)) end
  io.stdout:write '\n'
end

local function model(n, ...)
  local weights = { ... }
  return t.slow(t.long and 600 or 60, function()
    local seed = tonumber(os.getenv 'ASIO_SEED') or math.floor(asio.now() * 1e6) % 2 ^ 31
    local count, before = t.count(n), #asio.threads()
    math.randomseed(seed)
    new_world(unpack(weights))
    local ok, err = pcall(play, count)
    if world.failure or not ok then
      abandon()
      lu.fail(('ASIO_SEED=%d, step %d of %d: %s'):format(seed, world.count, count, world.failure or err))
    end
    if os.getenv 'ASIO_VERBOSE' then tell() end
    lu.assertEquals(#asio.threads(), before)
    lu.assertTrue(world.balanced > math.floor(count / LULL / 10), 'the books were hardly ever looked at')
    for _, code in ipairs { 'ETIMEDOUT', 'cancelled', 'interrupted' } do
      lu.assertTrue((world.codes[code] or 0) > 0, 'nothing ended with ' .. code)
    end
  end)
end

T.test_channels = model(600000, CHANNELS)
T.test_locks = model(600000, LOCKS)
T.test_connections = model(400000, LINKS)
T.test_everything_at_once = model(3000000, CHANNELS, LOCKS, LINKS)

return T
