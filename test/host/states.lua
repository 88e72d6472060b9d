-- Light threads that wait for everything there is, for mode states and mode threads (states.c,
-- threads.c): the state is closed while they do, or while another state runs.
--
-- SPDX-License-Identifier: MIT

local host = host -- luacheck: ignore 113
local asio = require 'asio'
local full_port = os.getenv 'HOST_FULL_PORT'

-- The system's resolver is held up by system.c, the name server by itself.
local by_name, by_name_briefly = {}, { timeout = 0.001 }
if os.getenv 'ASIO_RESOLVER' == 'ares' then
  by_name.servers = { os.getenv 'HOST_NAME_SERVER' }
  by_name_briefly.servers = by_name.servers
end

local M = {}
local keep = {} -- what a script would hold in variables

local function hold(...)
  for i = 1, select('#', ...) do keep[#keep + 1] = (select(i, ...)) end
  return ...
end

local function pair()
  return hold(assert(asio.socketpair()))
end

local function spawn(...)
  return hold(asio.spawn(...))
end

local function nothing() end

-- As much as the kernel takes without a reader, and a little more.
local function fill(conn)
  repeat conn:write(('x'):rep(20000)) until select(2, conn:pending()) > 0
end

-- What can be waited for ------------------------------------------------------------------------

-- Each starts something that waits, and returns a light thread that has to be waiting when the
-- state is closed (or nil: then it looks after itself).
local waits = {}

function waits.read()
  local a = pair()
  return spawn(a.read, a, 10)
end

function waits.read_with_a_deadline()
  local a = pair()
  a:set_timeout(1000)
  return spawn(a.read_some, a)
end

function waits.read_of_half()
  local a, b = pair()
  b:write 'half'
  return spawn(a.read, a, 10)
end

function waits.write()
  local a = pair()
  return spawn(a.write, a, ('x'):rep(4000000), 'y', { 'z' })
end

function waits.flush()
  local a = pair()
  fill(a)
  return spawn(a.flush, a)
end

function waits.shared_recv()
  local ch = hold(asio.shared.channel())
  return spawn(ch.recv, ch)
end

function waits.shared_recv_with_a_deadline()
  local ch = asio.shared.channel()
  return spawn(ch.recv, ch, 1000)
end

function waits.shared_send()
  local ch = asio.shared.channel(1)
  ch:send { ch }
  return spawn(ch.send, ch, { 'waits', ch })
end

function waits.shared_send_of_a_connection()
  local ch, a = asio.shared.channel(), pair()
  return spawn(ch.send, ch, { ch, a })
end

function waits.shared_select()
  return spawn(asio.select, { asio.shared.channel(), asio.event(), asio.shared.channel() })
end

-- At the other ends of its channels, too, light threads wait.
function waits.worker_join()
  local from, to = hold(asio.shared.channel(), asio.shared.channel())
  local w = asio.worker(function(a, b)
    asio.spawn(a.recv, a)
    asio.spawn(b.send, b, { a, b })
    asio.sleep(1000)
  end, from, to)
  return spawn(w.join, w)
end

function waits.connect()
  return spawn(asio.connect, '127.0.0.1', full_port)
end

function waits.connect_with_a_deadline()
  return spawn(asio.connect, '127.0.0.1', full_port, { timeout = 1000 })
end

function waits.resolve()
  return spawn(asio.connect, 'slow.test', 1, by_name)
end

function waits.resolve_alone()
  if by_name.servers then
    spawn(asio.resolve, 'slow.service', { type = 'SRV', servers = by_name.servers })
    spawn(asio.resolve, 'quick.test', by_name)
  end
  return spawn(asio.resolve, 'slow.test', by_name)
end

-- More than there are helper threads.
function waits.resolve_many()
  for i = 1, 12 do spawn(asio.connect, i % 2 == 0 and 'slow.test' or 'slow' .. i .. '.test', 1, by_name) end
  return spawn(asio.connect, 'slow.test', 1, { timeout = 1000, servers = by_name.servers })
end

function waits.resolve_given_up()
  spawn(asio.connect, 'slow.test', 1, by_name_briefly)
  asio.sleep(0.01)
end

function waits.join()
  local sleeper = spawn(asio.sleep, 1000)
  spawn(sleeper.join, sleeper)
  return spawn(sleeper.join, sleeper, 1000)
end

function waits.join_in_a_ring()
  local ring = {}
  for i = 1, 3 do
    ring[i] = spawn(function()
      asio.yield()
      ring[i % 3 + 1]:join()
    end)
  end
  spawn(asio.sleep, 1000)
  asio.yield()
  asio.yield()
  return ring[1]
end

function waits.sleep()
  for i = 1, 100 do spawn(asio.sleep, 1000 + i) end
  return spawn(asio.sleep, math.huge)
end

function waits.yield() -- ready, not run any more
  spawn(asio.yield)
end

function waits.cancelled_and_ready()
  local thread = spawn(asio.sleep, 1000)
  thread:cancel()
end

function waits.server()
  hold(assert(asio.server('127.0.0.1', 0, nothing)))
end

function waits.server_with_handlers()
  local server = hold(assert(asio.server('127.0.0.1', 0, function(conn)
    conn:read(1)
  end)))
  for _ = 1, 3 do hold(assert(asio.connect(server:address()))) end
  asio.sleep(0.001)
end

function waits.client_not_yet_accepted()
  local server = hold(assert(asio.server('127.0.0.1', 0, nothing)))
  spawn(asio.connect, server:address())
end

function waits.orderly_close()
  local a = pair()
  fill(a)
  a:close()
end

function waits.orderly_close_by_the_collector()
  (function()
    local a, b = asio.socketpair()
    hold(b)
    fill(a)
  end)()
  collectgarbage()
  collectgarbage()
end

function waits.output_not_yet_sent()
  local a, b = pair()
  spawn(function()
    a:write 'one'
    b:write 'another'
    asio.yield()
  end)
end

function waits.unreachable_connections()
  for _ = 1, 10 do asio.socketpair() end
end

function waits.unread_input()
  local a, b = pair()
  fill(a)
  b:read(1)
end

-- A socket that reads, and one that is connected to it.
local function datagrams()
  local a, b = hold(assert(asio.udp('127.0.0.1', 0))), hold(assert(asio.udp('127.0.0.1', 0)))
  a:recv(nil, 0.0001)
  assert(b:connect(a:address()))
  return a, b
end

function waits.datagram()
  local a = datagrams()
  return spawn(a.recv, a, nil, 1000)
end

function waits.datagram_of_a_socket_nobody_holds()
  return spawn(function() return asio.udp():recv() end)
end

function waits.datagrams_kept()
  local _, b = datagrams()
  for i = 1, 100 do b:send(('x'):rep(i)) end
  asio.sleep(0.001)
end

function waits.datagrams_not_yet_sent()
  local _, b = datagrams()
  spawn(function()
    for i = 1, 10 do b:send(tostring(i)) end
    asio.udp():send('x', '127.0.0.1', 9)
    asio.yield()
  end)
end

-- c-ares would ask the system's name servers, whoever they are.
if not by_name.servers then
  function waits.datagram_to_a_name()
    local a = datagrams()
    return spawn(a.send, a, 'x', 'slow.test', 9)
  end
end

function waits.datagram_sockets_unreachable()
  for _ = 1, 10 do
    asio.udp()
    asio.udp('127.0.0.1', 0):recv(nil, 0.0001)
  end
end

function waits.relay()
  local a, b = pair(), pair()
  return spawn(asio.relay, a, b, { timeout = 1000 })
end

-- With bytes in its pipe, and in a queue.
function waits.relay_that_is_stuck()
  local a, far_a = pair()
  local b = pair()
  spawn(asio.relay, a, b)
  fill(far_a)
  asio.sleep(0.001)
  fill(far_a)
end

function waits.relay_of_what_nobody_holds()
  return spawn(function()
    local a, far_a = asio.socketpair()
    far_a:write 'x'
    return asio.relay(a, (asio.socketpair()))
  end)
end

-- A light thread that waits inside of others' calls of spawn.
function waits.nested()
  local function nest(n)
    if n > 0 then return spawn(nest, n - 1):join() end
    asio.sleep(1000)
  end
  return spawn(nest, 150)
end

function waits.in_pcalls_and_metamethods()
  local t = setmetatable({}, { __index = function() return asio.sleep(1000) end })
  return spawn(function() return pcall(pcall, function() return t.x end) end)
end

function waits.finalizers_that_use_the_library()
  local a, b = pair()
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    pcall(a.write, a, 'late')
    pcall(b.close, b)
    pcall(asio.spawn, asio.sleep, 1)
    pcall(asio.sleep, 1)
    pcall(asio.server, '127.0.0.1', 0, nothing)
    pcall(asio.connect, '127.0.0.1', 1)
    pcall(asio.socketpair)
    pcall(asio.udp, '127.0.0.1', 0)
    pcall(asio.run_once, 0)
    pcall(asio.run)
  end
  hold(proxy)
  local thread = spawn(b.read, b, 1)
  return thread
end

local names = {}
for name in pairs(waits) do names[#names + 1] = name end
table.sort(names)

function M.names()
  return names
end

--- Starts one of them and lets the loop turn.
function M.start(name, turns)
  local thread
  local starter = asio.spawn(function() thread = waits[name]() end)
  while starter:status() == 'waiting' or starter:status() == 'ready' do asio.run_once(0.01) end
  local ok, err = starter:join()
  assert(ok, err)
  for _ = 1, turns do asio.run_once(0) end
  assert(not thread or thread:status() == 'waiting', 'it does not wait: ' .. name)
end

--- All at once.
function M.start_all(turns)
  for _, name in ipairs(names) do M.start(name, turns) end
end

-- States that work together ---------------------------------------------------------------------

--- Serves: echoes lines of four bytes. Returns the port.
function M.serve()
  local server = hold(assert(asio.server('127.0.0.1', 0, function(conn)
    while true do
      local message = conn:read(4)
      if not message then break end
      conn:write(message)
    end
    conn:close()
  end)))
  return select(2, server:address())
end

function M.close_server()
  for i, object in pairs(keep) do
    if tostring(object):find '^server' then
      object:close()
      keep[i] = nil
    end
  end
end

M.done, M.ended = 0, 0

-- A client of whichever state listens there.
local function client(port, rounds)
  local conn = assert(asio.connect('localhost', port))
  for i = 1, rounds do
    local message = ('%04d'):format(i)
    assert(conn:write(message))
    if conn:read(4) ~= message then return conn:close() end
  end
  conn:close()
  M.done = M.done + 1
end

function M.clients(port, count, rounds)
  for _ = 1, count do
    asio.spawn(function()
      pcall(client, port, rounds)
      M.ended = M.ended + 1
    end)
  end
end

function M.step()
  return asio.run_once(0.001)
end

--- How many clients have had all their answers, and how many have come to an end.
function M.finished()
  return M.done
end

function M.over()
  return M.ended
end

function M.run_briefly()
  asio.run(function()
    asio.sleep(0.001)
    asio.stop()
  end)
end

--- Runs until `other`, a function of the host, has been called from a light thread.
function M.call_inside(other)
  asio.run(function()
    asio.sleep(0.001)
    other()
    asio.sleep(0.001)
    asio.stop()
  end)
end

--- Its report is due at the end of a turn that never comes.
function M.fail_unheard()
  asio.spawn(error, 'nobody waits for this')
end

function M.require_twice()
  package.loaded.asio = nil
  assert(require 'asio' == asio)
end

function M.fail(how)
  if how == 'error' then return asio.run(error, 'as expected') end
  if how == 'deadlock' then
    local one, other
    one = asio.spawn(function()
      asio.yield()
      other:join()
    end)
    other = asio.spawn(one.join, one)
    return asio.run()
  end
  if how == 'interrupt' then
    asio.run(function()
      asio.spawn(asio.sleep, 1000)
      asio.sleep(0.001)
      host.interrupt()
      asio.sleep(1000)
    end)
  end
  if how == 'handler' then
    asio.run(function()
      local server = asio.server('127.0.0.1', 0, function(conn)
        conn:read(1)
        error 'in the handler' -- resets the connection, which must have been made before
      end)
      local conn = asio.connect(server:address())
      conn:write 'x'
      conn:read(1)
      server:close()
      error 'as expected'
    end)
  end
  error 'no such way to fail'
end

--- Ends the process from inside of a light thread, closing the state.
function M.exit()
  M.start_all(0)
  asio.run(function()
    asio.sleep(0.001)
    os.exit(0, true)
  end)
end

return M
