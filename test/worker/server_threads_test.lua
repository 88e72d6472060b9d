-- Servers with the option `threads`: how connections are shared out, and that such a server behaves as
-- others do.
--
-- SPDX-License-Identifier: MIT
-- test: 20 s
-- test: needs threaded_servers

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local programs = require 'programs'
local raw = require 'raw'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

local function port_of(server)
  return (select(2, server:address()))
end

-- Connects, and gives all that the handler says.
local function ask(...)
  local conn = assert(asio.connect(...))
  local answer = conn:read_all()
  conn:close()
  return answer
end

-- Says which thread it is.
local function name_thread()
  _G.thread = tostring(asio.current()):match '0x%x+' or tostring(coroutine.running())
end

local function say_thread(conn)
  conn:write(_G.thread)
  conn:close()
end

local function unix_path()
  return can.has 'abstract_names' and 'unix:@' or 'unix:' .. os.tmpname() .. '.s'
end

-- What the threads serve, by thread.
local function count_by_thread(n, ...)
  local by, threads = {}, 0
  for _ = 1, n do
    local thread = ask(...)
    if not by[thread] then threads = threads + 1 end
    by[thread] = (by[thread] or 0) + 1
  end
  return by, threads
end

-- Sharing out -----------------------------------------------------------------------------------

function T.test_all_threads_serve()
  local server = assert(asio.server('127.0.0.1', 0, say_thread, { threads = 3, init = name_thread }))
  local threads = 0
  t.wait_until(function()
    threads = math.max(threads, select(2, count_by_thread(50, server:address())))
    return threads == 3
  end)
  server:close()
end

T.test_balance = t.slow(60, function()
  can.need 'shared_ports'
  local n = 1000
  local server = assert(asio.server('127.0.0.1', 0, say_thread, { threads = 4, init = name_thread }))
  local by, threads = count_by_thread(n, server:address())
  lu.assertEquals(threads, 4)
  for _, served in pairs(by) do lu.assertTrue(served <= 1.5 * n / 4, tostring(served)) end
  local stats = server:stats()
  lu.assertEquals(stats.accepts, n)
  for i = 1, 4 do lu.assertTrue(stats[i].accepts <= 1.5 * n / 4) end
  server:close()
end)

function T.test_unix_sockets_are_shared_out_in_turn()
  local server = assert(asio.server(unix_path(), say_thread, { threads = 3, init = name_thread }))
  local by, threads = count_by_thread(30, server:address())
  lu.assertEquals(threads, 3)
  for _, served in pairs(by) do lu.assertEquals(served, 10) end
  server:close()
end

function T.test_a_descriptor()
  local listener = raw.listen()
  local port = listener:port()
  local server = assert(asio.server(listener.fd, say_thread, { threads = 2, init = name_thread }))
  listener.fd = -1
  lu.assertEquals(port_of(server), port)
  local by = count_by_thread(10, '127.0.0.1', port)
  for _, served in pairs(by) do lu.assertEquals(served, 5) end
  server:close()
end

function T.test_one_thread_and_auto()
  local server = assert(asio.server('127.0.0.1', 0, say_thread, { threads = 1, init = name_thread }))
  lu.assertEquals(#server:stats(), 1)
  lu.assertEquals(select(2, count_by_thread(5, server:address())), 1)
  server:close()
  server = assert(asio.server('127.0.0.1', 0, say_thread, { threads = 'auto', init = name_thread }))
  lu.assertTrue(#server:stats() >= 1)
  server:close()
end

-- Without `threads` a server is what it was.
function T.test_no_threads()
  local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:close() end, { threads = false }))
  lu.assertEquals(type(server), 'userdata')
  server:close()
end

-- Addresses -------------------------------------------------------------------------------------

