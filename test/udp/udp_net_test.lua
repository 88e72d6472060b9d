-- Datagram sockets where the network or the kernel does something of its own: groups, interfaces,
-- a full device, system calls that fail; how many calls there are; a long random run against a model.
--
-- test: 9 s
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

-- A network of the case's own; skips the case where there can be none.
local function network(setup)
  local net = raw.namespace(setup)
  lu.skipIf(not net, 'this machine does not allow network namespaces, or lacks a device')
  return net
end

-- Groups ----------------------------------------------------------------------------------------

local GROUP = '239.1.2.3'
local MULTICAST = 'ip link set lo multicast on && ip route add 224.0.0.0/4 dev lo'

local function member(net, interface)
  local s = assert(net:run(asio.udp, '0.0.0.0', 0))
  lu.assertTrue(net:run(s.join, s, GROUP, interface))
  return s, select(2, s:address())
end

-- Comes, or does not: nothing else tells that a datagram was not delivered.
local function comes(receiver, sender, group, port)
  lu.assertTrue(sender:send('to the group', group, port))
  lu.assertTrue(sender:flush())
  local data, _, code = receiver:recv(nil, 0.02 * t.patience)
  if data then return data == 'to the group' end
  lu.assertEquals(code, 'ETIMEDOUT')
  return false
end

function T.test_a_group()
  local net = network(MULTICAST)
  for _, interface in ipairs { false, 'lo', '127.0.0.1' } do
    local s, port = member(net, interface or nil)
    local sender = assert(net:run(asio.udp, '127.0.0.1', 0))
    lu.assertTrue(comes(s, sender, GROUP, port))
    lu.assertTrue(net:run(s.leave, s, GROUP, interface or nil))
    lu.assertFalse(comes(s, sender, GROUP, port))
    t.failure('EADDRNOTAVAIL', net:run(s.leave, s, GROUP, interface or nil))
    s:close()
    sender:close()
  end
  net:close()
end

function T.test_a_group_and_its_switches()
  can.need 'real_kernel'
  local net = network(MULTICAST)
  local s, port = member(net)
  local sender = assert(net:run(asio.udp, '127.0.0.1', 0))
  lu.assertTrue(sender:set_multicast_ttl(3))
  lu.assertTrue(sender:set_ttl(7))
  lu.assertTrue(net:run(sender.set_multicast_interface, sender, 'lo'))
  lu.assertTrue(comes(s, sender, GROUP, port))
  -- By itself it does not come back to this machine any more.
  lu.assertTrue(sender:set_multicast_loop(false))
  lu.assertFalse(comes(s, sender, '239.1.2.4', port))
  lu.assertTrue(sender:set_multicast_ttl(0)) -- nowhere
  lu.assertTrue(sender:set_multicast_loop(true))
  s:close()
  sender:close()
  net:close()
end

function T.test_joining_what_is_no_group()
  local s = assert(asio.udp('127.0.0.1', 0))
  t.failure('EINVAL', s:join '127.0.0.1')
  t.failure('EINVAL', s:join 'not an address')
  t.failure('EINVAL', s:join '')
  t.failure('ENODEV', s:join(GROUP, 'no such interface'))
  t.failure('ENODEV', s:join(GROUP, ('long'):rep(100)))
  t.failure('ENODEV', s:join(GROUP, '::1%lo'))
  t.failure('ENODEV', s:join('ff15::1', '::1'))
  t.failure('ENODEV', s:join('ff15::1', '127.0.0.1'))
  t.failure('ENODEV', s:set_multicast_interface 'no such interface')
  t.failure('EAFNOSUPPORT', s:join 'ff15::1')
end

-- Over a cable: the loopback interface has no groups of IPv6.
local VETH = 'ip link add left type veth peer name right && '
  .. 'ip addr add fe80::1/64 dev left nodad && ip addr add fe80::2/64 dev right nodad && '
  .. 'ip link set left up && ip link set right up'

