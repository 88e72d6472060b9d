-- The types for editors (lua/asio/meta.lua, http_meta.lua) name every public function that there is, and no
-- other.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

asio.shared.channel() -- opens what this state keeps

-- What the file names, by class: { ['asio.conn'] = { read = true, ... }, ... }
local function annotated()
  local classes, class = {}, nil
  for line in io.lines(t.root .. 'lua/asio/meta.lua') do
    class = line:match '^%-%-%-@class ([%w_.]+)' or class
    local name = line:match '^%-%-%-@field ([%w_]+)'
    local of, method = line:match '^function ([%w_]+)[.:]([%w_]+)%('
    local owner = of == 'asio' and of or of and 'asio.' .. of or class
    if owner then
      classes[owner] = classes[owner] or {}
      if method or name then classes[owner][method or name] = true end
    end
  end
  return classes
end

local function methods_of(object)
  return debug.getmetatable(object).__index
end

local function names(set)
  local list = set == asio and { 'stdin', 'stdout', 'stderr' } or {} -- come when they are named
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

function T.test_meta_names_what_there_is()
  local timer, signal = asio.after(60, function() end), asio.signal 'SIGINT'
  local server, conn = asio.server('127.0.0.1', 0), asio.socketpair()
  local worker = asio.worker(function() end)
  local existing = {
    ['asio'] = asio,
    ['asio.coroutine'] = asio.coroutine,
    ['asio.thread'] = methods_of(asio.current()),
    ['asio.group'] = methods_of(asio.group()),
    ['asio.channel'] = methods_of(asio.channel()),
    ['asio.semaphore'] = methods_of(asio.semaphore(1)),
    ['asio.mutex'] = methods_of(asio.mutex()),
    ['asio.event'] = methods_of(asio.event()),
    ['asio.timer'] = methods_of(timer),
    ['asio.signal'] = methods_of(signal),
    ['asio.server'] = methods_of(server),
    ['asio.conn'] = methods_of(conn),
    ['asio.udp_socket'] = methods_of(asio.udp()),
    ['asio.shared'] = asio.shared,
    ['asio.worker'] = methods_of(worker),
    ['asio.shared_channel'] = methods_of(asio.shared.channel()),
    ['asio.offload_pool'] = methods_of(asio.offload_pool()),
    ['asio.shared_dict'] = methods_of(asio.shared.dict()),
  }
  timer:stop()
  signal:close()
  server:close()
  conn:close()
  worker:join()
  local classes = annotated()
  for class, functions in pairs(existing) do
    lu.assertNotNil(classes[class], class)
    lu.assertEquals(names(classes[class]), names(functions), class)
  end
end

function T.test_meta_names_what_stats_and_threads_return()
  local classes = annotated()
  lu.assertEquals(names(classes['asio.stats']), names(asio.stats()))
  local sleeper = asio.spawn(asio.sleep, 60)
  for _, info in ipairs(asio.threads()) do
    if info.thread == sleeper then
      lu.assertEquals(names(classes['asio.thread_info']), names(info))
    end
  end
  sleeper:cancel()
end

function T.test_meta_is_not_part_of_the_module()
  for _, name in ipairs { 'meta', 'http_meta' } do
    local file = assert(io.open(t.root .. 'lua/asio/' .. name .. '.lua'))
    -- What cmake/embed.cmake looks for.
    lu.assertStrContains(file:read '*l', '---@meta')
    file:close()
  end
end

-- HTTP --------------------------------------------------------------------------------------------

-- The functions that http_meta.lua names, by class.
local function http_annotated()
  local classes, class = { ['asio.http'] = { server = true } }, nil
  for line in io.lines(t.root .. 'lua/asio/http_meta.lua') do
    class = line:match '^%-%-%-@class ([%w_.]+)' or class
    local name = line:match '^%-%-%-@field ([%w_]+)%?? fun%('
    if name then
      classes[class] = classes[class] or {}
      classes[class][name] = true
    end
  end
  return classes
end

-- The methods of an object whose __index is a function: a table that this function refers to.
local function methods_behind(object, some_method)
  local index = methods_of(object)
  if type(index) == 'table' then return index end
  for i = 1, 100 do
    local name, value = debug.getupvalue(index, i)
    if not name then error 'no methods' end
    if type(value) == 'table' and value[some_method] then return value end
  end
end

local function functions_of(set)
  local list = {}
  for name, value in pairs(set) do
    if type(value) == 'function' and not name:find '^_' then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

-- Objects that live as long as a request does: what the handler finds.
local function seen_by_a_handler(http, found)
  local server = assert(http.server('127.0.0.1', 0, function(req, res)
    found['asio.http.request'] = methods_behind(req, 'read_all')
    found['asio.http.response'] = methods_behind(res, 'send')
    found['asio.http.head'] = methods_behind(req.headers, 'get')
    local parts = assert(req:parts())
    local part = assert(parts:next())
    found['asio.http.parts'], found['asio.http.part'] = methods_of(parts), methods_of(part)
    lu.assertEquals(functions_of(methods_behind(part.headers, 'get')),
      functions_of(methods_behind(req.headers, 'get')))
    part:read_all()
    local events = assert(res:sse())
    found['asio.http.events'] = methods_of(events)
    events:close()
  end))
  local _, port = server:address()
  local pool = http.pool()
  local url = ('http://127.0.0.1:%d/'):format(port)
  local response = assert(pool:post(url, { multipart = { name = 'value' } }))
  lu.assertEquals(response.status, 200)
  found['asio.http.reply'], found['asio.http.pool'] = methods_of(response), methods_of(pool)
  found['asio.http.server'] = methods_of(server)
  pool:close()
  server:shutdown(5)
end

function T.test_meta_names_what_there_is_of_http()
  require 'can'.need 'http'
  local http = require 'asio.http'
  local found = {
    ['asio.http'] = http, ['asio.http.router'] = methods_of(http.router()),
    ['asio.http.jar'] = methods_of(http.jar()),
  }
  seen_by_a_handler(http, found)
  local classes = http_annotated()
  for class, functions in pairs(found) do
    lu.assertEquals(names(classes[class] or {}), functions_of(functions), class)
  end
  for class in pairs(classes) do lu.assertNotNil(found[class], class) end
end

return T
