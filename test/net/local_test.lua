-- 'unix:' names: paths of Unix sockets, or named pipes on Windows: what both can do. unix_test.lua has what
-- is of Unix sockets alone.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local pipes = not can.has 'unix_sockets'
local count = 0

-- A name that is not in use.
local function new_name()
  count = count + 1
  local name = os.tmpname()
  os.remove(name)
  return ('%s-%d-%d'):format(name, raw.pid(), count)
end

-- The name as the system has it.
local function full(name)
  if not pipes or name:find '^\\\\' then return 'unix:' .. name end
  return 'unix:\\\\.\\pipe\\' .. name:gsub('^\\', '')
end

local function echo(conn)
  while true do
    local data = conn:read_some()
    if not data then break end
    conn:write(data)
  end
  conn:close()
end

-- A server, both ends of a connection to it, and the name.
local function connected(opts)
  local name = new_name()
  local server = assert(asio.server('unix:' .. name, nil, opts))
  local accepter = asio.spawn(server.accept, server)
  local conn = assert(asio.connect('unix:' .. name, { timeout = 10 * t.patience }))
  local _, accepted = assert(accepter:join())
  return server, conn, assert(accepted), name
end

local function close(...)
  for _, what in ipairs { ... } do what:close() end
end

-- Names ---------------------------------------------------------------------------------------

T.test_the_names_of_both_ends = function()
  local server, conn, accepted, name = connected()
  local own = server:address()
  lu.assertStrContains(own, pipes and '\\\\.\\pipe\\' or name)
  lu.assertEquals({ conn:address() }, { 'unix:' })
  lu.assertEquals({ accepted:peer() }, { 'unix:' })
  lu.assertStrContains(tostring(conn), name:match '[^\\/]*$')
  lu.assertStrContains(tostring(accepted), name:match '[^\\/]*$')
  lu.assertEquals(accepted:address(), conn:peer())
  if not pipes then lu.assertEquals(accepted:address(), own) end
  close(conn, accepted)
  t.failure('EBADF', conn:peer())
  conn = assert(asio.connect(own, { timeout = 10 * t.patience })) -- its own address can be connected to
  close(conn, server)
  t.failure('EBADF', server:address())
end

T.test_names_that_are_none = function()
  for _, name in ipairs { '', 'a\0b', '\0' } do
    t.failure('EINVAL', asio.server('unix:' .. name, echo))
    t.failure('EINVAL', asio.connect('unix:' .. name))
  end
  local long = new_name() .. ('x'):rep(400)
  t.failure('ENAMETOOLONG', asio.server('unix:' .. long, echo))
  t.failure('ENAMETOOLONG', asio.connect('unix:' .. long))
  t.failure('ENOENT', asio.connect('unix:' .. new_name()))
end

-- A name without \\COMPUTER\pipe\ is one of this computer's pipes.
T.test_names_of_pipes = function()
  lu.skipIf(not pipes, 'libuv has Unix sockets here, not named pipes')
  for _, form in ipairs { 'asio-plain', 'run/asio-path', '/run/asio-path', 'C:\\run\\asio-path',
    '\\\\.\\pipe\\asio-whole', '//./pipe/asio-whole', 'asio-gr\195\188n' } do
    local name = ('%s-%d'):format(form, raw.pid())
    local server = assert(asio.server('unix:' .. name, echo), name)
    for _, other in ipairs { 'unix:' .. name, server:address() } do
      local conn = assert(asio.connect(other, { timeout = 10 * t.patience }))
      conn:write 'hello'
      lu.assertEquals(conn:read(5), 'hello')
      conn:close()
    end
    server:close()
  end
  local both = 'asio-both-' .. raw.pid()
  local server = assert(asio.server('unix:' .. both, echo))
  local conn = assert(asio.connect(full(both)))
  lu.assertEquals((conn:peer()), full(both))
  close(conn, server)
end

-- Talking -------------------------------------------------------------------------------------

function T.test_a_handler()
  local name = 'unix:' .. new_name()
  local server = assert(asio.server(name, function(conn)
    for line in conn:lines() do conn:write(line:upper(), '\n') end
    conn:close()
  end))
  lu.assertStrContains(tostring(server), server:address())
  local conns = {}
  for i = 1, 5 do conns[i] = assert(asio.connect(name)) end
  for i = 1, 5 do conns[i]:write('hello ', i, '\n') end
  for i = 1, 5 do lu.assertEquals(conns[i]:read_line(), 'HELLO ' .. i) end
  for i = 1, 5 do conns[i]:close() end
  server:close()
end

function T.test_reading()
  local server, a, b = connected()
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
  local server, a, b = connected()
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
  local server, a, b = connected()
  a:set_timeout(nil, 0)
  local data = ('c'):rep(500000)
  a:write(data)
  a:close()
  t.same_bytes(b:read_all(2 ^ 20), data)
  close(b, server)
