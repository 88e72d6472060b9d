-- What a system has beside TCP for processes of one machine: abstract names on Linux, named pipes on Windows.
-- What is of Unix sockets alone is in unix_test.lua.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local nobody_there = t.codes('ENOENT', 'ECONNREFUSED')
local count = 0

local function new_name()
  count = count + 1
  local name = can.local_name(('asio.local.%d.%d'):format(raw.pid(), count))
  lu.skipIf(not name, 'this system has no names but those of files')
  return name
end

-- A connection, the server's end of it, and the server.
local function connected(opts)
  local name = new_name()
  local server = assert(asio.server(name, nil, opts))
  local connecting = asio.spawn(asio.connect, name)
  local near = assert(server:accept(5))
  local ok, far = connecting:join(5)
  lu.assertTrue(ok)
  return far, near, server
end

local function close(...)
  for _, object in ipairs { ... } do object:close() end
end

function T.test_a_handler()
  local name = new_name()
  local server = assert(asio.server(name, function(conn)
    for line in conn:lines() do conn:write(line:upper(), '\n') end
    conn:close()
  end))
  lu.assertEquals(server:address(), name)
  lu.assertStrContains(tostring(server), name)
  local conns = {}
  for i = 1, 5 do conns[i] = assert(asio.connect(name)) end
  for i = 1, 5 do conns[i]:write('hello ', i, '\n') end
  for i = 1, 5 do lu.assertEquals(conns[i]:read_line(), 'HELLO ' .. i) end
  for i = 1, 5 do conns[i]:close() end
  server:close()
  t.wait_until(function() return not asio.connect(name) end, 'the end of the server')
  t.failure_among(nobody_there, asio.connect(name))
end

function T.test_reading()
  local a, b, server = connected()
  b:write('sized', 'a line\r\n', 'up to:', 'rest')
  lu.assertEquals(a:read(5), 'sized')
  lu.assertEquals(a:read_line(), 'a line')
  lu.assertEquals(a:peek(2), 'up')
  lu.assertEquals(a:read_until ':', 'up to')
  lu.assertEquals(a:read_some(), 'rest')
  b:write 'the end'
  b:close()
  lu.assertEquals(a:read_all(), 'the end')
  t.failure('EOF', a:read(1))
  close(a, server)
end

function T.test_much_both_ways()
  local a, b, server = connected()
  local data = ('0123456789abcdef'):rep(2 ^ 17)
  asio.group(function(g)
    for _, pair in ipairs { { a, b }, { b, a } } do
      g:spawn(function() assert(pair[1]:write(data)) assert(pair[1]:flush()) end)
      g:spawn(function() t.same_bytes(pair[2]:read(#data), data) end)
    end
  end)
  close(a, b, server)
end

-- What was written before goes out, though nothing is read yet.
function T.test_close_delivers()
  local a, b, server = connected()
  a:set_timeout(nil, 0)
  local data = ('c'):rep(500000)
  a:write(data)
  a:close()
  t.same_bytes(b:read_all(2 ^ 20), data)
  close(b, server)
end

function T.test_a_writer_waits_for_a_slow_reader()
  local a, b, server = connected()
  local written = 0
  local writer = asio.spawn(function()
    for _ = 1, 200 do
      assert(a:write(('w'):rep(20000)))
      written = written + 20000
    end
    a:close()
  end)
  asio.sleep(0.05)
  lu.assertEquals(writer:status(), 'waiting')
  lu.assertTrue(written < 2000000, written)
  lu.assertEquals(#b:read_all(math.huge), 4000000)
  lu.assertTrue(writer:join(5))
  close(b, server)
end

function T.test_deadlines_and_cancelling()
  local a, b, server = connected()
  a:set_timeout(0.005, 0.02)
  t.failure('ETIMEDOUT', a:read(1))
  t.failure('ETIMEDOUT', asio.timeout(0.005, b.read, b, 1))
  local ok, _, code = a:write(('x'):rep(2 ^ 24))
  lu.assertEquals({ ok, code }, { nil, 'ETIMEDOUT' })
  a:set_timeout()
  local reader = asio.spawn(a.read, a, 1)
  reader:cancel()
  lu.assertEquals({ reader:join(5) }, { false, asio.cancelled })
  b:write 'y'
  lu.assertEquals(a:read(1), 'y')
  a:abort()
  close(b, server)
end

function T.test_closed_while_waiting()
  local a, b, server = connected()
  local reader = asio.spawn(a.read, a, 1)
  a:close()
  t.failure('ECANCELED', select(2, reader:join(5)))
  local accepter = asio.spawn(server.accept, server)
  server:close()
  t.failure('ECANCELED', select(2, accepter:join(5)))
  close(b)
end

function T.test_the_peer_ends()
  local a, b, server = connected()
  local reader = asio.spawn(a.read, a, 1)
  b:close()
  t.failure('EOF', select(2, reader:join(5)))
  close(a, server)
end

function T.test_nothing_listens()
  t.failure_among(nobody_there, asio.connect(new_name()))
end

function T.test_relayed()
  local a, near, one = connected()
  local far, b, two = connected()
  local relay = asio.spawn(asio.relay, near, far)
  a:write 'there'
  lu.assertEquals(b:read(5), 'there')
  b:write 'back'
  lu.assertEquals(a:read(4), 'back')
  a:close()
  b:close()
  relay:join(5)
  close(one, two)
end

function T.test_the_state_closes_meanwhile()
  lu.assertNotNil(new_name())
  t.quiet_child(function(name)
    local asio = require 'asio'
    local server = assert(asio.server(name))
    local a = asio.spawn(asio.connect, name)
    local b = assert(server:accept())
    local _, conn = a:join()
    asio.spawn(conn.read, conn, 1)
    asio.spawn(server.accept, server)
    asio.spawn(b.write, b, ('x'):rep(2 ^ 24))
    asio.run_once(0)
    package.loaded.held = { server, conn, b }
  end, { args = { new_name() } })
end

return T
