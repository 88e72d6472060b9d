-- The options of asio.connect and asio.server.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'
local rawunix = require 'rawunix'

local T = {}

local function nothing() end

local function port_of(server)
  return (select(2, server:address()))
end

-- Linux's numbers.
local numbers = require 'numbers'
local SOL_SOCKET, SO_KEEPALIVE = numbers.SOL_SOCKET, numbers.SO_KEEPALIVE
local IPPROTO_TCP, TCP_NODELAY, TCP_KEEPIDLE = 6, 1, 4

local function option(conn, level, name)
  can.need 'numbers'
  return rawunix.option(conn:fd(), level, name)
end

-- Names and values ----------------------------------------------------------------------------

function T.test_unknown_names()
  local name = 'unix:@asio.options'
  t.raises({ "'connect'", "unknown option 'no_delay'" }, asio.connect, '127.0.0.1', 1, { no_delay = true })
  t.raises({ "'connect'", "unknown option 'x'" }, asio.connect, name, { x = false })
  t.raises({ "'server'", "unknown option 'port'" }, asio.server, '127.0.0.1', 0, nothing, { port = 1 })
  t.raises({ "'server'", "unknown option 'x'" }, asio.server, name, nothing, { x = 1 })
  t.bad_argument(3, 'connect', function() asio.connect('127.0.0.1', 1, { x = 1 }) end)
  t.bad_argument(3, 'connect', function() asio.connect('127.0.0.1', 1, { 'nodelay' }) end)
  t.bad_argument(4, 'server', function() asio.server('127.0.0.1', 0, nothing, { [true] = 1 }) end)
end

function T.test_the_nearest_name_is_suggested()
  t.raises({ "'connect'", "did you mean 'nodelay'" }, asio.connect, '127.0.0.1', 1, { no_delay = true })
  t.raises({ "'server'", "did you mean 'backlog'" }, asio.server, '127.0.0.1', 0, nothing, { backlgo = 1 })
  t.raises({ "'relay'", "did you mean 'timeout'" }, asio.relay, asio.socketpair(), (asio.socketpair()),
    { time_out = 1 })
  local _, message = pcall(asio.connect, '127.0.0.1', 1, { [('x'):rep(1000)] = 1 })
  lu.assertNotStrContains(message, 'did you mean')
end

function T.test_one_table_for_both_ends()
  local opts = {
    timeout = 5, linger = 1, nodelay = true, keepalive = 30, bind = '127.0.0.1', backlog = 10,
    reuseport = false, ipv6only = false, max_connections = 10, handles = false, unlink_stale = true,
    tls = false, threads = false, init = false, proxy_protocol = false,
  }
  local a, b = t.tcp(opts, opts)
  a:write 'x'
  lu.assertEquals(b:read(1), 'x')
  a:close()
  b:close()
end

function T.test_values_that_make_no_sense()
  local bad = {
    linger = { -1, 0 / 0, 'x', true },
    nodelay = { 1, 'yes', {} },
    keepalive = { 0, 0.5, -1, 0 / 0, 40000, math.huge, 'x', {} },
    backlog = { 0, -1, 1.5, 65536, 0 / 0, 'x', true },
    reuseport = { 1, 'x' },
    ipv6only = { 1, 'x' },
    max_connections = { 0, -1, 1.5, 0 / 0, math.huge, 2 ^ 31, 'x', true },
    handles = { 1, 'x' },
    unlink_stale = { 1, 'x' },
    bind = { 1, true, '', 'localhost', 'x', '127.0.0.1:80', {}, { 1 }, { 'x' }, { '127.0.0.1', 'x' },
      { '127.0.0.1', -1 }, { '127.0.0.1', 65536 }, '127.0.0.1\0' },
  }
  for name, values in pairs(bad) do
    for _, value in ipairs(values) do
      local opts = { [name] = value }
      t.raises({ "'connect'" }, asio.connect, '127.0.0.1', 1, opts)
      t.raises({ "'server'" }, asio.server, '127.0.0.1', 0, nothing, opts)
      if name ~= 'bind' then
        t.raises({ name }, asio.connect, '127.0.0.1', 1, opts)
        t.raises({ name }, asio.connect, 'unix:@asio.options', opts)
        t.raises({ name }, asio.server, 'unix:@asio.options', nothing, opts)
      end
    end
  end
