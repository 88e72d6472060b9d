-- When other things had used up the descriptors, clients were closed silently: libuv gives up a spare
-- descriptor, accepts the client with it and closes it. They wait now, and the trouble is reported once.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

local function used_up(how)
  local asio, raw = require 'asio', require 'raw'
  local handler = how == 'handler' and function(conn) conn:write 'x' end or nil
  local server = assert(asio.server('127.0.0.1', 0, handler))
  local _, port = server:address()
  for _, conn in ipairs { asio.socketpair() } do conn:close() end -- libuv's spare descriptor is there
  asio.sleep(0.01)
  local clients = { raw.connect(port), raw.connect(port), raw.connect(port) }
  raw.limit_fds(0)
  local cpu = raw.cpu()
  if how == 'handler' then
    asio.sleep(0.3)
  else
    local conn, _, code = server:accept(0.3)
    assert(not conn and code == 'ETIMEDOUT', code)
  end
  assert(raw.cpu() - cpu < 0.1, 'a busy loop')
  for _, client in ipairs(clients) do -- false: at its end, nil: nothing has come
    assert(client:recv(1, 0) == nil, 'a client was closed')
  end
  raw.limit_fds(20)
  if how == 'handler' then
    asio.sleep(1.2)
  else
    for _ = 1, #clients do assert(server:accept(5)):write 'x' end
    asio.run_once(0)
  end
  for _, client in ipairs(clients) do assert(client:recv(1, 0) == 'x', 'a client is not served') end
  server:close()
end

for _, how in ipairs { 'handler', 'accept' } do
  T['test_clients_wait_with_' .. how] = function()
    local result = t.child(used_up, { args = { how }, seconds = 20, env = t.ignore_leaks })
    lu.assertStrContains(result.err, 'too many open files')
    lu.assertEquals(t.occurrences(result.err, '\n'), 1)
  end
end

return T
