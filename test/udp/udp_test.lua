-- Datagram sockets over the loopback interface: what arrives is what was sent, whole, from whom it says; how
-- a socket is made; bad arguments; names. Waiting, errors, queues, the end: udp_life_test.lua. Networks,
-- faults and the system calls: udp_net_test.lua.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local ffi = require 'ffi'
local asio = require 'asio'
local datagrams = require 'datagrams'
local numbers = require 'numbers'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local MAX4, MAX6 = 65507, 65527

local socket, connected_pair = datagrams.socket, datagrams.connected_pair
local server_and_client = datagrams.server_and_client

local function has_ip6()
  local s = asio.udp('::1', 0)
  if s then s:close() end
  return s ~= nil
end

local function need_ip6()
  lu.skipIf(not has_ip6(), 'no IPv6 here')
end

-- Whole, and from whom it says ------------------------------------------------------------------

function T.test_there_and_back()
  local a, b = socket(), socket()
  local ip, port = a:address()
  lu.assertEquals(ip, '127.0.0.1')
  lu.assertTrue(b:send('ping', ip, port))
  local data, from, from_port = a:recv()
  lu.assertEquals(data, 'ping')
  lu.assertEquals({ from, from_port }, { b:address() })
  lu.assertTrue(a:send('pong', from, from_port))
  lu.assertEquals({ b:recv() }, { 'pong', ip, port })
end

function T.test_a_reader_that_waits()
  local a, b = connected_pair()
  local reader = asio.spawn(function() return a:recv() end)
  lu.assertEquals(reader:status(), 'waiting')
  b:send 'data'
  lu.assertEquals({ reader:join() }, { true, 'data', b:address() })
end

function T.test_boundaries_are_kept()
  local a, b = connected_pair()
  local sizes = { 1, 0, 1000, 7, 0, 0, 65507, 64, 1472, 1473 }
  for i, size in ipairs(sizes) do
    lu.assertTrue(b:send(string.char(i + 64):rep(size)))
    -- More than 200 KB at once may be more than the kernel keeps.
    t.same_bytes((a:recv()), string.char(i + 64):rep(size))
  end
  for i, size in ipairs(sizes) do
    if size < 10000 then b:send(string.char(i + 64):rep(size)) end
  end
  for i, size in ipairs(sizes) do
    if size < 10000 then t.same_bytes((a:recv()), string.char(i + 64):rep(size)) end
  end
end

function T.test_empty_ones()
  local a, b = connected_pair()
  for _ = 1, 3 do b:send '' end
  b:send 'x'
  for _ = 1, 3 do lu.assertEquals({ a:recv() }, { '', b:address() }) end
  lu.assertEquals((a:recv()), 'x')
  local reader = asio.spawn(function() return a:recv() end)
  b:send ''
  lu.assertEquals({ reader:join() }, { true, '', b:address() })
  -- Still an error where there is none.
  t.failure('ETIMEDOUT', a:recv(nil, 0))
end

function T.test_every_byte_value()
  local a, b = connected_pair()
  local all = {}
  for i = 0, 255 do all[i + 1] = string.char(i) end
  all = table.concat(all)
  b:send(all)
  t.same_bytes((a:recv()), all)
end

function T.test_numbers_are_sent_as_text()
  local a, b = connected_pair()
  b:send(12.5)
  lu.assertEquals((a:recv()), '12.5')
end

function T.test_the_largest()
  local a, b = connected_pair()
  local data = ('0123456789abcdef'):rep(4095):sub(1, MAX4)
  lu.assertTrue(b:send(data))
  t.same_bytes((a:recv()), data)
  t.failure('EMSGSIZE', b:send(data .. '!'))
  t.failure('EMSGSIZE', b:send(('x'):rep(2 ^ 20)))
  b:send 'as good as before'
  lu.assertEquals((a:recv()), 'as good as before')
end

function T.test_the_largest_by_ip6()
  need_ip6()
  local a, b = assert(asio.udp('::1', 0)), assert(asio.udp('::1', 0))
  local ip, port = a:address()
  local data = ('0123456789abcdef'):rep(4096):sub(1, MAX6)
  lu.assertTrue(b:send(data, ip, port))
  t.same_bytes((a:recv()), data)
  t.failure('EMSGSIZE', b:send(data .. '!', ip, port))
