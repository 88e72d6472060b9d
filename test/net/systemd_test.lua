-- Servers over sockets that somebody else has opened: descriptors, systemd's socket activation.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'
local rawunix = require 'rawunix'

local T = {}


local function hello(conn)
  conn:write 'hello'
  conn:close()
end

-- The descriptor is the server's by now.
local function give_up(socket)
  local fd = socket.fd
  socket.fd = -1
  return fd
end

local function ask(...)
  local conn = assert(asio.connect(...))
  local answer = conn:read(5)
  conn:close()
  return answer
end

local function refused(...)
  local arguments = { ... }
  t.wait_until(function()
    local conn, _, code = asio.connect(unpack(arguments))
    if conn then conn:close() end
    return code == 'ECONNREFUSED'
  end)
end

-- Descriptors ---------------------------------------------------------------------------------

function T.test_a_descriptor()
  can.need 'descriptors'
  local listener = raw.listen()
  local port, before = listener:port(), raw.count_fds()
  local server = assert(asio.server(give_up(listener), hello))
  lu.assertEquals({ server:address() }, { '127.0.0.1', port })
  lu.assertStrContains(tostring(server), tostring(port))
  lu.assertEquals(ask('127.0.0.1', port), 'hello')
  server:close()
  refused('127.0.0.1', port)
  t.wait_until(function() return raw.count_fds() < before end, 'the descriptors')
end

function T.test_a_descriptor_of_a_unix_socket()
  can.need('fork', 'numbers')
  local dir, remove = rawunix.directory()
  local path = dir .. '/s'
  local server = assert(asio.server(give_up(rawunix.listen(path)), hello))
  lu.assertEquals({ server:address() }, { 'unix:' .. path })
  lu.assertEquals(ask('unix:' .. path), 'hello')
  server:close()
  refused('unix:' .. path)
  lu.assertEquals(rawunix.kind(path), 'socket', 'it is not ours to remove')
  remove()
end

function T.test_a_descriptor_with_options_and_without_a_handler()
  can.need 'descriptors'
  local listener = raw.listen()
  local port = listener:port()
  local server = assert(asio.server(give_up(listener), nil, { max_connections = 5, linger = 1 }))
  local client = asio.spawn(ask, '127.0.0.1', port)
  hello(assert(server:accept()))
  lu.assertEquals({ client:join() }, { true, 'hello' })
  lu.assertTrue(server:shutdown())
end

function T.test_clients_that_were_there_before()
  can.need 'descriptors'
  local listener = raw.listen()
  local peer = raw.connect(listener:port())
  local server = assert(asio.server(give_up(listener), hello))
  lu.assertEquals(t.recv(peer, 5), 'hello')
  peer:close()
  server:close()
end

-- It stays whoever's it is.
function T.test_descriptors_that_do_not_serve()
  can.need 'descriptors'
  local datagrams, listener = raw.udp(), raw.listen()
  local connected = raw.connect(listener:port())
  local file = raw.file(os.tmpname())
  for _, row in ipairs {
    { 3999, 'EBADF', 'no open descriptor' }, { file, 'ENOTSOCK', 'not a socket' },
    { datagrams.fd, 'EPROTOTYPE', 'not a stream socket' }, { connected.fd, 'EINVAL', 'invalid' },
  } do
    local server, message, code = asio.server(row[1], hello)
    lu.assertNil(server)
    lu.assertEquals(code, row[2])
    lu.assertStrContains(message, row[3])
    lu.assertEquals(raw.is_open(row[1]), row[1] ~= 3999)
  end
  connected:send('x', 0)
  lu.assertEquals(listener:accept(1):recv(1, 1), 'x')
  raw.close(file)
  datagrams:close()
  connected:close()
  listener:close()
end

function T.test_bad_arguments()
  for _, bad in ipairs { -1, 1.5, 0 / 0, 2 ^ 31, math.huge } do
    t.raises("bad argument #1 to 'server'", asio.server, bad, hello)
  end
  t.bad_argument(2, 'server', function() asio.server(5, 'x') end)
  t.bad_argument(3, 'server', function() asio.server(5, hello, 'x') end)
  t.bad_argument(2, 'server', function() asio.server('systemd:x', 'x') end)
  t.bad_argument(3, 'server', function() asio.server('systemd:x', hello, { x = 1 }) end)
  t.raises("bad argument #3 to 'server'", asio.server, 5, hello, { x = 1 })
