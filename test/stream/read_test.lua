-- read, read_some, what is pending, time-outs and the end of the stream.
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

function T.test_exactly_so_many_bytes()
  local a, b = t.pair()
  b:write 'abcdefghij'
  lu.assertEquals(a:read(1), 'a')
  lu.assertEquals(a:read(3), 'bcd')
  lu.assertEquals(a:read(6), 'efghij')
end

function T.test_waits_for_all_of_them()
  local a, b = t.pair()
  local reader = asio.spawn(function() return a:read(6) end)
  for i = 1, 6 do
    lu.assertEquals(reader:status(), 'waiting')
    b:write(tostring(i))
    asio.sleep(0.001)
  end
  lu.assertEquals({ reader:join() }, { true, '123456' })
end

function T.test_read_some_takes_what_is_there()
  local a, b = t.pair()
  b:write 'some'
  lu.assertEquals(a:read_some(), 'some')
  local reader = asio.spawn(function() return a:read_some() end)
  asio.yield()
  lu.assertEquals(reader:status(), 'waiting')
  b:write 'more'
  lu.assertEquals({ reader:join() }, { true, 'more' })
end

function T.test_read_some_takes_at_most_max()
  local a, b = t.pair()
  b:write 'abcdef'
  lu.assertEquals(a:read_some(4), 'abcd')
  lu.assertEquals(a:read_some(4), 'ef')
  local reader = asio.spawn(function() return a:read_some(2) end)
  asio.yield()
  b:write 'xyz'
  lu.assertEquals({ reader:join() }, { true, 'xy' })
  lu.assertEquals(a:read_some(1000), 'z')
end

function T.test_read_and_read_some_take_turns()
  local a, b = t.pair()
  b:write 'onetwothree'
  lu.assertEquals(a:read(3), 'one')
  lu.assertEquals(a:read_some(3), 'two')
  lu.assertEquals(a:read(2), 'th')
  lu.assertEquals(a:read_some(), 'ree')
end

function T.test_nothing_at_once()
  local a, b = t.pair()
  lu.assertEquals(a:read(0), '')
  b:write 'data'
  lu.assertEquals(a:read(0), '')
  lu.assertEquals(a:read(4), 'data')
  lu.assertEquals(a:read(0), '')
end

function T.test_every_byte_value()
  local a, b = t.pair()
  local all = {}
  for i = 0, 255 do all[i + 1] = string.char(i) end
  all = table.concat(all)
  b:write(all, all)
  t.same_bytes(a:read(512), all .. all)
end

function T.test_sizes_that_are_none()
  local a, b = t.pair()
  t.bad_argument(1, 'read', function() a:read(-1) end)
  t.bad_argument(1, 'read', function() a:read(2 ^ 53) end)
  t.bad_argument(1, 'read', function() a:read(0 / 0) end)
  t.bad_argument(1, 'read', function() a:read(math.huge) end)
  t.bad_argument(1, 'read', function() a:read(-math.huge) end)
  t.bad_argument(1, 'read', function() a:read(1e300) end)
  t.bad_argument(1, 'read', function() a:read() end)
  t.bad_argument(1, 'read', function() a:read('many') end)
  t.bad_argument(1, 'read', function() a:read({}) end)
  t.bad_argument(1, 'read', function() a:read(true) end)
  t.bad_argument(1, 'read_some', function() a:read_some(-1) end)
  t.bad_argument(1, 'read_some', function() a:read_some(0 / 0) end)
  t.bad_argument(1, 'read_some', function() a:read_some('many') end)
  -- The connection is as good as before.
  b:write 'usable'
  lu.assertEquals(a:read(6), 'usable')
end

function T.test_methods_on_what_is_no_connection()
  local a = t.pair()
  for _, self in ipairs { false, 17, 'text', {}, io.stdout, newproxy(), asio.current() } do
    for _, name in ipairs { 'read', 'read_some', 'write', 'flush', 'close', 'peer', 'fd', 'pending' } do
      lu.assertFalse((pcall(a[name], self, 1)), name)
    end
  end
  lu.assertFalse((pcall(a.read)))
end

