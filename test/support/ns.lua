-- Name servers in processes of their own (nameserver.lua), for whoever tests names.
--
-- SPDX-License-Identifier: MIT

local M = {}

local here = debug.getinfo(1, 'S').source:match '^@(.*)ns%.lua$'
if here == '' then here = './' end

--- Whether asio/ares.so was built.
function M.has_ares()
  local file = io.open(os.getenv 'ASIO_BUILD' .. '/asio/ares.so')
  if file then file:close() end
  return (file or package.preload['asio.ares']) ~= nil and os.getenv 'ASIO_RESOLVER' ~= 'getaddrinfo'
end

local server = {}
server.__index = server

--- Starts one, on a port (53 in a network of the test's own) or any; blocks for some milliseconds.
function M.start(port)
  local file = os.tmpname()
  os.remove(file)
  local luajit = os.getenv 'LUAJIT' or 'luajit'
  local self = setmetatable({}, server)
  self.process = io.popen(("exec %s %snameserver.lua %s %d"):format(luajit, here, file, port or 0), 'w')
  self.process:setvbuf 'no'
  local opened
  for _ = 1, 1000 do
    opened = io.open(file)
    if opened then break end
    os.execute 'sleep 0.01'
  end
  assert(opened, 'the name server does not start')
  self.port = tonumber(opened:read '*a')
  opened:close()
  os.remove(file)
  self.servers = { '127.0.0.1:' .. self.port }
  return self
end

--- Answers what was held back, of one name or all: with what there is, or that there is no such name.
function server:go(name)
  self.process:write('g ' .. (name or '') .. '\n')
end

function server:fail(name)
  self.process:write('f ' .. (name or '') .. '\n')
end

function server:close()
  self.process:close()
end

return M