end

function T.test_many_at_once_in_their_order()
  local a, b = connected_pair()
  for round = 1, 10 do
    for i = 1, 100 do lu.assertTrue(b:send(('%d.%d'):format(round, i))) end
    for i = 1, 100 do lu.assertEquals((a:recv()), ('%d.%d'):format(round, i)) end
  end
end

function T.test_many_senders()
  local server = socket()
  local ip, port = server:address()
  local clients = {}
  for i = 1, 30 do
    clients[i] = asio.spawn(function()
      local s = socket()
      for round = 1, 5 do
        local sent = ('%d says %d'):format(i, round)
        s:send(sent, ip, port)
        lu.assertEquals({ s:recv() }, { sent:upper(), ip, port })
      end
      s:close()
    end)
  end
  local echo = asio.spawn(function()
    for _ = 1, 150 do
      local data, from, from_port = server:recv()
      server:send(data:upper(), from, from_port)
    end
  end)
  lu.assertEquals({ echo:join() }, { true })
  for i = 1, 30 do lu.assertEquals({ clients[i]:join() }, { true }) end
end

function T.test_ip6()
  need_ip6()
  local a, b = assert(asio.udp('::1', 0)), assert(asio.udp('::1', 0))
  local ip, port = a:address()
  lu.assertEquals(ip, '::1')
  b:send('six', ip, port)
  lu.assertEquals({ a:recv() }, { 'six', b:address() })
end

function T.test_ip4_through_a_socket_for_both()
  need_ip6()
  local a, b = assert(asio.udp('::', 0)), socket()
  local _, port = a:address()
  b:send('to both', '127.0.0.1', port)
  local data, from, from_port = a:recv()
  lu.assertEquals({ data, from }, { 'to both', '::ffff:127.0.0.1' })
  -- Either way of writing it.
  a:send('mapped', from, from_port)
  lu.assertEquals((b:recv()), 'mapped')
  a:send('plain', '127.0.0.1', from_port)
  lu.assertEquals((b:recv()), 'plain')
  local only = assert(asio.udp('::', 0, { ipv6only = true }))
  _, port = only:address()
  b:send('not for it', '127.0.0.1', port)
  t.failure('ETIMEDOUT', only:recv(nil, 0.01))
end

function T.test_a_raw_address()
  local a, b = socket(), socket()
  local ip, port = a:address()
  b:send('raw', raw.address(ip, port))
  lu.assertEquals((a:recv()), 'raw')
end

function T.test_addresses_at_their_edges()
  can.need 'loopback_net'
  local a = assert(asio.udp('0.0.0.0', 0))
  local _, port = a:address()
  local from = {}
  for i, ip in ipairs { '127.0.0.1', '127.255.255.254', '127.10.100.9', '127.99.0.200' } do
    local s = assert(asio.udp(ip, 0))
    lu.assertEquals((s:address()), ip)
    s:send(tostring(i), ip, port)
    from[i] = { tostring(i), s:address() }
    lu.assertEquals({ a:recv() }, from[i])
  end
  -- What looks like an address and is none is a name, which nobody has.
  for _, text in ipairs {
    '127.0.0.256', '127.0.0.1.1', '127..0.1', '.127.0.0.1', '127.0.0.1.', '1270.0.0.1',
  } do
    t.failure_among(t.codes('EAI_NONAME', 'EAI_AGAIN'), a:send('x', text, port))
  end
end

-- How a socket is made --------------------------------------------------------------------------

function T.test_a_socket_without_an_address_gets_one_when_it_is_used()
  local server = socket()
  local ip, port = server:address()
  local s = assert(asio.udp())
  lu.assertStrContains(tostring(s), 'datagram socket')
  lu.assertTrue(s:send('first', ip, port))
  local data, _, from_port = server:recv()
  lu.assertEquals(data, 'first')
  lu.assertEquals({ s:address() }, { '0.0.0.0', from_port })
  s = asio.udp { broadcast = true }
  lu.assertEquals((s:address()), '0.0.0.0')
  s = asio.udp(nil, nil, { send_buffer = 10000 })
  t.failure('ETIMEDOUT', s:recv(nil, 0))
  lu.assertEquals((s:address()), '0.0.0.0')
