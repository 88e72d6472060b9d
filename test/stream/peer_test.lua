-- Peers that reset, go away or were never there: results, never signals, and nothing leaks.
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

local TEN_MEGABYTES = 10 * 2 ^ 20

-- The kernel tells of a peer's end when it pleases: the code of the first write that fails.
local function write_until_it_fails(conn)
  return t.wait_until(function()
    local ok, _, code = conn:write 'nobody reads this'
    if ok then ok, _, code = conn:flush() end
    return not ok and code
  end, 'an error of write')
end

function T.test_a_reset_while_reading()
  local conn, peer = t.raw_peer()
  local reader = asio.spawn(function() return conn:read(10) end)
  peer:reset()
  lu.assertEquals({ reader:join() }, { true, nil, 'connection reset by peer', 'ECONNRESET' })
  t.failure('ECONNRESET', conn:read(1))
  conn:close()
end

function T.test_a_reset_after_some_bytes()
  local conn, peer = t.raw_peer()
  local reader = asio.spawn(function() return conn:read(10) end)
  peer:send('four', 1)
  t.wait_until(function() return conn:pending() == 4 end)
  peer:reset()
  local _, _, _, code = reader:join()
  lu.assertEquals(code, 'ECONNRESET')
  -- The failed read consumed nothing.
  lu.assertEquals(conn:read_some(), 'four')
  t.failure('ECONNRESET', conn:read_some())
  conn:close()
end

function T.test_a_reset_while_one_large_write_is_parked()
  local conn, peer = t.raw_peer()
  local writer = asio.spawn(function() return conn:write(('w'):rep(TEN_MEGABYTES)) end)
  lu.assertEquals(writer:status(), 'waiting')
  peer:recv(1000, 1)
  peer:reset()
  local ok, result, message, code = writer:join()
  lu.assertTrue(ok, result)
  t.failure_among(t.gone, result, message, code)
  conn:close()
end

function T.test_a_reset_while_writing_piece_by_piece()
  local conn, peer = t.raw_peer()
  local writer = asio.spawn(function()
    for _ = 1, TEN_MEGABYTES / 10000 do
      local ok, message, code = conn:write(('w'):rep(10000))
      if not ok then return ok, message, code end
    end
    return conn:flush()
  end)
  for _ = 1, 5 do
    peer:recv(1000, 0)
    asio.sleep(0.001)
  end
  peer:reset()
  local ok, result, message, code = writer:join()
  lu.assertTrue(ok, result)
  t.failure_among(t.gone, result, message, code)
  conn:close()
end

function T.test_a_reset_while_flushing()
  local conn, peer = t.raw_peer()
  conn:set_timeout(nil, 0)
  t.failure('ETIMEDOUT', conn:write(('f'):rep(TEN_MEGABYTES)))
  conn:set_timeout(nil, nil)
  local flushers = {}
  for i = 1, 3 do flushers[i] = asio.spawn(function() return conn:flush() end) end
  peer:reset()
  for i = 1, 3 do
    local ok, result, message, code = flushers[i]:join()
    lu.assertTrue(ok, result)
    t.failure_among(t.gone, result, message, code)
  end
  conn:close()
end

function T.test_several_parked_writers_all_hear_of_it()
  local conn, peer = t.raw_peer()
  local writers, data = {}, ('w'):rep(16 * 2 ^ 20) -- more than the kernel takes
  for i = 1, 5 do
    writers[i] = asio.spawn(function() return conn:write(data) end)
  end
  peer:reset()
  for i = 1, 5 do
    local ok, result, message, code = writers[i]:join()
    lu.assertTrue(ok, result)
    t.failure_among(t.gone, result, message, code)
  end
  conn:close()
end

function T.test_the_first_error_is_sticky()
  local conn, peer = t.raw_peer()
  peer:reset()
  local first = write_until_it_fails(conn)
  for _ = 1, 3 do
    t.failure(first, conn:write 'x')
    t.failure(first, conn:write(('x'):rep(2 ^ 20)))
    t.failure(first, conn:flush())
  end
  lu.assertEquals((select(2, conn:pending())), 0)
  conn:close()
end

function T.test_reading_goes_on_until_the_input_is_used_up()
  local conn, peer = t.raw_peer()
  peer:send('the last message', 1)
  conn:set_timeout(1)
  lu.assertEquals(conn:read(4), 'the ')
  peer:close() -- unread output of ours makes the kernel answer with a reset
  local code = write_until_it_fails(conn)
  lu.assertTrue(t.gone[code], code)
  lu.assertEquals(conn:read(12), 'last message')
  lu.assertFalse(not select(3, conn:read(1)))
  conn:close()
end

function T.test_writing_on_and_on_to_a_peer_that_has_gone()
  can.need 'plain' -- a close in order is not known as such
  local conn, peer = t.raw_peer()
  peer:close()
  local failed
  for _ = 1, 300 do
    local ok, _, code = conn:write(('more'):rep(1000))
    if not ok then
      lu.assertTrue(t.gone[code], code)
      failed = true
    end
    asio.yield()
  end
  lu.assertTrue(failed)
  conn:close()
end

function T.test_a_socket_pair_whose_other_end_is_closed()
  local a, b = t.pair()
  b:close()
  local code = write_until_it_fails(a)
  lu.assertTrue(t.gone[code], code)
end

function T.test_a_reset_right_after_connecting()
  local n = t.count(2000)
  local ended = 0
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    local data, _, code = conn:read(1)
    assert(data == nil)
    assert(code == 'ECONNRESET' or code == 'EOF', code)
    ended = ended + 1
  end))
  local _, port = server:address()
  local accepted_by_kernel = 0
  for i = 1, n do
    raw.connect(port):reset()
    accepted_by_kernel = accepted_by_kernel + 1
    if i % 20 == 0 then asio.sleep(0) end
  end
  -- A connection that is reset while it still stands in the queue may never be handed out.
  t.wait_until(function()
    local before = ended
    asio.sleep(0.02)
    return ended == before
  end)
  lu.assertTrue(ended > 0 and ended <= accepted_by_kernel)
  local conn = assert(asio.connect('127.0.0.1', port))
  conn:close()
  asio.sleep(0.01)
  server:close()
end

function T.test_peer_and_address_of_a_connection_that_was_reset()
  can.need 'resets'
  local conn, peer = t.raw_peer()
  peer:reset()
  t.failure('ECONNRESET', conn:read(1))
  -- The kernel has forgotten the peer; the answer is an address or a failure, and no crash.
  local ip, message, code = conn:peer()
  lu.assertTrue(ip == '127.0.0.1' or (type(message) == 'string' and type(code) == 'string'))
  conn:close()
end

return T
