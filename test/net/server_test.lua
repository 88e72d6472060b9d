-- Servers: where they listen, their handlers, how they close.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local function nothing() end

local function port_of(server)
  return (select(2, server:address()))
end

-- Connects, and gives what the handler says.
local function ask(ip, port)
  local conn = assert(asio.connect(ip, port))
  local answer = conn:read_some()
  conn:close()
  return answer
end

-- Where ---------------------------------------------------------------------------------------

function T.test_port_zero_asks_for_a_free_one()
  local one = assert(asio.server('127.0.0.1', 0, function(conn) conn:write 'one' end))
  local two = assert(asio.server('127.0.0.1', '0', function(conn) conn:write 'two' end))
  local ip, port = one:address()
  lu.assertEquals(ip, '127.0.0.1')
  lu.assertTrue(port >= 1 and port <= 65535)
  lu.assertNotEquals(port_of(two), port)
  lu.assertEquals(ask('127.0.0.1', port), 'one')
  lu.assertEquals(ask('127.0.0.1', port_of(two)), 'two')
  one:close()
  two:close()
end

function T.test_two_addresses_on_one_port()
  -- The first version kept handlers by port alone.
  can.need 'loopback_net'
  local one = assert(asio.server('127.0.0.1', 0, function(conn) conn:write 'one' end))
  local port = port_of(one)
  local two = assert(asio.server('127.0.0.2', port, function(conn) conn:write 'two' end))
  lu.assertEquals({ two:address() }, { '127.0.0.2', port })
  for _ = 1, 3 do
    lu.assertEquals(ask('127.0.0.1', port), 'one')
    lu.assertEquals(ask('127.0.0.2', port), 'two')
  end
  one:close()
  lu.assertEquals(ask('127.0.0.2', port), 'two')
  two:close()
end

function T.test_a_busy_port()
  local server = assert(asio.server('127.0.0.1', 0, nothing))
  local second, message, code = asio.server('127.0.0.1', port_of(server), nothing)
  lu.assertNil(second)
  lu.assertEquals(message, 'address already in use')
  lu.assertEquals(code, 'EADDRINUSE')
  local port = port_of(server)
  server:close()
  -- Free again as soon as it is closed.
  local third
  t.wait_until(function()
    third = asio.server('127.0.0.1', port, nothing)
    return third
  end)
  third:close()
end

function T.test_a_port_whose_connections_have_just_ended()
  local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:close() end))
  local port = port_of(server)
  local conn = assert(asio.connect('127.0.0.1', port))
  t.failure('EOF', conn:read(1))
  conn:close()
  server:close()
  asio.sleep(0.005)
  server = assert(asio.server('127.0.0.1', port, nothing))
  server:close()
end

function T.test_an_address_that_is_not_ours()
  t.failure('EADDRNOTAVAIL', asio.server('192.0.2.1', 0, nothing))
end

function T.test_a_host_name_as_ip()
  t.failure('EINVAL', asio.server('127.0.0.1.5', 0, nothing))
  t.failure('EINVAL', asio.server('127.0.0.1\0', 0, nothing))
end

function T.test_any_address()
  local server = assert(asio.server('0.0.0.0', 0, function(conn) conn:write 'any' end))
  lu.assertEquals((server:address()), '0.0.0.0')
  lu.assertEquals(ask('127.0.0.1', port_of(server)), 'any')
  server:close()
end

function T.test_ipv6()
  local server, message, code = asio.server('::1', 0, function(conn)
    local ip = conn:peer()
    conn:write(ip)
  end)
  lu.skipIf(not server and (code == 'EADDRNOTAVAIL' or code == 'EAFNOSUPPORT'),
    'this machine has no IPv6')
  lu.assertNotNil(server, message)
  lu.assertEquals((server:address()), '::1')
  lu.assertEquals(ask('::1', port_of(server)), '::1')
  server:close()
end

function T.test_bad_arguments()
  t.bad_argument(1, 'server', function() asio.server() end)
  t.bad_argument(1, 'server', function() asio.server(nil, 0, nothing) end)
  t.bad_argument(1, 'server', function() asio.server({}, 0, nothing) end)
  for _, port in ipairs { -1, 65536, 1.5, 0 / 0, math.huge, 'http', '', '-1', '70000', {}, true } do
    t.raises("bad argument #2 to 'server'", asio.server, '127.0.0.1', port, nothing)
  end
  t.bad_argument(2, 'server', function() asio.server('127.0.0.1') end)
  t.bad_argument(3, 'server', function() asio.server('127.0.0.1', 0, 17) end)
  t.bad_argument(4, 'server', function() asio.server('127.0.0.1', 0, nothing, 'options') end)
  t.raises('server', asio.server, '127.0.0.1', 0, nothing, { backlog = 'many' })
end

-- Handlers ------------------------------------------------------------------------------------

function T.test_a_handler_that_reads_directly()
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    lu.assertNotNil(asio.current())
    conn:write(conn:read(4), '-direct')
    conn:close()
  end))
  local conn = assert(asio.connect('127.0.0.1', port_of(server)))
  conn:write 'ping'
  lu.assertEquals(conn:read(11), 'ping-direct')
  t.failure('EOF', conn:read(1))
  server:close()
end

function T.test_a_handler_that_spawns()
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    asio.spawn_light_thread(function(c)
      c:write(c:read(4), '-spawned')
      c:close()
    end, conn)
  end))
  local conn = assert(asio.connect('127.0.0.1', port_of(server)))
  conn:write 'ping'
  lu.assertEquals(conn:read(12), 'ping-spawned')
  t.failure('EOF', conn:read(1))
  server:close()
end