end

function T.test_a_writer_waits_for_a_slow_reader()
  local server, a, b = connected()
  local written = 0
  local writer = asio.spawn(function()
    for _ = 1, 200 do
      assert(a:write(('w'):rep(20000)))
      written = written + 20000
    end
    a:close()
  end)
  local before
  repeat -- until nothing moves any more
    before = written
    asio.sleep(0.02)
  until written == before
  lu.assertEquals(writer:status(), 'waiting')
  lu.assertTrue(written < 2000000, written)
  lu.assertEquals(#b:read_all(math.huge), 4000000)
  lu.assertTrue(writer:join(5))
  close(b, server)
end

function T.test_relayed()
  local one, a, near = connected()
  local two, far, b = connected()
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

-- Waiting -------------------------------------------------------------------------------------

function T.test_deadlines_and_cancelling()
  local server, a, b = connected()
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
  local server, a, b = connected()
  local reader = asio.spawn(a.read, a, 1)
  a:close()
  t.failure('ECANCELED', select(2, reader:join(5)))
  local accepter = asio.spawn(server.accept, server)
  server:close()
  t.failure('ECANCELED', select(2, accepter:join(5)))
  close(b)
end

function T.test_the_peer_ends()
  local server, a, b = connected()
  local reader = asio.spawn(a.read, a, 1)
  b:close()
  t.failure('EOF', select(2, reader:join(5)))
  close(a, server)
end

function T.test_the_state_closes_meanwhile()
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
  end, { args = { 'unix:' .. new_name() } })
end

-- Ends ----------------------------------------------------------------------------------------

T.test_half_close = function()
  local server, conn, accepted = connected()
  conn:write 'question'
  lu.assertTrue(conn:shutdown())
  lu.assertEquals(accepted:read(8), 'question')
  if not pipes then
    t.failure('EOF', accepted:read(1))
    accepted:write 'answer'
    accepted:close()
    lu.assertEquals(conn:read(6), 'answer')
  else -- a pipe ends as a whole: libuv keeps it until the peer has read what was sent
    accepted:close()
  end
  t.failure('EOF', conn:read(1))
  close(conn, server)
end

T.test_a_peer_that_has_gone = function()
  local server, conn, accepted = connected()
  accepted:close()
  t.failure('EOF', conn:read(1))
  local message, code
  t.wait_until(function()
    local ok
    ok, message, code = conn:write 'x'
    if ok then ok, message, code = conn:flush() end
    asio.sleep(0)
    return not ok
  end)
  lu.assertTrue(code == 'EPIPE' or code == 'ECONNRESET' or code == 'EOF', ('%s (%s)'):format(message, code))
  close(conn, server)
end

-- Servers -------------------------------------------------------------------------------------

T.test_many_clients = function()
  local name, n, threads = new_name(), t.count(200), {}
  local server = assert(asio.server('unix:' .. name, echo))
  for i = 1, n do
    threads[i] = asio.spawn(function()
      local conn = assert(asio.connect('unix:' .. name))
      conn:write(('%5d'):format(i))
      assert(conn:read(5) == ('%5d'):format(i))
      conn:close()
      return true
    end)
  end
  for i = 1, n do lu.assertEquals({ threads[i]:join() }, { true, true }) end
  server:close()
end

T.test_a_server_that_has_gone = function()
  local server, conn, accepted, name = connected()
  server:close()
  conn:write 'x' -- connections go on
  lu.assertEquals(accepted:read(1), 'x')
  close(conn, accepted)
  t.wait_until(function() -- Wine has another error until the last end of the pipe has gone
    local _, _, code = asio.connect('unix:' .. name)
    asio.sleep(0.01)
    return code == 'ENOENT' or code == 'ECONNREFUSED'
  end)
  assert(asio.server('unix:' .. name, echo)):close() -- the name is free
end

T.test_shutdown_of_a_server = function()
  local name = new_name()
  local server = assert(asio.server('unix:' .. name, echo))
  local conn = assert(asio.connect('unix:' .. name))
  conn:write 'x'
  lu.assertEquals(conn:read(1), 'x')
  local closer = asio.spawn(server.shutdown, server, 10 * t.patience)
  asio.sleep(0)
  conn:write 'y'
  lu.assertEquals(conn:read(1), 'y')
  conn:close()
  lu.assertTrue(closer:join())
end

-- An end that the script drops is closed by the collector.
T.test_collected = function()
  local server, _, accepted = connected()
  _ = nil
  local thread = asio.spawn(accepted.read, accepted, 1)
  t.collect()
  local ok, _, _, code = t.wait_until(function()
    t.collect()
    return thread:status() == 'done' and thread
  end):join()
  lu.assertEquals({ ok, code }, { true, 'EOF' })
  close(accepted, server)
end

return T
