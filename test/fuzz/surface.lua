-- All public functions, found by walking the module: a new one is called at random without being named
-- here. What must not be called just anyhow has its arguments bent by an entry of `bend`.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local has_http, http = pcall(require, 'asio.http')
local w = require 'fuzz.world'
local values = require 'fuzz.values'

local M = { names = {}, functions = {}, class = {} }

local random, pick, chance = w.random, w.pick, w.chance

-- The walk ----------------------------------------------------------------------------------------

local function add(prefix, functions, class)
  for name, fn in pairs(functions) do
    if type(fn) == 'function' and not name:find '^_' then
      local full = prefix .. '.' .. name
      M.names[#M.names + 1] = full
      M.functions[full], M.class[full] = fn, class
    end
  end
end

-- An object of each class of HTTP, which stays: they have no pool in world.lua. Methods take it mostly.
local http_objects = {}

local function walk_http()
  if not has_http then return end
  add('http', http)
  http_objects.router, http_objects.pool, http_objects.jar = http.router(), http.pool(), http.jar()
  http_objects.http_server = assert(http.server('127.0.0.1', 0, function(_, res) res:send 'hello' end))
  http_objects.http_server:close()
  for class, object in pairs(http_objects) do
    local prefix = class:find '^http' and class or 'http_' .. class
    add(prefix, getmetatable(object).__index, class)
  end
end

-- An object of each class, to learn the classes from.
local function samples()
  local timer, conn, other = asio.after(60, function() end), asio.socketpair()
  local thread = asio.spawn(function() end)
  local list = {
    conn = conn, server = assert(asio.server('127.0.0.1', 0)), udp = assert(asio.udp()),
    channel = asio.channel(), semaphore = asio.semaphore(1), mutex = asio.mutex(), event = asio.event(),
    thread = thread, group = asio.group(), timer = timer, signal = assert(asio.signal 'SIGWINCH'),
  }
  return list, function()
    timer:stop()
    conn:close()
    other:close()
    list.server:close()
    list.udp:close()
    list.signal:close()
    list.group:wait()
  end
end

function M.walk()
  local list, done = samples()
  add('asio', asio)
  add('coroutine', asio.coroutine)
  for class, sample in pairs(list) do
    w.teach(class, sample)
    add(class, getmetatable(sample).__index, class)
  end
  done()
  walk_http()
  table.sort(M.names) -- pairs has an order of its own in each process
end

-- What is not left to chance ------------------------------------------------------------------------

local HOSTS = { '127.0.0.1', '127.0.0.1', '127.0.0.1', '::1', '0.0.0.0', '127.0.0.300', '', 'unix:@none' }
local HARMLESS = { '', ' ', ':', '[', '[::1', '[::1]:80', '::1%lo', '::1%none', '127.0.0.1:', '1.2.3',
  'localhost' }

-- Names are not asked of servers out there.
local function local_host(args, at)
  local host = args[at]
  if type(host) == 'string' and #host < 64 and not host:find '^unix:' then
    args[at] = chance(4) and pick(HARMLESS) or pick(HOSTS)
  end
end

-- Nobody else's port, and not one that others may want.
local function free_port(args, at)
  local port = tonumber(args[at])
  if port and port >= 1 and port <= 65535 then args[at] = 0 end
end

local function safe_handler(args, from)
  for i = from, 4 do
    if type(args[i]) == 'table' and getmetatable(args[i]) == nil and rawget(args[i], 'backlog') then
      args[i].backlog = 16
    end
  end
end

-- URLs lead nowhere but to closed ports of this machine.
local URLS = { 'http://127.0.0.1:1/', 'http://127.0.0.1:1', 'https://127.0.0.1:1/a?b', 'http://unix:/none:/a',
  '', 'http://', 'ftp://127.0.0.1/', 'http://127.0.0.1:65536/', 'http://[::1/', 'http://[::1]:1/%00' }

local function local_url(args, at)
  if args[at] ~= nil and (type(args[at]) == 'string' or chance(2)) then args[at] = pick(URLS) end
end

local bend = {
  ['asio.server'] = function(args)
    -- It would take it over
    if tonumber(args[1]) then args[1] = pick { -1, 1e9, 2 ^ 31, 0 / 0, 0.5, 1e300, '-1' } end
    if type(args[1]) == 'string' and not args[1]:find '^unix:@' then local_host(args, 1) end
    free_port(args, 2)
    safe_handler(args, 2)
  end,
  ['asio.udp'] = function(args) free_port(args, 2) end,
  ['asio.connect'] = function(args)
    local_host(args, 1)
    local port = tonumber(args[2])
    if port and port >= 1 and port <= 65535 then args[2] = 1 end
  end,
  ['asio.resolve'] = function(args) local_host(args, 1) end,
  ['udp.send'] = function(args) local_host(args, 3) end,
  ['udp.connect'] = function(args) local_host(args, 2) end,
  ['asio.dump'] = function(args)
    if type(args[1]) ~= 'table' or chance(2) then args[1] = { write = values.fn() } end
  end,
  ['http.server'] = function(args) -- as asio.server: no descriptor, no port of another program
    if tonumber(args[1]) then args[1] = pick { -1, 1e9, 2 ^ 31, 0 / 0, 0.5, 1e300, '-1' } end
    if type(args[1]) == 'string' and not args[1]:find '^unix:@' then local_host(args, 1) end
    free_port(args, 2)
    safe_handler(args, 2)
  end,
  ['http.access_log'] = function(args) -- no files of such names
    if type(args[1]) ~= 'string' and type(args[1]) ~= 'number' then return end
    args[1] = pick { '/none/log', '', '/', 'stderr' }
  end,
  ['asio.worker'] = function(args) -- few of the functions and values here can be copied
    if not chance(2) then return end
    args[1] = function() return 1 end
    for i = 2, 5 do args[i] = nil end
  end,
  ['asio.watchdog'] = function(args) -- tells on standard error
    if type(args[1]) == 'number' and args[1] < 10 and args[1] >= 1e-3 then args[1] = 30 end
  end,
  -- The loop has to see its end. A loop of the main chunk ends when the ticker says stop.
  ['asio.on_error'] = function(args)
    if args[1] == nil or type(args[1]) == 'function' then args[1] = w.on_error end
  end,
  ['asio.every'] = function(args) if args[1] == 1e-9 or args[1] == 0 then args[1] = 1e-3 end end,
}

for _, name in ipairs { 'get', 'head', 'post', 'put', 'patch', 'delete', 'options' } do
  bend['http.' .. name] = function(args) local_url(args, 1) end
  bend['http_pool.' .. name] = function(args) local_url(args, 2) end
end
bend['http.request'] = function(args) local_url(args, 2) end
bend['http_pool.request'] = function(args) local_url(args, 3) end

local function arguments(name)
  local args, n = {}, random(0, 5)
  for i = 1, n do args[i] = values.value() end
  local class = M.class[name]
  if class and not chance(8) then
    args[1] = http_objects[class] or w.any(class)
    n = math.max(n, 1)
  end
  if bend[name] then bend[name](args) end
  for i = n + 1, 5 do
    if args[i] ~= nil then n = i end
  end
  return args, n
end

-- Calls -------------------------------------------------------------------------------------------

local function keep_results(ok, ...)
  if not ok then return (...) end
  for i = 1, select('#', ...) do w.keep((select(i, ...))) end
end

-- A call that no object may make, or that takes nonsense: returns or raises, and both in order.
function M.wild()
  local name = pick(M.names)
  if w.avoid and w.avoid(name) then return end
  local args, n = arguments(name)
  local err = keep_results(w.try(name, M.functions[name], unpack(args, 1, n)))
  if w.is_interrupt(err) then error(err, 0) end
end

return M