function T.test_a_busy_port()
  local opts = { threads = 2, init = name_thread }
  local server = assert(asio.server('127.0.0.1', 0, say_thread, opts))
  local port = port_of(server)
  lu.assertEquals({ server:address() }, { '127.0.0.1', port })
  t.failure('EADDRINUSE', asio.server('127.0.0.1', port, say_thread, opts))
  t.failure('EADDRINUSE', asio.server('127.0.0.1', port, say_thread))
  server:close()
  local plain = assert(asio.server('127.0.0.1', 0, say_thread))
  t.failure('EADDRINUSE', asio.server('127.0.0.1', port_of(plain), say_thread, opts))
  plain:close()
  -- Shared by a server that is not of these threads: that is for the script to allow.
  can.need 'shared_ports'
  plain = assert(asio.server('127.0.0.1', 0, say_thread, { reuseport = true }))
  t.failure('EADDRINUSE', asio.server('127.0.0.1', port_of(plain), say_thread, opts))
  server = assert(asio.server('127.0.0.1', port_of(plain), say_thread, { threads = 2, reuseport = true }))
  server:close()
  plain:close()
end

function T.test_two_addresses_on_one_port()
  can.need 'loopback_net'
  local one = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write 'one'
    conn:close()
  end, { threads = 2 }))
  local two = assert(asio.server('127.0.0.2', port_of(one), function(conn)
    conn:write 'two'
    conn:close()
  end, { threads = 2 }))
  for _ = 1, 10 do
    lu.assertEquals(ask('127.0.0.1', port_of(one)), 'one')
    lu.assertEquals(ask('127.0.0.2', port_of(one)), 'two')
  end
  one:close()
  two:close()
end

function T.test_addresses_that_are_not_ours()
  t.failure('EADDRNOTAVAIL', asio.server('192.0.2.1', 0, say_thread, { threads = 2 }))
  t.failure('EINVAL', asio.server('127.0.0.1.5', 0, say_thread, { threads = 2 }))
  t.failure('ENOENT', asio.server('unix:/no/such/directory/s', say_thread, { threads = 2 }))
  t.failure('ENOENT', asio.server('systemd:none', say_thread, { threads = 2 }))
end

function T.test_all_addresses()
  local server = assert(asio.server('*', 0, say_thread, { threads = 2, init = name_thread }))
  lu.assertIsString(ask('127.0.0.1', port_of(server)))
  lu.assertStrContains(tostring(server), '2 threads')
  server:close()
  lu.assertEquals(tostring(server), 'server (closed)')
end

-- Arguments -------------------------------------------------------------------------------------

function T.test_bad_arguments()
  for _, threads in ipairs { 0, -1, 1.5, 0 / 0, math.huge, 'x', {}, true, 1025 } do
    t.raises({ "bad argument #4 to 'server'", 'threads' }, asio.server, '127.0.0.1', 0, say_thread,
      { threads = threads })
    t.raises({ "bad argument #3 to 'server'", 'threads' }, asio.server, 'unix:@', say_thread,
      { threads = threads })
  end
  t.raises({ "bad argument #3 to 'server'", 'handler' }, asio.server, '127.0.0.1', 0, nil, { threads = 2 })
  t.raises({ "bad argument #2 to 'server'", 'handler' }, asio.server, 'unix:@', nil, { threads = 2 })
  t.raises({ "bad argument #4 to 'server'", 'init' }, asio.server, '127.0.0.1', 0, say_thread,
    { threads = 2, init = 1 })
  t.raises({ "'server'", 'handles' }, asio.server, 'unix:@', say_thread, { threads = 2, handles = true })
  t.raises({ "'server'", 'thread_count' }, asio.server, '127.0.0.1', 0, say_thread,
    { threads = 2, thread_count = 1 })
  t.raises({ "'server'", 'backlog' }, asio.server, 'unix:@', say_thread, { threads = 2, backlog = 'x' })
  t.raises({ "'server'" }, asio.server, '127.0.0.1', 70000, say_thread, { threads = 2 })
end