end

-- A script that asks for encryption does not get a connection without, and nothing is opened.
function T.test_tls_where_it_is_not_built()
  lu.skipIf(can.has 'tls', 'TLS was built')
  local server = assert(asio.server('127.0.0.1', 0, nothing))
  t.failure('ENOTSUP', asio.connect('127.0.0.1', port_of(server), { tls = {} }))
  t.failure('ENOTSUP', asio.connect('unix:@asio.options', { tls = {} }))
  t.failure('ENOTSUP', asio.server('127.0.0.1', 0, nothing, { tls = {} }))
  server:close()
end

-- The options of threads are a server's: connect ignores them.
function T.test_threads_when_connecting()
  local a, b = t.tcp(nil, { threads = 2, init = 'a module' })
  a:close()
  b:close()
end

-- bind ----------------------------------------------------------------------------------------

function T.test_bind()
  can.need 'loopback_net'
  local function from(bind)
    local a, b = t.tcp(nil, { bind = bind })
    local ip, port = a:peer()
    lu.assertEquals({ b:address() }, { ip, port })
    a:close()
    b:close()
    return ip, port
  end
  lu.assertEquals((from '127.0.0.2'), '127.0.0.2')
  lu.assertEquals((from { '127.0.0.3' }), '127.0.0.3')
  lu.assertEquals((from { '127.0.0.3', 0 }), '127.0.0.3')
  local probe = raw.listen { ip = '127.0.0.4' }
  local port = probe:port()
  t.failure('EADDRINUSE', asio.connect('127.0.0.1', port, { bind = { '127.0.0.4', port } }))
  probe:close()
  lu.assertEquals({ from { '127.0.0.4', port } }, { '127.0.0.4', port })
  lu.assertEquals({ from { '127.0.0.5', tostring(port) } }, { '127.0.0.5', port })
end

function T.test_bind_to_what_cannot_be()
  local server = assert(asio.server('127.0.0.1', 0, nothing))
  t.failure('EADDRNOTAVAIL', asio.connect('127.0.0.1', port_of(server), { bind = '192.0.2.1' }))
  t.failure('EAFNOSUPPORT', asio.connect('127.0.0.1', port_of(server), { bind = '::1' }))
  server:close()
end

-- Options of the socket -----------------------------------------------------------------------

function T.test_nodelay()
  for _, value in ipairs { true, false } do
    local a, b = t.tcp({ nodelay = value }, { nodelay = value })
    lu.assertEquals(option(a, IPPROTO_TCP, TCP_NODELAY) ~= 0, value)
    lu.assertEquals(option(b, IPPROTO_TCP, TCP_NODELAY) ~= 0, value)
    a:close()
    b:close()
  end
  local a, b = t.tcp()
  lu.assertEquals(option(a, IPPROTO_TCP, TCP_NODELAY), 1)
  lu.assertEquals(option(b, IPPROTO_TCP, TCP_NODELAY), 1)
  a:close()
  b:close()
end

function T.test_keepalive()
  for value, seconds in pairs { [17] = 17, [1.5] = 2, [true] = 60 } do
    local a, b = t.tcp({ keepalive = value }, { keepalive = value })
    for _, conn in ipairs { a, b } do
      lu.assertEquals(option(conn, SOL_SOCKET, SO_KEEPALIVE), 1)
      lu.assertEquals(option(conn, IPPROTO_TCP, TCP_KEEPIDLE), seconds)
      conn:close()
    end
  end
  for _, opts in ipairs { {}, { keepalive = false } } do
    local a, b = t.tcp(opts, opts)
    lu.assertEquals(option(a, SOL_SOCKET, SO_KEEPALIVE), 0)
    lu.assertEquals(option(b, SOL_SOCKET, SO_KEEPALIVE), 0)
    a:close()
    b:close()
  end
end

-- Options of TCP do not trouble a Unix socket.
function T.test_over_unix_sockets()
  can.need 'unix_sockets'
  local opts = { nodelay = true, keepalive = 5, reuseport = true, ipv6only = true }
  local server = assert(asio.server('unix:@asio.options', function(conn) conn:write 'x' end, opts))
  local conn = assert(asio.connect('unix:@asio.options', opts))
  lu.assertEquals(conn:read(1), 'x')
  conn:close()
  server:close()