function T.test_a_group_of_ip6()
  can.need 'real_kernel'
  local net = network(VETH)
  local sender = assert(net:run(asio.udp, '::', 0))
  lu.assertTrue(net:run(sender.set_multicast_interface, sender, 'left'))
  lu.assertTrue(sender:set_multicast_ttl(1) and sender:set_ttl(9) and sender:set_multicast_loop(true))
  t.wait_until(function() -- the pair has just come up: its routes follow
    return sender:send('nobody', 'ff15::1', 9) and sender:flush()
  end, 'a way to the group')
  for _, interface in ipairs { 'right', 'fe80::2%right', '::%right' } do
    local s = assert(net:run(asio.udp, '::', 0))
    lu.assertTrue(net:run(s.join, s, 'ff15::1', interface))
    local _, port = s:address()
    lu.assertTrue(comes(s, sender, 'ff15::1', port))
    lu.assertTrue(net:run(s.leave, s, 'ff15::1', interface))
    lu.assertFalse(comes(s, sender, 'ff15::1', port))
    s:close()
  end
  -- One that has no address yet is of the group's family.
  local s = assert(asio.udp())
  lu.assertTrue(net:run(s.join, s, 'ff15::1', 'right'))
  lu.assertEquals((s:address()), '::')
  s:close()
  sender:close()
  net:close()
end

-- Interfaces ------------------------------------------------------------------------------------

-- In a process of its own: names of interfaces are those of its network.
function T.test_link_local_addresses()
  local out = t.quiet_child(function()
    local lib = require 'asio'
    lib.run(function()
      local a = assert(lib.udp('fe80::1%left', 0))
      local b = assert(lib.udp('fe80::2%right', 0))
      local ip, port = a:address()
      assert(ip == 'fe80::1%left', ip)
      -- From one end of the cable to the other, and back to where it says it came from.
      assert(b:send('across', 'fe80::1%right', port))
      local data, from, from_port = a:recv(nil, 5)
      assert(data == 'across' and from == 'fe80::2%left', from)
      assert(a:send('back', from, from_port))
      data, from = b:recv(nil, 5)
      assert(data == 'back' and from == 'fe80::1%right', from)
      -- By the number of the interface.
      local name = io.open('/sys/class/net/right/ifindex') or io.popen("ip -o link show right | cut -d: -f1")
      local index = tonumber(name:read '*l')
      name:close()
      assert(b:send('by number', 'fe80::1%' .. index, port))
      assert(a:recv(nil, 5) == 'by number')
      -- TCP too.
      local server = assert(lib.server('fe80::1%left', 0, function(conn)
        conn:write(conn:peer(), '\n')
        conn:close()
      end))
      local conn = assert(lib.connect('fe80::1%right', (select(2, server:address()))))
      assert(conn:peer() == 'fe80::1%right')
      conn:set_timeout(5)
      io.write(conn:read(13))
      conn:close()
      server:close()
      assert(select(3, b:send('x', 'fe80::1%nowhere', port)) == 'ENODEV')
    end)
  end, { wrap = t.network(VETH) })
  -- On the way through the cable the source is picked among both addresses.
  lu.assertTrue(out == 'fe80::2%left\n' or out == 'fe80::1%left\n', out)
end

function T.test_no_way_there()
  local net = network()
  local s = assert(net:run(asio.udp, '0.0.0.0', 0))
  s:send('x', '203.0.113.1', 9)
  t.failure('ENETUNREACH', s:flush())
  lu.assertTrue(s:flush())
  t.failure('ENETUNREACH', s:connect('203.0.113.1', 9))
  s:close()
  net:close()
end

-- A device that is full -------------------------------------------------------------------------

local SLOW = 'tc qdisc add dev lo root tbf rate 2mbit burst 4kb limit 1mb'