function T.test_what_the_handler_carries()
  local number, text, flag, list = 17, 'text', true, { 1, { 'two' } }
  list.itself = list
  local function add(a, b) return a + b end
  local channel = asio.shared.channel(10)
  local string_module = string
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    channel:send(number)
    conn:write(string_module.format('%d %s %s %d %s %s', number, text, tostring(flag), add(1, 2), list[2][1],
      tostring(list.itself == list)))
    conn:close()
  end, { threads = 2 }))
  lu.assertEquals(ask(server:address()), '17 text true 3 two true')
  lu.assertEquals(channel:recv(), 17)
  server:close()
end

function T.test_what_it_cannot_carry()
  local thread = coroutine.create(function() end)
  local here = asio.channel()
  t.raises({ 'handler', "upvalue 'thread'", 'coroutine' }, asio.server, '127.0.0.1', 0,
    function() return thread end, { threads = 2 })
  t.raises({ 'handler', "upvalue 'here'", 'userdata' }, asio.server, 'unix:@', function() return here end,
    { threads = 2 })
  t.raises({ "option 'init'", "upvalue 'here'" }, asio.server, '127.0.0.1', 0, say_thread,
    { threads = 2, init = function() return here end })
  t.raises({ "option 'on_tls_error'", "upvalue 'here'" }, asio.server, '127.0.0.1', 0, say_thread,
    { threads = 2, on_tls_error = function() return here end })
end

-- Starting --------------------------------------------------------------------------------------

function T.test_init()
  local value = { 'from outside' }
  local server = assert(asio.server('127.0.0.1', 0, say_thread, { threads = 2, init = function()
    asio.sleep(0.01) -- it may wait
    _G.thread = value[1]
  end }))
  for _ = 1, 5 do lu.assertEquals(ask(server:address()), 'from outside') end
  server:close()
end

function T.test_init_is_a_module()
  local path = os.tmpname()
  local file = assert(io.open(path .. '_asio.lua', 'w'))
  file:write 'return function() _G.thread = "by a module" end'
  file:close()
  local dir, name = path:match '^(.*)/([^/]*)$'
  local before = package.path
  package.path = dir .. '/?_asio.lua;' .. before
  local server = assert(asio.server('127.0.0.1', 0, say_thread, { threads = 2, init = name }))
  package.path = before
  lu.assertEquals(ask(server:address()), 'by a module')
  server:close()
  os.remove(path)
  os.remove(path .. '_asio.lua')
end

-- All threads are ended: the case leaves nothing behind, and the port is free.
function T.test_init_raises()
  local port = programs.free_port()
  for _ = 1, 3 do
    local ok, err = pcall(asio.server, '127.0.0.1', port, say_thread, { threads = 3, init = function()
      error({ 'a table' }, 0)
    end })
    lu.assertFalse(ok)
    lu.assertEquals(err, { 'a table' })
  end
  t.raises('no_such_module', asio.server, '127.0.0.1', port, say_thread,
    { threads = 2, init = 'no_such_module' })
  t.raises('oops', asio.server, 'unix:@', say_thread, { threads = 2, init = function() error 'oops' end })
  t.next_turn()
  lu.assertEquals(t.stderr(), '')
end

-- One of them alone.
function T.test_one_init_raises()
  local turns = asio.shared.channel(4)
  for i = 1, 4 do turns:send(i) end
  t.raises('the third', asio.server, '127.0.0.1', 0, say_thread, { threads = 4, init = function()
    if turns:recv() == 3 then error('the third', 0) end
  end })
end

function T.test_cancelled_while_it_starts()
  local never = asio.shared.channel()
  local ok, message, code = asio.timeout(0.05, function()
    return asio.server('127.0.0.1', 0, say_thread, { threads = 2, init = function() never:recv() end })
  end)
  lu.assertNil(ok)
  lu.assertEquals(code, 'ETIMEDOUT', message)
end

