-- 'unix:' names: paths of Unix sockets, or named pipes on Windows; their forms, and how connections and
-- servers end. local_name_test.lua has the rest of what both can do, unix_test.lua what is of Unix sockets
-- alone.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local lu = require 'luaunit'
local asio = require 'asio'
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
  return ('%s-%d-%d'):format(name, tonumber(ffi.cast('intptr_t', ffi.new 'char[1]') % 100000), count)
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
  for _, name in ipairs { 'asio-plain', 'run/asio-path', '/run/asio-path', 'C:\\run\\asio-path',
    '\\\\.\\pipe\\asio-whole', '//./pipe/asio-whole', 'asio-gr\195\188n' } do
    local server = assert(asio.server('unix:' .. name, echo), name)
    for _, other in ipairs { 'unix:' .. name, server:address() } do
      local conn = assert(asio.connect(other, { timeout = 10 * t.patience }))
      conn:write 'hello'
      lu.assertEquals(conn:read(5), 'hello')
      conn:close()
    end
    server:close()
  end
  local server = assert(asio.server('unix:asio-both', echo))
  local conn = assert(asio.connect(full 'asio-both'))
  lu.assertEquals((conn:peer()), full 'asio-both')
  close(conn, server)
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
