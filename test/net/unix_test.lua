-- Unix sockets: names, files and whose they are, a full backlog, credentials.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'
local rawunix = require 'rawunix'

local T = {}

-- Each case gets a directory of its own.
local function case(fn)
  return function()
    can.need('unix_sockets', 'numbers')
    local dir, remove = rawunix.directory()
    local ok, err = xpcall(fn, function(e)
      return type(e) == 'string' and not e:find('LuaUnit', 1, true) and debug.traceback(e, 2) or e
    end, dir)
    remove()
    if not ok then error(err, 0) end
  end
end

local function echo(conn)
  while true do
    local data = conn:read_some()
    if not data then break end
    conn:write(data)
  end
  conn:close()
end

local function listen(name, opts)
  return assert(asio.server('unix:' .. name, echo, opts))
end

-- Connects, and has something echoed.
local function works(name)
  local conn = assert(asio.connect('unix:' .. name))
  conn:write 'hello'
  lu.assertEquals(conn:read(5), 'hello')
  conn:close()
end

local function write_file(path, text)
  local file = assert(io.open(path, 'w'))
  file:write(text)
  file:close()
end

local function read_file(path)
  local file = assert(io.open(path))
  local text = file:read '*a'
  file:close()
  return text
end

-- A socket file whose server was killed.
local function leave_stale(path)
  rawunix.listen(path):close()
  lu.assertEquals(rawunix.kind(path), 'socket')
end

-- Names ---------------------------------------------------------------------------------------

T.test_a_path = case(function(dir)
  local path = dir .. '/s'
  local accepted
  local server = assert(asio.server('unix:' .. path, function(conn) accepted = conn end))
  local conn = assert(asio.connect('unix:' .. path))
  t.wait_until(function() return accepted end)
  lu.assertEquals({ server:address() }, { 'unix:' .. path })
  lu.assertEquals({ conn:peer() }, { 'unix:' .. path })
  lu.assertEquals({ conn:address() }, { 'unix:' })
  lu.assertEquals({ accepted:address() }, { 'unix:' .. path })
  lu.assertEquals({ accepted:peer() }, { 'unix:' })
  lu.assertStrContains(tostring(server), path)
  lu.assertStrContains(tostring(conn), path)
  lu.assertStrContains(tostring(accepted), path)
  lu.assertIsNumber((conn:fd()))
  conn:write 'there'
  lu.assertEquals(accepted:read(5), 'there')
  accepted:write 'back'
  accepted:close()
  lu.assertEquals(conn:read(4), 'back')
  t.failure('EOF', conn:read(1))
  conn:close()
  t.failure('EBADF', conn:peer())
  server:close()
  t.failure('EBADF', server:address())
  t.failure('ENOENT', asio.connect('unix:' .. path))
end)

T.test_its_own_address_can_be_connected_to = case(function(dir)
  local server = listen(dir .. '/s')
  local conn = assert(asio.connect(server:address()))
  conn:write 'x'
  lu.assertEquals(conn:read(1), 'x')
  conn:close()
  server:close()
end)

T.test_an_abstract_name = case(function(dir)
  local one, two = listen('@asio' .. dir .. '/one'), listen('@asio' .. dir .. '/two')
  lu.assertEquals({ one:address() }, { 'unix:@asio' .. dir .. '/one' })
  -- The whole name and nothing but the name (libuv 1.44 binds 107 zeroes).
  lu.assertTrue(rawunix.names()['@asio' .. dir .. '/one'])
  lu.assertTrue(rawunix.names()['@asio' .. dir .. '/two'])
  works('@asio' .. dir .. '/one')
  works('@asio' .. dir .. '/two')
  t.failure('EADDRINUSE', asio.server('unix:@asio' .. dir .. '/one', echo, { unlink_stale = true }))
  one:close()
  two:close()
  t.failure('ECONNREFUSED', asio.connect('unix:@asio' .. dir .. '/one'))
end)

