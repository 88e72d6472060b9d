-- What a system does not have: said so in the call that asks for it, and nothing is done by halves.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

local function refused(...)
  return t.failure('ENOTSUP', ...)
end

function T.test_windows()
  lu.skipIf(not raw.windows, 'this system has all of it')
  local pipe = [[unix:\\.\pipe\asio.not.]] .. raw.pid()
  refused(asio.server 'unix:@name')
  refused(asio.connect 'unix:@name')
  refused(asio.server(pipe, nil, { handles = true }))
  refused(asio.connect(pipe, { handles = true }))
  refused(asio.server('127.0.0.1', 0, nil, { reuseport = true }))
  refused(asio.udp('127.0.0.1', 0, { reuseport = true }))
  local listener = raw.listen()
  refused(asio.server(listener.fd))
  listener:close()
  local a, b = t.tcp()
  refused(a:get_original_dst())
  refused(a:credentials())
  b:write 'still there'
  lu.assertEquals(a:read(11), 'still there')
  for _, name in ipairs { 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGCHLD', 'SIGQUIT', 'SIGPIPE' } do
    refused(asio.signal(name))
    refused(asio.dump_on(name))
  end
  t.failure('ENOENT', asio.server 'systemd:web')
end

return T
