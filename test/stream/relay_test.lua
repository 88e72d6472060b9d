-- asio.relay: what it passes on, how it ends, what it refuses, which descriptors it needs.
--
-- test: 12 s
-- test: over TLS
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local TOO_MUCH = 8 * 2 ^ 20

local function handles_pair()
  local name = ('@asio.relay.%d.%d'):format(raw.pid(), math.random(1e9))
  local server = assert(asio.server('unix:' .. name, nil, { handles = true }))
  local far = assert(asio.connect('unix:' .. name))
  local near = assert(server:accept())
  server:close()
  return near, far
end

local function unix_pair()
  local name = ('@asio.relay.%d.%d'):format(raw.pid(), math.random(1e9))
  local server = assert(asio.server('unix:' .. name))
  local far = assert(asio.connect('unix:' .. name))
  local near = assert(server:accept())
  server:close()
  return near, far
end

-- Every kind of connection; one with handles is read by nobody but its own transport.
local kinds = { t.tcp, t.pair } -- a named pipe has no half-close
if can.has 'unix_sockets' then kinds[3], kinds[4] = unix_pair, handles_pair end

-- Two far ends, and the light thread that relays between the near ones.
local function relayed(open, options)
  local a, far_a = open()
  local b, far_b = open()
  return asio.spawn(asio.relay, a, b, options), far_a, far_b, a, b
end

local filler = {}
for i = 1, 8191 do filler[i] = ('.%07x'):format(i) end
filler = table.concat(filler)

-- Bytes that tell where in the stream they are.
local function stream_of(n, seed)
  local parts = {}
  for i = 1, math.ceil(n / 65536) do parts[i] = ('%s%07x'):format(seed, i) .. filler end
  return table.concat(parts):sub(1, n)
end

local function write_all(conn, data)
  return asio.spawn(function()
    assert(conn:write(data))
    conn:shutdown()
  end)
end

-- Passing on ------------------------------------------------------------------------------------

function T.test_both_ways_and_what_it_returns()
  for _, open in ipairs(kinds) do
    local relay, a, b = relayed(open)
    a:write 'question'
    lu.assertEquals(b:read(8), 'question')
    b:write 'an answer'
    lu.assertEquals(a:read(9), 'an answer')
    a:close()
    lu.assertEquals(b:read_all(), '')
    b:close()
    lu.assertEquals({ relay:join() }, { true, 8, 9 })
  end
end

function T.test_the_end_of_one_is_the_half_close_of_the_other()
  for _, open in ipairs(kinds) do
    local relay, a, b = relayed(open)
    a:write 'all of it'
    a:shutdown()
    lu.assertEquals(b:read_all(), 'all of it')
    lu.assertEquals(relay:status(), 'waiting')
    b:write 'still '
    lu.assertEquals(a:read(6), 'still ')
    b:write 'here'
    b:close()
    lu.assertEquals(a:read_all(), 'here')
    lu.assertEquals({ relay:join() }, { true, 9, 10 })
    a:close()
  end
end

function T.test_both_are_closed_afterwards()
  local relay, a, b, near_a, near_b = relayed(t.tcp)
  a:close()
  b:close()
  lu.assertEquals({ relay:join() }, { true, 0, 0 })
  lu.assertEquals(tostring(near_a), 'connection (closed)')
  lu.assertEquals(tostring(near_b), 'connection (closed)')
end

function T.test_what_is_buffered_goes_first()
  local a, far_a = t.tcp()
  local b, far_b = t.tcp()
  far_a:write 'GET rest'
  lu.assertEquals(a:read(4), 'GET ')
  lu.assertEquals(a:pending(), 4)
  b:write 'queued, '
  local relay = asio.spawn(asio.relay, a, b)
  far_a:write ', and more'
  far_a:close()
  lu.assertEquals(far_b:read_all(), 'queued, rest, and more')
  far_b:close()
  lu.assertEquals({ relay:join() }, { true, 14, 0 })
end

