-- Servers with the option `threads`: how connections are shared out, arguments, and how they start. What they
-- do then: server_threads_serving_test.lua.
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
  local server = assert(asio.server(t.unix_path(), say_thread, { threads = 3, init = name_thread }))
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

return T
