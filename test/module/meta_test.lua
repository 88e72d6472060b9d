-- The types for editors (lua/asio/meta.lua) name every public function that there is, and no other.
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
  local file = assert(io.open(t.root .. 'lua/asio/meta.lua'))
  -- What cmake/embed.cmake looks for.
  lu.assertStrContains(file:read '*l', '---@meta')
  file:close()
end

return T
