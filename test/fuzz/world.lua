-- The fuzzer's world: chance, pools of live objects, and the checks that every call goes through.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'

local M = {
  ops = 0,          -- public calls so far
  calls = {},       -- how often each public function returned, by name
  exhausted = 0,    -- not 0: descriptors are scarce now, or were a moment ago
  closing = false,  -- the seed is being wound up
  faults = {},      -- what went wrong; the seed fails
  switches = {},    -- what this seed does, by word; see modes.lua
  level = 0,        -- operations inside operations
  driver = nil,     -- the light thread that starts the others: no operation may touch it
  longest_gap = 0,  -- seconds between two steps of the driver: the machine was busy, or stood still
}

-- Chance ------------------------------------------------------------------------------------------

local random = math.random
M.random = random

function M.chance(n)
  return random(n) == 1
end
local chance = M.chance

function M.pick(list)
  return list[random(#list)]
end

--- Seconds, few enough to come in the middle of something.
function M.moment()
  local choice = random(6)
  if choice <= 2 then return 0 end
  if choice == 3 then return 1e-5 end
  return random() * (choice == 4 and 3e-4 or 2e-3)
end

function M.moment_or_never()
  if chance(3) then return nil end
  return M.moment()
end

-- Tracing -----------------------------------------------------------------------------------------

local trace_file

function M.trace_to(path)
  trace_file = assert(io.open(path, 'w'))
  trace_file:setvbuf 'no'
end

function M.trace(fmt, ...)
  if trace_file then
    trace_file:write(('%d %s: %s\n'):format(M.ops, tostring(asio.current() or 'main'), fmt:format(...)))
  end
end

-- Faults ------------------------------------------------------------------------------------------

-- The last operations of all light threads. Timing is no part of a seed: a report has to be enough by itself.
local LAST = 60
local last_names, last_threads = {}, {}

local function note(name)
  local at = M.ops % LAST + 1
  last_names[at], last_threads[at] = name, asio.current() or 'main'
end

local function last_operations()
  local list = {}
  for i = M.ops - LAST + 1, M.ops do
    local at = i % LAST + 1
    if last_names[at] then
      list[#list + 1] = tostring(last_threads[at]):gsub('^light thread ', '') .. ' ' .. last_names[at]
    end
  end
  return '\nlast operations: ' .. table.concat(list, ', ')
end

local function what_waits()
  local text = {}
  pcall(asio.dump, { write = function(_, ...) text[#text + 1] = table.concat { ... } end })
  return ('\nlongest turn: %.2f s, longest gap: %.2f s\n%s'):format(
    asio.stats().longest_turn, M.longest_gap, table.concat(text):sub(1, 4000))
end

function M.fault(fmt, ...)
  local text = debug.traceback(fmt:format(...), 2)
  if #M.faults == 0 then text = text .. last_operations() .. what_waits() end
  if #M.faults < 5 then M.faults[#M.faults + 1] = text end
  M.trace('FAULT %s', text)
end
local fault = M.fault

--- Like assert; the seed goes on, and fails at its end.
function M.check(condition, fmt, ...)
  if not condition then fault(fmt, ...) end
  return condition
end

-- Pools -------------------------------------------------------------------------------------------

M.CLASSES = { 'conn', 'server', 'udp', 'channel', 'semaphore', 'mutex', 'event', 'thread', 'group', 'timer',
  'signal' }
local LIMIT = 12

local pools, class_of = {}, {}
for _, class in ipairs(M.CLASSES) do pools[class] = {} end
M.pools = pools

--- What class an object is of; `sample` teaches it.
function M.class(object)
  if type(object) ~= 'userdata' then return nil end
  return class_of[debug.getmetatable(object)]
end

function M.teach(class, sample)
  class_of[debug.getmetatable(sample)] = class
end

-- What a pool lets go of is ended, or left to the collector.
local ends = {
  conn = function(it) if chance(2) then it:close() elseif chance(2) then it:abort() end end,
  server = function(it) if chance(2) then it:close() end end,
  udp = function(it) if chance(2) then it:close() end end,
  channel = function(it) if chance(2) then it:close() end end,
  timer = function(it) it:stop() end,
  thread = function(it) it:cancel() end,
  group = function(it) if chance(2) then it:cancel() end end,
  signal = function(it) if chance(2) then it:close() end end,
}

--- Puts an object in its pool; nil when it is none of ours. The newest takes a random place.
function M.keep(object)
  local class = M.class(object)
  -- A finalizer that runs on the driver finds it by asio.current. Cancelled, it would not wait any more.
  if not class or object == M.driver then return nil end
  local pool = pools[class]
  if #pool < LIMIT then
    pool[#pool + 1] = object
    return class
  end
  local at = random(LIMIT)
  local old = pool[at]
  pool[at] = object
  if ends[class] and old ~= object then ends[class](old) end
  return class
end

--- An object of a class, nil when there is none.
function M.any(class)
  local pool = pools[class]
  return #pool > 0 and pool[random(#pool)] or nil
end

function M.drop_all()
  for _, class in ipairs(M.CLASSES) do
    local pool = pools[class]
    for i = #pool, 1, -1 do
      local it = pool[i]
      pool[i] = nil
      if class == 'timer' then it:stop() end
      if class == 'conn' or class == 'server' or class == 'udp' or class == 'channel'
        or class == 'signal' then
        it:close()
      end
    end
  end
end

-- Errors ------------------------------------------------------------------------------------------

--- What the fuzzer's own functions raise.
M.OWN = setmetatable({}, { __tostring = function() return 'own error' end })

-- Misuse that names no argument. %s is the public function's name, or left out where the caller may be any.
local MISUSE = {
  'cannot wait here: ', "inside a coroutine of the script's own",
  'not enough memory$', 'stack overflow', 'error in error handling', 'C stack overflow',
  'called by a light thread; it is the main chunk that runs the loop$', ': the loop is already running$',
  ': called by a finalizer', ': the group has ended$', ': a light thread cannot wait for its own group',
  ': a light thread cannot join itself$', ': this light thread holds the mutex already$',
  'unlock: this light thread does not hold the mutex$', 'accept: this server has a handler',
  'this connection was not made with { handles = true }$', 'coroutine.yield called by a light thread',
  "^calling 'set_tls' on something that is not", "stats: of a server with the option 'threads'$",
  '^deadlock', 'nothing is left that could wake', 'own error',
  'cannot go to another Lua state', -- a result of asio.offload
}

local ALIAS = { spawn_light_thread = 'spawn', destory_server = 'close', handler = 'server' }

-- "bad argument #1 to 'read' (...)" names the function that was called.
local function names_function(text, name)
  local short = name:match '([%w_]+)$'
  local named = text:match "bad argument #%-?%d+ to '([%w_]+)'" or text:match "calling '([%w_]+)' on "
  return named and (named == short or named == ALIAS[short])
end

function M.is_interrupt(err)
  return type(err) == 'userdata' and not M.class(err)
end

-- Lua's own functions, as they are; they do not name themselves when pcall calls them.
local LUAS_OWN = { ['coroutine.create'] = "^bad argument #1 to '",
  ['coroutine.status'] = "^bad argument #1 to '",
  ['coroutine.yield'] = '^attempt to yield' }

--- Whether a public function may raise this. `name` is 'conn.read'; nil: any.
function M.check_error(name, err)
  if type(err) ~= 'string' then return true end -- an interrupt, or the fuzzer's own
  if LUAS_OWN[name] and err:find(LUAS_OWN[name]) then return true end
  if not err:find('attempt to', 1, true) then
    if name and names_function(err, name) then return true end
    if not name and err:find "bad argument #%-?%d+ to '" then return true end
    for i = 1, #MISUSE do
      if err:find(MISUSE[i]) then return true end
    end
  end
  fault('%s raised: %s', name or 'a light thread', err)
  return false
end

-- Calls -------------------------------------------------------------------------------------------

local SCARCE = { EMFILE = true, ENFILE = true, ENOMEM = true, ENOBUFS = true, EAI_AGAIN = true,
  EAI_MEMORY = true,
  EAI_SYSTEM = true,
  EAI_NONAME = true, EAI_FAIL = true } -- getaddrinfo that cannot read /etc/hosts

--- Whether this is the failure triple, with one of these codes (a set; nil: any).
function M.check_failure(name, codes, message, code)
  if type(message) ~= 'string' or message == '' or type(code) ~= 'string' or not code:find '^E[%w_]+$' then
    return fault('%s failed with %s, %s', name, tostring(message), tostring(code))
  end
  if codes and not codes[code] and not (SCARCE[code] and M.exhausted > 0) then
    fault('%s failed with %s (%s)', name, code, message)
  end
  return code
end

function M.codes(...)
  local set = {}
  for _, code in ipairs { ... } do set[code] = true end
  return set
end

-- Between the operations the collector, the compiler and the like are played with: see modes.lua.
function M.between() end

local function count(name)
  M.calls[name] = (M.calls[name] or 0) + 1
end

local function called(name, ok, ...)
  if ok then
    count(name)
    return true, ...
  end
  M.check_error(name, (...))
  return false, ...
end

--- pcall for a public function: counted, traced, and what it raises is looked at.
function M.try(name, fn, ...)
  M.ops = M.ops + 1
  note(name)
  M.between()
  if trace_file then M.trace('%s', name) end
  return called(name, pcall(fn, ...))
end
local try = M.try

local function passed(name, ok, ...)
  if ok then return ... end
  local err = ...
  if type(err) == 'string' and not M.may_refuse(err) then fault('%s raised: %s', name, err) end
  error(err, 0)
end

--- Where nothing can wait (finalizers, hooks, coroutines beside asio) a proper call may be refused.
function M.may_refuse(err)
  return err:find('cannot wait here', 1, true) or err:find("script's own", 1, true)
    or err:find('own error', 1, true) or err:find('error in error handling', 1, true)
    or err:find('stack overflow', 1, true) or err:find 'deadlock' or err:find 'called by'
    or err:find('loop is already running', 1, true)
    or err:find('holds the mutex already', 1, true) or err:find('does not hold the mutex', 1, true)
    or err:find('the group has ended', 1, true) or err:find('its own group', 1, true)
    or err:find('cannot join itself', 1, true)
end

--- Calls a public function properly: an interrupt goes on, any other error is a fault.
function M.call(name, fn, ...)
  return passed(name, try(name, fn, ...))
end

return M
