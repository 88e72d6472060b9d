-- Forks without exec, and objects of the parent's that they must not touch.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local asio = require 'asio'

ffi.cdef [[
int fork(void);
int waitpid(int, int *, int);
void _exit(int);
]]

local M = {}

--- Runs fn in a fork, which then ends; with `close` it closes its Lua state. fn has to succeed.
function M.fork(fn, close)
  require('can').need 'fork'
  io.stdout:flush()
  local pid = ffi.C.fork()
  if pid == 0 then
    local ok, err = pcall(fn)
    if not ok then io.stderr:write('in the fork: ', tostring(err), '\n') end
    io.stderr:flush()
    -- Sanitizers take what an open Lua state has for leaked.
    if not close and os.getenv 'ASIO_SANITIZED' then ffi.C._exit(ok and 0 or 3) end
    os.exit(ok and 0 or 3, close)
  end
  M.wait(pid)
end

function M.wait(pid)
  local status = ffi.new 'int[1]'
  assert(ffi.C.waitpid(pid, status, 0) == pid)
  assert(status[0] == 0, 'the fork ended with status ' .. status[0])
end

local function echo(conn)
  for line in conn:lines() do conn:write(line, '\n') end
  conn:close()
end

local World = {}
World.__index = World

--- Connections, servers and a datagram socket; to be made and checked by a light thread.
function M.world()
  require('can').need 'fork'
  local self = setmetatable({}, World)
  self.path = os.tmpname()
  os.remove(self.path)
  self.server = assert(asio.server('127.0.0.1', 0, echo))
  self.unix = assert(asio.server('unix:' .. self.path, echo))
  self.port = select(2, self.server:address())
  self.old = { assert(asio.connect('127.0.0.1', self.port)), assert(asio.connect('unix:' .. self.path)) }
  self.udp, self.other = assert(asio.udp('127.0.0.1', 0)), assert(asio.udp('127.0.0.1', 0))
  self.a, self.b = asio.socketpair()
  self.parked = asio.spawn(function() return self.a:read(10) end)
  self:check()
  return self
end

local function speak(conn)
  conn:write 'ping\n'
  local line, message = conn:read_line()
  assert(line == 'ping', message or line)
end

function World:check()
  for _, conn in ipairs(self.old) do speak(conn) end
  for _, where in ipairs { { '127.0.0.1', self.port }, { 'unix:' .. self.path } } do
    local conn = assert(asio.connect(unpack(where)))
    speak(conn)
    conn:close()
  end
  assert(self.other:send('datagram', '127.0.0.1', (select(2, self.udp:address()))))
  assert(self.udp:recv() == 'datagram')
  assert(self.parked:status() == 'waiting')
end

--- Output that is queued when the fork is made arrives once.
function World:queue()
  self.b:write 'once'
end

function World:close()
  self.b:write 'enough'
  assert(select(2, self.parked:join()) == 'onceenough')
  self.b:close()
  assert(self.a:read_all() == '')
  for _, object in ipairs { self.server, self.unix, self.udp, self.other, self.a, unpack(self.old) } do
    object:close()
  end
end

return M
