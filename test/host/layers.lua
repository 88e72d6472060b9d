-- Streams over streams, for mode layers (layers.c): what every connection can do, over a layer, and over two.
-- A case that leaves something going on has the state closed with it.
--
-- SPDX-License-Identifier: MIT

local host = host -- luacheck: ignore 113
local asio = require 'asio'

local M, cases = {}, {}
local keep = {}

local function check(ok, what)
  if not ok then error(what, 2) end
end

local function same(found, expected)
  if found == expected then return end
  error(('found %s, expected %s'):format(tostring(found), tostring(expected)), 2)
end

local function fails(code, ...)
  same((...), nil)
  same(select(3, ...), code)
  return select(4, ...)
end

-- Ways to two connected ends, plain ones.
local ways = {}

function ways.unix()
  return assert(asio.socketpair())
end

function ways.tcp(options)
  local server = assert(asio.server('127.0.0.1', 0, nil, options))
  local connecting = asio.spawn(asio.connect, server:address())
  local far = assert(server:accept())
  local _, near = assert(connecting:join())
  server:close()
  return near, far
end

local function scrambled(way, depth, ...)
  local a, b = ways[way](...)
  for _ = 1, depth or 1 do
    assert(host.scramble(a))
    assert(host.scramble(b))
  end
  return a, b
end

-- A case for each way and depth.
local function each(name, case)
  for way in pairs(ways) do
    for depth = 1, 2 do
      cases[('%s_%s_%d'):format(name, way, depth)] = function() case(way, depth) end
    end
  end
end

-- Reading and writing ---------------------------------------------------------------------------

each('words', function(way, depth)
  local a, b = scrambled(way, depth)
  a:write 'one'
  same(b:read(3), 'one')
  b:write('two\n', 3, { '4\r\n' })
  same(a:read_line(), 'two')
  same(a:read_line(), '34')
  a:write 'five;six'
  same(b:read_until ';', 'five')
  same(b:peek(2), 'si')
  same(b:read_some(), 'six')
  check(tostring(a):find '^connection %(scrambled' or way == 'unix', tostring(a))
  same(select(2, a:pending()), 0)
  check(a:fd() ~= b:fd(), 'descriptors')
  same((a:peer()), way == 'tcp' and '127.0.0.1' or 'unix:')
end)

local function pattern(n, seed)
  local parts = {}
  for i = 1, n / 8 do parts[i] = ('%08x'):format((i * seed) % 2 ^ 32) end
  return table.concat(parts)
end

each('much_both_ways', function(way, depth)
  local a, b = scrambled(way, depth)
  local there, back = pattern(3000000, 7919), pattern(2000000, 104729)
  local group = asio.group()
  group:spawn(function() assert(a:write(there)) assert(a:flush()) a:shutdown() end)
  group:spawn(function()
    for i = 1, #back, 10000 do assert(b:write(back:sub(i, i + 9999))) end
    b:shutdown()
  end)
  group:spawn(function() check(b:read_all(math.huge) == there, 'there') end)
  group:spawn(function() check(a:read_all(math.huge) == back, 'back') end)
  group:wait()
end)

each('writers_wait_for_a_slow_reader', function(way, depth)
  local a, b = scrambled(way, depth)
  local written = 0
  local writer = asio.spawn(function()
    for _ = 1, 500 do
      assert(a:write(('w'):rep(20000)))
      written = written + 20000
    end
    a:close()
  end)
  local before
  repeat
    before = written
    asio.sleep(0.05)
  until written == before
  check(written < 10000000, 'no back-pressure')
  same(writer:status(), 'waiting')
  local size = 0
  for _ = 1, 10000 do
    local data = b:read_some()
    if not data then break end
    size = size + #data
  end
  same(size, 10000000)
  assert(writer:join())
end)

