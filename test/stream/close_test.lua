-- close: orderly, at once, from anywhere, twice, by the collector, and with peers that do not
-- play along.
--
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

local TOO_MUCH = 16 * 2 ^ 20

local function expect_gone(fd)
  t.wait_until(function() return not raw.is_open(fd) end, 'the descriptor to go', 10)
end

-- Orderly -------------------------------------------------------------------------------------

function T.test_everything_written_before_arrives()
  local a, b = t.tcp()
  local data = ('e'):rep(1000000)
  a:set_timeout(nil, 0)
  a:write(data)
  a:close()
  t.same_bytes(b:read(#data), data)
  t.failure('EOF', b:read(1))
end

function T.test_although_the_input_was_never_read()
  -- The kernel resets a connection that is closed with unread input, and the peer loses what
  -- was on its way: the library has to read the rest before it closes.
  for _, unread in ipairs { 1, 1000, 50000, 500000 } do
    local conn, peer = t.raw_peer()
    local sent, input = 0, ('u'):rep(unread)
    local data = ('o'):rep(1000000)
    conn:set_timeout(nil, 0)
    conn:write(data)
    sent = sent + peer:send(input, 0)
    asio.sleep(0.002)
    conn:close()
    local got = {}
    local size = 0
    t.wait_until(function()
      if sent < unread then sent = sent + peer:send(input:sub(sent + 1), 0) end
      local part = peer:recv(65536, 0)
      if part == '' or part == false then return true end
      if part then
        got[#got + 1] = part
        size = size + #part
      end
      return false
    end, 'the end', 15)
    lu.assertEquals(size, #data, 'with ' .. unread .. ' unread bytes')
    t.same_bytes(table.concat(got), data)
    peer:close()
  end
end

function T.test_although_some_input_was_read_into_our_buffer()
  local conn, peer = t.raw_peer()
  peer:send(('i'):rep(5000), 1)
  lu.assertEquals(conn:read(1), 'i')
  conn:write(('o'):rep(200000))
  conn:close()
  t.same_bytes(t.recv(peer, 200000), ('o'):rep(200000))
  peer:close()
end

function T.test_returns_at_once()
  local conn, peer = t.raw_peer({ linger = 0.2 })
  conn:set_timeout(nil, 0)
  conn:write(('n'):rep(TOO_MUCH))
  local started = asio.now()
  conn:close()
  lu.assertTrue(asio.now() - started < 0.1 * t.patience)
  peer:reset()
end

function T.test_a_peer_that_never_reads_is_given_up_after_linger()
  local conn, peer = t.raw_peer({ linger = 0.1 })
  conn:set_timeout(nil, 0)
  conn:write(('g'):rep(TOO_MUCH))
  local started, fd = asio.now(), conn:fd()
  conn:close()
  expect_gone(fd)
  local took = asio.now() - started
  lu.assertTrue(took >= 0.05, 'given up after ' .. took)
  peer:close()
end

function T.test_linger_of_a_connecting_side()
  local listener = raw.listen()
  local conn = assert(asio.connect('127.0.0.1', listener:port(), { linger = 0.1 }))
  local fd = conn:fd()
  conn:set_timeout(nil, 0)
  conn:write(('g'):rep(TOO_MUCH))
  conn:close()
  expect_gone(fd)
  listener:close()
end

function T.test_a_peer_that_never_stops_sending_is_cut_off()
  -- Reading the rest is bounded in time and size: nobody keeps a closed connection for ever.
  local conn, peer = t.raw_peer({ linger = 0.3 })
  local fd, chunk = conn:fd(), ('s'):rep(65536)
  conn:write 'bye'
  conn:close()
  t.wait_until(function()
    peer:send(chunk, 0)
    return not raw.is_open(fd)
  end, 'the descriptor to go', 10)
  peer:close()
end

function T.test_a_peer_that_keeps_its_end_open_is_cut_off_too()
  local conn, peer = t.raw_peer({ linger = 0.1 })
  local fd = conn:fd()
  conn:write 'bye'
  conn:close()
  expect_gone(fd)
  lu.assertEquals(t.recv(peer, 3), 'bye')
  peer:close()
end

function T.test_bad_lingers()
  for _, bad in ipairs { -1, 0 / 0, 'long' } do
    t.raises('connect', asio.connect, '127.0.0.1', 1, { linger = bad })
    t.raises('server', asio.server, '127.0.0.1', 0, function() end, { linger = bad })
  end
end

T.test_close_in_the_main_chunk_sends_what_is_queued = t.main(function()
  local conn, peer = t.raw_peer()
  conn:write 'from the main chunk'
  conn:close()
  lu.assertEquals(t.recv(peer, 19), 'from the main chunk')
  peer:close()
end)

function T.test_run_waits_for_what_is_still_on_its_way()
  lu.assertEquals(t.quiet_child(function()
    local lib = require 'asio'
    local a, b = lib.socketpair()
    local size, sum = 4 * 2 ^ 20, 0
    lib.spawn(function()
      a:set_timeout(nil, 0)
      a:write(('r'):rep(size))
      a:close()
    end)
    lib.spawn(function()
      lib.sleep(0.02)
      while true do
        local data = b:read_some()
        if not data then return end
        sum = sum + #data
      end
    end)
    lib.run()
    assert(sum == size)
    io.write 'all of it'
  end), 'all of it')
end

-- After it ------------------------------------------------------------------------------------

function T.test_operations_on_a_closed_connection()
  local a, b = t.pair()
  b:write 'unread'
  lu.assertEquals(a:read(1), 'u')
  a:close()
  t.failure('EBADF', a:read(1))
  t.failure('EBADF', a:read_some())
  t.failure('EBADF', a:write 'x')
  t.failure('EBADF', a:write '')
  t.failure('EBADF', a:flush())
  t.failure('EBADF', a:peer())
  t.failure('EBADF', a:address())
  t.failure('EBADF', a:fd())
  local _, message = a:read(1)
  lu.assertEquals(message, 'closed')
  lu.assertIsString(tostring(a))
  -- Mistakes are still mistakes.
  t.raises("bad argument #1 to 'read'", a.read, a, -1)
end

function T.test_closing_twice_is_fine()
  local a, b = t.pair()
  a:close()
  a:close()
  asio.yield()
  a:close()
  b:close()
  b:close()
end

function T.test_the_second_close_does_not_touch_a_reused_descriptor()
  local a, b = t.pair()
  local fd = a:fd()
  a:close()
  b:close()
  t.wait_until(function() return not raw.is_open(fd) end)
  local c, d = t.pair()
  a:close()
  t.collect()
  c:write 'intact'
  lu.assertEquals(d:read(6), 'intact')
end

-- Under a waiter ------------------------------------------------------------------------------

function T.test_while_another_thread_reads()
  for _, operation in ipairs { 'read', 'read_some' } do
    local a, b = t.pair()
    local reader = asio.spawn(function() return a[operation](a, 10) end)
    a:close()
    lu.assertEquals({ reader:join() }, { true, nil, 'canceled', 'ECANCELED' })
    b:close()
  end
end

function T.test_while_another_thread_writes()
  local a, b = t.pair()
  local data = ('w'):rep(TOO_MUCH)
  local writer = asio.spawn(function() return a:write(data) end)
  local second = asio.spawn(function() return a:write 'and more' end)
  local flusher = asio.spawn(function() return a:flush() end)
  a:close()
  local _, _, _, code = writer:join()
  lu.assertEquals(code, 'ECANCELED')
  lu.assertEquals(select(4, second:join()), 'ECANCELED')
  lu.assertEquals(select(4, flusher:join()), 'ECANCELED')
  -- What they had handed over still goes out.
  t.same_bytes(b:read(TOO_MUCH), data)
  lu.assertEquals(b:read(8), 'and more')
  t.failure('EOF', b:read(1))
end

function T.test_while_one_reads_and_one_writes()
  local a, b = t.pair()
  local woken = 0
  local threads = {
    asio.spawn(function()
      a:read(1)
      woken = woken + 1
    end),
    asio.spawn(function()
      a:write(('w'):rep(TOO_MUCH))
      woken = woken + 1
    end),
  }
  a:close()
  a:close()
  for _, thread in ipairs(threads) do lu.assertTrue((thread:join())) end
  asio.sleep(0.005)
  lu.assertEquals(woken, 2)
  while b:read_some() do end -- luacheck: ignore 542
end

function T.test_by_the_thread_that_data_has_just_woken()
  local a, b = t.pair()
  local reader = asio.spawn(function()
    local data = a:read(4)
    a:close()
    return data, a:read(1)
  end)
  b:write 'datamore'
  local _, data, _, _, code = reader:join()
  lu.assertEquals(data, 'data')
  lu.assertEquals(code, 'EBADF')
end

function T.test_data_and_close_in_the_same_turn()
  local a, b = t.pair()
  local reader = asio.spawn(function() return a:read(4) end)
  b:write 'data'
  b:flush()
  a:close()
  local ok, data, _, code = reader:join()
  lu.assertTrue(ok)
  lu.assertTrue(data == 'data' or (data == nil and code == 'ECANCELED'))
end

function T.test_both_ends_at_once()
  for _, open in ipairs { t.pair, t.tcp } do
    local a, b = open()
    local readers = {}
    for i, conn in ipairs { a, b } do
      readers[i] = asio.spawn(function() return conn:read(1) end)
    end
    a:write(('x'):rep(100000))
    b:write(('y'):rep(100000))
    a:close()
    b:close()
    for i = 1, 2 do lu.assertTrue((readers[i]:join())) end
  end
end

function T.test_a_server_that_closes_while_clients_connect()
  for round = 1, 20 do
    local server = assert(t.server('127.0.0.1', 0, function(conn) conn:close() end))
    local _, port = server:address()
    local clients = {}
    for i = 1, 5 do
      clients[i] = asio.spawn(function()
        local conn, _, code = t.connect('127.0.0.1', port, { timeout = 5 })
        if not conn then return code end
        conn:set_timeout(5)
        return (select(3, conn:read(1)))
      end)
    end
    if round % 2 == 0 then asio.yield() end
    server:close()
    for i = 1, 5 do
      local ok, code = clients[i]:join()
      lu.assertTrue(ok, code)
      lu.assertItemsEquals({ ({ ECONNREFUSED = 1, ECONNRESET = 1, EOF = 1 })[code] }, { 1 }, code)
    end
  end
end

-- By the collector ----------------------------------------------------------------------------

function T.test_an_unreachable_connection_is_closed()
  local conn, peer = t.raw_peer()
  conn:write 'last words'
  conn = nil -- luacheck: ignore 311
  local got
  t.wait_until(function()
    t.collect()
    local data = peer:recv(100, 0)
    if data and data ~= '' then got = data end
    return data == ''
  end, 'the end of the stream')
  lu.assertEquals(got, 'last words')
  peer:close()
end

function T.test_a_closed_one_may_be_collected_at_any_time()
  for i = 1, t.count(2000) do
    local a, b = t.pair()
    if i % 2 == 0 then a:write(('x'):rep(100000)) end
    a:close()
    if i % 3 == 0 then b:close() end
    if i % 50 == 0 then asio.yield() end
  end
end

function T.test_closed_in_a_finalizer_of_the_user()
  local a, b = t.pair()
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    a:write 'from a finalizer'
    a:close()
  end
  proxy = nil -- luacheck: ignore 311
  t.collect()
  lu.assertEquals(b:read(16), 'from a finalizer')
  t.failure('EOF', b:read(1))
end

return T