end

function T.test_its_family_is_that_of_its_first_address()
  need_ip6()
  local server = assert(asio.udp('::1', 0))
  local ip, port = server:address()
  local s = assert(asio.udp())
  s:send('six', ip, port)
  lu.assertEquals((server:recv()), 'six')
  lu.assertEquals((s:address()), '::')
  local four = socket()
  t.failure('EAFNOSUPPORT', four:send('x', ip, port))
  t.failure('EAFNOSUPPORT', four:connect(ip, port))
end

function T.test_addresses_that_cannot_be_had()
  can.need 'loopback_net'
  local s = socket()
  t.failure('EADDRINUSE', asio.udp(s:address()))
  t.failure('EADDRNOTAVAIL', asio.udp('203.0.113.1', 0))
  t.failure('EINVAL', asio.udp('not an address', 0))
  t.failure('EINVAL', asio.udp('127.0.0.1\0', 0))
  t.failure('ENODEV', asio.udp('fe80::1%nosuchinterface', 0))
  t.failure('ENODEV', asio.udp('fe80::1%', 0))
  t.failure('ENODEV', asio.udp('fe80::1%0', 0))
end

function T.test_bad_arguments_of_udp()
  t.bad_argument(1, 'udp', function() asio.udp(17, 0) end)
  t.bad_argument(1, 'udp', function() asio.udp(true) end)
  t.bad_argument(2, 'udp', function() asio.udp '127.0.0.1' end)
  t.bad_argument(2, 'udp', function() asio.udp('127.0.0.1', 65536) end)
  t.bad_argument(2, 'udp', function() asio.udp('127.0.0.1', -1) end)
  t.bad_argument(2, 'udp', function() asio.udp('127.0.0.1', 1.5) end)
  t.bad_argument(3, 'udp', function() asio.udp('127.0.0.1', 0, 'fast') end)
  t.bad_argument(3, 'udp', function() asio.udp('127.0.0.1', 0, { recv_queue = 0 }) end)
  t.bad_argument(3, 'udp', function() asio.udp('127.0.0.1', 0, { send_queue = -5 }) end)
  t.bad_argument(3, 'udp', function() asio.udp('127.0.0.1', 0, { recv_buffer = 'big' }) end)
  t.bad_argument(3, 'udp', function() asio.udp('127.0.0.1', 0, { send_buffer = 2 ^ 40 }) end)
  t.bad_argument(1, 'udp', function() asio.udp { reuseport = true } end)
end

-- The kernel's option as a number (of SOL_SOCKET).
local function option_of(s, number)
  local value, size = ffi.new 'int[1]', ffi.new('unsigned[1]', 4)
  lu.assertEquals(ffi.C.getsockopt(s:fd(), numbers.SOL_SOCKET, number, value, size), 0)
  return value[0]
end

function T.test_buffers_of_the_kernel()
  can.need 'numbers'
  local SO_BROADCAST, SO_SNDBUF, SO_RCVBUF = numbers.SO_BROADCAST, numbers.SO_SNDBUF, numbers.SO_RCVBUF
  local s = socket { recv_buffer = 30000, send_buffer = 20000, broadcast = true }
  lu.assertEquals(option_of(s, SO_RCVBUF), 60000) -- it doubles them
  lu.assertEquals(option_of(s, SO_SNDBUF), 40000)
  lu.assertEquals(option_of(s, SO_BROADCAST), 1)
  lu.assertTrue(s:set_broadcast(false))
  lu.assertEquals(option_of(s, SO_BROADCAST), 0)
  -- They wait for the kernel's socket where there is none yet.
  s = asio.udp { recv_buffer = 30000 }
  lu.assertEquals(option_of(s, SO_RCVBUF), 60000)
end