end

function T.test_reuseport()
  can.need 'shared_ports'
  local counts = { 0, 0 }
  local function server(i, port)
    return asio.server('127.0.0.1', port, function(conn)
      counts[i] = counts[i] + 1
      conn:close()
    end, { reuseport = true })
  end
  local one = assert(server(1, 0))
  local two = assert(server(2, port_of(one)))
  t.failure('EADDRINUSE', asio.server('127.0.0.1', port_of(one), nothing))
  for _ = 1, 100 do
    local conn = assert(asio.connect('127.0.0.1', port_of(one)))
    t.failure('EOF', conn:read(1))
    conn:close()
  end
  lu.assertEquals(counts[1] + counts[2], 100)
  lu.assertTrue(counts[1] > 10 and counts[2] > 10)
  one:close()
  two:close()
end

-- One local port for connections to several places.
function T.test_reuseport_when_connecting()
  can.need 'shared_ports'
  local one = assert(asio.server('127.0.0.1', 0, nothing))
  local two = assert(asio.server('127.0.0.1', 0, nothing))
  local a = assert(asio.connect('127.0.0.1', port_of(one), { bind = '127.0.0.1', reuseport = true }))
  local ip, port = a:address()
  local b = assert(asio.connect('127.0.0.1', port_of(two), { bind = { ip, port }, reuseport = true }))
  lu.assertEquals({ b:address() }, { ip, port })
  a:close()
  b:close()
  one:close()
  two:close()
end

function T.test_ipv6only()
  local six, _, code = asio.server('::', 0, function(conn) conn:write '6' end, { ipv6only = true })
  lu.skipIf(not six and (code == 'EADDRNOTAVAIL' or code == 'EAFNOSUPPORT'), 'this machine has no IPv6')
  local four = assert(asio.server('0.0.0.0', port_of(six), function(conn) conn:write '4' end))
  local conn = assert(asio.connect('127.0.0.1', port_of(six)))
  lu.assertEquals(conn:read(1), '4')
  conn:close()
  conn = assert(asio.connect('::1', port_of(six)))
  lu.assertEquals(conn:read(1), '6')
  conn:close()
  four:close()
  six:close()
  -- Both, without.
  six = assert(asio.server('::', 0, function(c) c:write '6' end))
  conn = assert(asio.connect('127.0.0.1', port_of(six)))
  lu.assertEquals(conn:read(1), '6')
  conn:close()
  six:close()
  assert(asio.server('127.0.0.1', 0, nothing, { ipv6only = true })):close()
end

