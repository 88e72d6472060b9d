-- Writing on and on to a peer that has gone, in every place from which output is sent; and loops
-- that a Ctrl-C ends. For mode signals (signals.c).
--
-- SPDX-License-Identifier: MIT

local host = host -- luacheck: ignore 113
local asio = require 'asio'

local M = {}

-- Connections and how their peers go ------------------------------------------------------------

local accepted
local server = assert(asio.server('127.0.0.1', 0, function(conn) accepted = conn end))
local _, server_port = server:address()

local function tcp()
  local fd = host.connect(server_port)
  accepted = nil
  while not accepted do asio.sleep(0.001) end
  return accepted, fd
end

-- Each returns a connection and a function that makes its peer go.
local peers = {}

function peers.reset()
  local conn, fd = tcp()
  return conn, function() host.reset(fd) end
end

function peers.closed()
  local conn, fd = tcp()
  return conn, function() host.close(fd) end
end

-- Half-closed before, as most are: then the reset shows as a broken pipe.
function peers.reset_after_half_close()
  local conn, fd = tcp()
  host.half_close(fd)
  return conn, function() host.reset(fd) end
end

function peers.socketpair()
  local a, b = assert(asio.socketpair())
  return a, function() host.half_close(b:fd(), true) end, b
end

-- Where output is sent --------------------------------------------------------------------------

local function write_on(conn)
  local failed
  for _, size in ipairs { 10, 1000, 20000, 2 ^ 20 } do
    for _ = 1, 10 do
      local ok, _, code = conn:write(('x'):rep(size))
      if ok then ok, _, code = conn:flush() end
      assert(ok or code == 'EPIPE' or code == 'ECONNRESET', code)
      failed = failed or not ok
    end
  end
  assert(failed, 'nobody noticed')
end

-- More than the kernel takes, so that something is left in the queue.
local function fill(conn)
  repeat conn:write(('x'):rep(20000)) until select(2, conn:pending()) > 0
end

local places = {}

function places.in_run(conn, go)
  asio.run(function()
    go()
    write_on(conn)
    asio.stop()
  end)
end

function places.main_chunk(conn, go)
  go()
  write_on(conn)
end

-- What is queued goes out when the light thread parks, with no loop below.
function places.spawned_outside_run(conn, go)
  go()
  for _ = 1, 10 do
    asio.spawn(function()
      conn:write 'small'
      asio.yield()
    end)
  end
end

function places.blocked_output(conn, go)
  fill(conn)
  go()
  for _ = 1, 10 do asio.run_once(0.001) end
  conn:write 'more'
  asio.run_once(0)
end

function places.closed_with_output(conn, go)
  fill(conn)
  go()
  conn:close()
  for _ = 1, 10 do asio.run_once(0.001) end
end

function places.collected_with_output(conn, go)
  fill(conn)
  go()
  accepted, conn = nil, nil -- luacheck: ignore 311
  collectgarbage()
  collectgarbage()
end

function places.state_closed_with_output(conn, go)
  fill(conn)
  go()
end

-- The peer goes between two system calls: after a send that took nothing, before the next.
local function going(conn, go, act)
  host.at_next_send(go)
  act(conn)
  host.at_next_send(nil)
end

function places.going_in_the_main_chunk(conn, go)
  going(conn, go, function() conn:write 'small' end)
  conn:write 'more'
end

function places.going_during_a_large_write(conn, go)
  going(conn, go, function() conn:write(('x'):rep(20000)) end)
  conn:write 'more'
end

function places.going_in_run(conn, go)
  asio.run(function()
    going(conn, go, function()
      conn:write 'small'
      conn:flush()
    end)
    asio.stop()
  end)
end

function places.going_while_spawned_outside_run(conn, go)
  going(conn, go, function()
    asio.spawn(function()
      conn:write 'small'
      asio.yield()
    end)
  end)
end

function places.going_while_it_closes(conn, go)
  asio.spawn(function()
    conn:write 'small'
    going(conn, go, function() conn:close() end)
  end)
end

function places.going_while_collected(conn, go)
  asio.spawn(function()
    conn:write 'small'
    accepted, conn = nil, nil -- luacheck: ignore 311
    host.at_next_send(go)
  end)
  collectgarbage()
  host.at_next_send(nil)
end

local function sorted(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- All pairs, as "place with peer".
function M.names()
  local names = {}
  for _, place in ipairs(sorted(places)) do
    for _, peer in ipairs(sorted(peers)) do names[#names + 1] = place .. ' with ' .. peer end
  end
  return names
end

function M.sigpipe(name)
  local place, peer = name:match '^(%S+) with (%S+)$'
  -- The last result is only held: a peer in this process that must not be collected yet.
  local conn, go, hold = peers[peer]()
  places[place](conn, go)
  M.held = hold
end

-- Ctrl-C ----------------------------------------------------------------------------------------

M.interrupted = {}

function M.interrupted.run()
  asio.run(function()
    asio.sleep(0.001)
    host.interrupt()
    asio.sleep(1000)
  end)
end

function M.interrupted.run_without_a_function()
  asio.spawn(function()
    asio.sleep(0.001)
    host.interrupt()
  end)
  asio.run()
end

function M.interrupted.run_once()
  asio.spawn(function()
    asio.sleep(0.001)
    host.interrupt()
  end)
  for _ = 1, 100 do asio.run_once(1) end
end

function M.interrupted.main_chunk()
  asio.spawn(function()
    asio.sleep(0.001)
    host.interrupt()
  end)
  asio.sleep(1000)
end

function M.interrupt(where)
  M.interrupted[where]()
end

--- Nobody may be interrupted where Ctrl-C is ignored.
function M.ignored()
  asio.run(function()
    asio.sleep(0.001)
    host.interrupt()
    asio.sleep(0.02)
    asio.stop()
  end)
end

function M.run_briefly()
  asio.run(function()
    asio.sleep(0.001)
    asio.stop()
  end)
end

M.ends = {}

function M.ends.stopped()
  M.run_briefly()
end

function M.ends.failed()
  assert(not pcall(asio.run, error, 'as expected'))
end

function M.ends.turn()
  asio.run_once(0.001)
end

function M.ends.main_chunk()
  asio.sleep(0.001)
end

function M.ends.deadlock()
  local thread
  thread = asio.spawn(function()
    asio.yield()
    asio.spawn(thread.join, thread):join()
  end)
  server:close()
  assert(not pcall(asio.run))
end

function M.ends_of_run()
  return sorted(M.ends)
end

function M.end_a_run(how)
  M.ends[how]()
end

--- Runs `other` from a light thread, then waits to be interrupted.
function M.nested(other)
  asio.run(function()
    asio.sleep(0.001)
    other()
    host.interrupt()
    asio.sleep(1000)
  end)
end

--- Waits for Ctrl-C, and tells when it does.
function M.wait_for_it()
  asio.run(function()
    asio.spawn(host.ready)
    asio.sleep(1000)
  end)
end

return M