function T.test_a_huge_size_allocates_nothing_ahead()
  can.need 'proc'
  local a, b = t.pair()
  local before = raw.status 'VmSize'
  local reader = asio.spawn(function() return a:read(2 ^ 40) end)
  lu.assertEquals(reader:status(), 'waiting')
  if not t.sanitized then
    lu.assertTrue(raw.status 'VmSize' - before < 64 * 1024, 'allocated ahead')
  end
  local data = ('0123456789'):rep(20000)
  b:write(data)
  b:close()
  local ok, got, _, code = reader:join()
  lu.assertTrue(ok, got)
  lu.assertNil(got)
  lu.assertEquals(code, 'EOF')
  -- The failed read consumed nothing.
  t.same_bytes(a:read(#data), data)
end

function T.test_the_end_in_the_middle()
  local a, b = t.pair()
  local reader = asio.spawn(function() return a:read(10) end)
  b:write 'four'
  b:close()
  local ok, data, message, code = reader:join()
  lu.assertTrue(ok, data)
  lu.assertNil(data)
  lu.assertEquals(message, 'end of file')
  lu.assertEquals(code, 'EOF')
  lu.assertEquals(a:read_some(), 'four')
  t.failure('EOF', a:read_some())
  t.failure('EOF', a:read(1))
  lu.assertEquals(a:read(0), '')
end

function T.test_what_had_arrived_before_the_end_is_not_lost()
  -- The first version dropped what came together with the end of the stream.
  for _, wait in ipairs { true, false } do
    local conn, peer = t.raw_peer()
    peer:send('last words', 1)
    peer:close()
    if wait then asio.sleep(0.005) end
    lu.assertEquals(conn:read(4), 'last')
    lu.assertEquals(conn:read_some(2), ' w')
    t.failure('EOF', conn:read(5))
    lu.assertEquals(conn:read(4), 'ords')
    t.failure('EOF', conn:read(1))
    conn:close()
  end
end

function T.test_a_lot_before_the_end()
  -- More than is read ahead: reading stopped, and goes on to the very end all the same.
  local conn, peer = t.raw_peer(nil, { buffers = 2 ^ 20 })
  local data = ('abcdefghijklmnopqrstuvwxyz'):rep(20000)
  local sent = 0
  t.wait_until(function()
    sent = sent + peer:send(data:sub(sent + 1), 0)
    asio.sleep(0)
    return sent == #data or conn:pending() > 60000
  end)
  asio.spawn(function()
    while sent < #data do
      sent = sent + peer:send(data:sub(sent + 1), 0)
      asio.sleep(0.001)
    end
    peer:close()
  end)
  local parts = {}
  while true do
    local part, _, code = conn:read_some(10000)
    if not part then
      lu.assertEquals(code, 'EOF')
      break
    end
    parts[#parts + 1] = part
  end
  t.same_bytes(table.concat(parts), data)
end

function T.test_the_end_alone()
  local a, b = t.pair()
  local reader = asio.spawn(function() return a:read_some() end)
  b:close()
  lu.assertEquals({ reader:join() }, { true, nil, 'end of file', 'EOF' })
end

function T.test_after_the_others_half_close_one_can_still_write()
  local conn, peer = t.raw_peer()
  peer:shutdown()
  t.failure('EOF', conn:read(1))
  lu.assertTrue(conn:write 'still here')
  lu.assertTrue(conn:flush())
  lu.assertEquals(t.recv(peer, 10), 'still here')
  conn:close()
  peer:close()
end

function T.test_a_second_reader_is_turned_away()
  local a, b = t.pair()
  local first = asio.spawn(function() return a:read(4) end)
  t.failure('EBUSY', a:read(1))
  t.failure('EBUSY', a:read_some())
  b:write 'mine'
  lu.assertEquals({ first:join() }, { true, 'mine' })
  b:write 'next'
  lu.assertEquals(a:read(4), 'next')
end

function T.test_a_reader_and_a_writer_at_once()
  local a, b = t.pair()
  local size = 2 ^ 20
  local reader = asio.spawn(function() return a:read(3) end)
  local writer = asio.spawn(function() return a:write(('w'):rep(size)) end)
  b:write 'abc'
  lu.assertEquals({ reader:join() }, { true, 'abc' })
  t.same_bytes(b:read(size), ('w'):rep(size))
  lu.assertEquals({ writer:join() }, { true, true })
end

function T.test_pending()
  local a, b = t.pair()
  lu.assertEquals({ a:pending() }, { 0, 0 })
  b:write 'abcdef'
  lu.assertEquals({ b:pending() }, { 0, 6 })
  asio.yield()
  lu.assertEquals({ b:pending() }, { 0, 0 })
  lu.assertEquals(a:read(2), 'ab')
  lu.assertEquals({ a:pending() }, { 4, 0 })
  lu.assertEquals(a:read_some(), 'cdef')
  lu.assertEquals({ a:pending() }, { 0, 0 })
end

function T.test_reading_ahead_is_bounded()
  local conn, peer = t.raw_peer()
  conn:set_timeout(0.01)
  t.failure('ETIMEDOUT', conn:read(1)) -- armed from now on
  local data = ('d'):rep(2 ^ 16)
  for _ = 1, 40 do
    peer:send(data, 0)
    asio.sleep(0.001)
  end
  lu.assertTrue(conn:pending() <= 2 ^ 18, conn:pending() .. ' bytes are kept in memory')
  peer:reset()
  conn:close()
end

-- Time-outs -----------------------------------------------------------------------------------

function T.test_a_time_out_consumes_nothing()
  local a, b = t.pair()
  a:set_timeout(0.01)
  b:write 'four'
  lu.assertNil((t.failure('ETIMEDOUT', a:read(10))))
  lu.assertEquals({ a:pending() }, { 4, 0 })
  lu.assertEquals(a:read(4), 'four')
end

function T.test_a_time_out_has_its_own_words()
  local a = t.pair()
  a:set_timeout(0.001)
  local _, message = a:read_some()
  lu.assertEquals(message, 'operation timed out')
end

function T.test_zero_is_only_what_is_there_now()
  local a, b = t.pair()
  a:set_timeout(0)
  t.failure('ETIMEDOUT', a:read_some())
  b:write 'abcd'
  b:flush()
  a:set_timeout(nil)
  lu.assertEquals(a:read(1), 'a')
  a:set_timeout(0)
  lu.assertEquals(a:read_some(), 'bcd')
  t.failure('ETIMEDOUT', a:read(1))
end

function T.test_a_time_out_is_for_each_call()
  local a, b = t.pair()
  a:set_timeout(0.2 * t.patience)
  for _ = 1, 3 do
    local reader = asio.spawn(function() return a:read(1) end)
    b:write 'x'
    lu.assertEquals({ reader:join() }, { true, 'x' })
    asio.sleep(0.11 * t.patience) -- in all longer than the time-out
  end
  t.failure('ETIMEDOUT', a:read(1))
  t.failure('ETIMEDOUT', a:read(1))
end

function T.test_the_time_out_can_be_taken_away()
  local a, b = t.pair()
  a:set_timeout(0.001)
  t.failure('ETIMEDOUT', a:read(1))
  a:set_timeout(nil)
  local reader = asio.spawn(function() return a:read(1) end)
  asio.sleep(0.01)
  lu.assertEquals(reader:status(), 'waiting')
  b:write 'x'
  lu.assertEquals({ reader:join() }, { true, 'x' })
end

function T.test_a_read_that_is_done_does_not_time_out_later()
  local a, b = t.pair()
  a:set_timeout(0.01)
  local reader = asio.spawn(function()
    local data = a:read(1)
    asio.sleep(0.03)
    return data
  end)
  b:write 'x'
  lu.assertEquals({ reader:join() }, { true, 'x' })
end

function T.test_after_a_time_out_the_next_reader_gets_the_data()
  local a, b = t.pair()
  for i = 1, 20 do
    a:set_timeout(0.001)
    t.failure('ETIMEDOUT', a:read(2))
    a:set_timeout(nil)
    local reader = asio.spawn(function() return a:read(2) end)
    b:write(('%02d'):format(i))
    lu.assertEquals({ reader:join() }, { true, ('%02d'):format(i) })
  end
end

function T.test_data_and_deadline_at_about_the_same_time()
  -- Whoever wins, no byte is lost and none is read twice.
  local a, b = t.pair()
  local n = 150
  asio.spawn(function()
    for i = 1, n do
      asio.sleep(0.001)
      b:write(string.char(i))
    end
  end)
  a:set_timeout(0.001)
  local expected = 1
  while expected <= n do
    local data, _, code = a:read(1)
    if data then
      lu.assertEquals(data:byte(), expected)
      expected = expected + 1
    else
      lu.assertEquals(code, 'ETIMEDOUT')
    end
  end
end

return T