function T.test_backlog()
  lu.skipIf(not raw.linux, 'the kernel of Linux says how many it keeps')
  local function queue(opts)
    local server = assert(asio.server('unix:@asio.backlog', nil, opts))
    local clients = {}
    repeat
      local client = rawunix.connect '@asio.backlog'
      clients[#clients + 1] = client or nil
    until not client
    server:close()
    for _, client in ipairs(clients) do client:close() end
    return #clients
  end
  lu.assertEquals(queue { backlog = 1 }, 2)
  lu.assertEquals(queue { backlog = 20 }, 21)
  lu.assertTrue(queue() > 100)
end

-- max_connections -----------------------------------------------------------------------------

-- Clients that say when they were served.
local function clients(address, n)
  local list = { served = 0 }
  for i = 1, n do
    local conn = assert(asio.connect(unpack(address)))
    list[i] = conn
    asio.spawn(function()
      if conn:read(1) then list.served = list.served + 1 end
    end)
  end
  return list
end

-- libuv accepts in no order on Windows.
local function client_of(list, conn)
  local _, port = conn:peer()
  for i = 1, #list do
    if select(2, list[i]:address()) == port then return table.remove(list, i) end
  end
end

local function both_kinds(fn)
  return function()
    fn { '127.0.0.1', 0 }
    if can.has 'abstract_names' then fn { 'unix:@asio.max' } end
  end
end

local function listen(where, handler, opts)
  local arguments = { unpack(where) }
  arguments[#where + 1], arguments[#where + 2] = handler, opts
  return assert(asio.server(unpack(arguments, 1, #where + 2)))
end

T.test_max_connections = both_kinds(function(where)
  local open = {}
  local server = listen(where, function(conn)
    conn:write 'x'
    open[#open + 1] = conn
  end, { max_connections = 3 })
  local list = clients({ server:address() }, 10)
  t.wait_until(function() return list.served == 3 end)
  asio.sleep(0.02)
  lu.assertEquals(#open, 3)
  for n = 4, 10 do
    client_of(list, open[n - 3]):close()
    open[n - 3]:close()
    t.wait_until(function() return list.served == n end, 'room for one')
    asio.sleep(0.002)
    lu.assertEquals(#open, n)
  end
  server:close()
  for i = 1, 10 do open[i]:close() end
  for i = 1, #list do list[i]:close() end
end)

T.test_max_connections_with_many_in_a_row = both_kinds(function(where)
  local now, most = 0, 0
  local server = listen(where, function(conn)
    now = now + 1
    most = math.max(now, most)
    conn:write(conn:read(1))
    asio.yield()
    now = now - 1
    conn:close()
  end, { max_connections = 2 })
  local threads = {}
  for i = 1, t.count(4000) do
    threads[i] = asio.spawn(function()
      local conn = assert(asio.connect(server:address()))
      conn:write 'x'
      assert(conn:read(1) == 'x')
      conn:close()
    end)
  end
  for _, thread in ipairs(threads) do assert(thread:join()) end
  lu.assertTrue(most <= 2, most)
  server:close()
end)

-- Nobody closes them: they are collected, though nothing else goes on.
T.test_max_connections_that_are_dropped = both_kinds(function(where)
  local count = 0
  local server = listen(where, function(conn)
    count = count + 1
    conn:write 'x'
    conn:flush()
  end, { max_connections = 2, linger = 0.1 })
  local list = clients({ server:address() }, 6)
  t.wait_until(function() return list.served == 6 end, 'the collector', 10)
  lu.assertEquals(count, 6)
  server:close()
  for i = 1, 6 do list[i]:close() end
end)

-- A full server asks the collector now and then, and is idle in between.
function T.test_max_connections_and_nothing_to_do()
  local open = {}
  local server = assert(asio.server('127.0.0.1', 0, function(conn) open[#open + 1] = conn end,
    { max_connections = 1 }))
  local peers = { raw.connect(port_of(server)), raw.connect(port_of(server)) }
  t.wait_until(function() return #open == 1 end)
  local cpu, turns = raw.cpu(), asio.stats().turns
  asio.sleep(0.3)
  lu.assertTrue(asio.stats().turns - turns < 10, asio.stats().turns - turns)
  lu.assertTrue(raw.cpu() - cpu < 0.15 * t.patience)
  lu.assertEquals(#open, 1)
  server:close()
  open[1]:close()
  peers[1]:close()
  peers[2]:close()
end

T.test_max_connections_without_a_handler = both_kinds(function(where)
  local server = listen(where, nil, { max_connections = 1 })
  local one = assert(asio.connect(server:address()))
  local two = assert(asio.connect(server:address()))
  local conn = assert(server:accept(1))
  t.failure('ETIMEDOUT', server:accept(0.02))
  local waiter = asio.spawn(server.accept, server)
  lu.assertEquals(waiter:status(), 'waiting')
  one:close()
  conn:close()
  local ok, second = waiter:join()
  lu.assertTrue(ok)
  server:close()
  two:close()
  second:close()
end)

function T.test_max_connections_of_a_server_that_closes_meanwhile()
  local open
  local server = assert(asio.server('127.0.0.1', 0, function(conn) open = conn end,
    { max_connections = 1 }))
  local peers = { raw.connect(port_of(server)), raw.connect(port_of(server)) }
  t.wait_until(function() return open end)
  server:close()
  lu.assertEquals(t.recv(peers[2]), '') -- it waited in vain
  open:close()
  peers[1]:close()
  peers[2]:close()
end

function T.test_max_connections_of_a_state_that_closes()
  t.quiet_child(function()
    local lib, sys = require 'asio', require 'raw'
    _G.open = {}
    _G.server = lib.server('127.0.0.1', 0, function(conn) _G.open[#_G.open + 1] = conn end,
      { max_connections = 1 })
    local port = select(2, _G.server:address())
    _G.peers = { sys.connect(port), sys.connect(port) }
    lib.run(function() lib.sleep(0.02) lib.stop() end)
    assert(#_G.open == 1)
  end)
end

return T