-- The kernel's buffer is full nearly all the time: everything comes nevertheless, in its order, and the
-- queue stays short.
function T.test_a_slow_device_holds_the_sender_back()
  local net = network(SLOW)
  local a = assert(net:run(asio.udp, '127.0.0.1', 0, { recv_buffer = 400000 }))
  local b = assert(net:run(asio.udp, '127.0.0.1', 0, { send_buffer = 4096, send_queue = 5000 }))
  local ip, port = a:address()
  local count, longest = 100, 0
  local sender = asio.spawn(function()
    for i = 1, count do
      lu.assertTrue(b:send(('%05d'):format(i):rep(100), ip, port))
      longest = math.max(longest, (select(2, b:pending())))
    end
    lu.assertTrue(b:flush())
    lu.assertEquals({ b:pending() }, { 0, 0 })
  end)
  for i = 1, count do
    t.same_bytes((a:recv(nil, 10)), ('%05d'):format(i):rep(100))
  end
  lu.assertEquals({ sender:join() }, { true })
  lu.assertTrue(longest <= 5000 / 564 + 1, longest)
  a:close()
  b:close()
  net:close()
end

function T.test_closed_while_the_device_is_full()
  local net = network(SLOW)
  local a = assert(net:run(asio.udp, '127.0.0.1', 0, { recv_buffer = 400000 }))
  local b = assert(net:run(asio.udp, '127.0.0.1', 0, { send_buffer = 4096 }))
  local ip, port = a:address()
  for i = 1, 60 do lu.assertTrue(b:send(('%05d'):format(i):rep(100), ip, port)) end
  asio.sleep(0)
  lu.assertTrue((select(2, b:pending())) > 0, 'the device is not full')
  b:close()
  for i = 1, 60 do t.same_bytes((a:recv(nil, 10)), ('%05d'):format(i):rep(100)) end
  a:close()
  net:close()
end

-- What never goes out is given up, in a bounded time.
T.test_closed_while_nothing_goes_out = t.slow(30, function()
  local net = network 'tc qdisc add dev lo root tbf rate 8kbit burst 2kb limit 1mb'
  local b = assert(net:run(asio.udp, '127.0.0.1', 0, { send_buffer = 4096, send_queue = 2 ^ 20 }))
  local ip, port = b:address()
  for _ = 1, 50 do b:send(('x'):rep(1000), ip, port) end
  asio.sleep(0)
  lu.assertTrue((select(2, b:pending())) > 0)
  local fds = raw.count_fds()
  b:close()
  local began = asio.now()
  t.wait_until(function() return raw.count_fds() < fds end, 'the end', 10)
  lu.assertTrue(asio.now() - began < 8 * t.patience)
  net:close()
end)

-- The system calls ------------------------------------------------------------------------------

-- Runs a child under strace; returns what it printed and its calls.
local function traced(fn, calls, inject)
  local log = os.tmpname()
  local out = t.child(fn, {
    wrap = t.strace(('-e trace=%s %s -o %s'):format(calls, inject and '-e inject=' .. inject or '', log)),
    env = t.ignore_leaks, -- the sanitizer looks for them with a call that strace forbids
  })
  local file = assert(io.open(log))
  local text = file:read '*a'
  file:close()
  os.remove(log)
  return out.out, text
end

local function count(text, pattern)
  return select(2, text:gsub(pattern, ''))
end

-- Where time had 32 bits once, libc tries another one first.
local RECVMMSG = 'recvmmsg,?recvmmsg_time64'

local function count_received(text)
  return count(text, 'recvmmsg%(') + count(text, 'recvmmsg_time64%(')
end

-- What a light thread sends goes out in one call, what comes is taken in few.
local function sends_forty()
  local lib = require 'asio'
  lib.run(function()
    local a, b = assert(lib.udp('127.0.0.1', 0)), assert(lib.udp('127.0.0.1', 0))
    local ip, port = a:address()
    for i = 1, 40 do assert(b:send(tostring(i), ip, port)) end
    for i = 1, 40 do assert(a:recv(nil, 10) == tostring(i)) end
    assert(b:flush())
    io.write 'all'
  end)
end

local function few_calls()
  can.need 'mmsg'
  local out, text = traced(sends_forty, RECVMMSG .. ',sendmmsg,sendmsg,sendto,recvmsg,epoll_wait,epoll_pwait')
  lu.assertEquals(out, 'all')
  lu.assertEquals(count(text, 'sendmmsg%(%d+, .-%) = 40'), 1, text)
  lu.assertEquals(count(text, 'sendto%('), 0, text)
  lu.assertTrue(count_received(text) <= 3, text)
