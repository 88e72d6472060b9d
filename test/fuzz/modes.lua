-- What a seed does beside its operations: the collector, the compiler, finalizers, hooks, descriptors that
-- run out.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local asio = require 'asio'
local raw = require 'raw'
local w = require 'fuzz.world'

local M = {}

local random, pick, chance = w.random, w.pick, w.chance

-- Without a wait, for where none can be -------------------------------------------------------------

local function on(class, method, ...)
  local it = w.any(class)
  if it then w.try(class .. '.' .. method, it[method], it, ...) end
end

local QUICK = {
  function() on('channel', 'send', 1, 0) end,
  function() on('channel', 'recv', 0) end,
  function() on('event', 'set') end,
  function() on('event', 'clear') end,
  function() on('semaphore', 'release') end,
  function() on('semaphore', 'acquire', 0) end,
  function() on('thread', 'cancel') end,
  function() on('thread', 'status') end,
  function() on('group', 'cancel') end,
  function() on('timer', 'stop') end,
  function() on('conn', 'close') end,
  function() on('conn', 'abort') end,
  function() on('conn', 'write', 'xyz') end,
  function() on('conn', 'read_some') end,
  function() on('conn', 'pending') end,
  function() on('server', 'accept', 0) end,
  function() on('udp', 'recv', nil, 0) end,
  function() on('udp', 'send', 'dgram:', '127.0.0.1', 1) end,
  function() if chance(3) then on('server', 'close') end end,
  function() if chance(3) then on('udp', 'close') end end,
  function() if chance(3) then on('channel', 'close') end end,
  function() if chance(3) then on('signal', 'close') end end,
  function() w.keep(asio.channel(1)) end,
  function() w.keep(asio.after(1e-4, function() end)) end,
  function() w.keep((asio.socketpair())) end,
  function() w.try('asio.threads', asio.threads) end,
  function() w.try('asio.stop', asio.stop) end,
  function() asio.timeout(1, function() return 1 end) end,
}

-- No garbage is collected in a finalizer: LuaJIT's collector is stopped there, and once it is started again a
-- compiled loop that allocates spins, for the collector cannot go on.
function M.quick()
  pick(QUICK)()
end

-- Finalizers ----------------------------------------------------------------------------------------

local inside = 0

local function finalizer()
  if inside > 3 then return end
  inside = inside + 1
  w.special = w.special + 1
  if chance(2) or w.switches.quick then pcall(M.quick) else pcall(w.act) end
  w.special = w.special - 1
  inside = inside - 1
end

local function dying()
  getmetatable(newproxy(true)).__gc = finalizer
end

-- A walk over a metatable in a finalizer while compiled code allocates.
local function walking(self)
  local n = 0
  for _ in pairs(getmetatable(self)) do n = n + 1 end
  if n > 100 then error 'a metatable of many fields' end
  return finalizer()
end

local function dying_and_walking()
  local mt = getmetatable(newproxy(true))
  for i = 1, random(6) do mt['field' .. i] = i end
  mt.__gc = walking
end

local function dying_cdata()
  ffi.gc(ffi.new 'char[8]', finalizer)
end

-- Hooks and VM events -------------------------------------------------------------------------------

local function hook()
  if w.special > 0 or not chance(4) then return end
  w.special = w.special + 1
  pcall(M.quick)
  w.special = w.special - 1
end

local MASKS = { 'c', 'r', 'l', 'cr', '' }

local function set_hook()
  debug.sethook(hook, pick(MASKS), chance(2) and random(50, 2000) or 5000)
end

-- In the others LuaJIT's recorder stands no Lua code that allocates.
local EVENTS = { 'bc' }

-- Descriptors ---------------------------------------------------------------------------------------

local RLIMIT_NOFILE = 7
local before

local function scarce()
  local limit = ffi.new 'struct asio_test_limit[1]'
  ffi.C.getrlimit(RLIMIT_NOFILE, limit)
  before = limit[0].soft
  w.exhausted = w.exhausted + 1
  limit[0].soft = raw.count_fds(400) + random(-4, 6)
  ffi.C.setrlimit(RLIMIT_NOFILE, limit)
