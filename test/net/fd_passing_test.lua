-- Passing connections between processes: send_handle and recv_handle.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'
local rawunix = require 'rawunix'

local T = {}

local counter = 0

-- Two ends of a Unix socket made with { handles = true }; with options for either instead.
local function carriers(server_opts, connect_opts)
  can.need('unix_sockets', 'numbers')
  counter = counter + 1
  local name = ('unix:@asio.pass.%d.%d'):format(raw.pid(), counter)
  local server = assert(asio.server(name, nil, server_opts or { handles = true }))
  local a = assert(asio.connect(name, connect_opts or { handles = true }))
  local b = assert(server:accept())
  server:close()
  return a, b
end

-- One end of such a socket, and the other as a raw socket.
local function carrier_and_raw()
  can.need 'unix_sockets'
  counter = counter + 1
  local name = ('@asio.pass.%d.%d'):format(raw.pid(), counter)
  local server = assert(asio.server('unix:' .. name, nil, { handles = true }))
  local peer = rawunix.connect(name)
  local conn = assert(server:accept())
  server:close()
  return conn, peer
end

local function close(...)
  for _, conn in ipairs { ... } do conn:close() end
end

-- Whoever holds `far` and whoever got `near` understand each other.
local function talk(near, far)
  near:write 'ping'
  lu.assertEquals(far:read(4), 'ping')
  far:write 'pong'
  lu.assertEquals(near:read(4), 'pong')
end

-- Passing -------------------------------------------------------------------------------------

function T.test_kinds_of_connections()
  local a, b = carriers()
  for _, make in ipairs { t.tcp, t.pair, function() return carriers({}, {}) end } do
    local near, far = make()
    lu.assertTrue(a:send_handle(near))
    t.failure('EBADF', near:read(1)) -- it is the other's
    local received = assert(b:recv_handle())
    talk(received, far)
    received:close()
    t.failure('EOF', far:read(1))
    far:close()
  end
  close(a, b)
end

function T.test_what_is_received_knows_its_addresses()
  local a, b = carriers()
  local near, far = t.tcp()
  local ip, port = near:peer()
  a:send_handle(near)
  local received = assert(b:recv_handle())
  lu.assertEquals({ received:peer() }, { ip, port })
  lu.assertEquals({ received:address() }, { far:peer() })
  close(received, far, a, b)
end

-- The peer notices nothing: what is closed here is one of two descriptors.
function T.test_the_peer_is_not_told_of_the_change()
  local a, b = carriers()
  local near, far = t.tcp()
  near:write 'from the first'
  near:flush()
  lu.assertTrue(a:send_handle(near))
  lu.assertEquals(far:read(14), 'from the first')
  far:set_timeout(0.02)
  t.failure('ETIMEDOUT', far:read(1))
  far:set_timeout(nil)
  far:write 'kept by the kernel'
  far:flush()
  local received = assert(b:recv_handle())
  lu.assertEquals(received:read(18), 'kept by the kernel')
  close(received, far, a, b)
end

