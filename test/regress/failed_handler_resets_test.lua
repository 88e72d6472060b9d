-- A handler that raised half-way through an answer had its connection closed in order: the client took
-- half for the whole.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local function answer(handler, after)
  local server = assert(asio.server('127.0.0.1', 0, handler))
  local conn = assert(asio.connect(server:address()))
  lu.assertEquals(conn:read(4), 'half')
  if after then after(server) end
  local _, _, code = conn:read_all()
  conn:close()
  server:close()
  return code
end

function T.test_it_raises()
  lu.assertEquals(answer(function(conn)
    conn:write 'half'
    conn:flush()
    asio.sleep(0.01)
    error 'oops'
  end), 'ECONNRESET')
  t.next_turn()
  lu.assertStrContains(t.stderr(), 'oops')
end

function T.test_it_is_cancelled()
  lu.assertEquals(answer(function(conn)
    conn:write 'half'
    asio.sleep(100)
  end, function(server) t.failure('ETIMEDOUT', server:shutdown(0)) end), 'ECONNRESET')
end

-- What it has closed itself it has answered in full.
function T.test_not_after_close()
  lu.assertNil(answer(function(conn)
    conn:write 'half'
    conn:close()
    error 'too late'
  end))
  t.next_turn()
  lu.assertStrContains(t.stderr(), 'too late')
end

return T
