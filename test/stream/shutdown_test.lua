-- shutdown: half-close behind what is queued. abort: reset at once.
--
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local TOO_MUCH = 16 * 2 ^ 20

-- shutdown ------------------------------------------------------------------------------------

function T.test_the_peer_sees_everything_and_then_the_end()
  for _, open in ipairs { t.pair, t.tcp } do
    local a, b = open()
    a:write('one ', 'two')
    lu.assertTrue(a:shutdown())
    lu.assertEquals(b:read_all(), 'one two')
    -- The other direction goes on.
    b:write 'answer'
    lu.assertEquals(a:read(6), 'answer')
    b:write 'more'
    b:close()
    lu.assertEquals(a:read_all(), 'more')
    a:close()
  end
end

function T.test_with_nothing_written()
  local a, b = t.tcp()
  lu.assertTrue(a:shutdown())
  lu.assertEquals(b:read_all(), '')
  b:write 'answer'
  lu.assertEquals(a:read(6), 'answer')
end

function T.test_returns_at_once_and_sends_what_is_queued()
  local a, b = t.tcp()
  local data = ('q'):rep(TOO_MUCH)
  local writer = asio.spawn(function() return a:write(data) end)
  lu.assertEquals(writer:status(), 'waiting')
  lu.assertTrue(a:shutdown())
  lu.assertTrue(select(2, a:pending()) > 0)
  lu.assertEquals(writer:status(), 'waiting')
  t.same_bytes(b:read_all(math.huge), data)
  lu.assertEquals({ writer:join() }, { true, true })
  lu.assertTrue(a:flush())
end

function T.test_nothing_can_be_written_afterwards()
  for _, queued in ipairs { '', 'queued', ('q'):rep(TOO_MUCH) } do
    local a, b = t.pair()
    a:set_timeout(nil, 0)
    a:write(queued)
    a:set_timeout()
    a:shutdown()
    t.failure('EPIPE', a:write 'x')
    t.failure('EPIPE', a:write('x', 'y'))
    t.failure('EPIPE', a:write({ 'x', { 'y' } }, 1))
    t.failure('EPIPE', a:write(('x'):rep(100000)))
    t.failure('EPIPE', a:write '')
    t.bad_argument(2, 'write', function() a:write({}, print) end)
    t.same_bytes(b:read_all(math.huge), queued)
    lu.assertTrue(a:flush())
  end
end

function T.test_flush_waits_for_what_was_queued()
  local a, b = t.pair()
  a:set_timeout(nil, 0)
  a:write(('f'):rep(TOO_MUCH))
  a:set_timeout()
  a:shutdown()
  local flusher = asio.spawn(function() return a:flush() end)
  lu.assertEquals(flusher:status(), 'waiting')
  t.same_bytes(b:read_all(math.huge), ('f'):rep(TOO_MUCH))
  lu.assertEquals({ flusher:join() }, { true, true })
end

function T.test_a_second_time_and_on_a_closed_one()
  local a, b = t.pair()
  lu.assertTrue(a:shutdown())
  lu.assertTrue(a:shutdown())
  a:close()
  t.failure('EBADF', a:shutdown())
  for _, self in ipairs { false, {}, io.stdout } do t.raises("'shutdown'", b.shutdown, self) end
end

function T.test_a_connection_that_has_failed_says_so()
  local conn, peer = t.raw_peer()
  peer:reset()
  asio.sleep(0.002)
  while conn:write(('x'):rep(1000)) do asio.sleep(0.001) end
  t.failure_among(t.gone, conn:shutdown())
  conn:close()
end

function T.test_a_peer_that_has_gone()
  can.need 'resets'
  local conn, peer = t.raw_peer()
  peer:reset()
  t.failure('ECONNRESET', conn:read(1))
  t.failure('EPIPE', conn:shutdown())
  t.failure('EPIPE', conn:write 'x')
  conn:close()
end

