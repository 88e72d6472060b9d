-- Datagram sockets: waiting for one, a peer that is not there, errors of sending, what nobody takes, the end.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local datagrams = require 'datagrams'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local socket, connected_pair = datagrams.socket, datagrams.connected_pair
local server_and_client = datagrams.server_and_client

-- Time-outs -------------------------------------------------------------------------------------

function T.test_time_outs()
  local a, b = connected_pair()
  lu.assertTrue(a:set_timeout(0.01))
  lu.assertEquals({ a:recv() }, { nil, 'operation timed out', 'ETIMEDOUT' })
  a:set_timeout(60)
  t.failure('ETIMEDOUT', a:recv(nil, 0.005)) -- the call's own
  a:set_timeout(0.001)
  local reader = asio.spawn(function() return a:recv(nil, math.huge) end)
  asio.sleep(0.01)
  lu.assertEquals(reader:status(), 'waiting')
  b:send 'late'
  lu.assertEquals((select(2, reader:join())), 'late')
  a:set_timeout(nil)
  reader = asio.spawn(function() return a:recv() end)
  asio.sleep(0.01)
  lu.assertEquals(reader:status(), 'waiting')
  b:send 'later'
  lu.assertEquals((select(2, reader:join())), 'later')
end

function T.test_zero_is_only_what_is_there_now()
  local a, b = connected_pair()
  t.failure('ETIMEDOUT', a:recv(nil, 0))
  b:send 'there'
  b:flush()
  lu.assertEquals((a:recv(nil, 0)), 'there')
  t.failure('ETIMEDOUT', a:recv(nil, 0))
end

function T.test_a_deadline_of_the_caller()
  local a = socket()
  t.failure('ETIMEDOUT', asio.timeout(0.01, function() return a:recv() end))
end

-- A busy peer cannot outrun a cancel: what is there is not an excuse.
function T.test_an_interrupt_comes_before_what_is_there()
  local a, b = connected_pair()
  for _ = 1, 200 do b:send 'x' end
  local reader = asio.spawn(function()
    while true do a:recv() end
  end)
  asio.sleep(0.001)
  reader:cancel()
  local ok, err = reader:join()
  lu.assertFalse(ok)
  lu.assertIs(err, asio.cancelled)
end

function T.test_a_second_reader_is_turned_away()
  local a, b = connected_pair()
  local first = asio.spawn(function() return a:recv() end)
  t.failure('EBUSY', a:recv())
  b:send 'mine'
  lu.assertEquals((select(2, first:join())), 'mine')
  b:send 'next'
  lu.assertEquals((a:recv()), 'next')
end

-- A peer that is not there ----------------------------------------------------------------------

-- A connected socket whose peer has gone.
local function to_nobody()
  local server, client = server_and_client()
  server:close()
  return client
end

function T.test_a_refusal_reaches_the_reader_who_waits()
  local client = to_nobody()
  local reader = asio.spawn(function() return client:recv() end)
  client:send 'anybody?'
  lu.assertEquals({ reader:join() }, { true, nil, 'connection refused', 'ECONNREFUSED' })
  -- Once: the socket goes on.
  t.failure('ETIMEDOUT', client:recv(nil, 0.005))
end

function T.test_a_refusal_reaches_the_next_reader()
  can.need 'refusals'
  local client = to_nobody()
  client:send 'anybody?'
  client:flush()
  t.failure('ECONNREFUSED', client:recv())
  t.failure('ETIMEDOUT', client:recv(nil, 0.005))
end

function T.test_a_refusal_reaches_the_next_sender()
  can.need 'refusals'
  local client = to_nobody()
  client:send 'anybody?'
  client:flush()
  -- The kernel tells it when the next one goes out.
  client:send 'hello?'
  t.failure('ECONNREFUSED', client:flush())
  -- It went out all the same, and was refused too.
  t.failure('ECONNREFUSED', client:recv(nil, 5))
  client:send 'and now?'
  asio.sleep(0.005) -- there is no reader, but what reads hears of it
  t.failure('ECONNREFUSED', client:send 'not queued')
  lu.assertEquals({ client:pending() }, { 0, 0 })
  t.failure('ETIMEDOUT', client:recv(nil, 0.005))
end

