-- Reading up to something: read_until, read_line, read_all, lines, peek.
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

local MIB = 2 ^ 20

-- What the operation returns when its stream holds `text` and then ends; and what is left of it.
local function of_whole(text, operation, ...)
  local a, b = t.pair()
  asio.spawn(function()
    b:write(text)
    b:close()
  end)
  local results = { a[operation](a, ...) }
  local rest = a:read_all(math.huge)
  a:close()
  return results, rest
end

local function gives(expected, rest, text, ...)
  local results, left = of_whole(text, ...)
  lu.assertEquals(results, { expected })
  lu.assertEquals(left, rest)
end

-- A failure takes nothing.
local function fails(code, text, ...)
  local results, left = of_whole(text, ...)
  t.failure(code, unpack(results, 1, 3))
  lu.assertEquals(left, text)
end

local function waiting(a, operation, ...)
  local thread = asio.spawn(a[operation], a, ...)
  lu.assertEquals(thread:status(), 'waiting')
  return thread
end

local function send(b, text)
  b:write(text)
  b:flush()
  asio.sleep(0.001)
end

-- read_until ----------------------------------------------------------------------------------

function T.test_up_to_a_delimiter()
  gives('key', 'value', 'key:value', 'read_until', ':')
  gives('', 'rest', ':rest', 'read_until', ':')
  gives('one', 'two::', 'one::two::', 'read_until', '::')
  gives('a:b', '', 'a:b::', 'read_until', '::')
  gives('header', 'body', 'header\r\n\r\nbody', 'read_until', '\r\n\r\n')
  gives('x', 'y', 'x\0\0y', 'read_until', '\0\0')
  gives('aa', 'c', 'aaaabc', 'read_until', 'aab')
  gives('', 'x', 'aaaaaaaaab' .. 'x', 'read_until', 'aaaaaaaaab')
  gives('aaa', 'x', 'aaa' .. 'aaaaaaaaab' .. 'x', 'read_until', 'aaaaaaaaab')
end

function T.test_one_after_the_other()
  local a, b = t.pair()
  b:write 'one,two,,three--four,--five'
  lu.assertEquals(a:read_until ',', 'one')
  lu.assertEquals(a:read_until ',', 'two')
  lu.assertEquals(a:read_until ',', '')
  lu.assertEquals(a:read_until '--', 'three')
  lu.assertEquals(a:read_until ',--', 'four')
  lu.assertEquals(a:read(4), 'five')
end

function T.test_every_byte_delimits()
  local a, b = t.pair()
  for i = 0, 255 do
    local byte = string.char(i)
    local other = string.char((i + 1) % 256):rep(3)
    b:write(other, byte, other, byte, byte)
    lu.assertEquals(a:read_until(byte), other)
    lu.assertEquals(a:read_until(byte .. byte), other)
  end
end

function T.test_a_delimiter_that_arrives_in_pieces()
  for _, delim in ipairs { '\r\n', '\r\n\r\n', 'aab', 'aaaaaaab', 'a boundary of some length' } do
    for cut = 1, #delim - 1 do
      local a, b = t.pair()
      local reader = waiting(a, 'read_until', delim)
      send(b, 'a' .. delim:sub(1, cut))
      lu.assertEquals(reader:status(), 'waiting')
      send(b, delim:sub(cut + 1) .. 'rest')
      lu.assertEquals({ reader:join() }, { true, 'a' })
      lu.assertEquals(a:read(4), 'rest')
    end
  end
end

function T.test_byte_by_byte()
  local a, b = t.pair()
  local reader = waiting(a, 'read_until', 'aaab')
  for i = 1, 9 do
    send(b, ('aaabaaaab'):sub(i, i))
    if i == 4 then
      lu.assertEquals({ reader:join() }, { true, '' })
      reader = waiting(a, 'read_until', 'aaab')
    end
  end
  lu.assertEquals({ reader:join() }, { true, 'a' })
end