function T.test_a_peer_that_goes_while_it_is_on_its_way()
  local conn, peer = t.raw_peer()
  conn:set_timeout(nil, 0)
  conn:write(('x'):rep(TOO_MUCH))
  conn:set_timeout()
  lu.assertTrue(conn:shutdown())
  local flusher = asio.spawn(function() return conn:flush() end)
  peer:reset()
  local _, ok, message, code = flusher:join()
  t.failure_among(t.gone, ok, message, code)
  t.failure_among(t.gone, conn:write 'x')
  conn:close()
end

function T.test_under_a_reader()
  local a, b = t.pair()
  local reader = asio.spawn(function() return a:read(4) end)
  lu.assertTrue(a:shutdown())
  lu.assertEquals(reader:status(), 'waiting')
  lu.assertEquals(b:read_all(), '')
  b:write 'data'
  lu.assertEquals({ reader:join() }, { true, 'data' })
end

function T.test_close_after_it_loses_nothing()
  for _, open in ipairs { t.pair, t.tcp } do
    local a, b = open()
    a:set_timeout(nil, 0)
    a:write(('c'):rep(TOO_MUCH))
    a:shutdown()
    b:write(('u'):rep(1000)) -- never read
    a:close()
    t.same_bytes(b:read_all(math.huge), ('c'):rep(TOO_MUCH))
    b:close()
  end
end

function T.test_close_some_time_after_it()
  local a, b = t.tcp()
  local fd = a:fd()
  a:write 'all'
  a:shutdown()
  lu.assertEquals(b:read_all(), 'all')
  b:write(('u'):rep(1000))
  b:flush()
  a:close()
  b:close()
  t.wait_until(function() return not raw.is_open(fd) end, 'the descriptor to go', 10)
end

function T.test_both_sides()
  local a, b = t.tcp()
  a:write 'from a'
  b:write 'from b'
  a:shutdown()
  b:shutdown()
  lu.assertEquals(a:read_all(), 'from b')
  lu.assertEquals(b:read_all(), 'from a')
  a:close()
  b:close()
end

T.test_in_the_main_chunk = t.main(function()
  local a, b = t.pair()
  a:write 'from the main chunk'
  a:shutdown()
  lu.assertEquals(b:read_all(), 'from the main chunk')
end)

