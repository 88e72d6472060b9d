-- server:shutdown: no new connections, the handlers finish, or are cancelled.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

local function port_of(server)
  return (select(2, server:address()))
end

-- A server whose handlers wait for a byte, and `n` clients that are being served.
local function serving(n, handler)
  local state = { started = 0, ended = 0, cancelled = 0, clients = {} }
  state.server = assert(asio.server('127.0.0.1', 0, function(conn)
    state.started = state.started + 1
    local ok, err = pcall(handler or function() conn:write(conn:read(1) or '') end, conn)
    if not ok and err == asio.cancelled then state.cancelled = state.cancelled + 1 end
    conn:close()
    state.ended = state.ended + 1
    if not ok then error(err, 0) end
  end))
  state.port = port_of(state.server)
  for i = 1, n do state.clients[i] = assert(asio.connect('127.0.0.1', state.port)) end
  t.wait_until(function() return state.started == n end)
  function state.finish(i) state.clients[i]:write 'x' end
  function state.close()
    for _, client in ipairs(state.clients) do client:close() end
  end
  return state
end

local function wait_until_refused(port)
  t.wait_until(function()
    local conn, _, code = asio.connect('127.0.0.1', port)
    if conn then conn:close() end
    return code == 'ECONNREFUSED'
  end)
end

function T.test_nobody_is_being_served()
  local s = serving(0)
  lu.assertTrue(s.server:shutdown())
  t.failure('EBADF', s.server:address())
  wait_until_refused(s.port)
  lu.assertTrue(s.server:shutdown(0), 'again')
  s.server:close()
  lu.assertTrue(s.server:shutdown())
end

function T.test_handlers_finish()
  local s = serving(3)
  local down = asio.spawn(s.server.shutdown, s.server)
  lu.assertEquals(down:status(), 'waiting')
  wait_until_refused(s.port)
  for i = 1, 3 do
    lu.assertEquals(down:status(), 'waiting')
    s.finish(i)
    lu.assertEquals(s.clients[i]:read(1), 'x', 'they are served to the end')
  end
  lu.assertEquals({ down:join() }, { true, true })
  lu.assertEquals({ s.ended, s.cancelled }, { 3, 0 })
  s.close()
end

function T.test_in_time()
  local s = serving(1)
  local down = asio.spawn(s.server.shutdown, s.server, 60)
  s.finish(1)
  lu.assertEquals({ down:join() }, { true, true })
  s.close()
end

function T.test_too_slow()
  local s = serving(3)
  s.finish(1)
  local started = asio.now()
  t.failure('ETIMEDOUT', s.server:shutdown(0.05))
  lu.assertTrue(asio.now() - started >= 0.05)
  lu.assertEquals({ s.ended, s.cancelled }, { 3, 2 }, 'all have ended')
  t.failure('EOF', s.clients[2]:read(1))
  s.close()
end

function T.test_no_time_at_all()
  local s = serving(2)
  t.failure('ETIMEDOUT', s.server:shutdown(0))
  lu.assertEquals({ s.ended, s.cancelled }, { 2, 2 })
  s.close()
end

-- One that cleans up, or takes no notice at first, is waited for.
function T.test_handlers_that_take_their_time()
  local s = serving(2, function(conn)
    pcall(conn.read, conn, 1)
    asio.shield(nil, asio.sleep, 0.03)
  end)
  local started = asio.now()
  t.failure('ETIMEDOUT', s.server:shutdown(0.01))
  lu.assertTrue(asio.now() - started >= 0.04)
  lu.assertEquals(s.ended, 2)
  s.close()
end

function T.test_handlers_that_fail()
  local s = serving(1, function(conn)
    conn:read(1)
    error 'a handler failed'
  end)
  local down = asio.spawn(s.server.shutdown, s.server)
  s.finish(1)
  lu.assertEquals({ down:join() }, { true, true })
  asio.yield()
  lu.assertStrContains(t.stderr(), 'a handler failed')
  s.close()
end

-- The old style: a handler that spawns has ended.
function T.test_what_handlers_spawn_goes_on()
  local spawned
  local s = serving(1, function(conn)
    spawned = asio.spawn(function() asio.sleep(0.02) end)
    conn:write 'x'
  end)
  lu.assertTrue(s.server:shutdown())
  lu.assertEquals(spawned:status(), 'waiting')
  spawned:join()
  s.close()
