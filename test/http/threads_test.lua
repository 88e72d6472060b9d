-- http.server with the option `threads`: what is asked of the server is asked of all threads.
-- test: needs http
-- test: needs threaded_servers
-- test: over TLS
-- test: 10 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
local over_tls = require 'over_tls'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

-- A server on a Unix socket, or else on a free port.
local function start(where, handler, opts)
  local all = { threads = 2, idle_timeout = 60 }
  if over_tls.on then
    all.tls, all.on_tls_error = over_tls.server_options(), function() end
    all.tls.server = nil
  end
  for name, value in pairs(opts or {}) do all[name] = value end
  if where then return assert(http.server(where, handler, all)) end
  return assert(http.server('127.0.0.1', 0, handler, all))
end

local function connect(server)
  local conn = assert(over_tls.connect(server:address()))
  conn:set_timeout(10 * t.patience)
  return conn
end

local function ask(conn, path)
  conn:write('GET ', path or '/', ' HTTP/1.1\r\nHost: x\r\n\r\n')
end

-- The head of an answer without a body.
local function answer(conn)
  return assert(conn:read_until '\r\n\r\n')
end

-- The threads listen for themselves, or get connections from the state that accepts.
local function for_both(fn)
  return function()
    fn()
    fn(t.unix_path())
  end
end

local function many(n, fn)
  local list = {}
  for i = 1, n do list[i] = fn(i) end
  return list
end

T.test_idle_connections_end_at_once = for_both(function(where)
  local server = start(where, function(_, res) res:send() end)
  local fresh = connect(server)
  local clients = many(8, function() return connect(server) end)
  for _, conn in ipairs(clients) do
    ask(conn)
    lu.assertNotStrContains(answer(conn), 'Connection: close')
  end
  t.wait_until(function() return server:metrics().active == 9 end)
  local began = asio.now()
  lu.assertTrue(server:shutdown())
  lu.assertTrue(asio.now() - began < 5 * t.patience)
  clients[9] = fresh
  for _, conn in ipairs(clients) do
    lu.assertEquals(conn:read_all(), '')
    conn:close()
  end
end)

T.test_running_requests_are_answered = for_both(function(where)
  local started, go = asio.shared.channel(), asio.shared.channel()
  local server = start(where, function(_, res)
    started:send(true)
    go:recv()
    res:send()
  end)
  local clients = many(6, function() return connect(server) end)
  for _, conn in ipairs(clients) do ask(conn) end
  for _ = 1, 6 do started:recv() end
  local idle = connect(server)
  t.wait_until(function() return server:metrics().active == 7 end)
  local stopping = asio.spawn(server.shutdown, server)
  lu.assertEquals(idle:read_all(), '') -- so all threads shut down: they are told in their order
  idle:close()
  local order = asio.spawn(function()
    t.wait_until(function() return server:metrics(0.1).active == 6 end)
    for _ = 1, 6 do go:send(true) end
  end)
  for _, conn in ipairs(clients) do
    lu.assertStrContains(answer(conn), '\r\nConnection: close')
    lu.assertEquals(conn:read_all(), '')
    conn:close()
  end
  order:join()
  lu.assertEquals({ stopping:join() }, { true, true })
end)

T.test_a_time_out_cancels_handlers = for_both(function(where)
  local started = asio.shared.channel()
  local server = start(where, function()
    started:send(true)
    asio.sleep(60)
  end)
  local conn, idle = connect(server), connect(server)
  ask(conn)
  started:recv()
  lu.assertEquals(select(3, server:shutdown(0.05)), 'ETIMEDOUT')
  for _, client in ipairs { conn, idle } do
    client:read_all()
    client:close()
  end
end)

-- Behind shutdown they are those of its end.
T.test_metrics = for_both(function(where)
  local server = start(where, function(req, res)
    if req.path == '/raises' then return req:no_such_method() end
    res:send(req.path == '/none' and 404 or 200)
  end)
  asio.on_error(function() end)
  local clients = many(6, function() return connect(server) end)
  for _, conn in ipairs(clients) do
    ask(conn)
    answer(conn)
    ask(conn, '/none')
    answer(conn)
  end
  ask(clients[1], '/raises')
  lu.assertStrContains(answer(clients[1]), ' 500 ')
  clients[2]:write 'GET\r\n\r\n'
  lu.assertStrContains(answer(clients[2]), ' 400 ')
  clients[2]:read_all()
  t.wait_until(function() return server:metrics().active == 5 end)
  local function check(active, status)
    local m = server:metrics()
    lu.assertEquals({ m.requests, m.connections, m.active, m.failed, m.refused, m.silent },
      { 13, 6, active, 1, 1 })
    lu.assertEquals(m.responses, { [200] = 6, [404] = 6, [500] = 1, [400] = 1 })
    lu.assertEquals({ #m, m[1].status, m[2].status }, { 2, status, status })
    lu.assertEquals(m[1].requests + m[2].requests, 13)
    lu.assertStrContains(m[2].name, 'thread 2')
    if where then lu.assertEquals({ m[1].connections, m[2].connections }, { 3, 3 }) end
    return m
  end
  check(5, 'running')
  lu.assertTrue(server:shutdown())
  for _, conn in ipairs(clients) do conn:close() end -- a state lasts until its clients have closed
  t.wait_until(function()
    local m = server:metrics()
    return m[1].status == 'ended' and m[2].status == 'ended'
  end)
  check(0, 'ended')
  lu.assertTrue(server:shutdown())
  check(0, 'ended')
  asio.on_error(nil)
end)

function T.test_a_thread_that_does_not_answer()
  local server = start(t.unix_path(), function(_, res)
    local till = asio.now() + 0.4
    while asio.now() < till do end
    res:send()
  end)
  local conn = connect(server)
  ask(conn)
  conn:flush()
  t.wait_until(function() return server:metrics(0.05).silent end)
  local m = server:metrics(0.05)
  if m.silent then -- else it has been quick
    lu.assertEquals({ #m, m[1].status, m[1].requests, m.requests }, { 2, 'silent', nil, 0 })
  end
  answer(conn)
  conn:close()
  server:shutdown()
end

function T.test_what_cannot_go_to_a_thread_is_named()
  local thread = asio.spawn(function() end)
  t.raises("option 'on_request_end'", http.server, '127.0.0.1', 0, function() end,
    { threads = 2, on_request_end = function() return thread end })
  t.raises('handler: upvalue', http.server, '127.0.0.1', 0, function() return thread end, { threads = 2 })
end

return T
