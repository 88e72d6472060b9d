-- Where 100 light threads had resumed each other, a further one waited for its turn: so did the handshake of
-- a connection that was accepted there, and what the script wrote meanwhile went out in clear.
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local ends = require 'tls_ends'

local T = {}

local function at_depth(n, fn)
  if n == 0 then return fn() end
  asio.spawn(at_depth, n - 1, fn)
end

function T.test_accepted_where_no_light_thread_may_run_at_once()
  for depth = 97, 101 do
    local server = assert(asio.server('127.0.0.1', 0, nil, { tls = ends.identity 'server' }))
    local _, port = server:address()
    local client = assert(asio.connect('127.0.0.1', port))
    asio.sleep(0.01)
    at_depth(depth, function()
      local conn = assert(server:accept())
      conn:write 'secret\n'
      asio.sleep(0.02)
      conn:abort()
    end)
    local seen = client:read_some()
    lu.assertNil(seen)
    client:close()
    server:close()
  end
end

return T