function T.test_the_end_before_the_delimiter()
  fails('EOF', 'no delimiter', 'read_until', ':')
  fails('EOF', 'half of it:', 'read_until', '::')
  fails('EOF', '', 'read_until', ':')
  local a, b = t.pair()
  local reader = waiting(a, 'read_until', 'a long delimiter')
  send(b, 'something')
  b:close()
  lu.assertEquals({ reader:join() }, { true, nil, 'end of file', 'EOF' })
  lu.assertEquals(a:read_some(), 'something')
end

function T.test_at_most_so_many_bytes()
  gives('1234', '', '1234:', 'read_until', ':', 4)
  fails('EMSGSIZE', '12345:', 'read_until', ':', 4)
  fails('EMSGSIZE', '12345', 'read_until', ':', 4)
  gives('1234', '', '1234::', 'read_until', '::', 4)
  fails('EMSGSIZE', '12345::', 'read_until', '::', 4)
  gives('1', 'x', '1' .. 'a long delimiter' .. 'x', 'read_until', 'a long delimiter', 1)
  fails('EMSGSIZE', '12' .. 'a long delimiter', 'read_until', 'a long delimiter', 1)
  fails('EMSGSIZE', ('x'):rep(MIB + 1) .. ':', 'read_until', ':')
  gives(('x'):rep(MIB), '', ('x'):rep(MIB) .. ':', 'read_until', ':')
  gives(('x'):rep(2 * MIB), '', ('x'):rep(2 * MIB) .. ':', 'read_until', ':', math.huge)
end

-- Too much is known as soon as it has come, and not before.
function T.test_too_much_while_waiting()
  for _, delim in ipairs { ':', '::', '::::::::', '::::::::::' } do
    local a, b = t.pair()
    local reader = waiting(a, 'read_until', delim, 4)
    send(b, '1234')
    lu.assertEquals(reader:status(), 'waiting')
    if #delim > 1 then
      send(b, ':')
      lu.assertEquals(reader:status(), 'waiting', 'it may be the delimiter')
    end
    send(b, '5')
    lu.assertEquals(reader:status(), 'done', delim)
    lu.assertEquals({ reader:join() }, { true, nil, 'message too long', 'EMSGSIZE' })
    lu.assertEquals(a:read(4), '1234')
  end
end

function T.test_more_than_is_read_ahead()
  local conn, peer = t.raw_peer()
  local data = ('0123456789'):rep(50000)
  local reader = waiting(conn, 'read_until', '!')
  local sent, all = 0, data .. '!rest'
  t.wait_until(function()
    sent = sent + peer:send(all:sub(sent + 1), 0)
    return sent == #all
  end, 'the peer to send')
  local _, got = reader:join()
  t.same_bytes(got, data)
  lu.assertEquals(conn:read(4), 'rest')
  peer:close()
end

