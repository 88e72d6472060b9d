-- What channels of both kinds have in common: cases for asio.channel and asio.shared.channel.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local function count(...) return select('#', ...), ... end

--- Adds the cases to T. make(capacity): a channel; `name`: what errors call that function; `kind`: what they
--- call a channel.
return function(T, make, name, kind)
  function T.test_a_receiver_that_waits_is_served_without_waiting()
    local ch = make()
    t.failure('ETIMEDOUT', ch:send('not yet', 0))
    local receiver = asio.spawn(function() return ch:recv() end)
    lu.assertEquals({ count(ch:send('item', 0)) }, { 1, true })
    t.failure('ETIMEDOUT', ch:send('one receiver takes one', 0))
    lu.assertEquals({ receiver:join() }, { true, 'item' })
  end

  function T.test_a_buffer_takes_so_many()
    local ch = make(3)
    for i = 1, 3 do lu.assertTrue(ch:send(i, 0)) end
    t.failure('ETIMEDOUT', ch:send(4, 0))
    t.failure('ETIMEDOUT', ch:send(4, 0.002))
    local sender = asio.spawn(ch.send, ch, 4)
    lu.assertEquals(ch:recv(0), 1)
    lu.assertEquals({ sender:join() }, { true, true })
    for i = 2, 4 do lu.assertEquals(ch:recv(0), i) end
    t.failure('ETIMEDOUT', ch:recv(0))
    t.failure('ETIMEDOUT', ch:recv(0.002))
  end

  function T.test_first_come_first_served()
    local ch, order, threads = make(2), {}, {}
    for i = 1, 10 do threads[i] = asio.spawn(ch.send, ch, i) end
    for i = 1, 10 do lu.assertEquals(ch:recv(), i) end
    for i = 1, 10 do threads[i]:join() end
    for i = 1, 10 do
      threads[i] = asio.spawn(function()
        local value = ch:recv()
        order[#order + 1] = i .. '=' .. value
      end)
    end
    for i = 1, 10 do ch:send(i) end
    for i = 1, 10 do threads[i]:join() end
    for i = 1, 10 do lu.assertEquals(order[i], i .. '=' .. i) end
  end

  function T.test_one_that_gave_up_is_passed_over()
    local ch, senders = make(), {}
    for i = 1, 6 do
      senders[i] = asio.spawn(function() return ch:send(i, i % 2 == 0 and 0.002 or nil) end)
    end
    for i = 2, 6, 2 do t.failure('ETIMEDOUT', select(2, senders[i]:join())) end
    senders[3]:cancel()
    senders[3]:join()
    lu.assertEquals({ ch:recv(), ch:recv() }, { 1, 5 })
    t.failure('ETIMEDOUT', ch:recv(0))
    t.failure('ETIMEDOUT', ch:recv(0.002))
    local impatient, cancelled = asio.spawn(ch.recv, ch, 0.002), asio.spawn(ch.recv, ch)
    local patient = asio.spawn(ch.recv, ch)
    impatient:join()
    cancelled:cancel()
    cancelled:join()
    lu.assertTrue(ch:send('for the patient one', 0))
    lu.assertEquals({ patient:join() }, { true, 'for the patient one' })
  end

  function T.test_close_after_what_is_buffered()
    local ch = make(5)
    ch:send(1)
    ch:send(false)
    lu.assertEquals({ count(ch:close()) }, { 0 })
    ch:close()
    t.failure('EBADF', ch:send(3))
    lu.assertEquals(ch:recv(), 1)
    lu.assertIs(ch:recv(0), false)
    t.failure('EBADF', ch:recv())
    t.failure('EBADF', ch:recv(0))
    lu.assertStrContains(tostring(ch), 'closed')
    for _ in ch:iter() do lu.fail 'there is nothing left' end
  end

  function T.test_close_wakes_both_ends()
    local ch, waiting = make(), {}
    for i = 1, 3 do waiting[i] = asio.spawn(ch.recv, ch) end
    ch:close()
    for i = 1, 3 do t.failure('EBADF', select(2, waiting[i]:join())) end
    ch = make(1)
    ch:send 'kept'
    for i = 1, 3 do waiting[i] = asio.spawn(ch.send, ch, 'withdrawn') end
    ch:close()
    for i = 1, 3 do t.failure('EBADF', select(2, waiting[i]:join())) end
    lu.assertEquals(ch:recv(), 'kept')
    t.failure('EBADF', ch:recv())
  end

  function T.test_iter_ends_with_false_in_between()
    local ch, got = make(5), {}
    for _, value in ipairs { 1, false, 'x' } do ch:send(value) end
    ch:close()
    for value in ch:iter() do got[#got + 1] = value end
    lu.assertEquals(got, { 1, false, 'x' })
    for _ in ch:iter() do lu.fail 'there is nothing left' end
  end

  function T.test_bad_arguments()
    for _, wrong in ipairs { -1, 1.5, 0 / 0, 2 ^ 31, -math.huge, 'many', true, {} } do
      t.bad_argument(1, name, function()
        make(wrong)
      end)
    end
    for _, right in ipairs { 0, 1, 1000, 2 ^ 30, math.huge } do make(right) end
    local ch = make()
    for _, wrong in ipairs { -1, 0 / 0, 'soon', true, {} } do
      t.bad_argument(2, 'send', function() ch:send(1, wrong) end)
      t.bad_argument(1, 'recv', function() ch:recv(wrong) end)
    end
    t.bad_argument(1, 'send', function() ch:send() end)
    t.bad_argument(1, 'send', function() ch:send(nil) end)
    t.raises('not a ' .. kind, ch.recv, asio.event())
    t.raises('not a ' .. kind, ch.send, {}, 1)
    t.raises('not a ' .. kind, ch.close)
    t.failure('ETIMEDOUT', ch:recv(0))
    ch:close()
    t.bad_argument(1, 'send', function() ch:send(nil) end)
  end

  function T.test_where_nothing_can_wait()
    local ch = make(1)
    lu.assertTrue(pcall(table.sort, { 2, 1 }, function() return ch:send(1, 0) and ch:recv(0) and false end))
    t.raises('cannot wait here', string.gsub, 'x', '.', function() return ch:recv() end)
    lu.assertTrue(ch:send('full', 0))
    t.raises('cannot wait here', string.gsub, 'x', '.', function() return ch:send 'more' end)
    lu.assertEquals(ch:recv(0), 'full')
    t.failure('ETIMEDOUT', ch:recv(0))
  end
end
