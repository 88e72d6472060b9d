-- Channels and asio.select. Locks and events are in sync_test.lua.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- Once broken -----------------------------------------------------------------------------------

-- select looked at its objects, then made its branches, which may run a finalizer that sends; what
-- came in between woke nobody.
T.test_select_hears_what_a_finalizer_sends_meanwhile = t.slow(90, function()
  local before = { collectgarbage('setpause', 0), collectgarbage('setstepmul', 10000) }
  local lost, never = 0, asio.event()
  for i = 1, t.count(20000) do
    local ch, sent = asio.channel(10), false
    do
      local dying = newproxy(true)
      getmetatable(dying).__gc = function() sent = ch:send 'last words' end
    end
    local list = {}
    for k = 1, i % 50 do list[k] = never end
    list[#list + 1] = ch
    local selector = asio.spawn(asio.select, list)
    if sent and selector:status() == 'waiting' then lost = lost + 1 end
    ch:close()
    selector:join()
  end
  collectgarbage('setpause', before[1])
  collectgarbage('setstepmul', before[2])
  lu.assertEquals(lost, 0)
end)

-- Channels: sending and receiving -----------------------------------------------------------------

require 'channel_cases' (T, asio.channel, 'channel', 'channel')

function T.test_senders_that_wait_are_served_without_waiting()
  local ch, senders = asio.channel(), {}
  for i = 1, 3 do senders[i] = asio.spawn(ch.send, ch, i) end
  for i = 1, 3 do lu.assertEquals(ch:recv(0), i) end
  t.failure('ETIMEDOUT', ch:recv(0))
  for i = 1, 3 do lu.assertEquals({ senders[i]:join() }, { true, true }) end
end

function T.test_how_much_is_buffered()
  local ch = asio.channel(5)
  lu.assertStrContains(tostring(ch), '0 buffered')
  ch:send 'x'
  lu.assertStrContains(tostring(ch), '1 buffered')
end

function T.test_a_rendezvous()
  local ch, steps = asio.channel(), {}
  local sender = asio.spawn(function()
    for i = 1, 3 do
      ch:send(i)
      steps[#steps + 1] = 'sent ' .. i
    end
  end)
  asio.yield()
  lu.assertEquals(steps, {}, 'nobody has received')
  for i = 1, 3 do lu.assertEquals(ch:recv(), i) end
  sender:join()
  lu.assertEquals(#steps, 3)
end

function T.test_what_may_be_sent()
  local ch, object = asio.channel(1), {}
  for _, value in ipairs { false, true, 0, '', object, print, asio.current(), ch, newproxy() } do
    ch:send(value)
    lu.assertIs(ch:recv(), value)
    local receiver = asio.spawn(ch.recv, ch)
    ch:send(value)
    lu.assertEquals({ receiver:join() }, { true, value })
    local narrow = asio.channel()
    local sender = asio.spawn(narrow.send, narrow, value)
    lu.assertIs(narrow:recv(), value)
    sender:join()
  end
  t.bad_argument(1, 'send', function() ch:send(nil) end)
  t.bad_argument(1, 'send', function() ch:send() end)
  ch:close()
  t.bad_argument(1, 'send', function() ch:send(nil) end)
end

function T.test_the_ring_through_all_its_sizes()
  for _, capacity in ipairs { 1, 15, 16, 17, 33, 1000, math.huge } do
    local ch, sent, received = asio.channel(capacity), 0, 0
    local random = 12345
    for _ = 1, 2000 do
      random = (random * 1103515245 + 12345) % 2 ^ 31
      if random % 5 < 3 then
        if ch:send(sent + 1, 0) then sent = sent + 1 end
      else
        local value = ch:recv(0)
        if value then
          received = received + 1
          lu.assertEquals(value, received)
        end
      end
      lu.assertTrue(sent - received <= capacity)
    end
    for i = received + 1, sent do lu.assertEquals(ch:recv(0), i) end
    t.failure('ETIMEDOUT', ch:recv(0))
  end
end

function T.test_many_to_many()
  local ch, n, sum, threads = asio.channel(3), t.count(20000), 0, {}
  for i = 1, 4 do
    threads[i] = asio.spawn(function()
      for k = i, n, 4 do
        ch:send(k)
        if k % 7 == 0 then asio.yield() end
      end
    end)
  end
  local receivers = {}
  for i = 1, 3 do
    receivers[i] = asio.spawn(function()
      for value in ch:iter() do sum = sum + value end
    end)
  end
  for i = 1, 4 do threads[i]:join() end
  ch:close()
  for i = 1, 3 do receivers[i]:join() end
  lu.assertEquals(sum, n * (n + 1) / 2)
end

-- Channels: memory ------------------------------------------------------------------------------

function T.test_cycles_are_collected()
  local weak = setmetatable({}, { __mode = 'k' })
  do
    local ch = asio.channel(3)
    ch:send(ch)
    ch:send({ ch, function() return ch end })
    local other = asio.channel(1)
    ch:send(other)
    other:send(ch)
    weak[ch], weak[other] = true, true
  end
  t.collect()
  lu.assertNil(next(weak))
end

function T.test_items_do_not_outlive_their_wait()
  local weak = setmetatable({}, { __mode = 'v' })
  local ch = asio.channel()
  local sender = asio.spawn(function() return ch:send({}, 0.001) end)
  sender:join()
  weak[1] = {}
  ch:send(weak[1], 0)
  local receiver = asio.spawn(function() ch:recv() end)
  weak[2] = {}
  ch:send(weak[2])
  receiver:join()
  local buffered = asio.channel(4)
  weak[3] = {}
  buffered:send(weak[3])
  buffered:recv()
  weak[4] = {}
  local cancelled = asio.spawn(ch.send, ch, weak[4])
  cancelled:cancel()
  cancelled:join()
  cancelled = nil -- luacheck: ignore 311
  asio.yield()
  t.collect()
  lu.assertNil(next(weak))
end

function T.test_items_survive_while_they_wait()
  local ch = asio.channel()
  local sender = asio.spawn(function() ch:send { 'kept' } end)
  t.collect()
  lu.assertEquals(ch:recv(), { 'kept' })
  sender:join()
  local receiver = asio.spawn(function() return (ch:recv()) end)
  ch:send { 'given' }
  t.collect()
  lu.assertEquals({ receiver:join() }, { true, { 'given' } })
  local sum = 0
  local temporary = asio.spawn(function()
    for value in (function() -- nobody holds the channel but who waits
      local own = asio.channel()
      asio.spawn(function()
        for i = 1, 3 do
          t.collect()
          own:send(i)
        end
        own:close()
      end)
      return own
    end)():iter() do
      sum = sum + value
    end
  end)
  temporary:join()
  lu.assertEquals(sum, 6)
end

T.test_channels_in_the_main_chunk = t.main(function()
  local ch = asio.channel()
  local echo = asio.spawn(function()
    for value in ch:iter() do ch:send(value) end
  end)
  for i = 1, 100 do
    lu.assertTrue(ch:send(i))
    lu.assertEquals(ch:recv(), i)
  end
  t.failure('ETIMEDOUT', ch:recv(0))
  t.failure('ETIMEDOUT', ch:recv(0.002))
  ch:close()
  lu.assertTrue(echo:join())
  t.raises('deadlock', function() asio.channel():recv() end)
  t.raises('deadlock', function() asio.channel():send(1) end)
  asio.after(0.001, asio.stop)
  t.failure('ECANCELED', asio.channel():recv())
end)

function T.test_coroutines_of_the_script_cannot_wait()
  local ch = asio.channel(1)
  local ok, err = coroutine.resume(coroutine.create(function() return ch:recv() end))
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'asio.coroutine.install()')
  lu.assertTrue(ch:send('still empty', 0))
end

-- Select ----------------------------------------------------------------------------------------

function T.test_select_takes_the_first_that_is_ready()
  local a, b, e, s = asio.channel(1), asio.channel(1), asio.event(), asio.semaphore(1)
  local done = asio.spawn(function() return 'result', nil, 3 end)
  local failed = asio.spawn(error, 'expected')
  a:send 'of a'
  b:send 'of b'
  lu.assertEquals({ asio.select { b, a } }, { 1, 'of b' })
  lu.assertEquals({ asio.select { b, a } }, { 2, 'of a' })
  lu.assertEquals({ asio.select { b, s, done } }, { 2, true })
  lu.assertEquals(s:count(), 0)
  lu.assertEquals({ asio.select { b, s, e, done } }, { 4, true, 'result', nil, 3 })
  lu.assertEquals({ asio.select { b, s, failed } }, { 3, false, 'expected' })
  e:set()
  lu.assertEquals({ asio.select { b, s, e, done } }, { 3, true })
  t.failure('ETIMEDOUT', asio.select { a, b, s, timeout = 0 })
  t.failure('ETIMEDOUT', asio.select { a, b, s, timeout = 0.002 })
end

function T.test_select_waits_for_each_kind()
  local kinds = {
    channel = function(ch) ch:send 'item' end,
    closed = function(ch) ch:close() end,
    event = function(_, e) e:set() end,
    semaphore = function(_, _, s) s:release() end,
    thread = function(_, _, _, wake) wake:set() end,
  }
  local expected = {
    channel = { 1, 'item' }, closed = { 1, nil, 'closed', 'EBADF' }, event = { 2, true },
    semaphore = { 3, true }, thread = { 4, true, 'ended', 2 },
  }
  for kind, complete in pairs(kinds) do
    local ch, e, s, wake = asio.channel(), asio.event(), asio.semaphore(0), asio.event()
    local goal = asio.spawn(function()
      wake:wait()
      return 'ended', 2
    end)
    local selector = asio.spawn(function() return asio.select { ch, e, s, goal, timeout = 60 } end)
    complete(ch, e, s, wake)
    lu.assertEquals({ selector:join() }, { true, unpack(expected[kind], 1, 4) }, kind)
    -- It stands in no queue any more.
    t.failure(kind == 'closed' and 'EBADF' or 'ETIMEDOUT', ch:send('nobody is there', 0))
    s:release()
    lu.assertEquals(s:count(), 1)
    wake:set()
    goal:join()
  end
end

function T.test_select_with_a_thread_that_fails_counts_as_joining_it()
  local function fail()
    asio.sleep(0.002)
    error('expected', 0)
  end
  local first, second = asio.spawn(fail), asio.spawn(asio.sleep, 0.004)
  lu.assertEquals({ asio.select { second, first } }, { 2, false, 'expected' })
  second:join()
  local event = asio.event()
  local left = asio.spawn(function()
    event:wait()
    fail()
  end)
  t.failure('ETIMEDOUT', asio.select { left, timeout = 0.0001 })
  event:set()
  t.wait_until(function() return left:status() == 'failed' end)
  t.next_turn()
  lu.assertStrContains(t.stderr(), 'expected') -- nobody waited for it any more
end

function T.test_select_of_the_same_object_twice()
  local ch, s, e = asio.channel(), asio.semaphore(0), asio.event()
  local selector = asio.spawn(function() return asio.select { ch, ch, s, s, e, e, ch } end)
  ch:send 'once'
  lu.assertEquals({ selector:join() }, { true, 1, 'once' })
  t.failure('ETIMEDOUT', ch:send('again', 0))
  selector = asio.spawn(function() return asio.select { ch, s, s, ch, ch } end)
  ch:close()
  lu.assertEquals({ selector:join() }, { true, 1, nil, 'closed', 'EBADF' })
  selector = asio.spawn(function() return asio.select { e, e, s, s } end)
  s:release(5)
  lu.assertEquals({ selector:join() }, { true, 3, true })
  lu.assertEquals(s:count(), 4)
end

function T.test_select_beside_other_receivers_is_first_come_first_served()
  local ch, order, threads = asio.channel(), {}, {}
  for i = 1, 6 do
    threads[i] = asio.spawn(function()
      local value = i % 2 == 0 and select(2, asio.select { asio.event(), ch }) or nil
      if i % 2 == 1 then value = ch:recv() end
      order[i] = value
    end)
  end
  for i = 1, 6 do ch:send(i) end
  for i = 1, 6 do threads[i]:join() end
  lu.assertEquals(order, { 1, 2, 3, 4, 5, 6 })
end

function T.test_select_with_closed_channels()
  local closed, open = asio.channel(1), asio.channel()
  closed:send 'last'
  closed:close()
  lu.assertEquals({ asio.select { open, closed } }, { 2, 'last' })
  lu.assertEquals({ asio.select { open, closed } }, { 2, nil, 'closed', 'EBADF' })
  lu.assertEquals({ asio.select { open, closed, timeout = 0 } }, { 2, nil, 'closed', 'EBADF' })
end

function T.test_select_of_a_list_that_changes_meanwhile()
  local ch, other = asio.channel(), asio.channel()
  local list = { asio.event(), ch }
  local selector = asio.spawn(function() return asio.select(list) end)
  for i = 1, 10 do list[i] = other end
  list.timeout = 0
  t.collect()
  ch:send 'as it was'
  lu.assertEquals({ selector:join() }, { true, 2, 'as it was' })
end

function T.test_select_of_a_huge_list()
  local list = {}
  for i = 1, 10000 do list[i] = asio.event() end
  local selector = asio.spawn(function() return asio.select(list) end)
  list[7777]:set()
  lu.assertEquals({ selector:join() }, { true, 7777, true })
  list[10001] = asio.event()
  t.bad_argument(1, 'select', function() asio.select(list) end)
end

function T.test_select_refuses_what_it_cannot_wait_for()
  local ch = asio.channel(1)
  ch:send 'stays'
  for _, wrong in ipairs { asio.mutex(), asio.group(), 17, 'x', {}, asio, newproxy() } do
    t.bad_argument(1, 'select', function() asio.select { ch, wrong } end)
  end
  t.bad_argument(1, 'select', function() asio.select() end)
  t.bad_argument(1, 'select', function() asio.select(ch) end)
  t.bad_argument(1, 'select', function() asio.select {} end)
  t.bad_argument(1, 'select', function() asio.select { timeout = 1 } end)
  t.bad_argument(1, 'select', function() asio.select { ch, asio.current() } end)
  for _, wrong in ipairs { -1, 0 / 0, 'soon', {} } do
    t.raises("'select'", asio.select, { ch, timeout = wrong })
  end
  lu.assertEquals(ch:recv(0), 'stays')
end

T.test_select_in_the_main_chunk = t.main(function()
  local ch, e = asio.channel(), asio.event()
  asio.spawn(function()
    asio.yield()
    ch:send 'item'
  end)
  lu.assertEquals({ asio.select { e, ch, ch } }, { 2, 'item' })
  lu.assertEquals({ asio.select { e, asio.spawn(asio.sleep, 0.001) } }, { 2, true, true })
  t.failure('ETIMEDOUT', asio.select { e, ch, timeout = 0.001 })
  t.raises('deadlock', asio.select, { e, ch })
  t.failure('ETIMEDOUT', ch:send('nobody is there', 0))
end)

function T.test_select_in_a_frenzy()
  local chs, got, sent, stop = {}, 0, 0, false
  for i = 1, 5 do chs[i] = asio.channel(i % 2) end
  local threads = {}
  for i = 1, 6 do
    threads[i] = asio.spawn(function()
      while not stop do
        local list = { timeout = i * 0.0003 }
        for k = 1, 5 do list[k] = chs[(k + i) % 5 + 1] end
        local _, value = asio.timeout(i % 2 == 0 and 0.0005 or nil, asio.select, list)
        if type(value) == 'number' then got = got + 1 end
      end
    end)
  end
  for i = 1, t.count(20000) do
    if chs[i % 5 + 1]:send(i, i % 3 * 0.0002) then sent = sent + 1 end
  end
  stop = true
  for i = 1, 6 do threads[i]:join() end
  for i = 1, 5 do
    while chs[i]:recv(0) do got = got + 1 end
  end
  lu.assertEquals(got, sent)
end

-- LuaJIT's null pointer equals nil, and is none.
function T.test_null_pointers()
  local null, ch, got = require('ffi').cast('void *', 0), asio.channel(3), 0
  for _ = 1, 3 do lu.assertTrue(ch:send(null)) end
  lu.assertEquals(type((ch:recv(0))), 'cdata')
  ch:close()
  for item in ch:iter() do
    lu.assertEquals(type(item), 'cdata')
    got = got + 1
  end
  lu.assertEquals(got, 2)
end

return T
