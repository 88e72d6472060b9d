-- The records that writes become: full ones in bulk, small ones after a pause, one for a few small writes;
-- TLS over TLS.
--
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local certs = require 'certs'
local t = require 'support'

local T = {}

local FULL, SMALL = 16384, 1300
local AROUND = 17 -- bytes that TLS 1.3 adds to what a record holds: its type, the tag

local function server_options()
  return { server = true, cert = certs.dir() .. 'server.pem', key = certs.dir() .. 'server.key' }
end

-- Both ends, and a table in which the lengths of what the server's records hold are noted as they pass.
local function watched()
  can.need('tls', 'openssl')
  local a, near = t.pair()
  local far, b = t.pair()
  local lengths = {}
  asio.spawn(function() -- client to server
    while true do
      local data = near:read_some()
      if not data then break end
      far:write(data)
    end
    far:shutdown()
  end)
  asio.spawn(function() -- server to client, record by record
    while true do
      local head = far:read(5)
      if not head then break end
      local length = head:byte(4) * 256 + head:byte(5)
      local body = assert(far:read(length))
      if head:byte(1) == 23 then lengths[#lengths + 1] = length - AROUND end
      near:write(head, body)
    end
    near:close()
  end)
  local server = asio.spawn(function() assert(b:start_tls(server_options())) end)
  assert(a:start_tls { ca = certs.dir() .. 'ca.pem', server_name = 'localhost' })
  assert(server:join())
  b:write '.' -- behind the ticket
  assert(a:read(1))
  local function take()
    local taken = lengths
    lengths = {}
    return taken
  end
  return a, b, take
end

local function send(a, b, take, ...)
  take()
  local size = 0
  for _, part in ipairs { ... } do
    b:write(part)
    size = size + #part
  end
  local data = assert(a:read(size))
  t.same_bytes(data, table.concat { ... })
  return take()
end

local function finish(a, b)
  a:close()
  b:close()
end

function T.test_bulk_fills_records()
  local a, b, take = watched()
  send(a, b, take, ('x'):rep(100000)) -- the first ones are small
  local records = send(a, b, take, 'head: of an answer\n', ('x'):rep(5 * FULL), ('y'):rep(FULL - 19))
  lu.assertEquals(records, { FULL, FULL, FULL, FULL, FULL, 19, FULL - 19 })
  finish(a, b)
end

function T.test_small_writes_share_a_record()
  local a, b, take = watched()
  lu.assertEquals(send(a, b, take, 'one', 'two', 'three', 'four'), { 15 })
  finish(a, b)
end

function T.test_the_first_records_after_a_pause_are_small()
  local a, b, take = watched()
  local data = ('z'):rep(3 * FULL)
  local function first_are_small(records)
    lu.assertEquals(records[1], SMALL)
    lu.assertEquals(records[12], SMALL)
    lu.assertEquals(records[13], FULL)
  end
  first_are_small(send(a, b, take, data))
  lu.assertEquals(send(a, b, take, data), { FULL, FULL, FULL })
  asio.sleep(1.1)
  first_are_small(send(a, b, take, data))
  finish(a, b)
end

-- HTTPS through an HTTPS proxy is that.
function T.test_tls_over_tls()
  local a, b = watched()
  local server = asio.spawn(function()
    b:write 'begin\n'
    assert(b:start_tls(server_options()))
    local data = assert(b:read_all())
    b:write(data:reverse())
    b:close()
  end)
  lu.assertEquals(a:read_line(), 'begin')
  assert(a:start_tls { ca = certs.dir() .. 'ca.pem', server_name = 'localhost' })
  local data = ('0123456789'):rep(50000)
  a:write(data)
  a:shutdown()
  t.same_bytes(a:read_all(), data:reverse())
  assert(server:join())
  a:close()
end

return T