end

function T.test_one_call_for_many()
  few_calls()
end

-- No last look, which finds nothing.
function T.test_no_call_for_nothing()
  can.need 'mmsg'
  local out, text = traced(function()
    local lib = require 'asio'
    lib.run(function()
      local a, b = assert(lib.udp('127.0.0.1', 0)), assert(lib.udp('127.0.0.1', 0))
      local ip, port = a:address()
      for i = 1, 10 do
        assert(b:send(tostring(i), ip, port))
        assert(a:recv(nil, 10) == tostring(i))
      end
      io.write 'all'
    end)
  end, RECVMMSG)
  lu.assertEquals(out, 'all')
  lu.assertEquals(count(text, 'EAGAIN'), 0, text)
end

-- Each case: a call that fails so many times, and what becomes of it.
local function survives(calls, inject, injections)
  local out, text = traced(sends_forty, calls, inject)
  lu.assertEquals(out, 'all', text)
  local found = count(text, 'INJECTED')
  if ffi.arch == 'x86' then -- libuv calls it by another number there, which strace counts by itself
    lu.assertTrue(found >= injections and found <= 2 * injections, text)
  else
    lu.assertEquals(found, injections, text)
  end
end

function T.test_a_kernel_without_sendmmsg()
  can.need 'mmsg'
  local out, text = traced(sends_forty, 'sendmmsg,sendto', 'sendmmsg:error=ENOSYS')
  lu.assertEquals(out, 'all', text)
  lu.assertEquals(count(text, 'sendto%('), 40, text)
end

function T.test_a_kernel_without_recvmmsg()
  can.need 'mmsg'
  local out, text = traced(sends_forty, RECVMMSG .. ',recvmsg', RECVMMSG .. ':error=ENOSYS')
  lu.assertEquals(out, 'all', text)
  lu.assertEquals(count(text, 'recvmmsg%('), 1, text) -- it is not asked again
  lu.assertTrue(count(text, 'recvmsg%(') >= 40, text)
end

function T.test_the_kernel_has_no_room()
  can.need 'mmsg'
  survives('sendmmsg', 'sendmmsg:error=EAGAIN:when=1..5', 5)
end

function T.test_the_device_has_no_room()
  can.need 'mmsg'
  survives('sendmmsg', 'sendmmsg:error=ENOBUFS:when=1..5', 5)
end

function T.test_a_call_is_interrupted()
  can.need 'mmsg'
  survives('sendmmsg', 'sendmmsg:error=EINTR:when=1..3', 3)
end

-- Only the one it is about is lost, and it is told.
function T.test_one_cannot_be_sent()
  can.need 'mmsg'
  local out, text = traced(function()
    local lib = require 'asio'
    lib.run(function()
      local a, b = assert(lib.udp('127.0.0.1', 0)), assert(lib.udp('127.0.0.1', 0))
      local ip, port = a:address()
      for i = 1, 5 do assert(b:send(tostring(i), ip, port)) end
      io.write(select(3, b:flush()), ' ')
      for _ = 2, 5 do io.write((a:recv(nil, 10))) end
      io.write(tostring(b:flush()))
    end)
  end, 'sendmmsg', 'sendmmsg:error=EPERM:when=1')
  lu.assertEquals(out, 'EPERM 2345true', text)
end

-- A socket that cannot be read says so to its reader, each time, and the loop does not spin.
function T.test_receiving_fails()
  can.need 'mmsg'
  local out, text = traced(function()
    local lib = require 'asio'
    lib.run(function()
      local a, b = assert(lib.udp('127.0.0.1', 0)), assert(lib.udp('127.0.0.1', 0))
      local ip, port = a:address()
      b:send('data', ip, port)
      io.write(select(3, a:recv(nil, 10)), ' ', select(3, a:recv(nil, 10)), ' ')
      lib.sleep(0.02)
      io.write((a:recv(nil, 10)))
    end)
  end, RECVMMSG, RECVMMSG .. ':error=ENOMEM:when=1..2')
  lu.assertEquals(out, 'ENOMEM ENOMEM data', text)
  lu.assertTrue(count_received(text) <= 4, text)
