-- Where a connection cannot change its thread: each attempt is refused, and the connection stays as it was.
--
-- test: needs fixed_connections
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

-- Calls fn with a connection, and wants it to work afterwards.
local function with_connection(fn)
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write(conn:read(5))
    conn:close()
  end))
  local conn = assert(asio.connect(server:address()))
  fn(conn)
  conn:write 'hello'
  lu.assertEquals(conn:read(5), 'hello')
  conn:close()
  server:close()
end

function T.test_arguments_of_a_worker()
  with_connection(function(conn)
    t.failure('ENOTSUP', asio.worker(function() end, conn))
    t.failure('ENOTSUP', asio.worker(function() end, { conn }))
    t.failure('ENOTSUP', asio.worker(function() return conn end))
  end)
end

function T.test_results_of_a_worker()
  local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:read(1) conn:close() end))
  local worker = asio.worker(function(...) return require('asio').connect(...) end, server:address())
  local ok, err = worker:join(10)
  lu.assertIs(ok, false)
  lu.assertStrContains(err, 'not supported')
  server:close()
end

function T.test_messages()
  with_connection(function(conn)
    local ch = asio.shared.channel(1)
    t.failure('ENOTSUP', ch:send(conn))
    t.failure('ENOTSUP', ch:send { conn })
    lu.assertTrue(ch:send 'another')
    lu.assertEquals(ch:recv(), 'another')
  end)
end

function T.test_offloading()
  with_connection(function(conn)
    t.failure('ENOTSUP', asio.offload(function() end, conn))
  end)
end

function T.test_servers_with_threads()
  t.failure('ENOTSUP', asio.server('127.0.0.1', 0, function() end, { threads = 2 }))
end

return T
