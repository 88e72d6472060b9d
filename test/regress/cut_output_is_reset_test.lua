-- Written bytes that were given up ended with a FIN: the peer took what it had for the whole.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'

local T = {}

local TOO_MUCH = ('x'):rep(16 * 2 ^ 20)

-- Reads to the end, or to the reset; returns which, and how many bytes came.
local function end_of(peer)
  local size, how = 0
  t.wait_until(function()
    local data = peer:recv(65536, 0)
    while data and data ~= '' do
      size = size + #data
      data = peer:recv(65536, 0)
    end
    if data == '' then how = 'end' elseif data == false then how = 'reset' end
    return how
  end, 'the end', 15)
  return how, size
end

local function expect_reset(peer)
  can.need 'resets'
  local how, size = end_of(peer)
  peer:close()
  lu.assertTrue(size < #TOO_MUCH)
  lu.assertEquals(how, 'reset', ('after %d of %d bytes'):format(size, #TOO_MUCH))
end

local function expect_gone(fd)
  t.wait_until(function() return not require 'raw'.is_open(fd) end, 'the descriptor to go', 10)
end

function T.test_linger_has_run_out()
  local conn, peer = t.raw_peer({ linger = 0.1 })
  local fd = conn:fd()
  conn:set_timeout(nil, 0)
  conn:write(TOO_MUCH)
  conn:close()
  expect_gone(fd)
  expect_reset(peer)
end

function T.test_no_time_at_all()
  local conn, peer = t.raw_peer({ linger = 0 })
  local fd = conn:fd()
  conn:set_timeout(nil, 0)
  conn:write(TOO_MUCH)
  conn:close()
  expect_gone(fd)
  expect_reset(peer)
end

function T.test_a_collected_connection()
  local conn, peer = t.raw_peer({ linger = 0.1 })
  local fd = conn:fd()
  conn:set_timeout(nil, 0)
  conn:write(TOO_MUCH)
  conn = nil -- luacheck: ignore
  t.collect()
  expect_gone(fd)
  expect_reset(peer)
end

-- What the system has taken is not given up: the peer gets all of it.
function T.test_not_what_the_system_has()
  local conn, peer = t.raw_peer({ linger = 0.05 })
  local fd = conn:fd()
  local data = ('y'):rep(30000)
  conn:write(data)
  conn:close()
  expect_gone(fd)
  local how, size = end_of(peer)
  lu.assertEquals({ how, size }, { 'end', #data })
  peer:close()
end

function T.test_a_server_that_shuts_down_in_mid_answer()
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write(TOO_MUCH)
  end, { linger = 0.1 }))
  local _, port = server:address()
  local peer = require 'raw'.connect(port)
  t.wait_until(function() return peer:recv(1, 0) end, 'the beginning of the answer')
  t.failure('ETIMEDOUT', server:shutdown(0.01))
  expect_reset(peer)
end

local function in_a_child(ending)
  local listener = require 'raw'.listen()
  t.child(function(port, how)
    local asio = require 'asio' -- luacheck: ignore
    local conn = assert(asio.connect('127.0.0.1', port, { linger = 0.1 }))
    conn:set_timeout(nil, 0)
    conn:write(('x'):rep(16 * 2 ^ 20))
    if how == 'closing' then conn:close() end
    if how == 'exit' then os.exit(0, true) end
    if how == 'exit at once' then os.exit(0) end
    if how == 'killed' then
      local ffi = require 'ffi'
      ffi.cdef 'int getpid(void); int kill(int, int);'
      ffi.C.kill(ffi.C.getpid(), 9)
    end
  end, { args = { listener:port(), ending }, code = false, env = t.ignore_leaks })
  local peer = listener:accept(5)
  listener:close()
  expect_reset(peer)
end

function T.test_the_state_is_closed()
  in_a_child 'open'
end

function T.test_the_state_is_closed_while_it_closes()
  in_a_child 'closing'
end

function T.test_the_process_exits_in_order()
  in_a_child 'exit'
end

function T.test_the_process_exits_at_once()
  in_a_child 'exit at once'
end

function T.test_the_process_is_killed()
  in_a_child 'killed'
end

-- The system has the last byte: a process that ends then has given nothing up.
function T.test_not_once_the_queue_is_sent()
  local listener = require 'raw'.listen()
  local reader = asio.spawn(function()
    local peer
    t.wait_until(function()
      peer = peer or listener:accept(0)
      return peer
    end, 'the connection')
    return end_of(peer)
  end)
  local conn = assert(asio.connect('127.0.0.1', listener:port()))
  assert(conn:write(TOO_MUCH))
  assert(conn:flush())
  conn:close()
  lu.assertEquals({ reader:join() }, { true, 'end', #TOO_MUCH })
  listener:close()
end

return T