end

-- A model ---------------------------------------------------------------------------------------

-- A socket with what it has to receive: datagrams of one sender in their order. Loopback loses nothing
-- while the kernel's buffer has room, so there is never more under way than it holds.
local BUDGET = 60000

local Model = {}
Model.__index = Model

local function new_model(n, ip)
  local self = setmetatable({ sockets = {}, under_way = 0, sent = 0 }, Model)
  for i = 1, n do
    local options = { recv_queue = math.random(1, 20000), send_queue = math.random(1, 20000) }
    local s = assert(asio.udp(ip, 0, options))
    self.sockets[i] = { s = s, from = {}, expects = 0, address = { s:address() } }
    s:recv(nil, 0) -- reads from now on
  end
  return self
end

local function random_size()
  local kind = math.random(10)
  if kind == 1 then return 0 end
  if kind == 2 then return math.random(1, 9000) end
  return math.random(1, 300)
end

function Model:send(from, to)
  local size = random_size()
  if self.under_way + size + 800 > BUDGET then return end
  local data = string.char(math.random(0, 255)):rep(math.random(0, 3)) .. ('%d '):format(self.sent)
  data = (data:rep(size / #data + 1)):sub(1, size)
  lu.assertTrue(from.s:send(data, unpack(to.address)))
  local key = table.concat(from.address, ' ')
  to.from[key] = to.from[key] or {}
  table.insert(to.from[key], data)
  to.expects = to.expects + 1
  self.under_way = self.under_way + size + 800
  self.sent = self.sent + 1
end

function Model:recv(at)
  local max = math.random(4) == 1 and math.random(1, 400) or nil
  local data, ip, port, cut_ip, cut_port = at.s:recv(max, at.expects > 0 and 10 or 0.0001)
  if at.expects == 0 then return t.failure('ETIMEDOUT', data, ip, port) end
  local cut = data == nil
  if cut then
    lu.assertEquals(port, 'EMSGSIZE')
    ip, port = cut_ip, cut_port
  end
  local expected = table.remove(at.from[ip .. ' ' .. port], 1)
  at.expects = at.expects - 1
  self.under_way = self.under_way - #expected - 800
  if cut then return lu.assertTrue(max ~= nil and #expected > max) end
  t.same_bytes(data, expected)
  lu.assertTrue(not max or #data <= max)
end

function Model:step()
  local n = #self.sockets
  local one, other = self.sockets[math.random(n)], self.sockets[math.random(n)]
  local what = math.random(100)
  if what <= 55 then
    self:send(one, other)
  elseif what <= 94 then
    self:recv(one)
  elseif what <= 97 then
    asio.sleep(0)
  elseif what == 98 then
    lu.assertTrue(one.s:flush())
  elseif what == 99 then
    collectgarbage 'step'
  elseif one.expects == 0 then -- as good as before, under a new address
    one.s:close()
    one.s = assert(asio.udp(one.address[1], 0))
    one.address = { one.s:address() }
  end
end

local function random_run(seed, ip, steps)
  math.randomseed(seed)
  local model = new_model(4, ip)
  for _ = 1, steps do model:step() end
  for _, at in ipairs(model.sockets) do
    while at.expects > 0 do model:recv(at) end
    at.s:close()
  end
end

T.test_a_random_run_against_a_model = t.slow(120, function()
  for seed = 1, t.count(100) do
    local ok, err = pcall(random_run, seed, '127.0.0.1', 2000)
    if not ok then error(('seed %d: %s'):format(seed, tostring(err)), 0) end
  end
end)

T.test_a_random_run_by_ip6 = t.slow(120, function()
  local s = asio.udp('::1', 0)
  lu.skipIf(not s, 'no IPv6 here')
  s:close()
  for seed = 1, t.count(40) do
    local ok, err = pcall(random_run, seed, '::1', 2000)
    if not ok then error(('seed %d: %s'):format(seed, tostring(err)), 0) end
  end
end)

return T