-- A writer that waits on the connection which is taken over: its bytes are queued already.
function T.test_who_waits_for_its_write_is_served_first()
  local a, far_a = t.tcp()
  local b, far_b = t.tcp()
  local data = stream_of(TOO_MUCH, 'w')
  local writer = asio.spawn(b.write, b, data)
  lu.assertEquals(writer:status(), 'waiting')
  far_a:write 'behind'
  far_a:close()
  lu.assertEquals(a:peek(6), 'behind')
  local relay = asio.spawn(asio.relay, a, b)
  t.same_bytes(far_b:read_all(math.huge), data .. 'behind')
  lu.assertEquals({ writer:join() }, { true, true })
  far_b:close()
  lu.assertEquals({ relay:join() }, { true, 6, 0 })
end

function T.test_one_that_has_ended_before_it_begins()
  local a, far_a = t.tcp()
  local b = t.tcp()
  far_a:write 'last'
  far_a:close()
  lu.assertEquals(a:peek(4), 'last')
  t.failure('EOF', a:peek(5))
  b:shutdown() -- its peer gets nothing more: what comes has nowhere to go
  t.failure('EPIPE', asio.relay(a, b))
  local ended = {}
  for i = 1, 2 do
    local near, far = t.tcp()
    far:close()
    t.failure('EOF', near:read(1))
    ended[i] = near
  end
  lu.assertEquals({ asio.relay(unpack(ended)) }, { 0, 0 }) -- without waiting
end

function T.test_much_both_ways_at_once()
  local much = t.long and 2 ^ 25 or 2 ^ 22
  for _, open in ipairs(kinds) do
    local relay, a, b = relayed(open)
    local there, back = stream_of(much, 't'), stream_of(much, 'b')
    write_all(a, there)
    write_all(b, back)
    local reader = asio.spawn(a.read_all, a, math.huge)
    t.same_bytes(b:read_all(math.huge), there)
    t.same_bytes(select(2, reader:join()), back)
    lu.assertEquals({ relay:join() }, { true, much, much })
  end
end