-- 4 MB without the delimiter, then byte by byte: whoever looks at all of it again for each byte
-- needs a minute and not a second.
T.test_nothing_is_looked_at_twice = t.slow(60, function()
  for _, delim in ipairs { '!', 'aaaaaaa!', 'aaaaaaaaaaaaaaaaaaaaaaaaaa!' } do
    local a, b = t.pair()
    local start, bytes = ('a'):rep(4 * MIB), 20000
    local before = raw.cpu()
    local reader = waiting(a, 'read_until', delim, math.huge)
    b:write(start)
    for _ = 1, bytes do
      b:write 'a'
      b:flush()
      asio.yield()
    end
    b:write(delim)
    local _, got = reader:join()
    lu.assertEquals(#got, #start + bytes)
    lu.assertTrue(raw.cpu() - before < 3 * t.patience, raw.cpu() - before)
  end
end)

-- The last and only megabytes are kept while a reader needs them, and no longer.
function T.test_too_much_stops_reading()
  local conn, peer = t.raw_peer()
  t.failure('EMSGSIZE', (function()
    local reader = waiting(conn, 'read_until', '!', 1000)
    peer:send(('x'):rep(2000), 1)
    return select(2, reader:join())
  end)())
  local chunk = ('x'):rep(65536)
  for _ = 1, 40 do
    peer:send(chunk, 0)
    asio.sleep(0.001)
  end
  lu.assertTrue(conn:pending() <= 2 ^ 18, conn:pending() .. ' bytes are kept in memory')
  peer:reset()
  conn:close()
end

-- read_line -----------------------------------------------------------------------------------

function T.test_lines_end_in_either_way()
  gives('unix', 'next\n', 'unix\nnext\n', 'read_line')
  gives('dos', 'next\r\n', 'dos\r\nnext\r\n', 'read_line')
  gives('', 'x', '\nx', 'read_line')
  gives('', 'x', '\r\nx', 'read_line')
  gives('only\rone', 'x', 'only\rone\r\nx', 'read_line')
  gives('two\r', 'x', 'two\r\r\nx', 'read_line')
  gives('nul\0s', '', 'nul\0s\n', 'read_line')
end

function T.test_a_line_that_arrives_in_pieces()
  for _, pieces in ipairs {
    { 'li', 'ne\n' }, { 'line', '\r\n' }, { 'line\r', '\n' }, { 'l', 'i', 'n', 'e', '\r', '\n' },
  } do
    local a, b = t.pair()
    local reader = waiting(a, 'read_line')
    for i, piece in ipairs(pieces) do
      lu.assertEquals(reader:status(), 'waiting', i)
      send(b, piece)
    end
    lu.assertEquals({ reader:join() }, { true, 'line' })
    lu.assertEquals({ a:pending() }, { 0, 0 })
  end
end

function T.test_the_last_line_needs_no_newline()
  gives('last', '', 'last', 'read_line')
  gives('last\r', '', 'last\r', 'read_line')
  fails('EOF', '', 'read_line')
  local a, b = t.pair()
  local reader = waiting(a, 'read_line')
  send(b, 'first\nlast')
  lu.assertEquals({ reader:join() }, { true, 'first' })
  reader = waiting(a, 'read_line')
  b:close()
  lu.assertEquals({ reader:join() }, { true, 'last' })
  t.failure('EOF', a:read_line())
  t.failure('EOF', a:read_line())
end

function T.test_lines_of_at_most_so_many_bytes()
  gives('1234', '', '1234\n', 'read_line', 4)
  gives('1234', '', '1234\r\n', 'read_line', 4)
  gives('1234', '', '1234', 'read_line', 4)
  fails('EMSGSIZE', '12345\n', 'read_line', 4)
  fails('EMSGSIZE', '12345\r\n', 'read_line', 4)
  fails('EMSGSIZE', '12345', 'read_line', 4)
  fails('EMSGSIZE', '1234\r', 'read_line', 4)
  fails('EMSGSIZE', '1234\rx\n', 'read_line', 4)
  fails('EMSGSIZE', ('x'):rep(MIB + 1) .. '\n', 'read_line')
  gives(('x'):rep(MIB), '', ('x'):rep(MIB) .. '\r\n', 'read_line')
end

function T.test_a_line_too_long_while_waiting()
  local a, b = t.pair()
  local reader = waiting(a, 'read_line', 4)
  send(b, '1234\r')
  lu.assertEquals(reader:status(), 'waiting', 'the newline may follow')
  send(b, '\n')
  lu.assertEquals({ reader:join() }, { true, '1234' })
  reader = waiting(a, 'read_line', 4)
  send(b, '1234\r')
  send(b, '5')
  lu.assertEquals({ reader:join() }, { true, nil, 'message too long', 'EMSGSIZE' })
  lu.assertEquals(a:read(6), '1234\r5')
end

-- read_all ------------------------------------------------------------------------------------

function T.test_to_the_end()
  gives('everything', '', 'everything', 'read_all')
  gives('', '', '', 'read_all')
  gives('1234', '', '1234', 'read_all', 4)
  fails('EMSGSIZE', '12345', 'read_all', 4)
  fails('EMSGSIZE', ('x'):rep(MIB + 1), 'read_all')
  gives(('x'):rep(MIB), '', ('x'):rep(MIB), 'read_all')
  gives(('x'):rep(5 * MIB), '', ('x'):rep(5 * MIB), 'read_all', math.huge)
end

function T.test_waits_for_the_end()
  local a, b = t.pair()
  local reader = waiting(a, 'read_all')
  send(b, 'some')
  lu.assertEquals(reader:status(), 'waiting')
  send(b, ' and more')
  b:close()
  lu.assertEquals({ reader:join() }, { true, 'some and more' })
  lu.assertEquals(a:read_all(), '')
  t.failure('EOF', a:read(1))
end

function T.test_more_than_all_may_be()
  local a, b = t.pair()
  local reader = waiting(a, 'read_all', 4)
  send(b, '1234')
  lu.assertEquals(reader:status(), 'waiting')
  send(b, '5')
  lu.assertEquals({ reader:join() }, { true, nil, 'message too long', 'EMSGSIZE' })
  t.failure('EMSGSIZE', a:read_all(4))
  b:close()
  lu.assertEquals(a:read_all(5), '12345')
end

-- libuv says end of file for a reset that came together with data.
function T.test_a_reset_is_not_the_end()
  can.need 'resets'
  for _, operation in ipairs { 'read_all', 'read_line', 'read_some' } do
    local conn, peer = t.raw_peer()
    peer:send('part of it', 1)
    peer:reset()
    asio.sleep(0.002)
    if operation == 'read_some' then lu.assertEquals(conn:read_some(), 'part of it') end
    t.failure('ECONNRESET', conn[operation](conn))
    lu.assertEquals({ conn:pending() }, { operation == 'read_some' and 0 or 10, 0 })
    conn:close()
  end
end

-- lines ---------------------------------------------------------------------------------------

function T.test_line_by_line()
  local a, b = t.pair()
  asio.spawn(function()
    for i = 1, 500 do
      b:write('line ', i, i % 2 == 0 and '\r\n' or '\n')
      if i % 7 == 0 then asio.yield() end
    end
    b:write 'the last'
    b:close()
  end)
  local n, last = 0, nil
  for line in a:lines() do
    n, last = n + 1, line
    if n <= 500 then lu.assertEquals(line, 'line ' .. n) end
  end
  lu.assertEquals({ n, last }, { 501, 'the last' })
  for _ in a:lines() do lu.fail('after the end') end
end

function T.test_a_loop_that_is_left()
  local a, b = t.pair()
  b:write 'Length: 4\r\n\r\nbodyGET\nnext'
  local header = {}
  for line in a:lines() do
    if line == '' then break end
    header[#header + 1] = line
  end
  lu.assertEquals(header, { 'Length: 4' })
  lu.assertEquals(a:read(4), 'body')
  local next_line = a:lines()
  lu.assertEquals(next_line(), 'GET')
  lu.assertEquals(a:read(2), 'ne')
  b:close()
  lu.assertEquals(next_line(), 'xt')
  lu.assertNil(next_line())
end

local function loop(a, ...)
  for _ in a:lines(...) do end -- luacheck: ignore 542
end

-- Raises a text with the message, the code and the line of the loop.
local function raises_in_loop(code, a, ...)
  local err = t.raises(code, loop, a, ...)
  local line = debug.getinfo(loop, 'S').linedefined + 1
  lu.assertStrContains(err, ('read_until_test.lua:%d: '):format(line))
  return err
end

function T.test_anything_but_the_end_is_raised()
  can.need 'resets'
  local a, b = t.pair()
  b:write '1\n22\n333\n'
  raises_in_loop('message too long (EMSGSIZE)', a, 2)
  lu.assertEquals(a:read(4), '333\n')
  a:set_timeout(0.002)
  b:write 'a line\nand a half'
  raises_in_loop('operation timed out (ETIMEDOUT)', a)
  a:set_timeout()
  local reader = waiting(a, 'read', 100)
  raises_in_loop('(EBUSY)', a)
  a:close()
  reader:join()
  raises_in_loop('closed (EBADF)', a)
  local conn, peer = t.raw_peer()
  peer:send('part', 1)
  peer:reset()
  asio.sleep(0.002)
  raises_in_loop('(ECONNRESET)', conn)
end

function T.test_a_loop_under_a_deadline()
  local a, b = t.pair()
  local n = 0
  asio.spawn(function()
    while b:write 'tick\n' do asio.sleep(0.001) end
  end)
  t.failure('ETIMEDOUT', asio.timeout(0.02, function()
    for _ in a:lines() do n = n + 1 end
  end))
  lu.assertTrue(n > 0)
  b:close()
end

-- peek ----------------------------------------------------------------------------------------

function T.test_peek_takes_nothing()
  local a, b = t.pair()
  b:write 'abcdef'
  lu.assertEquals(a:peek(3), 'abc')
  lu.assertEquals(a:peek(6), 'abcdef')
  lu.assertEquals(a:peek(0), '')
  lu.assertEquals(a:read(4), 'abcd')
  lu.assertEquals(a:peek(2), 'ef')
  lu.assertEquals(a:read_some(), 'ef')
end

function T.test_peek_waits()
  local a, b = t.pair()
  local reader = waiting(a, 'peek', 4)
  send(b, 'abc')
  lu.assertEquals(reader:status(), 'waiting')
  send(b, 'de')
  lu.assertEquals({ reader:join() }, { true, 'abcd' })
  lu.assertEquals(a:read(5), 'abcde')
end

function T.test_peek_at_the_end()
  local a, b = t.pair()
  local reader = waiting(a, 'peek', 4)
  b:write 'abc'
  b:close()
  lu.assertEquals({ reader:join() }, { true, nil, 'end of file', 'EOF' })
  t.failure('EOF', a:peek(4))
  lu.assertEquals(a:peek(3), 'abc')
  lu.assertEquals(a:read(3), 'abc')
  t.failure('EOF', a:peek(1))
end

function T.test_peek_at_more_than_is_read_ahead()
  local a, b = t.pair()
  local data = ('0123456789'):rep(30000)
  local writer = asio.spawn(function() return b:write(data, 'x') end)
  t.same_bytes(a:peek(#data), data)
  t.same_bytes(a:read(#data), data)
  lu.assertEquals(a:read(1), 'x')
  lu.assertEquals({ writer:join() }, { true, true })
end

-- All of them ---------------------------------------------------------------------------------

function T.test_bad_arguments()
  local a, b = t.pair()
  t.bad_argument(1, 'read_until', function() a:read_until '' end)
  t.bad_argument(1, 'read_until', function() a:read_until() end)
  t.bad_argument(1, 'read_until', function() a:read_until(10) end)
  t.bad_argument(1, 'read_until', function() a:read_until({}) end)
  t.bad_argument(2, 'read_until', function() a:read_until('x', 0) end)
  t.bad_argument(2, 'read_until', function() a:read_until('x', -1) end)
  t.bad_argument(2, 'read_until', function() a:read_until('x', 0 / 0) end)
  t.bad_argument(2, 'read_until', function() a:read_until('x', 'many') end)
  t.bad_argument(2, 'read_until', function() a:read_until('x', false) end)
  for _, name in ipairs { 'read_line', 'read_all', 'lines' } do
    for _, bad in ipairs { 0, -1, 0.5, 1.5, 0 / 0, -math.huge, 2 ^ 53, 'many', {}, true } do
      t.bad_argument(1, name, function() a[name](a, bad) end)
    end
  end
  t.bad_argument(1, 'peek', function() a:peek() end)
  t.bad_argument(1, 'peek', function() a:peek(-1) end)
  t.bad_argument(1, 'peek', function() a:peek(0 / 0) end)
  t.bad_argument(1, 'peek', function() a:peek(math.huge) end)
  for _, name in ipairs { 'read_until', 'read_line', 'read_all', 'lines', 'peek' } do
    for _, self in ipairs { false, 17, {}, io.stdout, newproxy(), asio.current() } do
      t.raises("'" .. name .. "'", a[name], self, 'x')
    end
  end
  b:write 'usable\n'
  lu.assertEquals(a:read_line(), 'usable')
end

local operations = {
  { 'read', 4 }, { 'read_some' }, { 'read_until', ':' }, { 'read_until', 'a long delimiter' },
  { 'read_line' }, { 'read_all' }, { 'peek', 1 },
}

-- The first one is not disturbed, whatever it is.
function T.test_a_second_reader_is_turned_away()
  for _, first in ipairs(operations) do
    local a, b = t.pair()
    local reader = waiting(a, unpack(first))
    for _, second in ipairs(operations) do
      t.failure('EBUSY', a[second[1]](a, unpack(second, 2)))
    end
    send(b, 'ab')
    if reader:status() == 'waiting' then
      for _, second in ipairs(operations) do
        t.failure('EBUSY', a[second[1]](a, unpack(second, 2)))
      end
    end
    b:write('cd:a long delimiter\n')
    b:close()
    local _, got = reader:join()
    local expected = {
      read = 'abcd', read_some = 'ab', read_line = 'abcd:a long delimiter', peek = 'a',
      read_all = 'abcd:a long delimiter\n', read_until = first[2] == ':' and 'abcd' or 'abcd:',
    }
    lu.assertEquals(got, expected[first[1]])
  end
end

function T.test_a_time_out_takes_nothing()
  for _, what in ipairs(operations) do
    if what[1] ~= 'read_some' and what[1] ~= 'peek' then
      local a, b = t.pair()
      a:set_timeout(0.002)
      b:write 'ab'
      t.failure('ETIMEDOUT', a[what[1]](a, unpack(what, 2)))
      a:set_timeout()
      b:write 'cd:a long delimiter\n'
      lu.assertEquals(a:read(4), 'abcd')
    end
  end
end

-- What is there does not outrun a cancel.
function T.test_cancelled_with_the_answer_there()
  for _, what in ipairs(operations) do
    local a, b = t.pair()
    b:write 'abcd:a long delimiter\n'
    b:close()
    lu.assertEquals(a:peek(1), 'a')
    local thread = asio.spawn(function()
      asio.current():cancel()
      return a[what[1]](a, unpack(what, 2))
    end)
    local ok, err = thread:join()
    lu.assertFalse(ok)
    lu.assertIs(err, asio.cancelled)
    lu.assertEquals(a:read(4), 'abcd')
  end
end

T.test_in_the_main_chunk = t.main(function()
  local a, b = t.pair()
  local thread = asio.spawn(function()
    for _, part in ipairs { 'li', 'ne\r', '\nke', 'y:', 'all', ' the rest' } do
      b:write(part)
      asio.sleep(0.001)
    end
    b:close()
  end)
  lu.assertEquals(a:read_line(), 'line')
  lu.assertEquals(a:peek(4), 'key:')
  lu.assertEquals(a:read_until ':', 'key')
  lu.assertEquals(a:read_all(), 'all the rest')
  for _ in a:lines() do lu.fail('after the end') end
  thread:join()
end)

-- A finalizer may do with a connection what it likes, also while its line is being made.
function T.test_a_finalizer_that_reads_or_closes()
  local a, b = t.pair()
  local line = ('l'):rep(5000)
  local count, taken = t.count(20000), 0
  local writer = asio.spawn(function()
    for _ = 1, count do
      if not b:write(line, '\n') then return end
    end
  end)
  local function disturb(what)
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function() what() end
  end
  for i = 1, count - 200 do
    if i % 10 == 0 then
      disturb(function()
        a:set_timeout(0)
        local ok, data = pcall(a.read_line, a)
        if ok and data then taken = taken + 1 end
        a:set_timeout()
      end)
    end
    if i + taken >= count - 100 then break end
    local data, _, code = a:read_line()
    if data then lu.assertEquals(#data, #line) else lu.assertEquals(code, 'EBUSY') end
  end
  disturb(function() a:close() end)
  t.collect()
  repeat
    local data, _, code = a:read_line()
  until not data and code ~= 'EBUSY'
  b:close()
  writer:join()
end

return T