T.test_an_abstract_name_with_zeroes = case(function(dir)
  local name = '@asio' .. dir .. '\0\0x\0'
  local server = listen(name)
  lu.assertEquals((server:address()), 'unix:' .. name)
  t.failure('ECONNREFUSED', asio.connect('unix:' .. name:sub(1, -2)))
  local conn = assert(asio.connect('unix:' .. name))
  lu.assertEquals((conn:peer()), 'unix:' .. name)
  conn:close()
  server:close()
end)

T.test_an_abstract_name_that_the_system_chooses = case(function()
  local one, two = listen '@', listen '@'
  local name = one:address()
  lu.assertStrMatches(name, 'unix:@%x%x%x%x%x')
  lu.assertNotEquals(two:address(), name)
  works(name:match '^unix:(.*)')
  one:close()
  two:close()
end)

T.test_the_longest_names = case(function(dir)
  local longest = dir .. '/' .. ('x'):rep(107 - #dir - 1)
  lu.assertEquals(#longest, 107)
  local server = listen(longest)
  lu.assertEquals((server:address()), 'unix:' .. longest)
  lu.assertEquals(rawunix.kind(longest), 'socket')
  works(longest)
  server:close()
  lu.assertNil(rawunix.kind(longest))
  -- 107 bytes behind the '@'.
  local abstract = '@asio' .. ('y'):rep(107 - 4)
  server = listen(abstract)
  works(abstract)
  server:close()
  for _, name in ipairs { longest .. 'x', longest .. ('x'):rep(1000), abstract .. 'y' } do
    local _, message = asio.server('unix:' .. name, echo)
    lu.assertEquals(message, 'name too long')
    t.failure('ENAMETOOLONG', asio.server('unix:' .. name, echo))
    t.failure('ENAMETOOLONG', asio.connect('unix:' .. name))
  end
  -- Nothing was cut silently.
  lu.assertNil(rawunix.kind(longest))
end)

T.test_names_that_are_none = case(function(dir)
  for _, name in ipairs { '', dir .. '/a\0b', '\0' } do
    t.failure('EINVAL', asio.server('unix:' .. name, echo))
    t.failure('EINVAL', asio.connect('unix:' .. name))
  end
  t.failure('ENOENT', asio.server('unix:' .. dir .. '/missing/s', echo))
  t.failure('ENOENT', asio.connect('unix:' .. dir .. '/missing'))
  write_file(dir .. '/file', '')
  t.failure('ENOTDIR', asio.server('unix:' .. dir .. '/file/s', echo))
end)

T.test_a_long_name_is_no_raw_address = case(function(dir)
  local name = dir .. '/' .. ('n'):rep(70)
  local server = listen(name)
  local conn = assert(asio.connect('unix:' .. name, { timeout = 5 }))
  conn:close()
  conn = assert(asio.connect('unix:' .. name, nil, { timeout = 5 }))
  conn:close()
  server:close()
end)

T.test_bad_arguments = case(function(dir)
  local name = 'unix:' .. dir .. '/s'
  t.bad_argument(2, 'server', function() asio.server(name, 17) end)
  t.bad_argument(3, 'server', function() asio.server(name, echo, 17) end)
  t.bad_argument(2, 'connect', function() asio.connect(name, 80) end)
  t.bad_argument(2, 'connect', function() asio.connect(name, { timeout = -1 }) end)
  t.bad_argument(2, 'connect', function() asio.connect(name, { timeout = 'x' }) end)
  t.bad_argument(2, 'connect', function() asio.connect(name, { bind = '127.0.0.1' }) end)
  t.bad_argument(2, 'connect', function() asio.connect(name, { nosuch = 1 }) end)
  t.bad_argument(3, 'server', function() asio.server(name, echo, { nosuch = 1 }) end)
  lu.assertNil(rawunix.kind(dir .. '/s'))
end)

-- Files ---------------------------------------------------------------------------------------

T.test_the_file_goes_with_the_server = case(function(dir)
  local path = dir .. '/s'
  local server = listen(path)
  lu.assertEquals(rawunix.kind(path), 'socket')
  server:close()
  lu.assertNil(rawunix.kind(path))
  listen(path)
  t.wait_until(function()
    t.collect()
    return not rawunix.kind(path)
  end, 'the collector')
  listen(path):close() -- and again
end)

T.test_the_file_goes_with_the_state = case(function(dir)
  t.quiet_child(function(path)
    local lib = require 'asio'
    _G.server = assert(lib.server('unix:' .. path, print))
    assert(io.popen("stat -c %F " .. path):read '*l' == 'socket')
  end, { args = { dir .. '/s' } })
  lu.assertNil(rawunix.kind(dir .. '/s'))
end)

T.test_the_file_is_somebody_elses_by_now = case(function(dir)
  local path = dir .. '/s'
  -- A file.
  local server = listen(path)
  os.remove(path)
  write_file(path, 'precious')
  server:close()
  lu.assertEquals(read_file(path), 'precious')
  os.remove(path)
  -- Another server's.
  server = listen(path)
  os.remove(path)
  local second = listen(path)
  server:close()
  lu.assertEquals(rawunix.kind(path), 'socket')
  works(path)
  -- A link to that: neither it nor what it points to.
  local other = dir .. '/other'
  server = listen(other)
  os.remove(other)
  rawunix.symlink(path, other)
  server:close()
  lu.assertEquals(rawunix.kind(other), 'symbolic link')
  lu.assertEquals(rawunix.kind(path), 'socket')
  second:close()
  -- Nobody's.
  server = listen(path)
  os.remove(path)
  server:close()
end)

T.test_a_link_to_the_directory_that_points_elsewhere_by_now = case(function(dir)
  rawunix.mkdir(dir .. '/one')
  rawunix.mkdir(dir .. '/two')
  rawunix.symlink('one', dir .. '/link')
  local server = listen(dir .. '/link/s')
  os.remove(dir .. '/link')
  rawunix.symlink('two', dir .. '/link')
  local second = listen(dir .. '/two/s')
  server:close()
  lu.assertEquals(rawunix.kind(dir .. '/two/s'), 'socket')
  works(dir .. '/two/s')
  second:close()
end)

T.test_the_working_directory_is_another_by_now = case(function(dir)
  t.quiet_child(function(path)
    local lib, sys = require 'asio', require 'rawunix'
    sys.chdir(path)
    local server = assert(lib.server('unix:s', print))
    assert(server:address() == 'unix:s')
    assert(lib.connect('unix:s')):close()
    sys.chdir '/'
    assert(sys.kind(path .. '/s') == 'socket')
    server:close()
    assert(not sys.kind(path .. '/s'))
  end, { args = { dir } })
end)

T.test_a_file_that_is_no_socket = case(function(dir)
  local file, link, dangling, loop = dir .. '/file', dir .. '/link', dir .. '/dangling', dir .. '/loop'
  write_file(file, 'precious')
  rawunix.mkdir(dir .. '/directory')
  rawunix.symlink(file, link)
  rawunix.symlink(dir .. '/nothing', dangling)
  rawunix.symlink(loop, loop)
  for _, path in ipairs { file, link, dangling, loop, dir .. '/directory' } do
    for _, opts in ipairs { {}, { unlink_stale = true } } do
      local _, message = asio.server('unix:' .. path, echo, opts)
      lu.assertStrContains(message, 'not a socket')
      t.failure('ENOTSOCK', asio.server('unix:' .. path, echo, opts))
    end
  end
  for _, path in ipairs { file, link, dir .. '/directory' } do
    local _, message = asio.connect('unix:' .. path)
    lu.assertStrContains(message, 'not a socket')
    t.failure('ENOTSOCK', asio.connect('unix:' .. path))
  end
  t.failure('ENOENT', asio.connect('unix:' .. dangling))
  t.failure('ELOOP', asio.connect('unix:' .. loop))
  lu.assertEquals(read_file(file), 'precious')
  lu.assertEquals(rawunix.kind(link), 'symbolic link')
  lu.assertEquals(rawunix.kind(dangling), 'symbolic link')
  lu.assertNil(rawunix.kind(dir .. '/nothing'))
end)

T.test_a_stale_file = case(function(dir)
  local path = dir .. '/s'
  leave_stale(path)
  t.failure('ECONNREFUSED', asio.connect('unix:' .. path))
  t.failure('EADDRINUSE', asio.server('unix:' .. path, echo))
  t.failure('EADDRINUSE', asio.server('unix:' .. path, echo, { unlink_stale = false }))
  lu.assertEquals(rawunix.kind(path), 'socket')
  local server = listen(path, { unlink_stale = true })
  works(path)
  server:close()
  lu.assertNil(rawunix.kind(path))
  server = listen(path, { unlink_stale = true }) -- nothing there
  server:close()
end)

T.test_a_stale_file_behind_a_link = case(function(dir)
  leave_stale(dir .. '/s')
  rawunix.symlink(dir .. '/s', dir .. '/link')
  t.failure('ENOTSOCK', asio.server('unix:' .. dir .. '/link', echo, { unlink_stale = true }))
  lu.assertEquals(rawunix.kind(dir .. '/link'), 'symbolic link')
  lu.assertEquals(rawunix.kind(dir .. '/s'), 'socket')
end)

T.test_a_file_that_is_not_stale = case(function(dir)
  local path = dir .. '/s'
  local server = listen(path)
  t.failure('EADDRINUSE', asio.server('unix:' .. path, echo))
  t.failure('EADDRINUSE', asio.server('unix:' .. path, echo, { unlink_stale = true }))
  works(path)
  server:close()
  -- Busy, and so not able to answer.
  local listener, fillers = rawunix.full_listener(path)
  t.failure('EADDRINUSE', asio.server('unix:' .. path, echo, { unlink_stale = true }))
  lu.assertEquals(rawunix.kind(path), 'socket')
  listener:close()
  for _, filler in ipairs(fillers) do filler:close() end
end)

T.test_a_server_that_cannot_listen_leaves_no_file = case(function(dir)
  local out = t.quiet_child(function(path)
    local lib, sys = require 'asio', require 'raw'
    lib.run(function() lib.sleep(0) end)
    sys.limit_fds(0)
    local server, _, code = lib.server('unix:' .. path, print)
    io.write(tostring(server), code)
  end, { args = { dir .. '/s' } })
  lu.assertEquals(out, 'nilEMFILE')
  lu.assertNil(rawunix.kind(dir .. '/s'))
end)

-- A full backlog ------------------------------------------------------------------------------

T.test_a_full_backlog_is_waited_for = case(function(dir)
  local listener, fillers = rawunix.full_listener(dir .. '/s')
  local thread = asio.spawn(asio.connect, 'unix:' .. dir .. '/s')
  asio.sleep(0.02)
  lu.assertEquals(thread:status(), 'waiting')
  listener:accept(0):close() -- one makes room
  local joined, conn = thread:join()
  lu.assertTrue(joined)
  conn:write 'through'
  for _ = 2, #fillers do listener:accept(0):close() end
  local peer = listener:accept(0)
  lu.assertEquals(t.recv(peer, 7), 'through')
  peer:close()
  conn:close()
  for _, filler in ipairs(fillers) do filler:close() end
  listener:close()
end)

T.test_a_full_backlog_and_a_deadline = case(function(dir)
  local listener, fillers = rawunix.full_listener(dir .. '/s')
  local started = asio.now()
  t.failure('ETIMEDOUT', asio.connect('unix:' .. dir .. '/s', { timeout = 0.05 }))
  local took = asio.now() - started
  lu.assertTrue(took >= 0.05 and took < 1 * t.patience, took)
  t.failure('ETIMEDOUT', asio.connect('unix:' .. dir .. '/s', { timeout = 0 }))
  t.failure('ETIMEDOUT', asio.timeout(0.02, asio.connect, 'unix:' .. dir .. '/s'))
  listener:close()
  for _, filler in ipairs(fillers) do filler:close() end
end)

T.test_many_clients_over_a_small_backlog = case(function(dir)
  local n = t.count(2000)
  local server = listen(dir .. '/s', { backlog = 1 })
  local threads = {}
  for i = 1, n do threads[i] = asio.spawn(works, dir .. '/s') end
  for i = 1, n do assert(threads[i]:join()) end
  server:close()
end)

-- Bytes ---------------------------------------------------------------------------------------

T.test_much_both_ways = case(function(dir)
  local n = t.count(64) * 2 ^ 20
  local server = listen(dir .. '/s')
  local conn = assert(asio.connect('unix:' .. dir .. '/s'))
  local chunk = ('0123456789abcdef'):rep(4096)
  local reader = asio.spawn(function()
    local received = 0
    while received < n do
      local data = assert(conn:read(#chunk))
      assert(data == chunk)
      received = received + #data
    end
    return received
  end)
  for _ = 1, n / #chunk do assert(conn:write(chunk)) end
  lu.assertEquals({ reader:join() }, { true, n })
  conn:close()
  server:close()
end)

-- Closing with unread input would make the system tell the peer of a reset instead of the bytes.
T.test_an_orderly_close_with_unread_input = case(function(dir)
  local accepted
  local server = assert(asio.server('unix:' .. dir .. '/s', function(conn) accepted = conn end))
  local conn = assert(asio.connect('unix:' .. dir .. '/s'))
  t.wait_until(function() return accepted end)
  accepted:write(('never read'):rep(1000))
  accepted:flush()
  asio.spawn(function()
    conn:write(('z'):rep(1000000))
    conn:close()
  end)
  local data = assert(accepted:read(1000000))
  lu.assertEquals(#data, 1000000)
  t.failure('EOF', accepted:read(1))
  accepted:close()
  server:close()
end)

T.test_a_peer_that_goes = case(function(dir)
  local listener = rawunix.listen(dir .. '/s')
  local conn = assert(asio.connect('unix:' .. dir .. '/s'))
  local peer = listener:accept(0)
  peer:send('last', 0)
  peer:close()
  lu.assertEquals(conn:read(4), 'last')
  t.failure('EOF', conn:read(1))
  conn:write 'x'
  t.failure_among(t.gone, conn:flush())
  conn:close()
  listener:close()
end)

-- Servers -------------------------------------------------------------------------------------

T.test_without_a_handler = case(function(dir)
  for _, arguments in ipairs { {}, { nil, { backlog = 5 } } } do
    local server = assert(asio.server('unix:' .. dir .. '/s', arguments[1], arguments[2]))
    local client = asio.spawn(function()
      local conn = assert(asio.connect('unix:' .. dir .. '/s'))
      return conn:read(2)
    end)
    local conn = assert(server:accept())
    conn:write 'ok'
    lu.assertEquals({ client:join() }, { true, 'ok' })
    t.failure('ETIMEDOUT', server:accept(0.01))
    server:close()
    t.failure('EBADF', server:accept())
  end
end)

T.test_running_short_of_files = case(function(dir)
  local out = t.child(function(path)
    local lib, sys = require 'asio', require 'raw'
    local sysunix = require 'rawunix'
    lib.run(function()
      local held = {}
      local server = assert(lib.server('unix:' .. path, function(conn)
        held[#held + 1] = conn
        conn:write 'x'
      end))
      local clients = {}
      for i = 1, 40 do clients[i] = assert(sysunix.connect(path)) end
      sys.limit_fds(20)
      lib.sleep(0.05)
      assert(#held > 0 and #held < 40, #held)
      -- Nobody is shed: room makes the rest come.
      for round = 1, 1000 do
        if #held >= 40 then break end
        for i = 1, #held do held[i]:close() end
        for i = 1, #clients do clients[i]:recv(1, 0) end
        for i = 1, #clients do if held[i] then clients[i]:close() end end
        lib.sleep(0.01)
        assert(round < 1000)
      end
      server:close()
    end)
    io.write 'all'
  end, { args = { dir .. '/s' }, seconds = 30 })
  lu.assertEquals(out.out, 'all')
  lu.assertStrContains(out.err, 'server unix:' .. dir .. '/s: too many open files')
end)

-- accept fails a few times: the handle is closed and opened again on a duplicate of the socket. The file
-- stays meanwhile, and goes in the end.
T.test_accept_that_fails = case(function(dir)
  local result = t.child(function(path)
    local lib, sys = require 'asio', require 'rawunix'
    lib.run(function()
      local server = assert(lib.server('unix:' .. path, function(conn)
        conn:write 'served'
        conn:close()
      end))
      local conn = assert(lib.connect('unix:' .. path))
      assert(conn:read(6) == 'served')
      conn:close()
      assert(server:address() == 'unix:' .. path)
      assert(sys.kind(path) == 'socket')
      server:close()
      assert(not sys.kind(path))
    end)
  end, {
    args = { dir .. '/s' },
    wrap = t.strace '-e trace=accept,accept4 -e inject=accept,accept4:error=ENOMEM:when=1..3 -o /dev/null',
    env = t.ignore_leaks,
  })
  lu.assertStrContains(result.err, 'server unix:' .. dir .. '/s: not enough memory; accepting pauses')
end)

-- While it pauses there is no open handle: closing then removes the file too.
T.test_closed_while_accepting_pauses = case(function(dir)
  t.child(function(path)
    local lib, sys = require 'asio', require 'rawunix'
    lib.run(function()
      local server = assert(lib.server('unix:' .. path, print))
      local conn = assert(lib.connect('unix:' .. path))
      lib.sleep(0.1)
      assert(server:address() == 'unix:' .. path)
      server:close()
      assert(not sys.kind(path))
      conn:close()
    end)
  end, {
    args = { dir .. '/s' },
    wrap = t.strace '-e trace=accept,accept4 -e inject=accept,accept4:error=ENOMEM -o /dev/null',
    env = t.ignore_leaks,
  })
end)

-- Credentials ---------------------------------------------------------------------------------

T.test_credentials = case(function(dir)
  local found
  local server = assert(asio.server('unix:' .. dir .. '/s', function(conn)
    found = assert(conn:credentials())
    conn:close()
  end))
  local conn = assert(asio.connect('unix:' .. dir .. '/s'))
  local own = { pid = raw.pid(), uid = rawunix.uid(), gid = rawunix.gid() }
  lu.assertEquals(conn:credentials(), own)
  t.failure('EOF', conn:read(1))
  lu.assertEquals(found, own)
  conn:close()
  t.failure('EBADF', conn:credentials())
  -- Another process: who connected, even when it has gone by now.
  local pid
  server:close()
  server = assert(asio.server('unix:' .. dir .. '/s'))
  pid = tonumber(t.quiet_child(function(path)
    local sys, sysunix = require 'raw', require 'rawunix'
    sysunix.connect(path)
    io.write(sys.pid())
  end, { args = { dir .. '/s' } }))
  local visitor = assert(server:accept())
  lu.assertEquals(visitor:credentials(), { pid = pid, uid = own.uid, gid = own.gid })
  server:close()
end)

T.test_credentials_of_others = case(function()
  local a, b = t.tcp()
  t.failure('ENOTSUP', a:credentials())
  a:close()
  b:close()
  a, b = t.pair()
  lu.assertEquals(a:credentials().pid, raw.pid())
  a:close()
  b:close()
  t.raises('credentials', a.credentials, {})
end)

return T