function T.test_from_one_kind_to_another()
  local data = stream_of(TOO_MUCH, 'k')
  for _, open in ipairs(kinds) do
    local a, far_a = t.tcp()
    local b, far_b = open()
    local relay = asio.spawn(asio.relay, a, b)
    write_all(far_a, data)
    t.same_bytes(far_b:read_all(math.huge), data)
    write_all(far_b, data)
    t.same_bytes(far_a:read_all(math.huge), data)
    lu.assertEquals({ relay:join() }, { true, #data, #data })
  end
end

T.test_in_the_main_chunk = t.main(function()
  local a, far_a = t.pair()
  local b, far_b = t.pair()
  asio.spawn(function()
    far_a:write 'x'
    far_a:close()
    far_b:close()
  end)
  lu.assertEquals({ asio.relay(a, b) }, { 1, 0 })
end)

-- Back-pressure -----------------------------------------------------------------------------------

-- Fills the way from `source` to a peer that does not read; returns how many bytes went in.
local function fill(source)
  source:set_timeout(nil, 0.2 * t.patience)
  local piece, total = ('p'):rep(2 ^ 16), 0
  while true do
    local ok, _, _, unsent = source:write(piece)
    total = total + #piece
    if not ok then return total, unsent end
    source:set_timeout(nil, 0.2 * t.patience)
  end
end

function T.test_a_peer_that_does_not_read_stops_the_other()
  for _, open in ipairs(kinds) do
    local relay, a, b = relayed(open)
    local total = fill(a)
    lu.assertTrue(total < 32 * 2 ^ 20, total)
    -- The other way is not held up.
    b:write 'past it'
    lu.assertEquals(a:read(7), 'past it')
    a:set_timeout()
    a:shutdown()
    lu.assertEquals(b:read(total), ('p'):rep(total))
    t.failure('EOF', b:read(1))
    b:close()
    lu.assertEquals({ relay:join() }, { true, total, 7 })
  end
end

-- Descriptors -------------------------------------------------------------------------------------

function T.test_two_more_files_a_way_while_bytes_flow_and_none_when_idle()
  can.need('splice', 'plain')
  local most = 0
  local before
  local relay, a, b = relayed(t.tcp)
  a:write 'x'
  b:read(1)
  before = raw.count_fds()
  -- Only what flows is spliced.
  for _, way in ipairs { { a, b }, { b, a } } do
    local writer = asio.spawn(way[1].write, way[1], ('f'):rep(TOO_MUCH))
    way[2]:read(TOO_MUCH)
    writer:join()
  end
  local total = fill(a)
  lu.assertEquals(raw.count_fds(), before + 2, 'one way, stuck')
  local reading = asio.spawn(function()
    for _ = 1, total / 2 ^ 16 do
      assert(b:read(2 ^ 16))
      most = math.max(most, raw.count_fds())
    end
  end)
  local back = fill(b)
  lu.assertTrue(raw.count_fds() <= before + 4)
  reading:join()
  a:read(back)
  lu.assertTrue(most <= before + 4, most)
  t.wait_until(function() return raw.count_fds() == before end, 'the pipes to be closed')
  a:close()
  b:close()
  lu.assertEquals((relay:join()), true)
end

function T.test_many_that_flow_one_after_another_share_their_pipes()
  local relays, ends, data = {}, {}, stream_of(2 ^ 20, 'm')
  for i = 1, 20 do
    local relay, a, b = relayed(t.tcp)
    relays[i], ends[i] = relay, { a, b }
  end
  local before = raw.count_fds()
  for i = 1, 20 do
    write_all(ends[i][1], data)
    t.same_bytes(ends[i][2]:read_all(math.huge), data)
    lu.assertTrue(raw.count_fds() <= before + 4)
    ends[i][2]:close()
    lu.assertEquals({ relays[i]:join() }, { true, #data, 0 })
    before = before - 4 -- its four ends, less what waits for its peer
    before = math.max(before, raw.count_fds() - 4)
  end
end

function T.test_without_files_for_a_pipe_it_copies()
  lu.assertEquals(t.quiet_child(function()
    local asio = require 'asio'
    local raw = require 'raw'
    local a, far_a = asio.socketpair()
    local b, far_b = asio.socketpair()
    raw.limit_fds(1)
    asio.spawn(asio.relay, a, b)
    asio.spawn(function()
      far_a:write(('0123456789abcdef'):rep(2 ^ 19))
      far_a:close()
    end)
    print(far_b:read_all(math.huge) == ('0123456789abcdef'):rep(2 ^ 19))
    far_b:close()
    asio.run()
  end), 'true\n')
end

-- Faults ------------------------------------------------------------------------------------------

-- Relays 8 MB over TCP both ways while system calls fail, and says whether it all arrived.
local function survives(fault, options)
  options = options or {}
  local wrap = t.strace('-o /dev/null -e trace=splice -e inject=' .. fault)
  return t.child(function(expected)
    local asio = require 'asio'
    local size = 2 ^ 23
    local data = ('0123456789abcdef'):rep(size / 16)
    local server = asio.server('127.0.0.1', 0)
    local function pair()
      local far = assert(asio.connect('127.0.0.1', (select(2, server:address()))))
      return assert(server:accept()), far
    end
    asio.run(function()
      local a, far_a = pair()
      local b, far_b = pair()
      local relay = asio.spawn(asio.relay, a, b)
      for _, far in ipairs { far_a, far_b } do
        asio.spawn(function()
          far:write(data)
          far:shutdown()
        end)
      end
      local back = asio.spawn(far_a.read_all, far_a, math.huge)
      local there = far_b:read_all(math.huge)
      local _, came = back:join()
      local _, one, two, code = relay:join()
      if expected == 'whole' then
        print(there == data, came == data, one == size, two == size, code)
      else
        print(code)
      end
      server:close()
    end)
  end, { wrap = wrap, args = { options.expected or 'whole' }, env = t.ignore_leaks, seconds = 60 }).out
end

function T.test_faults_of_splice_end_in_copying()
  can.need 'splice'
  local whole = 'true\ttrue\ttrue\ttrue\tnil\n'
  for _, fault in ipairs {
    'splice:error=EINVAL:when=1', 'splice:error=EINVAL:when=2', 'splice:error=EINVAL:when=7',
    'splice:error=ENOMEM:when=6+5', 'splice:error=ENOSYS', 'splice:error=EINVAL:when=4+2',
    'splice:error=EINTR:when=3+3', 'splice:error=EAGAIN:when=2+2',
  } do
    lu.assertEquals(survives(fault), whole, fault)
  end
end

function T.test_an_error_of_the_socket_that_splice_meets()
  can.need 'splice'
  lu.assertEquals(survives('splice:error=ECONNRESET:when=3', { expected = 'code' }), 'ECONNRESET\n')
end

-- SIGPIPE would end the process, whatever splice or write meets.
function T.test_no_sigpipe()
  lu.assertEquals(t.quiet_child(function()
    local asio = require 'asio'
    local server = asio.server('127.0.0.1', 0)
    local function pair()
      local far = assert(asio.connect('127.0.0.1', (select(2, server:address()))))
      return assert(server:accept()), far
    end
    local gone = 0
    asio.run(function()
      for i = 1, 60 do
        local a, far_a = pair()
        local b, far_b = pair()
        local relay = asio.spawn(asio.relay, a, b)
        asio.spawn(function() while far_a:write(('x'):rep(2 ^ 18)) do end end)
        far_b:read(2 ^ 17 * (i % 9))
        if i % 2 == 0 then far_b:abort() else far_b:close() end
        local _, _, _, code = relay:join()
        if code == 'EPIPE' or code == 'ECONNRESET' then gone = gone + 1 end
        far_a:abort()
      end
      server:close()
    end)
    print(gone)
  end, { seconds = 60 }), '60\n')
end

-- How it ends otherwise -----------------------------------------------------------------------------

-- A connection over TCP whose far end is a raw socket.
local function tcp_raw()
  local near, peer = t.raw_peer()
  return near, peer
end

local function assert_reset(peer)
  can.need 'resets'
  local data
  t.wait_until(function()
    data = peer:recv(65536, 0)
    return data == false or data == ''
  end, 'the reset')
  lu.assertEquals(data, false)
end

function T.test_a_reset_is_passed_on_as_a_reset()
  for turn = 1, 2 do
    local a, peer_a = tcp_raw()
    local b, peer_b = tcp_raw()
    if turn == 2 then a, b, peer_a, peer_b = b, a, peer_b, peer_a end
    local relay = asio.spawn(asio.relay, a, b)
    peer_a:send('some', 1)
    lu.assertEquals(t.recv(peer_b, 4), 'some')
    peer_a:reset()
    local ended, one, message, code, there, back = relay:join()
    lu.assertEquals({ ended, one, message, code, there, back },
      { true, nil, 'connection reset by peer', 'ECONNRESET', 4, 0 })
    assert_reset(peer_b)
    peer_b:close()
  end
end

function T.test_writing_to_a_peer_that_has_gone()
  local a, peer_a = tcp_raw()
  local b, peer_b = tcp_raw()
  local relay = asio.spawn(asio.relay, a, b)
  peer_b:close()
  lu.assertEquals(t.recv(peer_a), '') -- its end is passed on
  t.wait_until(function()
    peer_a:send('x', 0)
    return relay:status() == 'done'
  end, 'the failure') -- which the peer sees as an end, since it has seen one before
  local _, one, _, code = relay:join()
  lu.assertNil(one)
  lu.assertTrue(t.gone[code], code)
  peer_a:close()
end

function T.test_the_timeout_is_for_silence()
  local began = asio.now()
  local relay, a, b = relayed(t.tcp, { timeout = 0.2 * t.patience })
  for i = 1, 8 do -- longer than that in all, and from either side
    asio.sleep(0.05 * t.patience)
    local from, to = a, b
    if i % 2 == 0 then from, to = b, a end
    from:write 'x'
    lu.assertEquals(to:read(1), 'x')
  end
  local last = asio.now()
  lu.assertEquals({ relay:join() }, { true, nil, 'operation timed out', 'ETIMEDOUT', 4, 4 })
  lu.assertTrue(asio.now() - last >= 0.19 * t.patience)
  lu.assertTrue(asio.now() - began >= 0.5 * t.patience)
  t.failure_among(t.gone, a:read(1))
  t.failure_among(t.gone, b:read(1))
end

function T.test_the_timeout_for_a_peer_that_does_not_read()
  local relay, a, b = relayed(t.tcp, { timeout = 0.2 * t.patience })
  asio.spawn(function() while a:write(('x'):rep(2 ^ 18)) do end end)
  local _, one, _, code = relay:join()
  lu.assertNil(one)
  lu.assertEquals(code, 'ETIMEDOUT')
  b:close()
end

-- The far end takes little at a time: longer for what is queued than the time-out, and never silent.
function T.test_a_slow_peer_is_not_silent()
  can.need('unsent', 'plain') -- of a peer with small buffers
  local a, far_a = t.tcp()
  local b, peer = t.raw_peer(nil, { buffers = 4096 })
  local relay = asio.spawn(asio.relay, a, b, { timeout = 0.25 * t.patience })
  local data = stream_of(300000, 's')
  write_all(far_a, data)
  local parts, size = {}, 0
  while size < #data do
    asio.sleep(0.03 * t.patience)
    local piece = peer:recv(8192, 0)
    if piece then
      lu.assertNotEquals(piece, '')
      parts[#parts + 1], size = piece, size + #piece
    end
    lu.assertNotIs(piece, false)
  end
  t.same_bytes(table.concat(parts), data)
  peer:close()
  local _, there, _, code = relay:join()
  lu.assertEquals({ there, code }, { #data })
end

function T.test_timeout_zero_looks_once()
  local a, far_a = t.pair()
  local b, far_b = t.pair()
  far_a:write 'there'
  t.failure('ETIMEDOUT', asio.relay(a, b, { timeout = 0 }))
  lu.assertEquals((far_b:read_some() or 'there'), 'there')
end

function T.test_interrupts_end_it()
  for _, how in ipairs { 'timeout', 'cancel' } do
    local a, peer_a = tcp_raw()
    local b, peer_b = tcp_raw()
    local results
    local thread = asio.spawn(function()
      if how == 'timeout' then
        results = { asio.timeout(0.05, asio.relay, a, b) }
      else
        asio.relay(a, b)
      end
    end)
    peer_a:send('some', 1)
    lu.assertEquals(t.recv(peer_b, 4), 'some')
    if how == 'cancel' then thread:cancel() end
    local ok, err = thread:join()
    if how == 'timeout' then
      lu.assertEquals(results, { nil, 'operation timed out', 'ETIMEDOUT' })
    else
      lu.assertFalse(ok)
      lu.assertTrue(err == asio.cancelled)
    end
    assert_reset(peer_a)
    assert_reset(peer_b)
    lu.assertEquals(tostring(a), 'connection (closed)')
    peer_a:close()
    peer_b:close()
  end
end

function T.test_a_pending_interrupt_takes_nothing_over()
  local a, far_a = t.pair()
  local b = t.pair()
  local thread
  thread = asio.spawn(function()
    asio.yield()
    thread:cancel()
    asio.relay(a, b)
  end)
  thread:join()
  far_a:write 'x'
  lu.assertEquals(a:read(1), 'x')
end

function T.test_closing_one_of_them_meanwhile_ends_it()
  for _, method in ipairs { 'close', 'abort' } do
    for turn = 1, 2 do
      local a, peer_a = tcp_raw()
      local b, peer_b = tcp_raw()
      local relay = asio.spawn(asio.relay, a, b)
      peer_a:send('some', 1)
      lu.assertEquals(t.recv(peer_b, 4), 'some')
      local closed = turn == 1 and a or b
      closed[method](closed)
      lu.assertEquals({ relay:join() }, { true, nil, 'canceled', 'ECANCELED', 4, 0 })
      assert_reset(peer_a)
      assert_reset(peer_b)
      peer_a:close()
      peer_b:close()
    end
  end
end

function T.test_the_state_closed_meanwhile()
  lu.assertEquals(t.quiet_child(function()
    local asio = require 'asio'
    local server = asio.server('127.0.0.1', 0)
    local function pair()
      local far = assert(asio.connect('127.0.0.1', (select(2, server:address()))))
      return assert(server:accept()), far
    end
    local keep = {}
    for i = 1, 6 do
      local a, far_a = pair()
      local b, far_b = pair()
      asio.spawn(asio.relay, a, b, i % 2 == 0 and { timeout = 5 } or nil)
      if i > 2 then -- with bytes in the pipe or the queue
        far_a:set_timeout(nil, 0.1)
        far_a:write(('x'):rep(i > 4 and 1e5 or 3e7))
      end
      keep[i] = { far_a, far_b, a, b }
    end
    asio.sleep(0.05)
    print('closing', #keep)
  end), 'closing\t6\n')
end

-- Half a stream must not pass for a whole one.
function T.test_the_state_closed_meanwhile_resets()
  local listener = raw.listen()
  t.quiet_child(function(port, size)
    local asio = require 'asio'
    local a, far_a = asio.socketpair()
    asio.spawn(asio.relay, a, assert(asio.connect('127.0.0.1', port)))
    far_a:set_timeout(nil, 0.1)
    far_a:write(('x'):rep(size))
    asio.sleep(0.05)
  end, { args = { listener:port(), 64 * 2 ^ 20 } })
  local peer = listener:accept(1)
  assert_reset(peer)
  peer:close()
  listener:close()
end

-- What is refused -------------------------------------------------------------------------------------

function T.test_bad_arguments()
  local a, b = t.pair()
  t.bad_argument(1, 'relay', function() asio.relay() end)
  t.bad_argument(1, 'relay', function() asio.relay('a', b) end)
  t.bad_argument(2, 'relay', function() asio.relay(a) end)
  t.bad_argument(2, 'relay', function() asio.relay(a, {}) end)
  t.bad_argument(2, 'relay', function() asio.relay(a, a) end)
  t.bad_argument(3, 'relay', function() asio.relay(a, b, 5) end)
  t.bad_argument(3, 'relay', function() asio.relay(a, b, { timeout = -1 }) end)
  t.bad_argument(3, 'relay', function() asio.relay(a, b, { timeout = 0 / 0 }) end)
  t.bad_argument(3, 'relay', function() asio.relay(a, b, { timeout = 'soon' }) end)
  t.bad_argument(3, 'relay', function() asio.relay(a, b, { idle = 1 }) end)
  t.bad_argument(3, 'relay', function() asio.relay(a, b, { 5 }) end)
  a:write 'untouched'
  lu.assertEquals(b:read(9), 'untouched')
end

function T.test_closed_connections()
  local a = t.pair()
  local b, far_b = t.pair()
  a:close()
  t.failure('EBADF', asio.relay(a, b))
  t.failure('EBADF', asio.relay(b, a))
  b:write 'untouched'
  lu.assertEquals(far_b:read(9), 'untouched')
end

function T.test_a_connection_that_somebody_reads()
  local a, far_a = t.pair()
  local b = t.pair()
  local reader = asio.spawn(a.read, a, 1)
  t.failure('EBUSY', asio.relay(a, b))
  t.failure('EBUSY', asio.relay(b, a))
  far_a:write 'x'
  lu.assertEquals({ reader:join() }, { true, 'x' })
end

function T.test_nobody_else_reads_or_writes_meanwhile()
  local relay, far_a, far_b, a, b = relayed(t.pair)
  for _, conn in ipairs { a, b } do
    t.failure('EBUSY', conn:read(1))
    t.failure('EBUSY', conn:read_some())
    t.failure('EBUSY', conn:read_until ':')
    t.failure('EBUSY', conn:read_line())
    t.failure('EBUSY', conn:read_all())
    t.failure('EBUSY', conn:peek(1))
    t.failure('EBUSY', conn:write 'x')
    t.failure('EBUSY', conn:write('x', 'y'))
    t.failure('EBUSY', conn:write { 'x', 1 })
    t.failure('EBUSY', conn:write(('x'):rep(100000)))
    t.failure('EBUSY', conn:flush())
    t.failure('EBUSY', conn:shutdown())
    t.failure('EBUSY', asio.relay(conn, (t.pair())))
    lu.assertEquals({ conn:pending() }, { 0, 0 })
    lu.assertIsNumber(conn:fd())
  end
  far_a:close()
  far_b:close()
  lu.assertEquals({ relay:join() }, { true, 0, 0 })
end

function T.test_a_relayed_connection_is_not_passed_on()
  can.need('unix_sockets', 'plain')
  local name = ('@asio.relay.pass.%d'):format(raw.pid())
  local server = assert(asio.server('unix:' .. name, nil, { handles = true }))
  local carrier = assert(asio.connect('unix:' .. name, { handles = true }))
  local relay, far_a, far_b, a = relayed(t.pair)
  t.failure('EBUSY', carrier:send_handle(a))
  far_a:close()
  far_b:close()
  relay:join()
  carrier:close()
  server:close()
end

-- Chains, at random -----------------------------------------------------------------------------------

local random = math.random

-- Sends a text in pieces of random sizes, with pauses; may half-close, or leave that for later.
local function send_at_random(conn, text)
  local at = 1
  while at <= #text do
    local n = random() < 0.3 and random(200) or random(300000)
    assert(conn:write(text:sub(at, at + n - 1)))
    at = at + n
    if random() < 0.2 then asio.sleep(random() * 0.002) end
  end
end

local function receive_at_random(conn)
  local parts = {}
  while true do
    local data, _, code = conn:read_some(random() < 0.3 and random(1000) or random(500000))
    if not data then return table.concat(parts), code end
    parts[#parts + 1] = data
    if random() < 0.1 then asio.sleep(random() * 0.003) end
  end
end

local function text_at_random()
  local kind = random(4)
  if kind == 1 then return '' end
  return stream_of(random(({ 100, 100, 70000, 3000000 })[kind]), string.char(96 + random(26)))
end

-- One end of the chain; `first` half-closes before it reads on, the other only after it has seen the end.
local function talk(conn, text, order)
  local reader = asio.spawn(receive_at_random, conn)
  send_at_random(conn, text)
  if order == 'last' then reader:join() end
  assert(conn:shutdown())
  local _, came, code = reader:join()
  conn:close()
  return came, code
end

function T.test_chains_at_random()
  local seed = os.time() + raw.pid()
  math.randomseed(seed)
  for _ = 1, t.stress and 3 or math.max(8, t.count(400)) do
    local relays, moved = {}, {}
    local first, near = kinds[random(#kinds)]()
    for i = 1, random(3) do
      local a, b = kinds[random(#kinds)]()
      relays[i] = asio.spawn(asio.relay, near, a)
      near = b
    end
    local there, back = text_at_random(), text_at_random()
    local orders = ({ { 'first', 'last' }, { 'last', 'first' }, { 'first', 'first' } })[random(3)]
    local left = asio.spawn(talk, first, there, orders[1])
    local came, code = talk(near, back, orders[2])
    t.same_bytes(came, there)
    lu.assertEquals(code, 'EOF', seed)
    local _, answer, its_code = left:join()
    t.same_bytes(answer, back)
    lu.assertEquals(its_code, 'EOF', seed)
    for i, relay in ipairs(relays) do moved[i] = { relay:join() } end
    for _, result in ipairs(moved) do lu.assertEquals(result, { true, #there, #back }, seed) end
  end
end

-- Many at once, some of which fail in every way while the others go on.
function T.test_many_at_once_some_of_them_fail()
  local data, relays = stream_of(300000, 'z'), {}
  for i = 1, 40 do
    local relay, a, b, near = relayed(i % 2 == 0 and t.tcp or t.pair, { timeout = 60 })
    relays[i] = asio.spawn(function()
      asio.spawn(function()
        a:write(data)
        a:shutdown()
      end)
      if i % 5 == 1 then
        asio.sleep(random() * 0.01)
        near:close()
        b:abort()
        relay:join()
        a:abort()
      elseif i % 5 == 2 then
        b:read(random(200000))
        relay:cancel()
        relay:join()
        a:abort()
        b:abort()
      else
        t.same_bytes(b:read_all(math.huge), data)
        b:close()
        lu.assertEquals({ relay:join() }, { true, #data, 0 })
        a:close()
      end
    end)
  end
  for _, relay in ipairs(relays) do
    local ok, err = relay:join()
    if not ok then error(err, 0) end
  end
end


return T