function T.test_no_descriptors()
  can.need('descriptors', 'shell')
  local out = t.quiet_child(function()
    local lib = require 'asio'
    lib.run(function()
      local function handler(conn) conn:close() end
      local server, message, code = lib.server('127.0.0.1', 0, handler, { threads = 40 })
      print(server, message, code)
      server = assert(lib.server('127.0.0.1', 0, handler, { threads = 1 }))
      server:close()
    end)
  end, { wrap = 'prlimit --nofile=40:40', env = t.ignore_races })
  lu.assertStrContains(out, 'too many open files\tEMFILE')
end

function T.test_no_threads_are_left()
  -- What is linked with musl starts threads by the call that forks a shell.
  can.need('shared_ports', 'module_file')
  local wrap = t.strace '-qq -e trace=clone3 -e inject=clone3:error=EAGAIN:when=3+ -o /dev/null'
  local out = t.quiet_child(function()
    local lib = require 'asio'
    lib.run(function()
      print(lib.server('127.0.0.1', 0, function(conn) conn:close() end, { threads = 4 }))
    end)
  end, { wrap = wrap, env = t.ignore_leaks })
  lu.assertStrContains(out, '\tEAGAIN')
end

T.test_in_the_main_chunk = t.main(function()
  local server = assert(asio.server('127.0.0.1', 0, say_thread, { threads = 2, init = name_thread }))
  lu.assertIsString(ask(server:address()))
  server:close()
  local opts = { threads = 2, init = function() error 'oops' end }
  t.raises('oops', asio.server, '127.0.0.1', 0, say_thread, opts)
end)

T.test_it_keeps_run_going = t.main(function()
  local started = asio.shared.channel(1)
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    started:send(true)
    conn:read(1)
    conn:write 'served'
    conn:close()
  end, { threads = 2 }))
  local conn = assert(asio.connect(server:address()))
  started:recv()
  asio.after(0.05, function() server:close() end)
  asio.after(0.1, function() conn:write 'x' end)
  local before = asio.now()
  asio.run()
  lu.assertTrue(asio.now() - before >= 0.09, 'a running handler, too')
  lu.assertEquals(conn:read_all(), 'served')
  conn:close()
end)

-- Ending ----------------------------------------------------------------------------------------

-- A server whose handlers wait for a byte, and `n` clients that are being served.
local function serving(n, where, opts)
  local s = { started = asio.shared.channel(100), clients = {} }
  local started = s.started
  opts = opts or {}
  opts.threads = 2
  local function handler(conn)
    started:send(true)
    conn:write(conn:read(1) or '')
    conn:close()
  end
  if where then
    s.server = assert(asio.server(where, handler, opts))
  else
    s.server = assert(asio.server('127.0.0.1', 0, handler, opts))
  end
  s.address, s.port = s.server:address()
  for i = 1, n do s.clients[i] = assert(asio.connect(s.address, s.port)) end
  for _ = 1, n do started:recv() end
  function s.finish(i) s.clients[i]:write 'x' end
  function s.close()
    for _, client in ipairs(s.clients) do client:close() end
  end
  return s
end

local function wait_until_refused(s)
  t.wait_until(function()
    local where = { s.address, s.port }
    local conn, _, code = asio.connect(unpack(where))
    if conn then conn:close() end
    return code == 'ECONNREFUSED' or code == 'ENOENT' or code == 'ECONNRESET'
  end)
end

local function for_both(fn)
  return function()
    fn()
    fn(unix_path())
  end
end

T.test_close = for_both(function(where)
  local s = serving(3, where)
  s.server:close()
  t.failure('EBADF', s.server:address())
  wait_until_refused(s)
  for i = 1, 3 do
    s.finish(i)
    lu.assertEquals(s.clients[i]:read_all(), 'x', 'handlers go on')
  end
  s.server:close()
  lu.assertTrue(s.server:shutdown())
  s.close()
end)

T.test_shutdown = for_both(function(where)
  local s = serving(3, where)
  local down = asio.spawn(s.server.shutdown, s.server)
  wait_until_refused(s)
  for i = 1, 3 do
    lu.assertEquals(down:status(), 'waiting')
    s.finish(i)
    lu.assertEquals(s.clients[i]:read_all(), 'x')
  end
  lu.assertEquals({ down:join() }, { true, true })
  lu.assertTrue(s.server:shutdown(0), 'again')
  s.close()
end)

