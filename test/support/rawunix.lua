-- Unix sockets straight from libc (raw.lua has those of the internet): listeners that never accept,
-- descriptors passed in ways that the library under test would not use, what the system knows of files
-- and sockets. Linux.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
if ffi.os == 'Windows' then
  local function missing() require('can').need 'unix_sockets' end
  return setmetatable({ linux = false }, { __index = function() return missing end })
end
local numbers = require 'numbers'
local raw = require 'raw' -- declares most of libc
local C = ffi.C

ffi.cdef [[
struct asio_test_un { uint16_t family; char path[108]; };
struct asio_test_part { void *base; size_t size; };
struct asio_test_control { size_t size; int level, type; int fds[300]; };
struct asio_test_msg {
  void *name; unsigned name_size; struct asio_test_part *parts; size_t count;
  void *control; size_t control_size; int flags;
};
ssize_t sendmsg(int, const struct asio_test_msg *, int);
ssize_t recvmsg(int, struct asio_test_msg *, int);
int socketpair(int, int, int, int *);
int symlink(const char *, const char *);
int mkdir(const char *, unsigned);
int rmdir(const char *);
int chdir(const char *);
int getuid(void);
int getgid(void);
int setenv(const char *, const char *, int);
]]

local M = { linux = raw.linux }

local AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC = 1, numbers.SOCK_STREAM, 0x80000
local SOCK_NONBLOCK, SOL_SOCKET, SO_SNDBUF = numbers.SOCK_NONBLOCK, numbers.SOL_SOCKET, numbers.SO_SNDBUF
local SCM_RIGHTS, MSG_NOSIGNAL, MSG_DONTWAIT = 1, 0x4000, 0x40
local EAGAIN = 11

local function check(result, what)
  if result < 0 then error(what .. ': ' .. ffi.string(C.strerror(ffi.errno())), 3) end
  return result
end

