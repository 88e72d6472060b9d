-- A write error of one way ended both ways of a relay at once: an answer on its way was lost. A reset
-- of a source was not seen as long as the other side did not read.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'

local T = {}

local function relayed()
  local a, client = t.raw_peer()
  local b, server = t.raw_peer()
  return asio.spawn(asio.relay, a, b), client, server
end

-- The bytes up to the end, and whether that was a reset.
local function all_of(peer)
  local parts, over = {}
  t.wait_until(function()
    local data = peer:recv(65536, 0)
    while data and data ~= '' do
      parts[#parts + 1] = data
      data = peer:recv(65536, 0)
    end
    over = data
    return data == '' or data == false
  end, 'the end', 10)
  return table.concat(parts), over == false
end

-- A server that has answered before it has read everything, and closes: the system resets the connection,
-- since bytes of the client are unread. The client sends on before it reads, and gets all of the answer.
function T.test_an_answer_before_the_end_of_the_question()
  can.need 'unsent'
  local relay, client, server = relayed()
  local question, answer = ('q'):rep(100000), ('a'):rep(1000000)
  local before = asio.stats().bytes_in
  client:send(question, 0)
  t.wait_until(function() return server:recv(1, 0) end, 'the question')
  local sent = 0
  t.wait_until(function()
    sent = sent + server:send(answer:sub(sent + 1), 0)
    return asio.stats().bytes_in - before >= #question + #answer
  end, 'the relay to have it all')
  server:close()
  for _ = 1, 20 do
    client:send(question, 0)
    asio.sleep(0.001)
  end
  lu.assertEquals(#all_of(client), #answer)
  local _, one, _, code = relay:join()
  lu.assertNil(one)
  lu.assertTrue(t.gone[code], code)
  client:close()
end

-- A server that half-closes, and then only closes: the answer is whole, and ends in order.
function T.test_a_whole_answer_ends_in_order()
  local relay, client, server = relayed()
  client:send('question', 1)
  lu.assertEquals(t.recv(server, 8), 'question')
  server:send('answer', 1)
  server:shutdown()
  lu.assertEquals(t.recv(client, 6), 'answer')
  server:close()
  t.wait_until(function()
    client:send('more', 0)
    return relay:status() == 'done'
  end, 'the end of the relay')
  lu.assertEquals({ all_of(client) }, { '', false })
  client:close()
end

function T.test_a_reset_of_the_source_while_the_other_side_does_not_read()
  can.need 'resets'
  local relay, client, server = relayed()
  local chunk, quiet = ('x'):rep(65536), 0
  t.wait_until(function() -- until nothing more is taken
    quiet = client:send(chunk, 0) == 0 and quiet + 1 or 0
    return quiet > 20
  end, 'the way to be full')
  client:reset()
  local joined, one, _, code = relay:join(5)
  lu.assertEquals({ joined, one, code }, { true, nil, 'ECONNRESET' })
  local bytes, reset = all_of(server)
  lu.assertTrue(#bytes > 0)
  lu.assertTrue(reset)
  server:close()
end

function T.test_standard_input_that_ends_in_order()
  can.need 'shell'
  local out = t.quiet_child(function()
    local asio = require 'asio' -- luacheck: ignore
    local server = assert(asio.server('127.0.0.1', 0, function(conn)
      io.write(conn:read_all())
      conn:close()
    end))
    local conn = assert(asio.connect(server:address()))
    print(asio.relay(asio.stdin, conn))
    server:close()
  end, { wrap = [[sh -c 'exec "$@"' sh sh -c 'printf "through a pipe, " | "$@"' sh]] })
  lu.assertEquals(out, 'through a pipe, 16\t0\n')
end

return T