end

local function plenty()
  if not before then return end
  local limit = ffi.new 'struct asio_test_limit[1]'
  ffi.C.getrlimit(RLIMIT_NOFILE, limit)
  limit[0].soft, before = before, nil
  ffi.C.setrlimit(RLIMIT_NOFILE, limit)
end

M.plenty = plenty

-- The seed's choice ---------------------------------------------------------------------------------

local function every(n, fn)
  local old, left = w.between, random(n)
  return function()
    old()
    left = left - 1
    if left <= 0 and w.special == 0 then
      left = random(2 * n)
      fn()
    end
  end
end

local GC = {
  normal = function() end,
  stopped = function()
    collectgarbage 'stop'
    w.between = every(3000, collectgarbage)
  end,
  stress = function()
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 10000)
  end,
  steps = function() w.between = every(2, function() collectgarbage 'step' end) end,
  full = function() w.between = every(60, collectgarbage) end,
  greedy = function()
    collectgarbage('setpause', random(50, 120))
    collectgarbage('setstepmul', random(100, 400))
  end,
}

local JIT = {
  on = function() end,
  off = function() jit.off() end,
  hot = function() jit.opt.start('hotloop=2', 'hotexit=1') end,
  flush = function()
    jit.opt.start('hotloop=3', 'hotexit=2')
    w.between = every(200, jit.flush)
  end,
  switched = function()
    local is_on = true
    w.between = every(500, function()
      is_on = not is_on
      if is_on then jit.on() else jit.off() end
    end)
  end,
}

local function names(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

--- Draws what the seed does; `forced` has words of the command line: { gc = 'stress', ... }.
function M.draw(forced)
  local s = w.switches
  s.gc, s.jit = pick(names(GC)), pick(names(JIT))
  s.place = pick { 'light', 'light', 'main' }
  s.finalizers = chance(3) and pick { 'plain', 'walking', 'cdata' } or 'none'
  s.hook = chance(8) and 'hook' or chance(10) and pick(EVENTS) or 'none'
  s.scarce = chance(5) and 'scarce' or 'none'
  s.ending = pick { 'orderly', 'orderly', 'orderly', 'exit', 'exit_light', 'drop' }
  s.resolver = pick { 'ares', 'getaddrinfo' }
  s.wild = pick { 0, 5, 20, 60 }
  s.install = chance(4) and 'install' or 'none'
  s.stdio = chance(6) and 'stdio' or 'none'
  -- LuaJIT crashes by itself when traces are flushed or cdata is finalized while a trace ends for the
  -- collector.
  if s.finalizers == 'cdata' then s.jit = 'off' end
  if s.finalizers ~= 'none' and s.jit == 'flush' then s.jit = 'hot' end
  for word, value in pairs(forced) do s[word] = tonumber(value) or value end
end

-- What takes its turn every so many operations stays the same for the whole seed.
function M.begin()
  local s = w.switches
  ffi.C.setenv('ASIO_RESOLVER', s.resolver, 1)
  jit.opt.start '-cse' -- where it crashes LuaJIT of 2022 on closures of a function that has many
  GC[s.gc]()
  JIT[s.jit]()
  if s.finalizers == 'plain' then w.between = every(10, dying) end
  if s.finalizers == 'walking' then w.between = every(10, dying_and_walking) end
  if s.finalizers == 'cdata' then w.between = every(10, dying_cdata) end
  if s.hook == 'hook' then
    w.between = every(3000, set_hook)
  elseif s.hook ~= 'none' then
    jit.attach(hook, s.hook)
  end
  if s.install == 'install' then w.try('coroutine.install', asio.coroutine.install) end
  if s.scarce == 'scarce' then
    w.between = every(1000, function() if before then plenty() elseif chance(2) then scarce() end end)
  end
end

function M.finish()
  debug.sethook()
  if w.switches.hook ~= 'none' and w.switches.hook ~= 'hook' then jit.attach(hook) end
  plenty()
  w.between = function() end
  collectgarbage 'restart'
  collectgarbage('setpause', 200)
  collectgarbage('setstepmul', 200)
end

return M