function T.test_a_handler_that_returns_leaves_its_connection_to_who_holds_it()
  local kept
  local server = assert(asio.server('127.0.0.1', 0, function(conn) kept = conn end))
  local conn = assert(asio.connect('127.0.0.1', port_of(server)))
  t.wait_until(function() return kept end)
  t.collect()
  kept:write 'kept'
  lu.assertEquals(conn:read(4), 'kept')
  server:close()
  conn:write 'after the server'
  lu.assertEquals(kept:read(16), 'after the server')
end

function T.test_a_handler_that_drops_its_connection()
  local server = assert(asio.server('127.0.0.1', 0, nothing))
  local conn = assert(asio.connect('127.0.0.1', port_of(server)))
  local reader = asio.spawn(function() return conn:read(1) end)
  t.wait_until(function()
    t.collect()
    return reader:status() == 'done'
  end, 'the connection to be closed')
  lu.assertEquals(select(4, reader:join()), 'EOF')
  server:close()
end

function T.test_addresses_of_both_ends_agree()
  local a, b = t.tcp()
  lu.assertEquals({ a:peer() }, { b:address() })
  lu.assertEquals({ b:peer() }, { a:address() })
  lu.assertEquals((a:address()), '127.0.0.1')
  lu.assertIsNumber((a:fd()))
  lu.assertNotEquals(a:fd(), b:fd())
end

function T.test_the_handler_need_not_be_named()
  local port
  do
    local server = assert(asio.server('127.0.0.1', 0, (function()
      return function(conn) conn:write 'from a closure' end
    end)()))
    port = port_of(server)
    t.collect()
    lu.assertEquals(ask('127.0.0.1', port), 'from a closure')
    server:close()
  end
end

function T.test_many_clients_before_the_first_accept()
  local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:write 'served' end))
  local peers = {}
  for i = 1, 100 do peers[i] = raw.connect(port_of(server)) end
  for i = 1, 100 do
    lu.assertEquals(t.recv(peers[i], 6), 'served')
    peers[i]:close()
  end
  server:close()
end

function T.test_a_handler_cannot_keep_the_loop_to_itself()
  local stop = false
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    while not stop do
      asio.yield()
      if not conn:write 'x' then return end
    end
  end, { linger = 0.1 }))
  local greedy = raw.connect(port_of(server))
  local a, b = t.pair()
  b:write 'ok'
  lu.assertEquals(a:read(2), 'ok')
  asio.sleep(0.01)
  stop = true
  greedy:reset()
  server:close()
end

-- Closing -------------------------------------------------------------------------------------

function T.test_a_closed_server()
  local server = assert(asio.server('127.0.0.1', 0, nothing))
  local port = port_of(server)
  server:close()
  server:close()
  t.failure('EBADF', server:address())
  lu.assertIsString(tostring(server))
  t.wait_until(function()
    local conn, _, code = asio.connect('127.0.0.1', port)
    if conn then conn:close() end
    return code == 'ECONNREFUSED'
  end)
end

function T.test_the_old_name_of_close()
  local server = assert(asio.server('127.0.0.1', 0, nothing))
  asio.destory_server(server)
  t.failure('EBADF', server:address())
  asio.destory_server(server)
  lu.assertFalse((pcall(asio.destory_server, nil)))
  lu.assertFalse((pcall(asio.destory_server, {})))
end

function T.test_running_handlers_go_on()
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write(conn:read(4), '!')
    conn:close()
  end))
  local conn = assert(asio.connect('127.0.0.1', port_of(server)))
  conn:write 'on'
  asio.sleep(0.005)
  server:close()
  server = nil -- luacheck: ignore 311
  t.collect()
  conn:write 'ce'
  lu.assertEquals(conn:read(5), 'once!')
end

function T.test_closed_by_its_own_handler()
  local server
  server = assert(asio.server('127.0.0.1', 0, function(conn)
    server:close()
    conn:write 'the only one'
  end))
  lu.assertEquals(ask('127.0.0.1', port_of(server)), 'the only one')
end

function T.test_a_server_of_a_finished_script_is_no_reason_to_run()
  t.quiet_child(function()
    local lib = require 'asio'
    lib.server('127.0.0.1', 0, function() end)
    collectgarbage()
    collectgarbage()
    lib.run() -- the holder is gone, so there is nothing to wait for
  end)
end

function T.test_a_connection_that_waits_in_the_queue_when_the_server_closes()
  local server = assert(asio.server('127.0.0.1', 0, nothing))
  local peer = raw.connect(port_of(server))
  server:close()
  lu.assertEquals(t.recv(peer), '')
  peer:close()
end

-- Collected -----------------------------------------------------------------------------------

local function wait_until_refused(port)
  t.wait_until(function()
    t.collect()
    local conn, _, code = asio.connect('127.0.0.1', port)
    if conn then conn:close() end
    return code == 'ECONNREFUSED'
  end, 'the listener to be closed')
end

function T.test_an_unreachable_server_closes()
  local server = assert(asio.server('127.0.0.1', 0, nothing))
  local port = port_of(server)
  server = nil -- luacheck: ignore 311
  wait_until_refused(port)
end

function T.test_its_handler_does_not_keep_it()
  local server
  server = assert(asio.server('127.0.0.1', 0, function(conn) conn:write(tostring(server)) end))
  local port = port_of(server)
  lu.assertIsString(ask('127.0.0.1', port))
  server = nil
  wait_until_refused(port)
end

function T.test_a_reachable_one_stays()
  local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:write 'here' end))
  for _ = 1, 10 do
    t.collect()
    lu.assertEquals(ask('127.0.0.1', port_of(server)), 'here')
  end
  server:close()
end

return T
