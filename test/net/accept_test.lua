-- server:accept: a server without a handler.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local function listen(options)
  local server = assert(asio.server('127.0.0.1', 0, nil, options))
  return server, (select(2, server:address()))
end

-- Once broken -----------------------------------------------------------------------------------

-- Connections that came while nobody accepted are there: asking for what is there has to find them.
function T.test_a_deadline_of_nothing_finds_what_is_there()
  local server, port = listen()
  local peers = {}
  for i = 1, 5 do peers[i] = raw.connect(port) end
  lu.assertNotNil(server:accept(5))
  for i = 1, 2 do
    asio.sleep(0.002)
    lu.assertNotNil(server:accept(0), i)
    asio.sleep(0.002)
    lu.assertNotNil(asio.timeout(0, server.accept, server), i)
  end
  t.failure('ETIMEDOUT', server:accept(0))
  t.failure('ETIMEDOUT', asio.timeout(0, server.accept, server))
  for i = 1, 5 do peers[i]:close() end
  server:close()
end

-- Accepting -------------------------------------------------------------------------------------

function T.test_accept()
  local server, port = listen()
  local accepter = asio.spawn(function() return server:accept() end)
  lu.assertEquals(accepter:status(), 'waiting')
  local conn = assert(asio.connect('127.0.0.1', port))
  local ok, accepted = accepter:join(5)
  lu.assertTrue(ok)
  conn:write 'hello'
  lu.assertEquals(accepted:read(5), 'hello')
  accepted:write 'there'
  lu.assertEquals(conn:read(5), 'there')
  lu.assertEquals({ accepted:peer() }, { conn:address() })
  accepted:close()
  conn:close()
  server:close()
end

function T.test_connections_wait_for_somebody_who_accepts()
  local server, port = listen()
  local peers = {}
  for i = 1, 20 do
    peers[i] = raw.connect(port)
    peers[i]:send(('%02d'):format(i), 1)
  end
  asio.sleep(0.01)
  for i = 1, 20 do
    local conn = assert(server:accept(5))
    local got = conn:read(2)
    lu.assertEquals(got, can.has 'accept_order' and ('%02d'):format(i) or got)
    conn:close()
    if i % 3 == 0 then asio.sleep(0.001) end
  end
  t.failure('ETIMEDOUT', server:accept(0.005))
  server:close()
end