-- As in asio: a path, or '@' and an abstract name.
local function address(name)
  local un = ffi.new('struct asio_test_un', { AF_UNIX })
  local bytes = name:gsub('^@', '\0')
  ffi.copy(un.path, bytes, #bytes)
  return un, 2 + #bytes + (bytes == name and 1 or 0)
end

local function new_socket(flags)
  local fd = check(C.socket(AF_UNIX, SOCK_STREAM + SOCK_CLOEXEC + flags, 0), 'socket')
  return ffi.new('asio_test_socket', fd)
end

function M.listen(name, backlog)
  local self = new_socket(0)
  local un, size = address(name)
  check(C.bind(self.fd, un, size), 'bind')
  check(C.listen(self.fd, backlog or 64), 'listen')
  return self
end

--- Connects; false when the listener's backlog is full.
function M.connect(name)
  local self = new_socket(SOCK_NONBLOCK)
  local un, size = address(name)
  if C.connect(self.fd, un, size) == 0 then return self end
  if ffi.errno() == EAGAIN then return false end
  check(-1, 'connect')
end

--- A listener whose backlog is full. Keep the second result for as long as it shall last.
function M.full_listener(name)
  local listener, fillers = M.listen(name, 0), {}
  repeat
    local filler = M.connect(name)
    fillers[#fillers + 1] = filler or nil
  until not filler
  return listener, fillers
end

--- Sends bytes with descriptors; returns false where the socket takes no more.
function M.send_fds(fd, data, fds)
  local bytes = ffi.new('char[?]', #data, data)
  local part = ffi.new('struct asio_test_part[1]', { { bytes, #data } })
  local control = ffi.new('struct asio_test_control[1]')
  local head = ffi.offsetof('struct asio_test_control', 'fds')
  local word = ffi.sizeof 'size_t' -- what the parts of a control message are aligned to
  control[0].size, control[0].level, control[0].type = head + 4 * #fds, SOL_SOCKET, SCM_RIGHTS
  for i, n in ipairs(fds) do control[0].fds[i - 1] = n end
  local msg = ffi.new 'struct asio_test_msg'
  msg.parts, msg.count = part, 1
  if #fds > 0 then msg.control, msg.control_size = control, head + word * math.ceil(4 * #fds / word) end
  return C.sendmsg(fd, msg, MSG_NOSIGNAL + MSG_DONTWAIT) == #data
end

--- Receives bytes and the descriptors with them: data, list; nil where there is nothing.
function M.recv_fds(fd, max)
  local bytes = ffi.new('char[?]', max)
  local part = ffi.new('struct asio_test_part[1]', { { bytes, max } })
  local control = ffi.new('struct asio_test_control[1]')
  local msg = ffi.new 'struct asio_test_msg'
  msg.parts, msg.count, msg.control, msg.control_size = part, 1, control, ffi.sizeof(control)
  local n = tonumber(C.recvmsg(fd, msg, MSG_DONTWAIT))
  if n < 0 then return nil end
  local fds = {}
  local head = ffi.offsetof('struct asio_test_control', 'fds')
  if msg.control_size >= head then
    for i = 0, (tonumber(control[0].size) - head) / 4 - 1 do fds[#fds + 1] = control[0].fds[i] end
  end
  return ffi.string(bytes, n), fds
end

--- Sends until a socket, which has small buffers from then on, takes no more.
function M.fill(fd)
  local size, bytes = ffi.new('int[1]', 4096), ('f'):rep(512)
  check(C.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, size, 4), 'setsockopt')
  while C.send(fd, bytes, #bytes, MSG_NOSIGNAL + MSG_DONTWAIT) > 0 do end -- luacheck: ignore 542
end

function M.socketpair()
  local ends = ffi.new 'int[2]'
  check(C.socketpair(AF_UNIX, SOCK_STREAM + SOCK_CLOEXEC, 0, ends), 'socketpair')
  return ffi.new('asio_test_socket', ends[0]), ffi.new('asio_test_socket', ends[1])
end

--- A whole number among the options of a socket.
function M.option(fd, level, name)
  local value, size = ffi.new 'int[1]', ffi.new('unsigned[1]', 4)
  check(C.getsockopt(fd, level, name, value, size), 'getsockopt')
  return value[0]
end

function M.pipe()
  local ends = ffi.new 'int[2]'
  check(C.pipe(ends), 'pipe')
  return ends[0], ends[1]
end

--- Runs a function while descriptor `to` is a copy of `fd`, for a shell to be started with (which takes
--- numbers of one digit).
function M.lend(fd, to, fn, ...)
  local saved = C.dup(to)
  check(C.dup2(fd, to), 'dup2')
  local results = { pcall(fn, ...) }
  if saved >= 0 then
    check(C.dup2(saved, to), 'dup2')
    C.close(saved)
  else
    C.close(to)
  end
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2)
end

function M.symlink(to, path) check(C.symlink(to, path), 'symlink') end
function M.mkdir(path) check(C.mkdir(path, 448), 'mkdir') end
function M.chdir(path) check(C.chdir(path), 'chdir') end
function M.setenv(name, value) check(C.setenv(name, value, 1), 'setenv') end
function M.uid() return C.getuid() end
function M.gid() return C.getgid() end

--- What kind of file there is: 'socket', 'regular file', 'symbolic link', ...; nil: none.
function M.kind(path)
  local child = io.popen("stat -c %F '" .. path .. "' 2>/dev/null")
  local kind = child:read '*l'
  child:close()
  return kind
end

--- A directory of the test's own, and a function that removes it with all that is in it.
function M.directory()
  local path = os.tmpname()
  os.remove(path)
  M.mkdir(path)
  return path, function() os.execute("rm -r '" .. path .. "'") end
end

--- The names of this network namespace's Unix sockets: abstract ones with '@' for every zero.
function M.names()
  local names = {}
  for line in io.lines '/proc/net/unix' do
    local name = line:match '^%S+ %S+ %S+ %S+ %S+ %S+%s+%d+ (.*)$'
    if name then names[name] = true end
  end
  return names
end

return M