function T.test_two_sockets_share_a_port()
  can.need 'shared_ports'
  local a = socket { reuseport = true }
  local ip, port = a:address()
  t.failure('EADDRINUSE', asio.udp(ip, port))
  local b = assert(asio.udp(ip, port, { reuseport = true }))
  local got = { [a] = 0, [b] = 0 }
  local readers = {}
  for _, s in ipairs { a, b } do
    readers[#readers + 1] = asio.spawn(function()
      while s:recv() do got[s] = got[s] + 1 end
    end)
  end
  for _ = 1, 64 do
    local client = asio.udp()
    client:send('x', ip, port)
    client:flush()
    client:close()
  end
  t.wait_until(function() return got[a] + got[b] == 64 end, 'all of them')
  lu.assertTrue(not raw.linux or (got[a] > 0 and got[b] > 0), 'the kernel spreads them')
  a:close()
  b:close()
  for _, reader in ipairs(readers) do reader:join() end
end

function T.test_two_sockets_of_one_address()
  local a = socket { reuseaddr = true }
  local ip, port = a:address()
  local b = assert(asio.udp(ip, port, { reuseaddr = true }))
  lu.assertEquals({ b:address() }, { ip, port })
end

-- Arguments -------------------------------------------------------------------------------------

function T.test_bad_arguments()
  local s = socket()
  local ip, port = s:address()
  t.bad_argument(1, 'send', function() s:send() end)
  t.bad_argument(1, 'send', function() s:send({}, ip, port) end)
  t.bad_argument(1, 'send', function() s:send(nil, ip, port) end)
  t.bad_argument(2, 'send', function() s:send('x', 17, port) end)
  t.bad_argument(2, 'send', function() s:send('x', nil, port) end)
  t.bad_argument(3, 'send', function() s:send('x', ip) end)
  t.bad_argument(3, 'send', function() s:send('x', ip, 0) end)
  t.bad_argument(3, 'send', function() s:send('x', ip, 65536) end)
  t.bad_argument(3, 'send', function() s:send('x', ip, 'domain') end)
  t.bad_argument(1, 'recv', function() s:recv(0) end)
  t.bad_argument(1, 'recv', function() s:recv(-1) end)
  t.bad_argument(1, 'recv', function() s:recv(0 / 0) end)
  t.bad_argument(1, 'recv', function() s:recv(1.5) end)
  t.bad_argument(1, 'recv', function() s:recv('all') end)
  t.bad_argument(2, 'recv', function() s:recv(nil, -1) end)
  t.bad_argument(2, 'recv', function() s:recv(nil, 0 / 0) end)
  t.bad_argument(2, 'recv', function() s:recv(nil, 'soon') end)
  t.bad_argument(1, 'connect', function() s:connect() end)
  t.bad_argument(1, 'connect', function() s:connect(nil, port) end)
  t.bad_argument(2, 'connect', function() s:connect(ip) end)
  t.bad_argument(1, 'set_timeout', function() s:set_timeout(-1) end)
  t.bad_argument(2, 'set_timeout', function() s:set_timeout(1, 0 / 0) end)
  t.bad_argument(1, 'join', function() s:join() end)
  t.bad_argument(2, 'join', function() s:join('224.0.0.1', 17) end)
  t.bad_argument(1, 'leave', function() s:leave {} end)
  t.bad_argument(1, 'set_ttl', function() s:set_ttl(0) end)
  t.bad_argument(1, 'set_ttl', function() s:set_ttl(256) end)
  t.bad_argument(1, 'set_multicast_ttl', function() s:set_multicast_ttl(-1) end)
  t.bad_argument(1, 'set_multicast_loop', function() s:set_multicast_loop() end)
  t.bad_argument(1, 'set_broadcast', function() s:set_broadcast(1) end)
  t.bad_argument(1, 'set_multicast_interface', function() s:set_multicast_interface(5) end)
  -- As good as before; a port may be text.
  s:send('usable', ip, tostring(port))
  lu.assertEquals((s:recv()), 'usable')
end

function T.test_methods_on_what_is_no_socket()
  local s = socket()
  for _, self in ipairs { false, 17, 'text', {}, io.stdout, newproxy(), asio.current(), (t.pair()) } do
    for _, name in ipairs { 'send', 'recv', 'flush', 'connect', 'close', 'peer', 'address', 'fd', 'pending',
      'set_timeout', 'join', 'leave', 'set_ttl', 'set_multicast_ttl', 'set_multicast_loop', 'set_broadcast',
      'set_multicast_interface' } do
      local ok, err = pcall(s[name], self, 'x', '127.0.0.1', 9)
      lu.assertFalse(ok, name)
      lu.assertStrContains(err, 'not a datagram socket')
    end
  end
  local a = t.pair()
  lu.assertFalse((pcall(a.read, s, 1)))