function T.test_a_refusal_costs_no_datagram()
  can.need 'refusals'
  local server, client = server_and_client()
  local ip, port = server:address()
  server:close()
  client:send 'lost'
  client:flush()
  server = assert(asio.udp(ip, port))
  client:send 'found'
  t.failure('ECONNREFUSED', client:flush())
  lu.assertEquals((server:recv(nil, 5)), 'found')
end

function T.test_a_socket_without_a_peer_hears_of_no_refusal()
  local server, client = socket(), socket()
  local ip, port = server:address()
  server:close()
  for _ = 1, 3 do
    client:send('x', ip, port)
    lu.assertTrue(client:flush())
  end
  t.failure('ETIMEDOUT', client:recv(nil, 0.005))
end

function T.test_connected_it_hears_its_peer_alone()
  local server, client = server_and_client()
  local stranger = socket()
  stranger:send('stranger', client:address())
  stranger:flush()
  server:send('friend', client:address())
  lu.assertEquals({ client:recv() }, { 'friend', server:address() })
  t.failure('ETIMEDOUT', client:recv(nil, 0.005))
end

-- What could be known only when it was sent: to the next who sends, and then no more.
function T.test_an_error_of_sending_is_told_to_the_next_sender()
  lu.skipIf(not raw.linux, 'the kernel forbids it in its own way')
  local s = socket()
  local ip, port = s:address()
  s:send('broadcast without leave', '127.255.255.255', port)
  s:send('fine', ip, port)
  asio.sleep(0)
  t.failure('EACCES', s:send('not queued', ip, port))
  s:send('fine again', ip, port)
  lu.assertTrue(s:flush())
  lu.assertEquals((s:recv()), 'fine')
  lu.assertEquals((s:recv()), 'fine again')
  t.failure('ETIMEDOUT', s:recv(nil, 0))
  s:send('broadcast without leave', '127.255.255.255', port)
  t.failure('EACCES', s:flush())
  lu.assertTrue(s:flush())
end

function T.test_a_broadcast()
  lu.skipIf(not raw.linux, 'the loopback interface of Linux has one')
  local s = assert(asio.udp('0.0.0.0', 0))
  local _, port = s:address()
  lu.assertTrue(s:set_broadcast(true))
  s:send('to all', '127.255.255.255', port)
  lu.assertTrue(s:flush())
  lu.assertEquals((s:recv(nil, 5)), 'to all')
end

-- Queues ----------------------------------------------------------------------------------------

function T.test_pending()
  local a, b = connected_pair()
  t.failure('ETIMEDOUT', a:recv(nil, 0)) -- reads from now on
  for i = 1, 5 do b:send(('x'):rep(i)) end
  lu.assertEquals({ b:pending() }, { 0, 5 })
  b:flush()
  lu.assertEquals({ b:pending() }, { 0, 0 })
  t.wait_until(function() return (a:pending()) == 5 end, 'five of them')
  lu.assertEquals((a:recv()), 'x')
  lu.assertEquals({ a:pending() }, { 4, 0 })
end

-- Above the mark the kernel keeps them: nothing more comes in, and nothing is lost that it has room for.
function T.test_what_nobody_reads_is_bounded()
  local a, b = socket { recv_queue = 4000 }, socket()
  assert(b:connect(a:address()))
  t.failure('ETIMEDOUT', a:recv(nil, 0))
  for i = 1, 200 do
    b:send(('%04d'):format(i))
    if i % 10 == 0 then asio.sleep(0) end
  end
  asio.sleep(0.01)
  local kept = a:pending()
  lu.assertTrue(kept >= 4000 / 68 and kept <= 4000 / 68 + 33, kept)
  for i = 1, 200 do lu.assertEquals((a:recv(nil, 5)), ('%04d'):format(i)) end
  t.failure('ETIMEDOUT', a:recv(nil, 0))
  b:send 'and on'
  lu.assertEquals((a:recv()), 'and on')
end

-- Nobody reads ever: what floods in costs the socket its mark, and the loop nothing.
function T.test_a_flood_that_nobody_reads()
  local a, b = socket { recv_queue = 10000 }, socket()
  assert(b:connect(a:address()))
  t.failure('ETIMEDOUT', a:recv(nil, 0))
  for _ = 1, 20 do
    for _ = 1, 100 do b:send(('f'):rep(100)) end
    asio.sleep(0)
  end
  lu.assertTrue((a:pending()) <= 10000 / 164 + 33, (a:pending()))
  local cpu = raw.cpu()
  asio.sleep(0.1)
  lu.assertTrue(t.sanitized or t.stress or raw.cpu() - cpu < 0.05, 'the loop is busy')
