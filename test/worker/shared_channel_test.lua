-- Channels between Lua states: every wait and each of its ends, order, back-pressure, connections that move.
--
-- test: 30 s
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431 (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

local function worker(fn, ...)
  return assert(asio.worker(fn, ...))
end

-- Expects the worker to end well; what it returns.
local function joined(w)
  local result = { w:join() }
  lu.assertTrue(result[1], tostring(result[2]) .. '\n' .. tostring(result[3]))
  return unpack(result, 2)
end

-- Another state that answers what it is asked: echo(value) sends it there and takes it back.
local function echo_state()
  local to, from = asio.shared.channel(), asio.shared.channel()
  local w = worker(function(from_us, to_us)
    for value in from_us:iter() do to_us:send(value) end
  end, to, from)
  return to, from, w
end

-- Within one state ------------------------------------------------------------------------------

require 'channel_cases' (T, asio.shared.channel, 'shared.channel', 'shared channel')

function T.test_what_cannot_be_sent()
  local ch = asio.shared.channel()
  t.bad_argument(1, 'send', function() ch:send { { coroutine.create(print) } } end)
  t.raises('not a shared channel', ch.recv, asio.channel())
  t.failure('ETIMEDOUT', ch:recv(0))
end

function T.test_copies()
  local ch = asio.shared.channel(1)
  local original = { 1, { 'x' }, key = false }
  original.self = original
  ch:send(original)
  local copy = ch:recv()
  lu.assertNotIs(copy, original)
  lu.assertIs(copy.self, copy)
  lu.assertEquals({ copy[1], copy[2], copy.key }, { 1, { 'x' }, false })
  for _, value in ipairs { false, true, 0, -0.5, '', 'text\0', ('x'):rep(300), ('x'):rep(2 ^ 20) } do
    ch:send(value)
    lu.assertIs(ch:recv(), value)
  end
end

-- Handles ---------------------------------------------------------------------------------------

function T.test_the_finalizer_is_out_of_reach()
  lu.assertFalse(getmetatable(asio.shared.channel()))
  lu.assertFalse(getmetatable(asio.shared.dict()))
  lu.assertFalse(getmetatable(asio.offload_pool()))
end

function T.test_one_handle_in_each_state()
  local ch = asio.shared.channel(2)
  ch:send { ch, ch }
  local got = ch:recv()
  lu.assertIs(got[1], ch)
  lu.assertIs(got[2], ch)
  local to, from, w = echo_state()
  to:send { ch }
  lu.assertIs(from:recv()[1], ch)
  to:close()
  joined(w)
  lu.assertTrue(joined(worker(function(a, b, list) return rawequal(a, b) and rawequal(a, list[1]) end,
    ch, ch, { ch })))
end

-- A handle that nothing holds is collected while messages are on their way to its state.
function T.test_handles_are_collected_while_they_are_told()
  local make = asio.shared.channel()
  local w = worker(function(channels)
    local n = 0
    for ch in channels:iter() do
      while ch:send(1, 0.001) do n = n + 1 end
    end
    return n
  end, make)
  for i = 1, t.count(2000) do
    local ch = asio.shared.channel(5)
    make:send(ch)
    if i % 3 == 0 then asio.spawn(ch.recv, ch, 0.0005) end
    if i % 2 == 0 then ch:recv(0.001) end
    ch = nil -- luacheck: ignore 311
    if i % 5 == 0 then collectgarbage() end
  end
  make:close()
  lu.assertIsNumber(joined(w))
end

-- With messages that hold the channel that they are in.
function T.test_a_channel_in_a_message_in_its_own_queue()
  local ch = asio.shared.channel(3)
  ch:send { ch }
  ch:send(ch)
  lu.assertIs(ch:recv()[1], ch)
  lu.assertIs(ch:recv(), ch)
end

-- A connection in such a queue tells that the channel has gone.
function T.test_a_channel_does_not_hold_itself()
  can.need('threaded_servers', 'plain')
  local a, b = t.pair()
  do
    local ch = asio.shared.channel(3)
    ch:send { ch, a, ch }
    ch:send { ch }
  end
  t.collect()
  lu.assertEquals(b:read_all(), '')
  b:close()
end

-- Making values of a message allocates: the collector runs, and finalizers that use the same channel.
local function large(id)
  local list = { id = id }
  for i = 1, 20000 do list[i] = { i, tostring(i) .. 'x' } end
  return list
end

local function at_next_collection(fn)
  t.collect()
  getmetatable(newproxy(true)).__gc = fn
end

function T.test_a_finalizer_receives_while_values_are_made()
  local ch = asio.shared.channel(2)
  ch:send(large(1))
  ch:send(large(2))
  local inner
  at_next_collection(function() inner = inner or ch:recv(0) end)
  local outer = ch:recv()
  inner = inner or ch:recv()
  lu.assertEquals({ #outer, #inner }, { 20000, 20000 })
  lu.assertEquals(outer.id + inner.id, 3, 'each one once')
end

function T.test_a_finalizer_cancels_the_receiver_while_values_are_made()
  local ch = asio.shared.channel(1)
  for _ = 1, 3 do
    local receiver = asio.spawn(ch.recv, ch)
    asio.yield()
    ch:send(large(1))
    at_next_collection(function() receiver:cancel() end)
    local ok, got = receiver:join()
    if not ok then got = ch:recv(0) end
    lu.assertEquals(#got, 20000, 'received, or still there')
    lu.assertTrue(ch:send(1, 0))
    lu.assertNil((ch:send(2, 0)), 'there is room for one')
    ch:recv()
  end
end

-- Between states --------------------------------------------------------------------------------

function T.test_ends_of_a_wait_that_another_state_causes()
  local go = asio.shared.channel()
  local w = worker(function(orders)
    for order in orders:iter() do
      asio.sleep(0.005)
      if order.close then order.ch:close()
      elseif order.send then order.ch:send(order.send)
      else order.ch:recv() end
    end
  end, go)
  local ch = asio.shared.channel()
  go:send { ch = ch, send = 'item' }
  lu.assertEquals(ch:recv(), 'item')
  go:send { ch = ch, send = 'item' }
  lu.assertEquals({ asio.select { asio.event(), ch } }, { 2, 'item' })
  go:send { ch = ch }
  lu.assertTrue(ch:send 'taken')
  go:send { ch = ch, send = 'in time' }
  lu.assertEquals(ch:recv(20), 'in time')
  go:send { ch = ch, close = true }
  t.failure('EBADF', ch:recv())
  ch = asio.shared.channel()
  go:send { ch = ch, close = true }
  t.failure('EBADF', ch:send 'in vain')
  ch = asio.shared.channel()
  go:send { ch = ch, close = true }
  lu.assertEquals({ asio.select { asio.event(), ch } }, { 2, nil, 'closed', 'EBADF' })
  go:close()
  joined(w)
end

function T.test_select_takes_and_gives_up()
  local a, b = asio.shared.channel(1), asio.shared.channel()
  t.failure('ETIMEDOUT', asio.select { a, b, timeout = 0 })
  t.failure('ETIMEDOUT', asio.select { a, b, timeout = 0.002 })
  a:send 'there'
  lu.assertEquals({ asio.select { b, a } }, { 2, 'there' })
  local selector = asio.spawn(function() return asio.select { b, a, b, a } end)
  b:send 'once'
  lu.assertEquals({ selector:join() }, { true, 1, 'once' })
  t.failure('ETIMEDOUT', b:send('the branches have gone', 0))
  selector = asio.spawn(function() return asio.select { a, b } end)
  asio.yield()
  selector:cancel()
  selector:join()
  t.failure('ETIMEDOUT', b:send('the branches have gone', 0))
  lu.assertTrue(a:send('stays', 0))
  lu.assertEquals(a:recv(0), 'stays')
end

-- Every sender's messages arrive in its order, each once, whichever state takes them.
local function many(senders, receivers, capacity, n)
  local ch, results = asio.shared.channel(capacity), asio.shared.channel(math.huge)
  local workers = {}
  for r = 1, receivers do
    workers[r] = worker(function(from, to)
      local last, got = {}, 0
      for m in from:iter() do -- by one light thread: several may be resumed in another order
        if (last[m[1]] or 0) >= m[2] then error(('%d: %d after %d'):format(m[1], m[2], last[m[1]])) end
        last[m[1]], got = m[2], got + 1
      end
      to:send(got)
    end, ch, results)
  end
  local sending = {}
  for s = 1, senders do
    sending[s] = worker(function(to, id, messages)
      for i = 1, messages do assert(to:send { id, i }) end
    end, ch, s, n)
  end
  for i = 1, n do assert(ch:send { 0, i }) end
  for s = 1, senders do joined(sending[s]) end
  ch:close()
  local sum = 0
  for r = 1, receivers do
    joined(workers[r])
    sum = sum + results:recv()
  end
  lu.assertEquals(sum, (senders + 1) * n)
end

T.test_many_to_many_by_hand = t.slow(60, function() many(3, 3, 0, t.count(20000)) end)
T.test_many_to_many_with_a_little_room = t.slow(60, function() many(4, 2, 3, t.count(40000)) end)
T.test_many_to_many_with_much_room = t.slow(60, function() many(2, 4, 1000, t.count(40000)) end)

function T.test_back_pressure()
  local ch, told = asio.shared.channel(4), asio.shared.channel(math.huge)
  local w = worker(function(to, progress)
    for i = 1, 20 do
      to:send(i)
      progress:send(i)
    end
  end, ch, told)
  for i = 1, 4 do lu.assertEquals(told:recv(), i) end
  t.failure('ETIMEDOUT', told:recv(0.02)) -- there is no room for a fifth
  for i = 1, 16 do
    lu.assertEquals(ch:recv(), i)
    lu.assertEquals(told:recv(), i + 4)
    t.failure('ETIMEDOUT', told:recv(0))
  end
  for i = 17, 20 do lu.assertEquals(ch:recv(), i) end
  joined(w)
end

-- What a state has in hand when it ends is either sent or not.
function T.test_a_state_that_ends_while_it_waits_to_send()
  local ch, started = asio.shared.channel(1), asio.shared.channel()
  ch:send 'first'
  local w = worker(function(to, tell)
    asio.spawn(function() to:send 'not sent' end)
    tell:send(true)
    asio.sleep(100)
  end, ch, started)
  started:recv()
  w:cancel()
  w:join(0.1) -- the other light thread waits on
  w:cancel()
  lu.assertNotNil((w:join()))
  lu.assertEquals(ch:recv(), 'first')
  t.failure('ETIMEDOUT', ch:recv(0))
end

function T.test_a_state_that_ends_while_it_waits_to_receive()
  local ch, started = asio.shared.channel(), asio.shared.channel()
  local w = worker(function(from, tell)
    for _ = 1, 5 do asio.spawn(from.recv, from) end
    tell:send(true)
    asio.stop()
  end, ch, started)
  started:recv()
  w:join()
  t.failure('ETIMEDOUT', ch:send('to a state that has gone', 0))
  local receiver = asio.spawn(ch.recv, ch)
  lu.assertTrue(ch:send 'to one that is here')
  lu.assertEquals({ receiver:join() }, { true, 'to one that is here' })
end

-- The starting state is closed while light threads of its and of a worker wait at both ends.
function T.test_states_close_while_they_wait()
  for _, how in ipairs { 'end', 'exit' } do
    t.quiet_child(function(ending)
      local asio = require 'asio'
      local full, empty, ready = asio.shared.channel(1), asio.shared.channel(), asio.shared.channel()
      full:send(0)
      local function wait_at_both_ends(full, empty)
        local asio = require 'asio'
        for _ = 1, 3 do
          asio.spawn(full.send, full, 1)
          asio.spawn(empty.recv, empty)
          asio.spawn(asio.select, { empty, asio.event() })
          asio.spawn(full.send, full, { full, empty })
        end
      end
      local w = asio.worker(function(wait, full, empty, ready)
        wait(full, empty)
        ready:send(true)
        require 'asio'.sleep(1000)
      end, wait_at_both_ends, full, empty, ready)
      wait_at_both_ends(full, empty)
      asio.spawn(w.join, w)
      assert(ready:recv())
      if ending == 'exit' then os.exit(0, true) end
    end, { args = { how } })
  end
end

-- Connections -----------------------------------------------------------------------------------

local function moves(a, b)
  local to, from, w = echo_state()
  b:write 'unread'
  lu.assertEquals(a:read(2), 'un')
  asio.timeout(0.01, a.read, a, 100) -- the rest is in this state's memory
  lu.assertTrue(to:send { conn = a, again = { a } })
  t.failure('EBADF', a:read(1))
  b:write ' and more'
  local message = from:recv()
  lu.assertIs(message.again[1], message.conn)
  lu.assertEquals(message.conn:read(#'read and more'), 'read and more')
  message.conn:write 'back'
  lu.assertEquals(b:read(4), 'back')
  message.conn:close()
  lu.assertEquals(b:read_all(), '')
  b:close()
  to:close()
  joined(w)
end

local function case_of_connections(fn)
  return function()
    can.need('threaded_servers', 'plain')
    fn()
  end
end

T.test_tcp_connections_move = case_of_connections(function() moves(t.tcp()) end)
T.test_unix_connections_move = case_of_connections(function() moves(t.pair()) end)

T.test_connections_in_use_stay = case_of_connections(function()
  local ch = asio.shared.channel(1)
  local a, b = t.pair()
  local reader = asio.spawn(a.read, a, 1)
  asio.yield()
  t.failure('EBUSY', ch:send(a))
  local c, d = t.pair()
  t.failure('EBUSY', ch:send { c, a })
  c:write 'stays'
  lu.assertEquals(d:read(5), 'stays')
  b:write 'x'
  lu.assertEquals({ reader:join() }, { true, 'x' })
  for _, conn in ipairs { a, b, c } do conn:close() end
  t.failure('EBADF', ch:send(a))
  t.failure('ETIMEDOUT', ch:recv(0))
  d:close()
end)

-- A sender that gives up has its connection still.
T.test_connections_of_a_send_that_fails_stay = case_of_connections(function()
  local ch = asio.shared.channel()
  local a, b = t.pair()
  t.failure('ETIMEDOUT', ch:send(a, 0))
  t.failure('ETIMEDOUT', ch:send({ a }, 0.002))
  local sender = asio.spawn(ch.send, ch, a)
  asio.yield()
  sender:cancel()
  sender:join()
  sender = asio.spawn(ch.send, ch, a)
  asio.yield()
  ch:close()
  t.failure('EBADF', select(2, sender:join()))
  b:write 'still here'
  lu.assertEquals(a:read(10), 'still here')
  a:close()
  b:close()
end)

T.test_connections_in_a_queue_that_is_dropped_close = case_of_connections(function()
  local a, b = t.pair()
  do
    local ch = asio.shared.channel(1)
    ch:send(a)
  end
  t.collect()
  lu.assertEquals(b:read_all(), '')
  b:close()
end)

T.test_tls_connections_do_not_move = function()
  can.need('threaded_servers', 'tls', 'openssl', 'plain')
  local over_tls = require 'over_tls'
  local a, b = t.pair()
  local other = asio.spawn(a.start_tls, a, over_tls.server_options())
  assert(b:start_tls { verify = false })
  other:join()
  local ch = asio.shared.channel(1)
  t.bad_argument(1, 'send', function() ch:send(a) end)
  a:write 'stays'
  lu.assertEquals(b:read(5), 'stays')
  a:close()
  b:close()
end

function T.test_without_descriptors_no_connection_moves()
  can.need('threaded_servers', 'descriptors')
  t.quiet_child(function()
    local asio, ffi = require 'asio', require 'ffi'
    ffi.cdef [[ int dup(int); int close(int); int open(const char *, int); ]]
    asio.run(function()
      local ch = asio.shared.channel(1)
      local a, b = asio.socketpair()
      local c, d = asio.socketpair()
      local taken = {}
      repeat
        taken[#taken + 1] = ffi.C.dup(0)
      until taken[#taken] < 0
      taken[#taken] = nil
      for spare = 0, 1 do -- also when there is one for the first of them
        if spare == 1 then ffi.C.close(table.remove(taken)) end
        local ok, message, code = ch:send { a, c }
        assert(not ok and code == 'EMFILE', tostring(message))
      end
      for i = 1, #taken do ffi.C.close(taken[i]) end
      for _, pair in ipairs { { a, b }, { c, d } } do
        assert(pair[1]:write 'x')
        assert(pair[2]:read(1) == 'x')
      end
      assert(ch:send { a, c })
      local two = ch:recv()
      b:write 'y'
      assert(two[1]:read(1) == 'y')
    end)
  end, { wrap = 'prlimit --nofile=60' })
end

-- Forks -----------------------------------------------------------------------------------------

function T.test_a_fork_is_refused()
  can.need 'fork'
  t.quiet_child(function()
    local asio, forks = require 'asio', require 'forks'
    local ch, ready = asio.shared.channel(1), asio.shared.channel()
    asio.run(function()
      local w = asio.worker(function(ch, ready)
        ready:send(true)
        return ch:recv()
      end, ch, ready)
      ready:recv()
      for name, call in pairs {
        channel = function() asio.shared.channel() end,
        send = function() ch:send(1) end,
        recv = function() ch:recv() end,
        select = function() asio.select { ch, timeout = 0 } end,
        close = function() ch:close() end,
        worker = function() asio.worker(function() end) end,
        cancel = function() w:cancel() end,
        join = function() w:join() end,
      } do
        forks.fork(function()
          local ok, err = pcall(call)
          assert(not ok and tostring(err):find('is a fork', 1, true), name .. ': ' .. tostring(err))
          call = nil
          collectgarbage()
        end, true)
      end
      ch:send 'from the parent'
      assert(select(2, w:join()) == 'from the parent')
    end)
  end, { env = t.ignore_leaks }) -- of threads that the fork does not have
end

-- The main chunk --------------------------------------------------------------------------------

T.test_in_the_main_chunk = t.main(function()
  local to, from, w = echo_state()
  for i = 1, 50 do
    lu.assertTrue(to:send(i))
    lu.assertEquals(from:recv(), i)
  end
  t.failure('ETIMEDOUT', from:recv(0.002))
  to:close()
  lu.assertEquals({ w:join() }, { true })
  t.raises('deadlock', function() from:recv() end)
  t.raises('deadlock', function() from:send(1) end)
end)

return T
