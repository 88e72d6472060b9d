-- The API as it is written down: every name is there, every object shows itself.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'

local T = {}

function T.test_every_function_is_there()
  for _, name in ipairs {
    'spawn_light_thread', 'spawn', 'run', 'run_once', 'stop', 'sleep', 'yield', 'current', 'now',
    'server', 'connect', 'socketpair', 'addr_to_str', 'destory_server', 'udp',
  } do
    lu.assertIsFunction(asio[name], name)
  end
end

local function has_methods(object, ...)
  for _, name in ipairs { ... } do lu.assertIsFunction(object[name], name) end
  lu.assertNil(object.no_such_method)
end

function T.test_every_method_is_there()
  local a = t.pair()
  has_methods(a, 'read', 'read_some', 'read_until', 'read_line', 'read_all', 'lines', 'peek', 'write',
    'flush', 'shutdown', 'close', 'abort', 'peer', 'address', 'set_timeout', 'fd', 'pending',
    'get_original_dst')
  local server = assert(asio.server('127.0.0.1', 0, function() end))
  has_methods(server, 'close', 'address')
  server:close()
  has_methods(asio.spawn(function() end), 'join', 'status', 'name')
  has_methods(asio.udp(), 'send', 'recv', 'flush', 'connect', 'close', 'peer', 'address', 'fd',
    'set_timeout', 'pending', 'join', 'leave', 'set_multicast_interface', 'set_multicast_ttl',
    'set_multicast_loop', 'set_ttl', 'set_broadcast')
end

-- Not Lua's own 'userdata: 0x...': the kind of thing, and for one that is closed, that it is.
local function shows(object, ...)
  local text = tostring(object)
  lu.assertNotStrContains(text, 'userdata: ')
  lu.assertNotStrContains(text, 'table: ')
  for _, word in ipairs { ... } do lu.assertStrContains(text, word) end
end

function T.test_objects_show_themselves()
  local a, b = t.tcp()
  local _, port = a:peer()
  shows(a, 'conn', port)
  a:close()
  b:close()
  shows(a, 'conn', 'closed')
  local c = t.pair()
  shows(c, 'conn')
  local server = assert(asio.server('127.0.0.1', 0, function() end))
  shows(server, 'server', (select(2, server:address())))
  server:close()
  shows(server, 'server', 'closed')
  local thread = asio.spawn(asio.sleep, 0.001)
  thread:name 'waiter'
  shows(thread, 'thread', 'waiter')
  thread:join()
  shows(thread, 'thread', 'waiter')
end

function T.test_objects_cannot_be_tampered_with()
  local a = t.pair()
  local server = assert(asio.server('127.0.0.1', 0, function() end))
  for _, object in ipairs { a, server, asio.spawn(function() end) } do
    lu.assertEquals(type(object), 'userdata')
    lu.assertFalse((pcall(function() object.field = 1 end)))
    lu.assertNotEquals(type(getmetatable(object)), 'userdata')
  end
  server:close()
end

function T.test_a_finalizer_called_by_hand_does_no_harm()
  local a, b = t.pair()
  for _, object in ipairs { a, asio.current() } do
    local meta = debug.getmetatable(object)
    if meta.__gc then
      pcall(meta.__gc, object)
      pcall(meta.__gc, object)
      pcall(meta.__gc)
      pcall(meta.__gc, {})
      pcall(meta.__gc, io.stdout)
    end
  end
  -- The connection may be closed by that, the state may not be damaged.
  pcall(a.read_some, a, 1)
  b:close()
  asio.yield()
end

function T.test_methods_of_one_kind_on_another()
  local a = t.pair()
  local server = assert(asio.server('127.0.0.1', 0, function() end))
  local thread = asio.spawn(function() end)
  for _, wrong in ipairs { server, thread } do t.raises("'read'", a.read, wrong, 1) end
  for _, wrong in ipairs { a, thread } do lu.assertFalse((pcall(server.address, wrong))) end
  for _, wrong in ipairs { a, server } do lu.assertFalse((pcall(thread.join, wrong))) end
  server:close()
end

function T.test_no_globals()
  local out = t.quiet_child(function()
    local before = {}
    for name in pairs(_G) do before[name] = true end
    require 'asio'
    for name in pairs(_G) do
      if not before[name] then io.write(name, ' ') end
    end
  end)
  lu.assertEquals(out, '')
end

function T.test_loaded_in_a_coroutine_that_is_gone_afterwards()
  t.quiet_child(function()
    local loaded
    coroutine.wrap(function() loaded = require 'asio' end)()
    for _ = 1, 3 do collectgarbage() end
    for _ = 1, 100 do coroutine.wrap(function() end)() end
    assert(loaded.run(function()
      loaded.sleep(0.001)
      return 'fine'
    end) == 'fine')
  end)
end

function T.test_loaded_and_never_used()
  t.quiet_child(function() require 'asio' end)
end

function T.test_loads_quickly()
  lu.skipIf(t.sanitized or t.stress, 'measures time')
  can.need('cpu_clock', 'real_kernel')
  local best = math.huge
  for _ = 1, 5 do
    best = math.min(best, tonumber(t.quiet_child(function()
      local raw = require 'raw'
      local before = raw.cpu()
      require 'asio'
      io.write(raw.cpu() - before)
    end)))
  end
  lu.assertTrue(best < 0.005, best)
end

function T.test_every_failure_is_a_triple()
  local a, b = t.pair()
  b:close()
  for _, results in ipairs {
    { a:read(1) }, { a:read_some() }, { asio.connect('127.0.0.1', 1) },
    { asio.server('192.0.2.1', 0, function() end) }, { asio.connect('no such host', 1) },
  } do
    lu.assertNil(results[1])
    lu.assertIsString(results[2])
    lu.assertEquals(results[2], results[2]:lower():gsub('ipv', 'IPv'))
    lu.assertStrMatches(results[3], '[A-Z][A-Z0-9_]+')
    lu.assertNil(results[4])
  end
end

return T
