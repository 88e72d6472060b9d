-- write and flush: what may be written, coalescing, back-pressure, time-outs, many writers.
--
-- test: over TLS
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local raw = require 'raw'
local over_tls = require 'over_tls'
local t = require 'support'

local T = {}

-- More than the kernel's buffers and the high-water mark together.
local TOO_MUCH = 16 * 2 ^ 20

-- What can be written -------------------------------------------------------------------------

local function expect_written(expected, ...)
  local a, b = t.pair()
  lu.assertEquals({ a:write(...) }, { true })
  a:close()
  local parts = {}
  while true do
    local part = b:read_some()
    if not part then break end
    parts[#parts + 1] = part
  end
  t.same_bytes(table.concat(parts), expected)
end

function T.test_strings()
  expect_written('one', 'one')
  expect_written('onetwothree', 'one', 'two', '', 'three')
  expect_written('a\0b\r\n\255', 'a\0b', '\r\n\255')
end

function T.test_nothing()
  local a, b = t.pair()
  lu.assertEquals({ a:write '' }, { true })
  lu.assertEquals({ a:write('', '') }, { true })
  lu.assertEquals({ a:write({}) }, { true })
  lu.assertEquals({ a:write({ '' }) }, { true })
  lu.assertEquals({ a:pending() }, { 0, 0 })
  lu.assertEquals({ a:flush() }, { true })
  b:set_timeout(0.005)
  t.failure('ETIMEDOUT', b:read(1))
end

function T.test_numbers_as_tostring_shows_them()
  for _, number in ipairs { 0, 1, -1, 1.5, 0.1, 1e15, 1e100, 2 ^ 53, -2 ^ 31, 1 / 3, math.huge } do
    expect_written(tostring(number), number)
  end
  expect_written('x10y', 'x', 10, 'y')
end

function T.test_tables()
  expect_written('abc', { 'a', 'b', 'c' })
  expect_written('a1b2', { 'a', 1, 'b', 2 })
  expect_written('<ab1>', '<', { 'a', 'b' }, 1, { '>' })
  local many, expected = {}, {}
  for i = 1, 3000 do
    many[i] = i % 3 == 0 and i or 's' .. i
    expected[i] = tostring(many[i])
  end
  expect_written(table.concat(expected), many)
end

function T.test_tables_in_tables()
  -- Either written in order or refused as a whole.
  local a, b = t.pair()
  local ok, err = pcall(a.write, a, 'x', { 'a', { 'b', { 'c' } }, 'd' })
  if ok then
    lu.assertEquals(b:read(5), 'xabcd')
  else
    lu.assertStrContains(err, "bad argument #2 to 'write'")
    lu.assertEquals({ a:pending() }, { 0, 0 })
  end
  local endless = { 'e' }
  endless[2] = endless
  lu.assertFalse((pcall(a.write, a, endless)))
  a:close()
end

function T.test_string_buffers_are_copied_and_not_consumed()
  local found, buffer = pcall(require, 'string.buffer')
  lu.skipIf(not found, 'this LuaJIT has no string.buffer')
  local object = buffer.new():put('buffered ', 42)
  expect_written('buffered 42', object)
  expect_written('[buffered 42|buffered 42]', '[', object, { '|', object }, ']')
  lu.assertEquals(tostring(object), 'buffered 42')
  expect_written('', buffer.new())
  local large = buffer.new():put(('L'):rep(2 ^ 20))
  local a, b = t.pair()
  local writer = asio.spawn(function() return a:write(large) end)
  large:reset():put(('M'):rep(2 ^ 20)) -- the copy was taken at once
  t.same_bytes(b:read(2 ^ 20), ('L'):rep(2 ^ 20))
  lu.assertTrue(writer:join())
end

function T.test_what_cannot_be_written()
  local a, b = t.pair()
  t.bad_argument(1, 'write', function() a:write(nil) end)
  t.bad_argument(1, 'write', function() a:write(true) end)
  t.bad_argument(1, 'write', function() a:write(print) end)
  t.bad_argument(1, 'write', function() a:write(io.stdout) end)
  t.bad_argument(2, 'write', function() a:write('good', false) end)
  t.bad_argument(3, 'write', function() a:write('good', 1, nil) end)
  t.bad_argument(2, 'write', function() a:write('good', { 'good', {}, true }) end)
  t.bad_argument(1, 'write', function() a:write({ 'good', print }) end)
  -- Nothing of all that was good has gone out.
  lu.assertEquals({ a:pending() }, { 0, 0 })
  a:write 'first'
  a:close()
  lu.assertEquals(b:read(5), 'first')
  t.failure('EOF', b:read(1))
end

function T.test_tables_with_metamethods()
  -- Elements are taken as they are; code that runs in between must not confuse anything.
  local a, b = t.pair()
  local strange = setmetatable({ 'x' }, {
    __index = function() error 'no raw access' end,
    __len = function() return 100 end,
    __tostring = function() return 'no' end,
  })
  lu.assertTrue(a:write(strange))
  lu.assertEquals(b:read(1), 'x')
end

function T.test_large_strings_of_all_sizes()
  local a, b = t.pair()
  for _, size in ipairs { 1, 4095, 4096, 16383, 16384, 16385, 65535, 65536, 65537, 300000, 2 ^ 20 + 1 } do
    local data = ('0123456789abcdef'):rep(math.ceil(size / 16)):sub(1, size)
    local writer = asio.spawn(function() return a:write('<', data, '>') end)
    t.same_bytes(b:read(size + 2), '<' .. data .. '>')
    lu.assertEquals({ writer:join() }, { true, true })
  end
end

function T.test_large_and_small_ones_keep_their_order()
  local a, b = t.pair()
  local large = ('L'):rep(100000)
  local writer = asio.spawn(function()
    for i = 1, 5 do
      a:write('small', i)
      a:write(large)
    end
    a:write 'end'
    a:close()
  end)
  local expected = {}
  for i = 1, 5 do expected[i] = 'small' .. i .. large end
  t.same_bytes(b:read(5 * 100006 + 3), table.concat(expected) .. 'end')
  lu.assertTrue(writer:join())
end

function T.test_a_large_string_outlives_its_last_reference()
  local conn, peer = t.raw_peer(nil, { buffers = 4096 })
  conn:set_timeout(nil, 0)
  local size = 8 * 2 ^ 20
  t.failure('ETIMEDOUT', conn:write(('K'):rep(size)))
  t.collect()
  for i = 1, 20 do local _ = ('garbage'):rep(100000 + i) end
  t.collect()
  t.same_bytes(t.recv(peer, size), ('K'):rep(size))
  conn:close()
  peer:close()
end

-- Coalescing ----------------------------------------------------------------------------------

function T.test_small_writes_of_a_turn_arrive_together()
  for _, open in ipairs { t.pair, t.tcp } do
    local a, b = open()
    for i = 1, 16 do a:write(('%02d'):format(i)) end
    lu.assertEquals(b:read_some(), '01020304050607080910111213141516')
  end
end

function T.test_they_go_out_when_the_thread_ends()
  local a, b = t.pair()
  local reader = asio.spawn(function() return b:read_some() end)
  asio.spawn(function()
    a:write 'first '
    a:write 'last'
  end)
  lu.assertEquals({ reader:join() }, { true, 'first last' })
end

function T.test_they_go_out_when_the_thread_fails()
  local a, b = t.pair()
  local thread = asio.spawn(function()
    a:write 'before the error'
    error 'after the write'
  end)
  lu.assertFalse((thread:join()))
  lu.assertEquals(b:read(16), 'before the error')
end

function T.test_sixteen_small_writes_are_one_system_call()
  local log = os.tmpname()
  t.quiet_child(function()
    local asio = require 'asio'
    asio.run(function()
      local a, b = asio.socketpair()
      local reader = asio.spawn(function()
        for _ = 1, 10 do b:read(16 * 9) end
      end)
      for _ = 1, 10 do
        for _ = 1, 16 do a:write 'coalesced' end
        asio.sleep(0.001)
      end
      reader:join()
    end)
  end, {
    env = t.ignore_leaks,
    wrap = t.strace('-e trace=write,writev,?send,sendto,sendmsg -o ' .. log),
  })
  local calls = 0
  for line in io.lines(log) do
    if line:find('coalesced', 1, true) then calls = calls + 1 end
  end
  os.remove(log)
  lu.assertEquals(calls, 10)
end

-- Back-pressure -------------------------------------------------------------------------------

function T.test_a_peer_that_never_reads_parks_the_writer()
  local conn, peer = t.raw_peer({ linger = 0.1 })
  local chunk = ('c'):rep(16384)
  local written, highest = 0, 0
  local writer = asio.spawn(function()
    for _ = 1, 64 * 2 ^ 20 / #chunk do
      local ok, _, code = conn:write(chunk)
      if not ok then return code end
      written = written + 1
    end
  end)
  t.wait_until(function()
    local before = written
    asio.sleep(0.02)
    highest = math.max(highest, (select(2, conn:pending())))
    return written == before and writer:status() == 'waiting'
  end)
  lu.assertTrue(highest <= 2 ^ 20, highest .. ' bytes are queued')
  -- Other connections go on meanwhile.
  local a, b = t.pair()
  b:write 'alive'
  lu.assertEquals(a:read(5), 'alive')
  peer:reset()
  local ok, code = writer:join()
  lu.assertTrue(ok, code)
  lu.assertTrue(t.gone[code], code)
  conn:close()
end

function T.test_memory_is_bounded_by_the_high_water_mark()
  lu.skipIf(t.sanitized, 'measures memory')
  if over_tls.on then can.need 'real_kernel' end -- OpenSSL is much code to translate
  local conns, peers, before = {}, {}, raw.status 'VmRSS'
  local chunk = ('c'):rep(8192)
  for i = 1, 20 do
    conns[i], peers[i] = t.raw_peer({ linger = 0.1 }, { buffers = 4096 })
    asio.spawn(function()
      for _ = 1, 2000 do
        if not conns[i]:write(chunk) then return end
      end
    end)
  end
  asio.sleep(0.05)
  t.collect()
  local grown = raw.status 'VmRSS' - before
  lu.assertTrue(grown < 20 * 1024, grown .. ' KiB for 20 connections')
  for i = 1, 20 do
    peers[i]:reset()
    conns[i]:close()
  end
end

function T.test_the_writer_goes_on_when_the_peer_reads()
  local a, b = t.pair()
  local data = ('p'):rep(TOO_MUCH)
  local writer = asio.spawn(function() return a:write(data) end)
  lu.assertEquals(writer:status(), 'waiting')
  t.same_bytes(b:read(TOO_MUCH), data)
  lu.assertEquals({ writer:join() }, { true, true })
end

function T.test_many_writers_each_contiguous_first_come_first_served()
  local a, b = t.pair()
  local size, writers, rounds = 300000, 6, 3
  local started, threads = {}, {}
  for w = 1, writers do
    threads[w] = asio.spawn(function()
      for r = 1, rounds do
        started[#started + 1] = w
        assert(a:write(('%d%d:'):format(w, r), string.char(64 + w):rep(size)))
      end
    end)
  end
  local order, seen = {}, {}
  for _ = 1, writers * rounds do
    local w, r = b:read(3):match '(%d)(%d):'
    w, r = tonumber(w), tonumber(r)
    t.same_bytes(b:read(size), string.char(64 + w):rep(size))
    lu.assertEquals(r, (seen[w] or 0) + 1)
    seen[w] = r
    order[#order + 1] = w
  end
  for w = 1, writers do lu.assertEquals({ threads[w]:join() }, { true }) end
  lu.assertEquals(order, started)
end

function T.test_a_small_write_does_not_overtake_a_parked_one()
  local a, b = t.pair()
  local large = asio.spawn(function() return a:write(('1'):rep(TOO_MUCH), '!') end)
  local small = asio.spawn(function() return a:write 'second' end)
  t.same_bytes(b:read(TOO_MUCH + 1), ('1'):rep(TOO_MUCH) .. '!')
  lu.assertEquals(b:read(6), 'second')
  lu.assertEquals({ large:join() }, { true, true })
  lu.assertEquals({ small:join() }, { true, true })
end

-- Flush ---------------------------------------------------------------------------------------

function T.test_flush_waits_until_the_kernel_has_it_all()
  local a, b = t.pair()
  a:write 'small'
  lu.assertEquals({ a:flush() }, { true })
  lu.assertEquals({ a:pending() }, { 0, 0 })
  a:set_timeout(nil, 0)
  t.failure('ETIMEDOUT', a:write(('f'):rep(TOO_MUCH)))
  a:set_timeout(nil, nil)
  local flushers = {}
  for i = 1, 3 do
    flushers[i] = asio.spawn(function() return a:flush() end)
    lu.assertEquals(flushers[i]:status(), 'waiting')
  end
  lu.assertEquals(b:read(5), 'small')
  t.same_bytes(b:read(TOO_MUCH), ('f'):rep(TOO_MUCH))
  for i = 1, 3 do lu.assertEquals({ flushers[i]:join() }, { true, true }) end
  lu.assertEquals({ a:pending() }, { 0, 0 })
end

-- Time-outs -----------------------------------------------------------------------------------

function T.test_a_write_that_times_out_says_how_much_is_unsent()
  local a, b = t.pair()
  a:set_timeout(nil, 0.01)
  local data = ('t'):rep(TOO_MUCH)
  local unsent = t.failure('ETIMEDOUT', a:write(data))
  lu.assertIsNumber(unsent)
  lu.assertTrue(unsent > 0 and unsent <= TOO_MUCH, unsent)
  lu.assertEquals((select(2, a:pending())), unsent)
  lu.assertEquals(t.failure('ETIMEDOUT', a:flush()), unsent)
  -- It stays queued: nothing is lost, nothing is to be sent again.
  t.same_bytes(b:read(TOO_MUCH), data)
  lu.assertEquals({ a:write 'next' }, { true })
  lu.assertEquals(b:read(4), 'next')
end

function T.test_a_parked_writer_behind_another_that_times_out_stays_in_order()
  local a, b = t.pair()
  a:set_timeout(nil, 0.01)
  local first = asio.spawn(function() return (select(3, a:write(('1'):rep(TOO_MUCH)))) end)
  local second = asio.spawn(function() return (select(3, a:write(('2'):rep(1000)))) end)
  lu.assertEquals({ first:join() }, { true, 'ETIMEDOUT' })
  lu.assertEquals({ second:join() }, { true, 'ETIMEDOUT' })
  t.same_bytes(b:read(TOO_MUCH), ('1'):rep(TOO_MUCH))
  lu.assertEquals(b:read(1000), ('2'):rep(1000))
end

function T.test_a_zero_time_out_queues_and_returns()
  local a, b = t.pair()
  a:set_timeout(nil, 0)
  lu.assertEquals({ a:write 'fits' }, { true })
  local started = asio.now()
  t.failure('ETIMEDOUT', a:write(('0'):rep(TOO_MUCH)))
  lu.assertTrue(asio.now() - started < 0.5 * t.patience)
  lu.assertEquals(b:read(4), 'fits')
  t.same_bytes(b:read(TOO_MUCH), ('0'):rep(TOO_MUCH))
end

return T
