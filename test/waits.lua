-- Every operation that waits, as data: how to begin it and all the ways in which it can end.
-- Each entry is a function that prepares the operation and returns
--   wait     begins it; called in a light thread of its own
--   <how>    makes it end in this way
--   expect   what `wait` returns then, by way; a code stands for a failure triple
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local raw = require 'raw'

local M = {}

local TOO_MUCH = 16 * 2 ^ 20

local GONE = { EPIPE = true, ECONNRESET = true }

-- A connection whose queue is full and whose peer does nothing by itself.
local function stuck()
  local accepted
  local server = assert(asio.server('127.0.0.1', 0, function(conn) accepted = conn end,
    { linger = 0.05 }))
  local peer = raw.connect((select(2, server:address())))
  while not accepted do asio.sleep(0) end
  server:close()
  accepted:set_timeout(nil, 0)
  accepted:write(('s'):rep(TOO_MUCH))
  accepted:set_timeout(nil, nil)
  return accepted, peer
end

local function drain(peer)
  return function()
    asio.spawn(function()
      while peer.fd >= 0 do
        local data = peer:recv(2 ^ 20, 0)
        if data == '' or data == false then break end
        if not data then asio.sleep(0.001) end
      end
      peer:close()
    end)
  end
end

local function reading(operation)
  return function()
    local a, b = asio.socketpair()
    return {
      wait = function() return a[operation](a, 4) end,
      done = function() b:write 'data' end,
      the_end = function() b:close() end,
      time_out = function() end,
      limit = function(seconds) a:set_timeout(seconds) end,
      closed = function() a:close() end,
      expect = { done = { 'data' }, the_end = 'EOF', time_out = 'ETIMEDOUT', closed = 'ECANCELED' },
      held = { a, b },
    }
  end
end

M.read = reading 'read'
M.read_some = reading 'read_some'

local function writing(operation)
  return function()
    local conn, peer = stuck()
    return {
      wait = function() return conn[operation](conn, operation == 'write' and 'more' or nil) end,
      done = drain(peer),
      the_end = function() peer:reset() end,
      time_out = function() end,
      limit = function(seconds) conn:set_timeout(nil, seconds) end,
      closed = function() conn:close() end,
      finish = function()
        conn:close()
        peer:reset()
      end,
      expect = { done = { true }, the_end = GONE, time_out = 'ETIMEDOUT', closed = 'ECANCELED' },
      held = { conn, peer },
    }
  end
end

M.write = writing 'write'
M.flush = writing 'flush'

function M.connect()
  local listener, fillers = raw.full_listener()
  local options = {}
  local function make_room()
    for _, filler in ipairs(fillers) do filler:close() end
    while listener:accept(0) do end -- luacheck: ignore 542
  end
  return {
    wait = function()
      local conn, message, code = asio.connect('127.0.0.1', listener:port(), options)
      if not conn then return conn, message, code end
      conn:close()
      return true
    end,
    -- The kernel tries again after a second, and finds room.
    done = make_room,
    -- Or finds that the listener is gone.
    the_end = function()
      for _, filler in ipairs(fillers) do filler:reset() end
      listener:close()
    end,
    time_out = function() end,
    limit = function(seconds) options.timeout = seconds end,
    finish = function()
      for _, filler in ipairs(fillers) do filler:close() end
      listener:close()
    end,
    expect = { done = { true }, the_end = 'ECONNREFUSED', time_out = 'ETIMEDOUT' },
    held = { listener, fillers },
  }
end

-- What a join waits for is ended by a byte or by the end of a stream.
function M.join()
  local a, b = asio.socketpair()
  local limit
  local goal = asio.spawn(function()
    local data, _, code = a:read(1)
    if not data then error(code, 0) end
    return 'joined'
  end)
  return {
    wait = function() return goal:join(limit) end,
    done = function() b:write '!' end,
    the_end = function() b:close() end,
    time_out = function() end,
    closed = function() a:close() end,
    limit = function(seconds) limit = seconds end,
    finish = function() a:close() end,
    quiet = function() pcall(goal.join, goal) end,
    expect = {
      done = { true, 'joined' }, the_end = { false, 'EOF' }, time_out = 'ETIMEDOUT',
      closed = { false, 'ECANCELED' },
    },
    held = { a, b },
  }
end

function M.sleep()
  return {
    wait = function()
      asio.sleep(0.02)
      return true
    end,
    done = function() end,
    expect = { done = { true } },
  }
end

return M