end

function T.test_what_was_written_still_arrives()
  local s = serving(1, function(conn)
    conn:read(1)
    conn:write(('y'):rep(60000))
  end)
  local down = asio.spawn(s.server.shutdown, s.server)
  s.finish(1)
  lu.assertTrue(down:join())
  lu.assertEquals(#s.clients[1]:read(60000), 60000)
  s.close()
end

-- From inside ---------------------------------------------------------------------------------

function T.test_a_handler_that_shuts_its_server_down()
  local s
  local result
  s = serving(3, function(conn)
    if conn:read(1) == 'q' then result = { s.server:shutdown(0.02) } end
  end)
  s.clients[1]:write 'q'
  t.wait_until(function() return s.ended == 3 end)
  lu.assertEquals(result[3], 'ETIMEDOUT')
  lu.assertEquals(s.cancelled, 2, 'the others')
  s.close()
end

function T.test_the_only_handler_shuts_its_server_down()
  local s
  local result
  s = serving(1, function(conn)
    conn:read(1)
    result = { s.server:shutdown() }
  end)
  s.finish(1)
  t.wait_until(function() return s.ended == 1 end)
  lu.assertEquals(result, { true })
  s.close()
end

-- They do not wait for one another.
function T.test_two_handlers_at_once()
  local s
  local results = {}
  s = serving(3, function(conn)
    if conn:read(1) ~= 'q' then return end
    local result = { s.server:shutdown() }
    results[#results + 1] = result
  end)
  s.clients[1]:write 'q'
  s.clients[2]:write 'q'
  asio.sleep(0.01)
  lu.assertEquals(#results, 0)
  s.finish(3)
  t.wait_until(function() return s.ended == 3 end)
  lu.assertEquals(results, { { true }, { true } })
  s.close()
end

function T.test_two_who_wait()
  local s = serving(1)
  local one = asio.spawn(s.server.shutdown, s.server)
  local two = asio.spawn(s.server.shutdown, s.server, 60)
  s.finish(1)
  lu.assertEquals({ one:join() }, { true, true })
  lu.assertEquals({ two:join() }, { true, true })
  s.close()
end

-- Other ends of the wait ----------------------------------------------------------------------

function T.test_closed_meanwhile()
  local s = serving(1)
  local down = asio.spawn(s.server.shutdown, s.server, 60)
  s.server:close()
  lu.assertEquals(select(4, down:join()), 'ECANCELED')
  lu.assertEquals(s.ended, 0)
  -- Closed first: there is still something to wait for.
  down = asio.spawn(s.server.shutdown, s.server)
  lu.assertEquals(down:status(), 'waiting')
  s.finish(1)
  lu.assertEquals({ down:join() }, { true, true })
  s.close()
end

function T.test_cancelled_meanwhile()
  local s = serving(1)
  local down = asio.spawn(s.server.shutdown, s.server)
  down:cancel()
  lu.assertEquals({ down:join() }, { false, asio.cancelled })
  t.failure('ETIMEDOUT', asio.timeout(0.01, s.server.shutdown, s.server))
  lu.assertEquals(s.ended, 0, 'nobody cancelled it')
  -- While it waits for those that were cancelled.
  local was_cancelled, release = asio.event(), asio.event()
  local stubborn = serving(1, function(conn)
    pcall(conn.read, conn, 1)
    was_cancelled:set()
    asio.shield(nil, release.wait, release)
  end)
  down = asio.spawn(stubborn.server.shutdown, stubborn.server, 0.01)
  was_cancelled:wait()
  down:cancel()
  lu.assertEquals({ down:join() }, { false, asio.cancelled })
  lu.assertEquals(stubborn.ended, 0)
  release:set()
  lu.assertTrue(stubborn.server:shutdown())
  s.finish(1)
  lu.assertTrue(s.server:shutdown())
  s.close()
  stubborn.close()
end

function T.test_cancelled_before()
  local s = serving(1)
  local thread = asio.spawn(function()
    pcall(asio.sleep, 60)
    s.server:shutdown()
  end)
  thread:cancel()
  lu.assertEquals({ thread:join() }, { false, asio.cancelled })
  assert(s.server:address(), 'it goes on')
  s.finish(1)
  lu.assertTrue(s.server:shutdown())
  s.close()
end

function T.test_where_nobody_can_wait()
  local s = serving(1)
  t.raises('cannot wait here', table.sort, { 1, 2, 3 }, function() s.server:shutdown() end)
  assert(s.server:address(), 'it goes on')
  s.finish(1)
  lu.assertTrue(s.server:shutdown())
  -- Nothing to wait for: fine anywhere.
  local again = serving(0)
  table.sort({ 1, 2 }, function(a, b) return again.server:shutdown() and a < b end)
  s.close()
end

function T.test_waiters_in_accept()
  local server = assert(asio.server('127.0.0.1', 0))
  local waiter = asio.spawn(server.accept, server)
  lu.assertTrue(server:shutdown())
  lu.assertEquals(select(4, waiter:join()), 'ECANCELED')
  t.failure('EBADF', server:accept())
end

-- What waits in the backlog is reset by the kernel.
function T.test_connections_that_nobody_has_accepted()
  local server = assert(asio.server('127.0.0.1', 0))
  local peer = raw.connect(port_of(server))
  lu.assertTrue(server:shutdown())
  lu.assertEquals(t.recv(peer), '')
  peer:close()
end

function T.test_collected_while_handlers_run()
  local s = serving(2)
  s.server = nil
  t.collect()
  s.finish(1)
  s.finish(2)
  t.wait_until(function() return s.ended == 2 end)
  s.close()
end

T.test_from_the_main_chunk = t.main(function()
  local s
  asio.run(function() s = serving(2) asio.stop() end)
  s.finish(1)
  t.failure('ETIMEDOUT', s.server:shutdown(0.05))
  lu.assertEquals({ s.ended, s.cancelled }, { 2, 1 })
  s.close()
end)

-- The wait alone does not keep run going: somebody has to be able to end it.
function T.test_a_handler_that_nothing_can_end()
  local out = t.child(function()
    local lib = require 'asio'
    local ok, err = pcall(lib.run, function()
      local event = lib.event()
      local server = lib.server('127.0.0.1', 0, function() event:wait() end)
      local conn = lib.connect(server:address())
      lib.sleep(0.02)
      server:shutdown()
      return conn
    end)
    io.write(tostring(ok), '\n', tostring(err))
  end).out
  lu.assertStrContains(out, 'false')
  lu.assertStrContains(out, 'shutdown')
end

function T.test_the_state_closes_meanwhile()
  t.quiet_child(function()
    local lib = require 'asio'
    _G.server = lib.server('127.0.0.1', 0, function(conn) conn:read(1) end)
    _G.clients = {}
    lib.spawn(function()
      for i = 1, 3 do _G.clients[i] = lib.connect(_G.server:address()) end
      lib.sleep(0.02)
      lib.spawn(_G.server.shutdown, _G.server, 60)
      lib.spawn(_G.server.shutdown, _G.server)
      lib.stop()
    end)
    lib.run()
  end)
  t.child(function()
    local lib = require 'asio'
    local server = lib.server('127.0.0.1', 0, function(conn)
      conn:read(1)
      os.exit(9, true)
    end)
    lib.run(function()
      local conn = lib.connect(server:address())
      lib.sleep(0.02)
      conn:write 'x'
      server:shutdown()
    end)
  end, { code = 9 })
end

function T.test_bad_arguments()
  local server = assert(asio.server('127.0.0.1', 0))
  for _, bad in ipairs { -1, 0 / 0, 'x', {}, true } do
    t.raises("bad argument #1 to 'shutdown'", server.shutdown, server, bad)
  end
  t.bad_argument(1, 'shutdown', function() server:shutdown(-1) end)
  t.raises('shutdown', server.shutdown)
  t.raises('shutdown', server.shutdown, {})
  assert(server:address())
  server:close()
end

-- Many servers, handlers and ends in a row, with garbage in between.
function T.test_again_and_again()
  for i = 1, t.count(400) do
    local s = serving(3)
    local down = asio.spawn(s.server.shutdown, s.server, i % 3 == 0 and 0 or nil)
    if i % 2 == 0 then s.server = nil end
    for n = 1, 3 do s.finish(n) end
    assert(down:join())
    s.close()
  end
end

return T