function T.test_another_process()
  can.need('unix_sockets', 'numbers')
  local name = ('unix:@asio.pass.%d'):format(raw.pid())
  local front = assert(asio.server('127.0.0.1', 0))
  local workers = assert(asio.server(name, nil, { handles = true }))
  local done = asio.spawn(function()
    local worker = assert(workers:accept())
    for _ = 1, 3 do
      local conn = assert(front:accept())
      worker:write 'serve this\n'
      assert(worker:send_handle(conn))
    end
    lu.assertEquals(worker:read(4), 'done')
    worker:close()
  end)
  local clients = {}
  for i = 1, 3 do
    clients[i] = asio.spawn(function()
      local conn = assert(asio.connect(front:address()))
      conn:write 'hello'
      local answer = conn:read_some()
      conn:close()
      return answer
    end)
  end
  -- Blocks this process' loop: hence a process that runs on its own.
  local child = io.popen(([[ASIO_BUILD='%s' %s -e "
    local asio = require 'asio'
    asio.run(function()
      local boss = assert(asio.connect('%s', { handles = true }))
      for i = 1, 3 do
        assert(boss:read(11) == 'serve this\n')
        local conn = assert(boss:recv_handle())
        assert(conn:write(conn:read(5), ' from the worker'))
        conn:close()
      end
      boss:write 'done'
      boss:close()
    end)" 2>&1]]):format(os.getenv 'ASIO_BUILD' or '',
    t.launcher, name))
  for i = 1, 3 do lu.assertEquals({ clients[i]:join() }, { true, 'hello from the worker' }) end
  lu.assertTrue(done:join())
  lu.assertEquals(child:read '*a', '')
  child:close()
  front:close()
  workers:close()
end

-- Order ---------------------------------------------------------------------------------------

function T.test_bytes_and_connections_do_not_mix()
  local a, b = carriers()
  local ends = {}
  for i = 1, 5 do
    local near, far = t.pair()
    ends[i] = far
    a:write(('%d'):format(i):rep(i * 100))
    assert(a:send_handle(near))
  end
  a:write 'the end'
  a:close()
  for i = 1, 5 do
    lu.assertEquals(b:read(i * 100), ('%d'):format(i):rep(i * 100))
    local received = assert(b:recv_handle())
    received:write(tostring(i))
    lu.assertEquals(ends[i]:read(1), tostring(i))
    close(received, ends[i])
  end
  lu.assertEquals(b:read(7), 'the end')
  t.failure('EOF', b:read(1))
  t.failure('EOF', b:recv_handle())
  b:close()
end

function T.test_bytes_first_or_connections_first()
  local a, b = carriers()
  local near, far = t.pair()
  a:write 'before'
  assert(a:send_handle(near))
  a:write 'after'
  a:flush()
  local received = assert(b:recv_handle())
  lu.assertEquals(b:read(11), 'beforeafter')
  close(received, far)
  near, far = t.pair()
  a:write 'before'
  assert(a:send_handle(near))
  a:write 'after'
  lu.assertEquals(b:read(11), 'beforeafter')
  received = assert(b:recv_handle())
  close(received, far, a, b)
end

function T.test_connections_that_came_before_the_end()
  local a, b = carriers()
  local fars = {}
  for i = 1, 3 do
    local near, far = t.pair()
    assert(a:send_handle(near))
    fars[i] = far
  end
  a:close()
  for i = 1, 3 do
    local received = assert(b:recv_handle())
    talk(received, fars[i])
    close(received, fars[i])
  end
  t.failure('EOF', b:recv_handle())
  b:close()
end

function T.test_a_reader_and_a_receiver_at_once()
  local a, b = carriers()
  local near, far = t.pair()
  local reader = asio.spawn(b.read, b, 5)
  local receiver = asio.spawn(b.recv_handle, b)
  t.failure('EBUSY', b:recv_handle())
  a:write 'by'
  assert(a:send_handle(near))
  a:write 'tes'
  lu.assertEquals({ reader:join() }, { true, 'bytes' })
  local ok, received = receiver:join()
  lu.assertTrue(ok)
  talk(received, far)
  close(received, far, a, b)
end

function T.test_both_ways()
  local a, b = carriers()
  local near, far = t.pair()
  assert(a:send_handle(near))
  local there = assert(b:recv_handle())
  assert(b:send_handle(there))
  local back = assert(a:recv_handle())
  talk(back, far)
  close(back, far, a, b)
end

function T.test_many()
  local a, b = carriers()
  local n = t.count(20000)
  local receiver = asio.spawn(function()
    for i = 1, n do
      local received = assert(b:recv_handle())
      received:write(tostring(i))
      received:close()
    end
  end)
  for i = 1, n do
    local near, far = t.pair()
    assert(a:send_handle(near))
    lu.assertEquals(far:read(#tostring(i)), tostring(i))
    far:close()
  end
  assert(receiver:join())
  close(a, b)
end

function T.test_more_than_the_kernel_holds()
  local a, b = carriers()
  local n = 600
  local before = raw.count_fds()
  local sender = asio.spawn(function()
    for _ = 1, n do
      local near, far = t.pair()
      assert(a:send_handle(near))
      far:close()
    end
  end)
  asio.sleep(0.02)
  lu.assertEquals(sender:status(), 'waiting')
  for _ = 1, n do
    local received = assert(b:recv_handle())
    t.failure('EOF', received:read(1))
    received:close()
  end
  assert(sender:join())
  close(a, b)
  t.wait_until(function() return raw.count_fds() <= before - 4 end, 'the descriptors')
end

-- Refused -------------------------------------------------------------------------------------

function T.test_unread_bytes()
  local a, b = carriers()
  local near, far = t.pair()
  far:write 'unread'
  lu.assertEquals(near:read(2), 'un')
  local _, message = a:send_handle(near)
  lu.assertStrContains(message, 'has not read')
  t.failure('EBUSY', a:send_handle(near))
  lu.assertEquals(near:read(4), 'read') -- it is as it was
  lu.assertTrue(a:send_handle(near))
  local received = b:recv_handle()
  talk(received, far)
  close(received, far, a, b)
end

function T.test_unsent_bytes()
  local a, b = carriers()
  local near, peer = t.raw_peer()
  near:set_timeout(nil, 0)
  near:write(('u'):rep(2 ^ 24))
  local _, message = a:send_handle(near)
  lu.assertStrContains(message, 'not sent yet')
  t.failure('EBUSY', a:send_handle(near))
  local drain = asio.spawn(function() return #t.recv(peer, 2 ^ 24) end)
  near:set_timeout(nil)
  assert(near:flush())
  lu.assertTrue(a:send_handle(near))
  lu.assertEquals({ drain:join() }, { true, 2 ^ 24 })
  b:recv_handle():close()
  peer:close()
  close(a, b)
end

-- A few that the kernel takes at once are no reason.
function T.test_written_just_before()
  local a, b = carriers()
  local near, far = t.pair()
  near:write 'first '
  lu.assertTrue(a:send_handle(near))
  local received = b:recv_handle()
  received:write 'second'
  lu.assertEquals(far:read(12), 'first second')
  close(received, far, a, b)
end

function T.test_somebody_waits_on_it()
  local a, b = carriers()
  local near, far = t.pair()
  local reader = asio.spawn(near.read, near, 1)
  t.failure('EBUSY', a:send_handle(near))
  far:write 'x'
  lu.assertEquals({ reader:join() }, { true, 'x' })
  lu.assertTrue(a:send_handle(near))
  b:recv_handle():close()
  close(far, a, b)
end

function T.test_closed()
  local a, b = carriers()
  local near, far = t.pair()
  close(near, far)
  local _, message = a:send_handle(near)
  lu.assertStrContains(message, 'closed')
  t.failure('EBADF', a:send_handle(near))
  near, far = t.pair()
  a:close()
  t.failure('EBADF', a:send_handle(near))
  t.failure('EBADF', a:recv_handle())
  t.failure('EOF', b:recv_handle())
  local conn, peer = carrier_and_raw()
  peer:close()
  t.failure('EPIPE', conn:send_handle(near))
  talk(near, far)
  close(near, far, b, conn)
end

function T.test_misuse()
  local a, b = carriers()
  local near, far = t.pair()
  local plain, other = carriers({}, {})
  t.raises({ 'send_handle', 'handles = true' }, plain.send_handle, plain, near)
  t.raises({ 'recv_handle', 'handles = true' }, plain.recv_handle, plain)
  t.raises({ 'send_handle', 'handles = true' }, near.send_handle, near, plain)
  t.raises('itself', a.send_handle, a, a)
  t.raises('cannot be passed', a.send_handle, a, b)
  t.bad_argument(1, 'send_handle', function() a:send_handle() end)
  t.bad_argument(1, 'send_handle', function() a:send_handle(17) end)
  t.raises('send_handle', a.send_handle, {}, near)
  t.raises('recv_handle', a.recv_handle, near and {})
  t.raises({ "'handles'", 'Unix' }, asio.connect, '127.0.0.1', 1, { handles = true })
  t.raises({ "'handles'", 'Unix' }, asio.server, '127.0.0.1', 0, nil, { handles = true })
  t.raises('handles', asio.connect, 'unix:@x', { handles = 1 })
  talk(near, far)
  close(plain, other, near, far, a, b)
end

-- An end without the option: the kernel drops what is passed to it.
function T.test_one_end_alone_has_the_option()
  local before = raw.count_fds()
  local a, b = carriers({}, { handles = true })
  local near, far = t.pair()
  lu.assertTrue(a:send_handle(near))
  b:read(1)
  t.failure('EOF', far:read(1))
  close(far, a, b)
  t.wait_until(function() return raw.count_fds() <= before end)
end

-- What others send ----------------------------------------------------------------------------

function T.test_what_is_not_a_connection()
  can.need 'real_kernel'
  local conn, peer = carrier_and_raw()
  local before = raw.count_fds()
  local listener, datagrams = raw.listen(), raw.udp()
  local file = raw.file(os.tmpname())
  local out, into = rawunix.pipe()
  local held = { listener.fd, datagrams.fd, file, out, into }
  for _, fd in ipairs(held) do
    assert(rawunix.send_fds(peer.fd, 'x', { fd }))
    local received, message, code = conn:recv_handle()
    lu.assertNil(received)
    lu.assertEquals(code, 'ENOTSUP')
    lu.assertStrContains(message, 'not a connection')
  end
  for _, fd in ipairs { file, out, into } do raw.close(fd) end
  listener:close()
  datagrams:close()
  lu.assertEquals(raw.count_fds(), before)
  conn:close()
  peer:close()
end

function T.test_several_at_once()
  local conn, peer = carrier_and_raw()
  local before = raw.count_fds()
  local one, two, three = t.pair(), t.pair(), t.pair()
  assert(peer:send('before ', 0) == 7)
  assert(rawunix.send_fds(peer.fd, 'x', { one:fd(), two:fd(), three:fd() }))
  assert(peer:send('after', 0) == 5)
  lu.assertEquals(conn:read(12), 'before after')
  for _ = 1, 3 do conn:recv_handle():close() end
  conn:set_timeout(0.01)
  t.failure('ETIMEDOUT', conn:recv_handle())
  close(one, two, three, conn)
  peer:close()
  t.wait_until(function()
    t.collect()
    return raw.count_fds() <= before - 2
  end)
end

-- Sixteen in one message are what is taken; the kernel closes the others.
function T.test_too_many_at_once()
  can.need 'real_kernel'
  local conn, peer = carrier_and_raw()
  local passed, rest = t.pair()
  local fds = {}
  for i = 1, 40 do fds[i] = passed:fd() end
  local before = raw.count_fds()
  assert(rawunix.send_fds(peer.fd, 'x', fds))
  peer:send('next', 0)
  for _ = 1, 16 do conn:recv_handle():close() end
  t.failure('EMFILE', conn:recv_handle())
  lu.assertEquals(conn:read(4), 'next')
  t.wait_until(function() return raw.count_fds() <= before end)
  close(passed, rest, conn)
  peer:close()
end

-- Whoever does not take them has no more than so many, however many come.
function T.test_a_flood()
  local conn, peer = carrier_and_raw()
  local passed, rest = t.pair()
  local before = raw.count_fds()
  local sent = 40
  for _ = 1, sent do assert(rawunix.send_fds(peer.fd, 'x', { passed:fd() })) end
  lu.assertEquals(peer:send('bytes', 0), 5)
  conn:set_timeout(0.02)
  t.failure('ETIMEDOUT', conn:read(1)) -- they are behind what nobody takes
  lu.assertTrue(raw.count_fds() - before <= 32, raw.count_fds() - before)
  conn:set_timeout(nil)
  for _ = 1, sent do conn:recv_handle():close() end
  lu.assertEquals(conn:read(5), 'bytes')
  close(conn, passed, rest)
  peer:close()
end

function T.test_none_left_over()
  local passed, rest = t.pair()
  for _, way in ipairs { 'closed', 'lingering', 'collected', 'unread' } do
    local before = raw.count_fds()
    local conn, peer = carrier_and_raw()
    local function flood()
      for _ = 1, 5 do assert(rawunix.send_fds(peer.fd, 'x', { passed:fd() })) end
    end
    if way ~= 'lingering' then flood() end
    if way ~= 'unread' then
      conn:set_timeout(0)
      conn:read(1)
    end
    if way ~= 'collected' then conn:close() end
    conn = nil -- luacheck: ignore 311
    if way == 'lingering' then
      asio.sleep(0.005)
      flood()
      asio.sleep(0.005)
      lu.assertEquals(raw.count_fds(), before + 3, 'what comes while it closes') -- conn's two, the peer
    end
    peer:close()
    t.wait_until(function()
      t.collect()
      return raw.count_fds() <= before
    end, way)
  end
  close(passed, rest)
end

function T.test_none_left_over_with_the_state()
  can.need 'unix_sockets'
  t.quiet_child(function()
    local lib, sys, sysunix = require 'asio', require 'raw', require 'rawunix'
    local server = assert(lib.server('unix:@', nil, { handles = true }))
    local peer = sysunix.connect(server:address():match 'unix:(.*)')
    _G.conn = assert(server:accept())
    local a, b = lib.socketpair()
    for _ = 1, 5 do sysunix.send_fds(peer.fd, 'x', { a:fd() }) end
    _G.conn:recv_handle():close()
    assert(a and b and sys)
  end)
end

-- No descriptor left: said so, and no byte of the passing shows among the others.
function T.test_running_out_of_descriptors()
  can.need 'unix_sockets'
  local out = t.quiet_child(function()
    local lib, sys, sysunix = require 'asio', require 'raw', require 'rawunix'
    lib.run(function()
      local server = assert(lib.server('unix:@', nil, { handles = true }))
      local peer = sysunix.connect(server:address():match 'unix:(.*)')
      local conn = assert(server:accept())
      server:close()
      local a, b = lib.socketpair()
      lib.sleep(0.01)
      sys.limit_fds(0)
      assert(sysunix.send_fds(peer.fd, 'x', { a:fd() }))
      peer:send('bytes', 0)
      local received, message, code = conn:recv_handle()
      assert(received == nil)
      print(message, code)
      print(conn:read(5))
      sysunix.send_fds(peer.fd, 'x', { a:fd() })
      print(select(3, conn:recv_handle()))
      assert(b)
    end)
  end)
  lu.assertEquals(out, 'a connection was passed for which this process had no descriptor left\tEMFILE\n'
    .. 'bytes\nEMFILE\n')
end

function T.test_bytes_that_nobody_reads_in_front()
  local conn, peer = carrier_and_raw()
  local passed, rest = t.pair()
  local function flood(n)
    return asio.spawn(function()
      local sent = 0
      while sent < n do
        sent = sent + peer:send(('b'):rep(math.min(n - sent, 10000)), 0)
        asio.sleep(0.001)
      end
    end)
  end
  local flooding = flood(500000)
  local _, message = conn:recv_handle()
  lu.assertStrContains(message, 'in front')
  t.failure('ENOBUFS', conn:recv_handle())
  lu.assertEquals(#conn:read(500000), 500000)
  flooding:join()
  assert(rawunix.send_fds(peer.fd, 'x', { passed:fd() }))
  conn:recv_handle():close()
  -- While it waits.
  local receiver = asio.spawn(conn.recv_handle, conn)
  lu.assertEquals(receiver:status(), 'waiting')
  flooding = flood(200000)
  lu.assertEquals(select(4, receiver:join()), 'ENOBUFS')
  lu.assertEquals(#conn:read(200000), 200000)
  flooding:join()
  close(conn, passed, rest)
  peer:close()
end

-- Many foreign ways to cut the same bytes into messages, against a model.
function T.test_messages_at_random()
  math.randomseed(4)
  local passed, rest = t.pair()
  for _ = 1, t.count(400) do
    local conn, peer = carrier_and_raw()
    local expected, handles = {}, 0
    for _ = 1, 30 do
      if math.random(3) == 1 and handles < 14 then
        if rawunix.send_fds(peer.fd, '!', { passed:fd() }) then handles = handles + 1 end
      else
        local data = ('%x'):format(math.random(0, 15)):rep(math.random(3000))
        expected[#expected + 1] = data:sub(1, peer:send(data, 0))
      end
      if math.random(4) == 1 then asio.yield() end
    end
    local text = table.concat(expected)
    lu.assertEquals(conn:read(#text), text)
    for _ = 1, handles do conn:recv_handle():close() end
    peer:close()
    t.failure('EOF', conn:read(1))
    conn:close()
  end
  close(passed, rest)
end

-- As a connection of its own ------------------------------------------------------------------

function T.test_it_is_a_connection_like_others()
  local a, b = carriers()
  local n = t.count(64) * 2 ^ 20
  local chunk = ('0123456789abcdef'):rep(4096)
  local reader = asio.spawn(function()
    for _ = 1, n / #chunk do assert(b:read(#chunk) == chunk) end
    return b:read_some()
  end)
  for _ = 1, n / #chunk do assert(a:write(chunk)) end
  a:write 'last'
  lu.assertEquals({ reader:join() }, { true, 'last' })
  a:set_timeout(0.01)
  t.failure('ETIMEDOUT', a:read(1))
  t.failure('ETIMEDOUT', a:recv_handle())
  lu.assertStrContains(tostring(a), 'unix:@asio.pass')
  lu.assertEquals(a:credentials().pid, raw.pid())
  b:write(('x'):rep(100000))
  local closer = asio.spawn(function()
    b:flush()
    b:close()
  end)
  a:set_timeout(nil)
  lu.assertEquals(#a:read(100000), 100000)
  t.failure('EOF', a:read(1))
  closer:join()
  a:close()
end

function T.test_aborted_while_waiting()
  local a, b = carriers()
  local receiver = asio.spawn(function() return b:recv_handle() end)
  b:abort()
  local joined, conn, _, code = receiver:join(5)
  lu.assertEquals({ joined, conn, code }, { true, nil, 'ECANCELED' })
  close(a)
end

-- What has come and nobody received stops the reading; closing goes on with it.
function T.test_closed_with_as_many_as_are_kept()
  local a, b = carriers()
  local fars = {}
  a:write 'x'
  lu.assertEquals(b:read(1), 'x')
  for i = 1, 17 do
    local near, far = t.pair()
    lu.assertTrue(a:send_handle(near))
    fars[i] = far
  end
  asio.sleep(0.05)
  b:close()
  a:set_timeout(10)
  lu.assertTrue(a:write(('x'):rep(1024 * 1024)))
  lu.assertTrue(a:flush())
  close(a, unpack(fars))
end

-- Others keep the queue full: the time-out is for the whole call.
function T.test_its_time_out_is_for_all_tries()
  local a, b = carriers()
  local near, far = t.pair()
  asio.spawn(function()
    while b:read_some(4000) do asio.sleep(0.01) end
  end)
  local busy = true
  local writing = asio.spawn(function()
    while busy and a:write(('y'):rep(30000)) do end
  end)
  asio.sleep(0.1)
  a:set_timeout(nil, 0.2)
  local sending = asio.spawn(function() return a:send_handle(near) end)
  local joined, ok, _, code = sending:join(5 * t.patience)
  busy = false
  lu.assertEquals({ joined, ok, code }, { true, nil, 'ETIMEDOUT' })
  b:close()
  writing:join()
  close(a, near, far)
end

function T.test_a_peer_that_resets()
  local conn, peer = carrier_and_raw()
  conn:write 'unread'
  conn:flush()
  peer:close()
  local code = select(3, conn:recv_handle())
  lu.assertTrue(code == 'ECONNRESET' or code == 'EOF', code)
  conn:close()
end

return T
