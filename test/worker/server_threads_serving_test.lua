-- Servers with the option `threads` behave as others do: how they end, failing handlers, stats, limits, the
-- PROXY header, TLS.
--
-- SPDX-License-Identifier: MIT
-- test: 10 s
-- test: needs threaded_servers

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

-- A server on a Unix socket, or else on a free port.
local function listen(where, ...)
  if where then return asio.server(where, ...) end
  return asio.server('127.0.0.1', 0, ...)
end

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
  s.server = assert(listen(where, handler, opts))
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
    fn(t.unix_path())
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
  local server = assert(listen(where, handler, opts))
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

-- Nothing that a script does ends the state of one thread: here it breaks what states need, by `debug`.
T.test_a_thread_that_dies = for_both(function(where)
  local function handler(conn)
    local request = conn:read_line()
    for i = 1, request == 'die' and 10 or 0 do
      local name, value = debug.getupvalue(asio.stop, i)
      if name == 'c' then value.finish = function() error('it is broken', 0) end end
      if name == 'asio_stop' then value() end
    end
    conn:write(request, '\n')
    conn:close()
  end
  local opts = { threads = 3 }
  local server = where and assert(asio.server(where, handler, opts)) or
    assert(asio.server('127.0.0.1', 0, handler, opts))
  local reports = {}
  asio.on_error(function(err) reports[#reports + 1] = err end)
  local function ask_for(request)
    local conn = assert(asio.connect(server:address()))
    conn:write(request, '\n')
    local answer = conn:read_line()
    conn:close()
    return answer
  end
  for _ = 1, 6 do lu.assertEquals(ask_for 'well', 'well') end
  ask_for 'die'
  t.wait_until(function() return reports[1] end)
  asio.on_error(nil)
  lu.assertEquals(#reports, 1)
  lu.assertStrContains(reports[1], 'it is broken')
  lu.assertStrContains(reports[1], 'thread ')
  local stats, by = server:stats(), {}
  for i = 1, 3 do by[stats[i].status] = (by[stats[i].status] or 0) + 1 end
  lu.assertEquals(by, { running = 2, ended = 1 })
  for _ = 1, 12 do lu.assertEquals(ask_for 'well', 'well') end
  lu.assertTrue(server:shutdown())
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
  lu.assertEquals({ stats.accepts, stats.connections, stats.bytes_out }, { 4, 0, 4 }, 'as shutdown left them')
end)

-- asio.dump knows them by the address that they have, not by the one that was asked for.
T.test_names = for_both(function(where)
  local s = serving(0, where)
  local stats = s.server:stats()
  asio.dump()
  local text = t.stderr()
  for i = 1, 2 do
    local name = ('server %s%s, thread %d'):format(s.address, s.port and ':' .. s.port or '', i)
    lu.assertEquals(stats[i].name, name)
    lu.assertStrContains(text, name:sub(1, 63) .. ': ')
  end
  s.server:close()
end)

function T.test_a_thread_that_is_stuck_is_named()
  local server = assert(asio.server(t.unix_path(), function(conn)
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
  local server = assert(asio.server(t.unix_path(), function(conn)
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
  local server = assert(asio.server(t.unix_path(), function(conn) conn:write 'x' end,
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
  local server = assert(listen(where, handler, opts))
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
    fn(require 'tls_ends', t.unix_path())
  end
end

local function secure_server(ends, where, opts)
  opts.threads, opts.tls = 2, ends.identity 'server'
  local function handler(conn)
    conn:write(conn:tls().version, ' ', conn:read_line())
    conn:close()
  end
  return assert(listen(where, handler, opts))
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
    return listen(where, function() end, { threads = 2, tls = tls })
  end
  t.failure('EINVAL', try {})
  t.failure('ENOENT', try { cert = '/no/such/file' })
  t.raises({ "'server'", 'tls.no_such' }, try, { no_such = 1 })
end)

return T