end

-- The mark is no obstacle where the kernel takes everything.
function T.test_a_short_queue_for_sending()
  local a, b = socket(), socket { send_queue = 1 }
  assert(b:connect(a:address()))
  for i = 1, 10 do lu.assertTrue(b:send(tostring(i))) end
  lu.assertEquals({ b:pending() }, { 0, 0 })
  for i = 1, 10 do lu.assertEquals((a:recv()), tostring(i)) end
end

-- The end ---------------------------------------------------------------------------------------

function T.test_closed()
  local s = socket()
  local ip, port = s:address()
  local reader = asio.spawn(function() return s:recv() end)
  lu.assertNil(s:close())
  lu.assertEquals({ reader:join() }, { true, nil, 'canceled', 'ECANCELED' })
  s:close()
  t.failure('EBADF', s:recv())
  t.failure('EBADF', s:send('x', ip, port))
  t.failure('EBADF', s:send('x', 'localhost', port))
  t.failure('EBADF', s:flush())
  t.failure('EBADF', s:connect(ip, port))
  t.failure('EBADF', s:address())
  t.failure('EBADF', s:peer())
  t.failure('EBADF', s:fd())
  t.failure('EBADF', s:pending())
  t.failure('EBADF', s:set_timeout(1))
  t.failure('EBADF', s:join '224.0.0.1')
  t.failure('EBADF', s:leave '224.0.0.1')
  t.failure('EBADF', s:set_ttl(1))
  t.failure('EBADF', s:set_multicast_ttl(1))
  t.failure('EBADF', s:set_multicast_loop(true))
  t.failure('EBADF', s:set_multicast_interface '127.0.0.1')
  t.failure('EBADF', s:set_broadcast(true))
  -- Its port is free at once.
  lu.assertNotNil(asio.udp(ip, port))
end

function T.test_closed_before_it_was_used()
  local s = assert(asio.udp())
  s:close()
  t.failure('EBADF', s:recv())
end

function T.test_what_was_sent_before_closing_goes_out()
  local server, client = server_and_client()
  for i = 1, 10 do client:send(tostring(i)) end
  client:close()
  for i = 1, 10 do lu.assertEquals((server:recv(nil, 5)), tostring(i)) end
end

function T.test_closed_by_the_reader_in_the_middle_of_a_batch()
  local a, b = connected_pair()
  local reader = asio.spawn(function()
    local first = a:recv()
    a:close()
    return first, select(3, a:recv())
  end)
  for i = 1, 30 do b:send(tostring(i)) end
  lu.assertEquals({ reader:join() }, { true, '1', 'EBADF' })
end

-- The reader takes one and does something else: the others are kept for later.
function T.test_a_batch_is_kept_when_the_reader_turns_away()
  local a, b = connected_pair()
  local reader = asio.spawn(function()
    local got = { (a:recv()) }
    asio.sleep(0.005)
    for i = 2, 30 do got[i] = a:recv() end
    return got
  end)
  local expected = {}
  for i = 1, 30 do
    expected[i] = tostring(i)
    b:send(expected[i])
  end
  lu.assertEquals({ reader:join() }, { true, expected })
end