end

-- systemd's variables -------------------------------------------------------------------------

-- Runs fn in a process that was started with these listeners (two at most) as descriptors from 3 on.
local function run_activated(listeners, variables, fn, args)
  local second = listeners[2] or listeners[1]
  return rawunix.lend(listeners[1].fd, 8, rawunix.lend, second.fd, 9, function()
    return t.quiet_child(fn, {
      args = args,
      wrap = ('sh -c %s sh'):format(t.quote('exec 3<&8 8<&-; exec ' .. (listeners[2] and '4<&9 ' or '')
        .. '9<&-; export LISTEN_PID=$$ ' .. variables .. '; exec "$@"')),
    })
  end)
end

local function linux(fn)
  return function()
    can.need('fork', 'numbers')
    fn()
  end
end

local ask_itself = function(...)
  local lib = require 'asio'
  for _, name in ipairs { ... } do
    local server, message, code = lib.server('systemd:' .. name, function(conn)
      conn:write(name == '' and 'any' or name)
      conn:close()
    end)
    if server then
      lib.run(function()
        local conn = assert(lib.connect(server:address()))
        print((conn:read_some()))
        conn:close()
        server:close()
      end)
    else
      print(message, code)
    end
  end
end

local function with_listeners(n, fn)
  return linux(function()
    local listeners = {}
    for i = 1, n do listeners[i] = raw.listen() end
    fn(listeners)
    for _, listener in ipairs(listeners) do listener:close() end
  end)
end

T.test_by_name = with_listeners(2, function(listeners)
  local out = run_activated(listeners, 'LISTEN_FDS=2 LISTEN_FDNAMES=web:admin', ask_itself,
    { 'web', 'admin', 'web', '', 'other', 'we', 'webb', 'web:admin', ':' })
  lu.assertEquals(out, 'web\nadmin\nweb\nany\n'
    .. ('no socket of this name was passed (LISTEN_FDNAMES)\tENOENT\n'):rep(5))
end)

T.test_without_names = with_listeners(1, function(listeners)
  local out = run_activated(listeners, 'LISTEN_FDS=1', ask_itself, { '', 'unknown', 'web' })
  lu.assertEquals(out, 'any\nunknown\nno socket of this name was passed (LISTEN_FDNAMES)\tENOENT\n')
end)

-- One state accepts, and hands the connections to the threads in turn.
T.test_a_server_with_threads = with_listeners(2, function(listeners)
  can.need 'threaded_servers'
  local out = run_activated(listeners, 'LISTEN_FDS=2 LISTEN_FDNAMES=web:admin', function(port)
    local lib = require 'asio'
    local served = lib.shared.dict()
    local opts = { threads = 2, init = function() _G.number = served:incr('threads', 1, 0) end }
    local server = assert(lib.server('systemd:admin', function(conn)
      conn:write(served:incr(_G.number, 1, 0))
      conn:close()
    end, opts))
    local address, its_port = server:address()
    assert(address == '127.0.0.1' and its_port == tonumber(port), its_port)
    lib.run(function()
      for _ = 1, 10 do
        local conn = assert(lib.connect(address, its_port))
        assert(conn:read_all())
        conn:close()
      end
      print(served:get(1), served:get(2), server:stats().accepts)
      assert(server:shutdown())
      print(select(3, lib.server('systemd:no', print, opts)))
      assert(lib.server('systemd:web', function() end, opts)):close()
    end)
  end, { tostring(listeners[2]:port()) })
  lu.assertEquals(out, '5\t5\t10\nENOENT\n')
end)

T.test_fewer_names_than_sockets = with_listeners(2, function(listeners)
  local out = run_activated(listeners, 'LISTEN_FDS=2 LISTEN_FDNAMES=web', ask_itself, { 'web', '' })
  lu.assertEquals(out, 'web\nany\n')
end)