function T.test_run_waits_for_it()
  lu.assertEquals(t.quiet_child(function()
    local lib = require 'asio'
    local server = assert(lib.server('127.0.0.1', 0, function(conn)
      lib.sleep(0.02)
      io.write(#conn:read_all(math.huge))
    end))
    local conn = assert(lib.connect(server:address()))
    conn:set_timeout(nil, 0)
    conn:write(('r'):rep(16 * 2 ^ 20))
    conn:shutdown()
    server:close()
    lib.run()
  end), tostring(TOO_MUCH))
end

function T.test_collected_after_it()
  local conn, peer = t.raw_peer()
  conn:write 'last words'
  conn:shutdown()
  conn = nil -- luacheck: ignore 311
  t.collect()
  lu.assertEquals(t.recv(peer), 'last words')
  peer:close()
end

-- abort ---------------------------------------------------------------------------------------

function T.test_the_peer_is_reset()
  can.need 'resets'
  local conn, peer = t.raw_peer()
  local fd = conn:fd()
  conn:write(('x'):rep(100))
  conn:flush()
  lu.assertEquals(t.recv(peer, 100), ('x'):rep(100))
  conn:abort()
  t.wait_until(function() return not raw.is_open(fd) end)
  lu.assertFalse(peer:recv(1, 1), 'a reset, not the end')
  peer:close()
end

function T.test_the_peer_gets_the_code()
  local a, b = t.tcp()
  local reader = asio.spawn(function() return b:read(1) end)
  a:abort()
  local _, data, message, code = reader:join()
  t.failure('ECONNRESET', data, message, code)
end

-- The kernel tells of a reset once: here a write gets to know of it, and the reader has to as well.
function T.test_a_reset_that_a_write_has_met_is_no_end()
  local conn, peer = t.raw_peer()
  peer:send('half of the ans', 5)
  peer:reset()
  conn:write 'x'
  t.failure('ECONNRESET', conn:flush())
  t.failure('ECONNRESET', conn:read_all())
  lu.assertEquals(conn:read_some(), 'half of the ans')
  t.failure('ECONNRESET', conn:read_some())
  conn:close()
end

function T.test_a_pair_ends_too()
  local a, b = t.pair()
  b:write 'unread'
  b:flush()
  a:abort()
  t.failure_among(t.codes('EOF', 'ECONNRESET'), b:read(1))
end

function T.test_what_is_queued_is_dropped()
  local conn, peer = t.raw_peer()
  conn:set_timeout(nil, 0)
  conn:write(('x'):rep(TOO_MUCH))
  local fd, started = conn:fd(), asio.now()
  conn:abort()
  t.wait_until(function() return not raw.is_open(fd) end)
  lu.assertTrue(asio.now() - started < 1 * t.patience)
  lu.assertTrue(#t.recv(peer) < TOO_MUCH)
  peer:close()
end

function T.test_what_was_not_flushed_is_dropped()
  local conn, peer = t.raw_peer()
  conn:write 'not flushed'
  conn:abort()
  lu.assertEquals(t.recv(peer), '')
  peer:close()
end

function T.test_who_waits_is_woken()
  local a, b = t.tcp()
  local threads = {
    asio.spawn(function() return a:read_line() end),
    asio.spawn(function() return a:write(('w'):rep(TOO_MUCH)) end),
    asio.spawn(function() return a:flush() end),
  }
  for _, thread in ipairs(threads) do lu.assertEquals(thread:status(), 'waiting') end
  a:abort()
  for _, thread in ipairs(threads) do
    lu.assertEquals({ thread:join() }, { true, nil, 'canceled', 'ECANCELED' })
  end
  t.failure('EBADF', a:read_line())
  t.failure('EBADF', a:write 'x')
  b:close()
end

function T.test_any_number_of_times_and_in_any_order()
  local a, b = t.tcp()
  a:abort()
  a:abort()
  a:close()
  b:close()
  b:abort()
  lu.assertEquals(select('#', b:abort()), 0)
  for _, self in ipairs { false, {}, io.stdout, asio.current() } do t.raises("'abort'", b.abort, self) end
end

function T.test_by_the_thread_that_data_has_just_woken()
  for _, operation in ipairs { 'read_line', 'read_some', 'peek' } do
    local a, b = t.pair()
    local reader = asio.spawn(function()
      local data = a[operation](a, 4)
      a:abort()
      return data, a:read(1)
    end)
    b:write 'data\nmore'
    local _, data, _, _, code = reader:join()
    lu.assertStrContains(data, 'data')
    lu.assertEquals(code, 'EBADF')
  end
end

function T.test_while_a_shutdown_is_on_its_way()
  local conn, peer = t.raw_peer()
  conn:set_timeout(nil, 0)
  conn:write(('x'):rep(TOO_MUCH))
  conn:shutdown()
  local fd = conn:fd()
  conn:abort()
  t.wait_until(function() return not raw.is_open(fd) end)
  peer:close()
end

function T.test_in_a_finalizer_of_the_user()
  can.need 'resets'
  local a, b = t.tcp()
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    a:write 'from a finalizer'
    a:abort()
  end
  proxy = nil -- luacheck: ignore 311
  t.collect()
  t.failure('ECONNRESET', b:read(1))
end

T.test_abort_in_the_main_chunk = t.main(function()
  can.need 'resets'
  local a, b = t.tcp()
  a:abort()
  t.failure('ECONNRESET', b:read(1))
end)

function T.test_run_does_not_wait_for_an_aborted_one()
  local started = asio.now()
  t.quiet_child(function()
    local lib = require 'asio'
    local server = assert(lib.server('127.0.0.1', 0, function(conn) lib.held = conn end))
    local conn = assert(lib.connect(server:address()))
    conn:set_timeout(nil, 0)
    conn:write(('r'):rep(16 * 2 ^ 20))
    conn:abort()
    server:close()
    lib.run()
  end)
  lu.assertTrue(asio.now() - started < 5 * t.patience)
end

return T
