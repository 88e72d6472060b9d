-- accept said ENOMEM when a finalizer, which ran while the connection was made, closed the server.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'

local T = {}

local function close_when_collected(server)
  getmetatable(newproxy(true)).__gc = function() server:close() end
end

local unix = can.has 'abstract_names'

T.test_the_code_says_that_it_was_closed = t.main(function()
  local codes = {}
  collectgarbage()
  collectgarbage 'stop' -- and then a full cycle in the next allocation that steps
  for i = 1, 300 do
    local server = unix and assert(asio.server('unix:@')) or assert(asio.server('127.0.0.1', 0))
    local client = assert(asio.connect(server:address()))
    asio.run_once(0)
    close_when_collected(server)
    for _ = 1, i % 50 do newproxy() end -- so that the collector comes at ever other places
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 1000000)
    collectgarbage 'restart'
    local conn, _, code = server:accept(0)
    collectgarbage('setpause', 200)
    collectgarbage('setstepmul', 200)
    if conn then conn:close() end
    codes[code or 'accepted'] = true
    client:close()
    server:close()
  end
  for _, known in ipairs { 'accepted', 'ECANCELED', 'EBADF', 'ETIMEDOUT' } do codes[known] = nil end
  lu.assertEquals(codes, {})
end)

return T