T.test_variables_that_are_not_for_this_process = with_listeners(1, function(listeners)
  local nothing = 'this process was not started with sockets (LISTEN_PID, LISTEN_FDS)\tENOENT\n'
  for _, variables in ipairs {
    'LISTEN_FDS=1; LISTEN_PID=1', 'LISTEN_FDS=0', 'LISTEN_FDS=-1', 'LISTEN_FDS=x', 'LISTEN_FDS=1x',
    'LISTEN_FDS=', 'LISTEN_FDS=99999999999999999999', 'LISTEN_FDS=5000', 'LISTEN_FDS=1; unset LISTEN_PID',
    'X=1',
  } do
    lu.assertEquals(run_activated(listeners, variables, ask_itself, { '' }), nothing, variables)
  end
  -- More than there are.
  local out = run_activated(listeners, 'LISTEN_FDS=3 LISTEN_FDNAMES=a:b:c', ask_itself, { 'a', 'c' })
  lu.assertStrContains(out, 'a\nth')
  lu.assertStrContains(out, 'descriptor')
end)

T.test_what_is_passed_is_not_inherited = with_listeners(1, function(listeners)
  local out = run_activated(listeners, 'LISTEN_FDS=1', function()
    local server = assert(require('asio').server('systemd:', print))
    io.write(io.popen('ls -l /proc/self/fd'):read('*a'):find('socket', 1, true) and 'inherited' or 'kept')
    server:close()
  end)
  lu.assertEquals(out, 'kept')
end)

-- Started by hand as systemd does it, and asked from outside.
T.test_asked_from_outside = with_listeners(1, function(listeners)
  local script = os.tmpname()
  local file = assert(io.open(script, 'w'))
  file:write [[
    local asio = require 'asio'
    local server
    server = assert(asio.server('systemd:', function(conn)
      conn:write(conn:read(4), '!')
      conn:close()
      server:close()
    end))
    asio.run()
  ]]
  file:close()
  local child = rawunix.lend(listeners[1].fd, 9, io.popen, ([[ASIO_BUILD='%s' timeout 20 sh -c '
    exec 3<&9 9<&-
    LISTEN_PID=$$ LISTEN_FDS=1 exec %s %s' 2>&1]]):format(os.getenv 'ASIO_BUILD' or '', t.launcher, script))
  local conn = assert(asio.connect('127.0.0.1', listeners[1]:port()))
  conn:write 'ping'
  lu.assertEquals(conn:read(5), 'ping!')
  conn:close()
  lu.assertEquals(child:read '*a', '')
  child:close()
  os.remove(script)
end)

T.test_systemd_socket_activate = linux(function()
  t.need 'systemd-socket-activate'
  local dir, remove = rawunix.directory()
  local script = assert(io.open(dir .. '/server.lua', 'w'))
  script:write [[
    local asio = require 'asio'
    local one = assert(asio.server('systemd:one', function(conn) conn:write 'one' conn:close() end))
    local two
    two = assert(asio.server('systemd:two', function(conn)
      conn:write 'two'
      conn:close()
      one:close()
      two:close()
    end))
    print(one:address(), two:address())
    asio.run()
  ]]
  script:close()
  local child = io.popen(([[ASIO_BUILD='%s' timeout 20 systemd-socket-activate -l %s/1 -l %s/2 \
    --fdname=one:two -E ASIO_BUILD -E PATH %s %s/server.lua 2>%s/err]]):format(
    os.getenv 'ASIO_BUILD' or '', dir, dir, t.launcher, dir, dir))
  for i, expected in ipairs { 'one', 'two' } do
    local conn
    t.wait_until(function()
      conn = asio.connect('unix:' .. dir .. '/' .. i)
      return conn
    end, 'systemd-socket-activate to listen')
    lu.assertEquals(conn:read(3), expected, t.quote(expected))
    conn:close()
  end
  lu.assertEquals(child:read '*a', ('unix:%s/1\tunix:%s/2\n'):format(dir, dir))
  child:close()
  remove()
end)

return T