end

function T.test_where_to()
  local server, client = server_and_client()
  local ip, port = server:address()
  t.failure('EDESTADDRREQ', server:send 'nowhere')
  t.failure('EISCONN', client:send('elsewhere', ip, port))
  t.failure('EISCONN', client:send('elsewhere', 'localhost', port))
  t.failure('EISCONN', client:connect(ip, port))
  t.failure('ENOTCONN', server:peer())
  t.failure('ENOTCONN', asio.udp():peer())
  lu.assertEquals({ client:peer() }, { ip, port })
end

function T.test_objects_show_themselves()
  local s = socket()
  local _, port = s:address()
  lu.assertEquals(tostring(s), 'datagram socket (udp 127.0.0.1:' .. port .. ')')
  s:close()
  lu.assertEquals(tostring(s), 'datagram socket (closed)')
end

-- Too long for the reader -----------------------------------------------------------------------

function T.test_one_that_is_cut_is_an_error()
  local server, client = server_and_client()
  client:send 'four'
  client:send 'longer'
  client:send 'more'
  lu.assertEquals((server:recv(4)), 'four')
  lu.assertEquals({ t.failure('EMSGSIZE', server:recv(4)) }, { client:address() })
  -- It is lost, and it alone.
  lu.assertEquals((server:recv(4)), 'more')
  local reader = asio.spawn(function() return server:recv(3) end)
  client:send 'four'
  local joined, data, _, code, ip, port = reader:join()
  lu.assertTrue(joined)
  lu.assertEquals({ data, code, ip, port }, { nil, 'EMSGSIZE', client:address() })
end

-- Names -----------------------------------------------------------------------------------------

function T.test_names_are_resolved()
  local server = socket()
  local _, port = server:address()
  -- Whatever localhost is first here: the socket is of IPv4, and takes its first address of that kind.
  local client = socket()
  lu.assertTrue(client:send('by name', 'localhost', port))
  lu.assertEquals({ server:recv(nil, 5) }, { 'by name', client:address() })
  lu.assertTrue(client:connect('localhost', port))
  lu.assertEquals({ client:peer() }, { '127.0.0.1', port })
  client:send 'connected by name'
  lu.assertEquals((server:recv(nil, 5)), 'connected by name')
end

function T.test_names_that_nobody_has()
  local s = socket()
  local codes = t.codes('EAI_NONAME', 'EAI_AGAIN', 'EAI_FAIL')
  t.failure_among(codes, s:send('x', 'no such name', 9))
  t.failure_among(codes, s:send('x', '', 9))
  t.failure_among(codes, s:connect('no such name', 9))
  t.failure_among(codes, s:send('x', 'with\0zero', 9))
  t.failure('ENODEV', s:send('x', 'fe80::1%nosuchinterface', 9))
end

-- Runs fn while looking a name up takes a turn, as it does when a name server is asked.
local function with_slow_names(fn)
  local resolve = asio.resolve
  asio.resolve = function()
    asio.sleep(0.001)
    return { { address = '127.0.0.1', family = 'inet' } }
  end
  local ok, err = pcall(fn)
  asio.resolve = resolve
  if not ok then error(err, 0) end
end

function T.test_looking_up_does_not_block_others()
  local s = socket()
  with_slow_names(function()
    local thread = asio.spawn(function() return s:send('x', 'some.name', 9) end)
    lu.assertEquals(thread:status(), 'waiting')
    lu.assertEquals({ thread:join() }, { true, true })
  end)
end

function T.test_closed_while_a_name_is_looked_up()
  local s = socket()
  with_slow_names(function()
    local thread = asio.spawn(function() return s:send('x', 'some.name', 9) end)
    s:close()
    local joined, ok, _, code = thread:join()
    lu.assertTrue(joined)
    lu.assertNil(ok)
    lu.assertEquals(code, 'EBADF')
  end)
end

return T