-- Another light thread takes over in the middle of a batch.
function T.test_a_batch_for_several_light_threads()
  local a, b = connected_pair()
  local got = {}
  local function take()
    local data = a:recv()
    got[#got + 1] = data
    if #got < 30 then return asio.spawn(take) end
  end
  asio.spawn(take)
  for i = 1, 30 do b:send(tostring(i)) end
  t.wait_until(function() return #got == 30 end, 'all of them')
  for i = 1, 30 do lu.assertEquals(got[i], tostring(i)) end
end

-- A temporary socket is there for as long as somebody waits on it.
function T.test_a_temporary_is_kept_while_it_waits()
  local ip, port
  local reader = asio.spawn(function()
    local function temporary()
      local s = socket()
      ip, port = s:address()
      return s
    end
    return (temporary():recv())
  end)
  t.collect()
  asio.sleep(0.001)
  t.collect()
  local b = socket()
  b:send('alive', ip, port)
  lu.assertEquals({ reader:join() }, { true, 'alive' })
end

local function dropped_socket(send_to)
  local s = socket()
  local ip, port = s:address()
  s:recv(nil, 0)
  if send_to then
    for i = 1, 3 do s:send(tostring(i), send_to:address()) end
  end
  return ip, port
end

function T.test_a_collected_socket_closes()
  local ip, port = dropped_socket()
  local again
  for _ = 1, 10 do
    t.collect()
    asio.sleep(0)
    again = asio.udp(ip, port)
    if again then break end
  end
  lu.assertNotNil(again)
end

-- What it has sent goes out all the same.
function T.test_a_collected_socket_sends_first()
  local server = socket()
  dropped_socket(server)
  t.collect()
  for i = 1, 3 do lu.assertEquals((server:recv(nil, 5)), tostring(i)) end
end

-- Finalizers run while strings are made: one that reads from the very socket, one that closes it.
local function trap(fn)
  getmetatable(newproxy(true)).__gc = fn
end

function T.test_finalizers_that_read()
  local a, b = connected_pair()
  local seen, sent = {}, 0
  local function note(ok, data)
    if ok and data then seen[#seen + 1] = tonumber(data:match '%d+') end
  end
  for i = 1, t.count(2000) do
    trap(function() note(pcall(a.recv, a)) end)
    b:send(('%d %s'):format(i, ('x'):rep(i % 500)))
    b:flush()
    sent = i
    if i % 10 == 0 then
      asio.sleep(0)
      for _ = 1, 7 do note(pcall(a.recv, a, nil, 0.0001)) end
    end
  end
  t.collect()
  t.wait_until(function()
    note(pcall(a.recv, a, nil, 0.001))
    return #seen == sent
  end, 'all of them')
  table.sort(seen)
  for i = 1, sent do lu.assertEquals(seen[i], i) end -- each of them once
  a:close()
end

function T.test_finalizers_that_close()
  for _ = 1, t.count(400) do
    local a, b = connected_pair()
    t.failure('ETIMEDOUT', a:recv(nil, 0.0001))
    for i = 1, 30 do
      b:send(('%d'):format(i):rep(100))
      if i == 20 then trap(function() a:close() end) end
    end
    asio.sleep(0)
    local data, _, code
    repeat
      local garbage = {} -- luacheck: ignore 241
      for i = 1, 50 do garbage[i] = ('%d'):format(i) end
      data, _, code = a:recv(nil, 0.0001)
    until not data
    lu.assertTrue(code == 'EBADF' or code == 'ETIMEDOUT', code)
    a:close()
    b:close()
  end
end

T.test_in_the_main_chunk = t.main(function()
  local a, b = socket(), socket()
  local ip, port = a:address()
  lu.assertTrue(b:send('outside', ip, port)) -- goes out at once
  lu.assertEquals({ b:pending() }, { 0, 0 })
  lu.assertEquals((a:recv()), 'outside')
  for i = 1, 30 do b:send(tostring(i), ip, port) end
  for i = 1, 30 do lu.assertEquals((a:recv()), tostring(i)) end
  t.failure('ETIMEDOUT', a:recv(nil, 0.001))
  -- What becomes of it can be told at once here.
  if raw.linux then t.failure('EACCES', b:send('x', '127.255.255.255', port)) end
  lu.assertTrue(b:send('fine', ip, port))
  a:close()
  b:close()
end)

-- A socket that nobody waits on does not keep the loop going.
T.test_an_idle_socket_ends_no_run = t.main(function()
  local a, b = socket(), socket()
  t.failure('ETIMEDOUT', a:recv(nil, 0))
  local ip, port = a:address()
  asio.run(function() b:send('x', ip, port) end)
  asio.run()
  a:close()
  b:close()
end)

-- The network may answer, whoever else holds the socket.
T.test_a_reader_is_no_deadlock = t.main(function()
  local s = socket()
  local ok, err = asio.run(function() return asio.timeout(0.01, function() return s:recv() end) end)
  lu.assertNil(ok)
  lu.assertStrContains(err, 'timed out')
  s:close()
end)

return T