function T.test_first_come_first_served()
  local server, port = listen()
  local order, accepters = {}, {}
  for i = 1, 5 do
    accepters[i] = asio.spawn(function()
      local conn = assert(server:accept())
      order[#order + 1] = i
      conn:close()
    end)
  end
  for i = 1, 5 do
    local peer = raw.connect(port)
    accepters[i]:join(5)
    peer:close()
  end
  lu.assertEquals(order, { 1, 2, 3, 4, 5 })
  server:close()
end

function T.test_one_who_gave_up_takes_no_connection()
  local server, port = listen()
  t.failure('ETIMEDOUT', server:accept(0.002))
  t.failure('ETIMEDOUT', asio.timeout(0.002, server.accept, server))
  local cancelled = asio.spawn(server.accept, server)
  cancelled:cancel()
  cancelled:join()
  local patient = asio.spawn(server.accept, server)
  local peer = raw.connect(port)
  peer:send('x', 1)
  local _, conn = patient:join(5)
  lu.assertEquals(conn:read(1), 'x')
  server:close()
end

function T.test_no_connection_is_lost_between_deadlines()
  local server, port = listen()
  local n, peers, got, round = 60, {}, 0, 0
  local connecter = asio.spawn(function()
    for i = 1, n do
      peers[i] = raw.connect(port)
      peers[i]:send(string.char(i), 1)
      if i % 4 == 0 then asio.sleep(0.0005) end
    end
  end)
  while got < n do
    round = round + 1
    local conn = asio.timeout(round % 4 * 0.0001, server.accept, server)
    if conn then
      got = got + 1
      local byte = conn:read(1)
      lu.assertEquals(byte, can.has 'accept_order' and string.char(got) or byte)
      conn:close()
    end
  end
  connecter:join()
  server:close()
end

function T.test_the_one_it_wakes_closes_the_server()
  can.need 'resets'
  local server, port = listen()
  local accepter = asio.spawn(function()
    local conn = assert(server:accept())
    server:close()
    server = nil
    t.collect()
    return (conn:read(1))
  end)
  local first, second = raw.connect(port), raw.connect(port)
  first:send('x', 1)
  lu.assertEquals({ accepter:join(5) }, { true, 'x' })
  lu.assertFalse(t.wait_until(function()
    local data = second:recv(1, 0)
    return data ~= nil and { data }
  end)[1], 'a connection nobody took is reset')
end

-- Closing ---------------------------------------------------------------------------------------

function T.test_closed_while_they_wait_and_before()
  local server = listen()
  local accepters = {}
  for i = 1, 3 do accepters[i] = asio.spawn(server.accept, server, i == 2 and 60 or nil) end
  server:close()
  for i = 1, 3 do t.failure('ECANCELED', select(2, accepters[i]:join(5))) end
  t.failure('EBADF', server:accept())
  t.failure('EBADF', server:accept(0))
end

function T.test_a_server_somebody_accepts_from_is_not_collected()
  local port
  local accepter = asio.spawn(function()
    local server
    server, port = listen()
    return server:accept() ~= nil
  end)
  t.collect()
  local peer = raw.connect(port)
  lu.assertEquals({ accepter:join(5) }, { true, true })
  peer:close()
end

function T.test_a_server_nobody_holds_is_collected()
  local port = select(2, listen())
  t.collect()
  asio.yield()
  lu.assertFalse((pcall(raw.connect, port)))
end

function T.test_one_with_a_handler_refuses()
  local server = assert(asio.server('127.0.0.1', 0, function() end))
  t.raises('handler', server.accept, server)
  t.raises('handler', server.accept, server, 0)
  server:close()
end

function T.test_bad_arguments()
  local server = listen()
  for _, wrong in ipairs { -1, 0 / 0, 'soon', {} } do
    t.bad_argument(1, 'accept', function() server:accept(wrong) end)
  end
  t.raises('not a server', server.accept, {})
  for _, wrong in ipairs { 17, 'x', {}, true } do
    t.bad_argument(3, 'server', function() asio.server('127.0.0.1', 0, wrong) end)
  end
  server:close()
end

function T.test_where_nothing_can_wait()
  local server = listen()
  t.raises('cannot wait here', table.sort, { 2, 1 }, function() server:accept() end)
  local ok, err = coroutine.resume(coroutine.create(function() server:accept() end))
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'asio.coroutine.install()')
  server:close()
end

T.test_in_the_main_chunk = t.main(function()
  local server, port = listen()
  local peer = raw.connect(port)
  peer:send('x', 1)
  local conn = assert(server:accept())
  lu.assertEquals(conn:read(1), 'x')
  t.failure('ETIMEDOUT', server:accept(0.001))
  t.failure('ETIMEDOUT', server:accept(0))
  conn:close()
  asio.after(0.001, asio.stop)
  t.failure('ECANCELED', server:accept())
  server:close()
  t.failure('EBADF', server:accept())
end)

-- A burst ---------------------------------------------------------------------------------------

function T.test_more_than_a_turn_takes()
  local server, port = listen { backlog = 400 }
  local n, peers = 300, {}
  for i = 1, n do peers[i] = raw.connect(port) end
  local accepted = {}
  asio.group(function(g)
    for _ = 1, n do
      g:spawn(function()
        local conn = assert(server:accept(10))
        accepted[#accepted + 1] = conn
      end)
    end
  end)
  lu.assertEquals(#accepted, n)
  for i = 1, n do
    accepted[i]:close()
    peers[i]:close()
  end
  server:close()
end

function T.test_a_server_as_a_loop()
  local server, port = listen()
  local served = 0
  local loop = asio.spawn(function()
    while true do
      local conn, _, code = server:accept()
      if not conn then return code end
      asio.spawn(function()
        conn:write((conn:read(4)))
        conn:close()
        served = served + 1
      end)
    end
  end)
  asio.group(function(g)
    for _ = 1, 100 do
      g:spawn(function()
        local conn = assert(asio.connect('127.0.0.1', port))
        conn:write 'ping'
        lu.assertEquals(conn:read(4), 'ping')
        conn:close()
      end)
    end
  end)
  server:close()
  lu.assertEquals({ loop:join() }, { true, 'ECANCELED' })
  lu.assertEquals(served, 100)
end

function T.test_the_state_closes_while_somebody_accepts()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local server = assert(asio.server('127.0.0.1', 0))
    local _, port = server:address()
    package.loaded.held = { raw.connect(port), raw.connect(port), raw.connect(port), server }
    asio.spawn(server.accept, server)
    asio.run_once(0)
    for i = 1, 3 do asio.spawn(server.accept, server, i == 2 and 60 or nil) end
  end)
end

return T
