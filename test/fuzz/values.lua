-- Arguments for calls that nobody in his senses would make: wrong types, numbers out of range, cyclic tables,
-- objects of another class.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local w = require 'fuzz.world'

local M = {}

local random, pick, chance = w.random, w.pick, w.chance

local NUMBERS = { 0, 1, 2, 3, 7, 64, 255, 256, 65535, 65536, -1, -0.0, 0.5, 1.5, 1e-9, 1e-3, 1e15, 2 ^ 31,
  2 ^ 31 - 1,
  -2 ^ 31, 2 ^ 32, 2 ^ 52, 2 ^ 53, 2 ^ 63, 2 ^ 64, -2 ^ 63, 1e300, -1e300, math.huge, -math.huge, 0 / 0 }
local STRINGS = { '', 'x', '0', '1', '-1', '1e3', '0x10', 'nan', 'inf', '80', '65536', '127.0.0.1', '::1',
  '0.0.0.0',
  '::', '127.0.0.1:1', '[::1]', '127.0.0.256', '1.2.3', 'unix:', 'unix:@', 'unix:/', 'unix:@fuzz\0x',
    'systemd:',
  'systemd:x', 'r', 'w', 'rw', 'wr', 'A', 'PTR', 'SIGUSR1', 'SIGNOTHING', 'SIGWINCH', '\n', '\r\n', '\0',
    'a\0b',
  ('x'):rep(63), ('x'):rep(64), ('y'):rep(70), ('\0'):rep(64), ('\255'):rep(128),
    '\2\0\0\1\127\0\0\1' .. ('\0'):rep(120),
  '\10\0\0\1' .. ('\0'):rep(120), ('long'):rep(5000), '%s%n%d' }
local OPTIONS = { 'timeout', 'linger', 'nodelay', 'keepalive', 'reuseport', 'handles', 'backlog',
  'max_connections',
  'proxy_protocol', 'ipv6only', 'unlink_stale', 'bind', 'servers', 'cache', 'type', 'reuseaddr', 'broadcast',
  'recv_buffer', 'send_buffer', 'recv_queue', 'send_queue', 'deadlock', 'from', 'tls', 'threads', 'write',
    'no_such' }

local cyclic = {}
cyclic[1], cyclic.timeout, cyclic.self = cyclic, cyclic, cyclic
local deep = {}
do
  local at = deep
  for _ = 1, 300 do
    at[1] = {}
    at = at[1]
  end
end
local hostile = setmetatable({}, {
  __index = function() error(w.OWN, 0) end,
  __newindex = function() error(w.OWN, 0) end,
  __len = function() return 1e9 end,
  __tostring = function() return 1 end,
  __call = function() error(w.OWN, 0) end,
})
local plain_proxy = newproxy(true)
local forged = newproxy(true)
getmetatable(forged).__index = function() return forged end
getmetatable(forged).__name = 'asio.conn'

-- Functions that the library may call when it likes. None waits for long.
local function nothing() end
local FUNCTIONS = {
  nothing,
  function(...) return ... end,
  function() error(w.OWN, 0) end,
  function() error(nil) end,
  function() error 'own error' end,
  function() if w.special == 0 then collectgarbage 'step' end end,
  function() return coroutine.running() end,
  function() if w.act then w.act() end end,
  function() if w.act then w.act() return w.act() end end,
}

function M.fn()
  return pick(FUNCTIONS)
end

local function small_list()
  local list = {}
  for i = 1, random(0, 5) do list[i] = M.value(true) end
  return list
end

local function some_options()
  local options = {}
  for _ = 1, random(3) do options[pick(OPTIONS)] = M.value(true) end
  return options
end

local function fresh_coroutine()
  local co = coroutine.create(nothing)
  if chance(2) then coroutine.resume(co) end
  return co
end

local STRANGE = {
  function() return cyclic end,
  function() return deep end,
  function() return hostile end,
  function() return plain_proxy end,
  function() return forged end,
  function() return ffi.new('int64_t', 1) end,
  function() return ffi.new('char[8]') end,
  function() return ffi.cast('void *', 0) end,
  function() return fresh_coroutine() end,
  function() return io.stdout end,
  function() return require('string.buffer').new():put 'buffered' end,
  function() return setmetatable({}, { __index = small_list() }) end,
  function() return _G end,
}

--- Any object that lives in the pools.
function M.object()
  return w.any(pick(w.CLASSES))
end

--- Any value. Those of inner tables are not tables again, most of the time.
function M.value(inner)
  local choice = random(inner and 6 or 10)
  if choice <= 2 then return pick(NUMBERS) end
  if choice == 3 then return pick(STRINGS) end
  if choice == 4 then return M.object() end
  if choice == 5 then return pick { true, false } end
  if choice == 6 then
    if chance(3) then return nil end
    return M.fn()
  end
  if choice == 7 then return small_list() end
  if choice == 8 then return some_options() end
  if choice == 9 then return pick(STRANGE)() end
  return nil
end

M.number = function() return pick(NUMBERS) end
M.string = function() return pick(STRINGS) end
M.options = some_options

return M