T.test_shutdown_too_slow = for_both(function(where)
  local s = serving(3, where)
  s.finish(1)
  lu.assertEquals(s.clients[1]:read_all(), 'x')
  t.failure('ETIMEDOUT', s.server:shutdown(0.02))
  for i = 2, 3 do
    local data, _, code = s.clients[i]:read(1)
    lu.assertNil(data)
    if s.port then lu.assertEquals(code, 'ECONNRESET') end
  end
  s.close()
end)

T.test_close_ends_shutdown = for_both(function(where)
  local s = serving(2, where)
  local down = asio.spawn(s.server.shutdown, s.server, 60)
  wait_until_refused(s)
  s.server:close()
  local _, ok, _, code = down:join()
  lu.assertNil(ok)
  lu.assertEquals(code, 'ECANCELED')
  s.finish(1)
  s.finish(2)
  lu.assertEquals(s.clients[2]:read_all(), 'x')
  s.close()
end)

T.test_shutdown_is_cancelled = for_both(function(where)
  local s = serving(1, where)
  t.failure('ETIMEDOUT', asio.timeout(0.02, s.server.shutdown, s.server))
  s.finish(1)
  lu.assertEquals(s.clients[1]:read_all(), 'x')
  s.close()
end)

T.test_collecting_closes = for_both(function(where)
  local s = serving(1, where)
  s.server = nil
  t.collect()
  wait_until_refused(s)
  s.finish(1)
  lu.assertEquals(s.clients[1]:read_all(), 'x', 'handlers go on')
  s.close()
end)

function T.test_other_methods()
  local s = serving(0)
  t.raises('accept', s.server.accept, s.server)
  t.raises('set_tls', s.server.set_tls, s.server, {})
  t.raises("'shutdown'", s.server.shutdown, s.server, -1)
  t.raises("'stats'", s.server.stats, {})
  s.server:close()
end

-- The process ends although the server is open, and threads are busy.
function T.test_the_end_of_the_process()
  local out = t.quiet_child(function()
    local lib = require 'asio'
    local server = assert(lib.server('127.0.0.1', 0, function(conn) conn:read(1) end, { threads = 3 }))
    lib.run(function()
      _G.conn = assert(lib.connect(server:address()))
      print 'connected'
      lib.stop()
    end)
  end)
  lu.assertEquals(out, 'connected\n')
end

function T.test_stop_while_it_starts()
  local out = t.quiet_child(function()
    local lib = require 'asio'
    local began = lib.now()
    lib.after(0.1, lib.stop)
    local server, _, code = lib.server('127.0.0.1', 0, function() end, {
      threads = 1, init = function() require 'asio'.sleep(60) end,
    })
    print(server, code, lib.now() - began < 30)
  end)
  lu.assertEquals(out, 'nil\tECANCELED\ttrue\n')
end

-- Handlers --------------------------------------------------------------------------------------

T.test_stop_in_a_handler = t.main(function()
  local stop = asio.stop
  for _, how in ipairs { function() asio.stop() end, function() stop() end } do
    local server = assert(asio.server('127.0.0.1', 0, function(conn)
      conn:read(1)
      how()
      conn:write 'stopped'
      conn:close()
    end, { threads = 2 }))
    local conn = assert(asio.connect(server:address()))
    asio.spawn(function() conn:write 'x' end) -- the threads serve before there is a run
    asio.run()
    -- The threads go on.
    lu.assertEquals(conn:read_all(), 'stopped')
    conn:close()
    server:close()
  end
end)

