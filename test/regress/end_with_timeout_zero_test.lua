-- With a time-out of 0 a read did not see an end that had come behind the bytes: it timed out, and the
-- second call saw it.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- Bytes and the end have come to a connection that nothing has read from.
local function arrived(bytes, ends)
  local conn, peer = t.raw_peer()
  if bytes ~= '' then peer:send(bytes, 1) end
  if ends == 'shutdown' then peer:shutdown() else peer:close() end
  conn:set_timeout(0)
  return conn, peer
end

local function each(case)
  for _, ends in ipairs { 'shutdown', 'close' } do
    for _, size in ipairs { 1, 1000, 65536, 300000 } do
      local bytes = ('b'):rep(size)
      local conn, peer = arrived(bytes, ends)
      case(conn, bytes)
      conn:close()
      peer:close()
    end
  end
end

function T.test_read_all()
  each(function(conn, bytes) t.same_bytes(conn:read_all(), bytes) end)
end

function T.test_read_line()
  each(function(conn, bytes) t.same_bytes(conn:read_line(), bytes) end)
end

function T.test_read_of_more()
  each(function(conn, bytes) t.failure('EOF', conn:read(#bytes + 1)) end)
end

function T.test_peek_of_more()
  each(function(conn, bytes) t.failure('EOF', conn:peek(#bytes + 1)) end)
end

function T.test_read_until()
  each(function(conn) t.failure('EOF', conn:read_until '.') end)
end

function T.test_outside_of_light_threads()
  each(function(conn, bytes) t.same_bytes(conn:read_all(), bytes) end)
end
t.main(T.test_outside_of_light_threads)

function T.test_a_unix_socket()
  local a, b = asio.socketpair()
  b:write 'some'
  b:close()
  a:set_timeout(0)
  lu.assertEquals(a:read_all(), 'some')
  a:close()
end

-- A peer that goes on sending does not hold the reader up.
function T.test_no_end()
  local conn, peer = t.raw_peer()
  local sending = true
  local sender = asio.spawn(function()
    while sending do
      peer:send('x', 0)
      asio.yield()
    end
  end)
  conn:set_timeout(0)
  t.failure('ETIMEDOUT', conn:read_all())
  sending = false
  sender:join()
  conn:close()
  peer:close()
end

return T