-- Whoever does not read keeps a bounded number of bytes in memory.
each('nothing_is_read_without_a_reader', function(way, depth)
  local a, b = scrambled(way, depth)
  a:set_timeout(nil, 0.05)
  b:write 'x'
  same(a:read(1), 'x')
  local _
  repeat _ = a:write(('x'):rep(20000)) until not _
  check(b:pending() < 300000, 'read ahead: ' .. b:pending())
  same(#b:read(250000), 250000)
end)

-- Ends ------------------------------------------------------------------------------------------

each('close_sends_everything', function(way, depth)
  local a, b = scrambled(way, depth)
  local data = pattern(2000000, 31)
  a:set_timeout(nil, 0)
  a:write(data)
  a:close()
  check(b:read_all(math.huge) == data, 'bytes')
  fails('EOF', b:read(1))
end)

each('close_with_unread_input', function(way, depth)
  local a, b = scrambled(way, depth)
  a:set_timeout(nil, 0)
  b:set_timeout(nil, 0)
  b:write(('u'):rep(200000))
  asio.sleep(0.01)
  a:write(('o'):rep(500000))
  a:close()
  same(#b:read_all(math.huge), 500000)
end)

each('half_close', function(way, depth)
  local a, b = scrambled(way, depth)
  a:write 'question'
  assert(a:shutdown())
  fails('EPIPE', a:write 'more')
  same(b:read_all(), 'question')
  b:write 'answer'
  b:close()
  same(a:read_all(), 'answer')
end)

cases.abort_is_a_reset = function()
  local a, b = scrambled 'tcp'
  a:write 'half'
  same(b:read(4), 'half')
  a:abort()
  fails('ECONNRESET', b:read(1))
end

cases.abort_over_unix_is_no_good_end = function()
  local a, b = scrambled 'unix'
  a:write 'half'
  same(b:read(4), 'half')
  a:abort()
  fails('ECONNRESET', b:read_all())
end

cases.output_that_is_given_up_is_a_reset = function()
  local a, b = scrambled('tcp', 1, { linger = 0.05 })
  b:set_timeout(nil, 0)
  b:write(('g'):rep(16000000))
  b:close()
  asio.sleep(0.3)
  fails('ECONNRESET', a:read_all(math.huge))
end

cases.an_end_below_that_was_not_announced = function()
  local a, b = ways.tcp()
  assert(host.scramble(a))
  b:write '\255\255\0\4'
  b:close()
  fails('ECONNRESET', a:read_all())
end

cases.a_peer_that_speaks_nonsense = function()
  local a, b = ways.tcp()
  assert(host.scramble(a))
  b:write(('n'):rep(10000))
  fails('EPROTO', a:read(1))
  b:close()
end

-- What the codec answers by itself waits for a peer that does not read, but not without bound.
cases.a_peer_that_asks_and_does_not_read = function()
  local a, b = ways.unix()
  assert(host.scramble(a))
  local reader = asio.spawn(function() fails('ENOBUFS', a:read(1)) end)
  for _ = 1, 10 do -- one that reads may ask for more than that
    b:write(('\255\254'):rep(50))
    assert(b:read(50 * 4002))
  end
  same(reader:status(), 'waiting')
  b:write(('\255\254'):rep(10000)) -- for 40 MB
  assert(reader:join())
  a:abort()
  b:abort()
end

cases.a_reset_of_the_peer = function()
  local a, b = ways.tcp()
  assert(host.scramble(a))
  local reader = asio.spawn(function() fails('ECONNRESET', a:read(1)) end)
  b:abort()
  assert(reader:join())
  a:write 'x'
  asio.sleep(0.01)
  check(not a:write 'y' or not a:flush(), 'the write should fail')
end

cases.a_write_meets_a_reset = function()
  local a, b = scrambled 'tcp'
  local writer = asio.spawn(function()
    local ok, _, code
    repeat ok, _, code = a:write(('x'):rep(100000)) until not ok
    check(code == 'EPIPE' or code == 'ECONNRESET', code)
    return true
  end)
  asio.sleep(0.01)
  b:abort()
  assert(writer:join())
end

-- Waiting ---------------------------------------------------------------------------------------

each('time_outs', function(way, depth)
  local a, b = scrambled(way, depth)
  a:set_timeout(0.01)
  fails('ETIMEDOUT', a:read(1))
  b:write 'half'
  fails('ETIMEDOUT', a:read(10))
  same(a:read_some(), 'half')
  a:set_timeout(0.01, 0.01)
  local unsent = fails('ETIMEDOUT', a:write(('x'):rep(16000000)))
  check(unsent > 1000000, 'unsent')
  fails('ETIMEDOUT', asio.timeout(0.01, b.read, b, 1e9))
end)

cases.a_time_out_of_zero = function()
  local a, b = scrambled 'tcp'
  a:write 'some'
  a:close()
  asio.sleep(0.02)
  b:set_timeout(0)
  same(b:read_all(), 'some')
end

each('cancel', function(way, depth)
  local a, b = scrambled(way, depth)
  local reader = asio.spawn(a.read, a, 1)
  local writer = asio.spawn(a.write, a, ('x'):rep(16000000))
  asio.sleep(0.005)
  reader:cancel()
  writer:cancel()
  same(select(2, reader:join()), asio.cancelled)
  same(select(2, writer:join()), asio.cancelled)
  b:abort()
end)

each('closed_under_waiters', function(way, depth)
  local a, b = scrambled(way, depth)
  local reader = asio.spawn(a.read, a, 1)
  local writer = asio.spawn(a.write, a, ('x'):rep(16000000))
  asio.sleep(0.005)
  a:close()
  same(select(4, reader:join()), 'ECANCELED')
  same(select(4, writer:join()), 'ECANCELED')
  same(#b:read_all(math.huge), 16000000)
end)

-- User code in the callbacks --------------------------------------------------------------------

each('closed_by_the_reader_that_is_served', function(way, depth)
  for _, how in ipairs { 'close', 'abort' } do
    local a, b = scrambled(way, depth)
    local reader = asio.spawn(function()
      same(a:read(1), 'x')
      a[how](a)
    end)
    for _ = 1, 5 do b:write(('x'):rep(30000)) end
    assert(reader:join())
    asio.sleep(0.005)
    b:abort()
  end
end)

each('echo', function(way, depth)
  local a, b = scrambled(way, depth)
  asio.spawn(function()
    for line in b:lines() do b:write(line, '\n') end
    b:close()
  end)
  for i = 1, 300 do
    a:write(i, '\n')
    same(a:read_line(), tostring(i))
  end
  a:shutdown()
  fails('EOF', a:read(1))
end)

each('relayed', function(way, depth)
  local a, near = scrambled(way, depth)
  local far, b = scrambled(way, depth)
  local relay = asio.spawn(asio.relay, near, far)
  local data = pattern(2000000, 17)
  asio.spawn(function()
    a:write(data)
    a:shutdown()
  end)
  check(b:read_all(math.huge) == data, 'bytes')
  b:write 'answer'
  b:close()
  same(a:read_all(), 'answer')
  local ok, there, back = relay:join()
  check(ok and there == #data and back == 6, 'counts')
end)

cases.a_relay_is_given_up = function()
  local a, near = scrambled 'tcp'
  local far, b = scrambled 'tcp'
  local relay = asio.spawn(asio.relay, near, far, { timeout = 0.02 })
  a:write 'x'
  same(b:read(1), 'x')
  same(select(4, relay:join()), 'ETIMEDOUT')
  fails('ECONNRESET', b:read(1))
end

-- The exchange ----------------------------------------------------------------------------------

cases.refused = function()
  local a, b = ways.tcp()
  local reader = asio.spawn(a.read, a, 1)
  fails('EBUSY', host.scramble(a))
  b:write 'x'
  same(select(2, reader:join()), 'x')
  local writer = asio.spawn(a.write, a, ('x'):rep(16000000))
  fails('EBUSY', host.scramble(a))
  writer:cancel()
  b:shutdown()
  fails('EOF', a:read(1))
  fails('EOF', host.scramble(a))
  fails('EPIPE', host.scramble(b))
  b:close()
  fails('EBADF', host.scramble(b))
  fails('EBADF', host.scramble(1))
  a:abort()
  local c, d = ways.tcp()
  asio.spawn(asio.relay, c, d)
  fails('EBUSY', host.scramble(c))
  c:abort()
end

-- What is queued goes first in clear, what has come behind a line belongs to the codec.
cases.in_mid_conversation = function()
  local a, b = ways.tcp()
  a:set_timeout(3, 4)
  a:write 'scramble\n'
  assert(host.scramble(a))
  a:write 'secret'
  asio.sleep(0.01) -- the line and the greeting come together
  same(b:read_line(), 'scramble')
  check(b:pending() > 0, 'nothing behind the line')
  assert(host.scramble(b))
  same(b:read(6), 'secret')
  b:write 'answer'
  same(a:read(6), 'answer')
  b:close()
end

cases.options_are_taken_over = function()
  local a = ways.tcp()
  a:set_timeout(0.01)
  assert(host.scramble(a))
  fails('ETIMEDOUT', a:read(1))
end

cases.connections_are_counted_once = function()
  local before = asio.stats()
  local a, b = ways.tcp()
  assert(host.scramble(a))
  assert(host.scramble(b))
  a:write(('c'):rep(100))
  b:read(100)
  local after = asio.stats()
  same(after.connections_opened - before.connections_opened, 2)
  same(after.connections - before.connections, 2)
  same(after.bytes_in - before.bytes_in, 104 + 2) -- a record, and b's greeting
  a:close()
  b:close()
  asio.sleep(0.01)
  same(asio.stats().connections, before.connections)
end

cases.of_a_server = function()
  local handlers = 0
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    assert(host.scramble(conn))
    handlers = handlers + 1
    same(conn:read(1), 'x')
    if handlers == 1 then error 'on purpose' end
    conn:write 'y'
    conn:close()
  end, { max_connections = 1 }))
  asio.on_error(function() end)
  local a = assert(asio.connect(server:address()))
  assert(host.scramble(a))
  a:write 'x'
  fails('ECONNRESET', a:read(1))
  local b = assert(asio.connect(server:address()))
  assert(host.scramble(b))
  b:write 'x'
  same(b:read_all(), 'y')
  server:close()
end

-- The end of the state --------------------------------------------------------------------------


each('closed_while_everything_waits', function(way, depth)
  for _ = 1, 3 do
    local a, b = scrambled(way, depth)
    keep[#keep + 1] = { a, b }
    asio.spawn(a.read, a, 1)
    asio.spawn(a.write, a, ('x'):rep(16000000))
    b:write 'queued'
  end
  local c = ways.tcp()
  host.scramble(c)
  asio.spawn(c.write, c, ('x'):rep(16000000)) -- before any greeting
  keep[#keep + 1] = c
end)

each('closed_while_it_closes', function(way, depth)
  local a, b = scrambled(way, depth)
  a:set_timeout(nil, 0)
  a:write(('x'):rep(16000000))
  a:close()
  keep[1] = b
end)

each('collected', function(way, depth)
  for _ = 1, 10 do
    local a, b = scrambled(way, depth)
    a:write 'x'
    same(b:read(1), 'x')
    b = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    fails('EOF', a:read(1))
  end
end)

-- What plugins read and wait for -----------------------------------------------------------------

local plugin = host.plugin()

-- Without the token: what a shim returns.
local function netstring(conn) return select(2, plugin.netstring(conn)) end

each('scan', function(way, depth)
  local a, b = scrambled(way, depth)
  b:write '5:hello,0:,'
  same(netstring(a), 'hello')
  same(netstring(a), '')
  local reader = asio.spawn(function() return netstring(a) end)
  for piece in ('12:abcdefghijkl,3:xyz,'):gmatch '.' do
    b:write(piece)
    b:flush()
    asio.yield()
  end
  local _, found, taken = reader:join()
  same(found, 'abcdefghijkl')
  same(taken, #'12:abcdefghijkl,')
  same(netstring(a), 'xyz')
  b:write '7'
  b:shutdown()
  same(netstring(a), '') -- digits at the end
  fails('EOF', netstring(a))
end)

each('scan_that_fails', function(way, depth)
  local a, b = scrambled(way, depth)
  b:write '5hello,'
  fails('EPROTO', netstring(a))
  same(a:read(7), '5hello,') -- nothing was taken
  a:set_timeout(0.01)
  b:write '5:he'
  same(a:peek(4), '5:he')
  fails('ETIMEDOUT', netstring(a))
  local reader = asio.spawn(netstring, a)
  fails('EBUSY', netstring(a))
  a:close()
  local _, _, _, code = reader:join()
  same(code, 'ECANCELED')
  fails('EBADF', netstring(a))
end)

cases.scan_is_interrupted = function()
  local a = ways.unix()
  local reader = asio.spawn(plugin.netstring, a)
  reader:cancel()
  local _, _, object = reader:join()
  same(object, asio.cancelled)
  keep[1] = a
end

cases.a_wait_of_a_plugin = function()
  local gate = plugin.gate_new()
  same(plugin.gate_open(gate), false)
  local waiter = asio.spawn(plugin.gate_wait, gate, -1)
  same(plugin.gate_open(gate), true)
  same(select(3, waiter:join()), 1)
  same(select(4, plugin.gate_wait(gate, 0.001)), 'ETIMEDOUT')
  waiter = asio.spawn(plugin.gate_wait, gate, -1)
  waiter:cancel()
  same(select(3, waiter:join()), asio.cancelled)
  same(plugin.gate_open(gate), false)
  same(plugin.protect(), true)
end

-- A finalizer that puts a layer under the connection while a read of it makes its string: the bytes are
-- the read's or the codec's, not both's.
cases.begun_while_a_read_makes_its_string = function()
  local bytes = ('x'):rep(3000)
  for i = 1, 100 do
    local a, b = ways.unix()
    assert(b:write(bytes))
    assert(b:flush())
    assert(a:peek(#bytes))
    local code, began
    collectgarbage()
    collectgarbage 'stop' -- and then a full cycle in the next allocation that steps
    getmetatable(newproxy(true)).__gc = function()
      local ok, _, why = host.scramble(a)
      began, code = ok, why
    end
    for _ = 1, i % 50 do newproxy() end
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 1000000)
    collectgarbage 'restart'
    local before = began
    local data = a:read_some(7)
    collectgarbage('setpause', 200)
    collectgarbage('setstepmul', 200)
    check(before or not began or not data, 'read, and given to the codec too')
    same(code, not began and code and 'EBUSY' or nil)
    a:abort()
    b:abort()
  end
end

function M.names()
  local names = {}
  for name in pairs(cases) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- Not to the end: what a case leaves over is closed with the state.
function M.run(name)
  local thread = asio.spawn(cases[name])
  while thread:status() == 'waiting' or thread:status() == 'ready' do asio.run_once(1) end
  local ok, err = thread:join()
  if not ok then error(tostring(err) .. '\n' .. tostring(thread:traceback()), 0) end
end

return M