T.test_errors_of_handlers = for_both(function(where)
  local function handler(conn)
    conn:write 'half'
    conn:flush()
    conn:read(1)
    error 'a bad handler'
  end
  local opts = { threads = 2 }
  local server = where and assert(asio.server(where, handler, opts)) or
    assert(asio.server('127.0.0.1', 0, handler, opts))
  local reports = {}
  asio.on_error(function(err) reports[#reports + 1] = err end)
  local conn = assert(asio.connect(server:address()))
  lu.assertEquals(conn:read(4), 'half')
  conn:write 'x'
  local _, _, code = conn:read(1)
  lu.assertEquals(code, where and 'EOF' or 'ECONNRESET')
  t.wait_until(function() return reports[1] end)
  asio.on_error(nil)
  lu.assertStrContains(reports[1], 'a bad handler')
  lu.assertStrContains(reports[1], 'stack traceback')
  lu.assertStrContains(reports[1], 'thread ')
  conn:close()
  server:close()
end)

-- Stats -----------------------------------------------------------------------------------------

T.test_stats = for_both(function(where)
  local s = serving(4, where)
  local stats = s.server:stats()
  lu.assertEquals({ #stats, stats.accepts, stats.connections, stats.silent }, { 2, 4, 4, nil })
  lu.assertEquals(stats[1].accepts + stats[2].accepts, 4)
  lu.assertEquals(stats[1].status, 'running')
  lu.assertStrContains(stats[2].name, 'thread 2')
  for i = 1, 4 do
    s.finish(i)
    s.clients[i]:read_all()
  end
  stats = s.server:stats()
  lu.assertEquals({ stats.bytes_in, stats.bytes_out }, { 4, 4 })
  lu.assertTrue(stats.longest_turn > 0) -- of turns that have ended
  s.close()
  lu.assertTrue(s.server:shutdown())
  t.wait_until(function()
    stats = s.server:stats()
    return stats[1].status == 'ended' and stats[2].status == 'ended'
  end)
  lu.assertEquals(s.server:stats().accepts, 0)
end)

function T.test_a_thread_that_is_stuck_is_named()
  local server = assert(asio.server(unix_path(), function(conn)
    conn:write 'x'
    conn:flush()
    local till = asio.now() + 0.4
    while asio.now() < till do end
    conn:close()
  end, { threads = 2 }))
  local conn = assert(asio.connect(server:address()))
  conn:read(1)
  local stats = server:stats(0.1)
  lu.assertEquals(#stats.silent, 1)
  lu.assertStrContains(stats.silent[1], 'thread 1')
  lu.assertEquals({ stats[1].status, stats[2].status }, { 'silent', 'running' })
  conn:read_all()
  conn:close()
  t.wait_until(function() return not server:stats().silent end)
  server:close()
end

-- A limit of connections ------------------------------------------------------------------------

T.test_max_connections = for_both(function(where)
  local s = serving(0, where, { max_connections = 4 })
  for i = 1, 12 do s.clients[i] = assert(asio.connect(s.address, s.port)) end
  -- Shared out by the kernel, a thread may have less than its part.
  local served = 0
  local sure = where and 4 or 1
  while s.started:recv(served < sure and 10 or 0.1) do served = served + 1 end
  lu.assertTrue(served <= 4 and served >= 1, tostring(served))
  if where then lu.assertEquals(served, 4) end
  for i = 1, 12 do s.finish(i) end
  for i = 1, 12 do
    lu.assertEquals(s.clients[i]:read_all(), 'x')
    local stats = s.server:stats()
    lu.assertTrue(stats.connections <= 4)
    s.clients[i]:close()
  end
  s.server:close()
  s.close()
end)

-- They count until they are closed, whatever the handler did.
function T.test_connections_that_outlive_their_handlers()
  local server = assert(asio.server(unix_path(), function(conn)
    conn:write 'x'
    asio.spawn(function()
      conn:read(1)
      conn:close()
    end)
  end, { threads = 2, max_connections = 2 }))
  local clients = {}
  for i = 1, 6 do clients[i] = assert(asio.connect(server:address())) end
  for i = 1, 6 do
    lu.assertEquals(clients[i]:read(1), 'x')
    lu.assertTrue(server:stats().connections <= 2)
    clients[i]:close()
  end
  server:close()
end

-- Of those that are dropped, too.
function T.test_connections_that_are_dropped()
  local server = assert(asio.server(unix_path(), function(conn) conn:write 'x' end,
    { threads = 2, max_connections = 2 }))
  for _ = 1, 4 do
    local conn = assert(asio.connect(server:address()))
    lu.assertEquals(conn:read(1), 'x')
    conn:close()
  end
  server:close()
end

-- Further options -------------------------------------------------------------------------------

T.test_proxy_protocol = for_both(function(where)
  local function handler(conn)
    conn:write((conn:peer()), ' ', conn:read_line())
    conn:close()
  end
  local opts = { threads = 2, proxy_protocol = { from = '127.0.0.1, unix' } }
  local server = where and assert(asio.server(where, handler, opts)) or
    assert(asio.server('127.0.0.1', 0, handler, opts))
  for _ = 1, 4 do
    local conn = assert(asio.connect(server:address()))
    conn:write 'PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\nhello\n'
    lu.assertEquals(conn:read_all(), '203.0.113.7 hello')
    conn:close()
  end
  server:close()
end)

local function tls_case(fn)
  return function()
    can.need 'tls'
    fn(require 'tls_ends')
    fn(require 'tls_ends', unix_path())
  end
end

local function secure_server(ends, where, opts)
  opts.threads, opts.tls = 2, ends.identity 'server'
  local function handler(conn)
    conn:write(conn:tls().version, ' ', conn:read_line())
    conn:close()
  end
  if where then return assert(asio.server(where, handler, opts)) end
  return assert(asio.server('127.0.0.1', 0, handler, opts))
end

-- By a name of its own: a session is not resumed that another name has begun.
local function visit(ends, server, name)
  local address, port = server:address()
  local tls = ends.trust { server_name = name or 'localhost' }
  local conn, message, code
  if port then
    conn, message, code = asio.connect(address, port, { tls = tls })
  else
    conn, message, code = asio.connect(address, { tls = tls })
  end
  if not conn then return nil, message, code end
  conn:write 'hello\n'
  local answer = conn:read_all()
  local info = conn:tls()
  conn:close()
  return answer, info
end

T.test_tls = tls_case(function(ends, where)
  local failed = asio.shared.channel(10)
  local server = secure_server(ends, where, { on_tls_error = function(_, message, code)
    failed:send { message, code }
  end })
  for _ = 1, 6 do lu.assertEquals(visit(ends, server), 'TLSv1.3 hello') end
  local plain = assert(asio.connect(server:address()))
  plain:write 'no greeting of TLS\n'
  lu.assertEquals(failed:recv(5)[2], 'EPROTO')
  plain:close()
  server:close()
end)

T.test_set_tls = tls_case(function(ends, where)
  local server = secure_server(ends, where, {})
  t.raises({ "'set_tls'" }, server.set_tls, server, { no_such = 1 })
  t.failure('ENOENT', server:set_tls { cert = '/no/such/file' })
  lu.assertEquals(visit(ends, server), 'TLSv1.3 hello')
  lu.assertNil((visit(ends, server, 'example.org')))
  lu.assertTrue(server:set_tls(ends.identity('example')))
  for _ = 1, 6 do lu.assertEquals(visit(ends, server, 'example.org'), 'TLSv1.3 hello') end
  lu.assertTrue(server:set_tls(ends.identity('server')))
  for _ = 1, 6 do lu.assertEquals(visit(ends, server), 'TLSv1.3 hello') end
  server:close()
end)

T.test_bad_tls = tls_case(function(_, where)
  local function try(tls)
    if where then return asio.server(where, say_thread, { threads = 2, tls = tls }) end
    return asio.server('127.0.0.1', 0, say_thread, { threads = 2, tls = tls })
  end
  t.failure('EINVAL', try {})
  t.failure('ENOENT', try { cert = '/no/such/file' })
  t.raises({ "'server'", 'tls.no_such' }, try, { no_such = 1 })
end)

return T
