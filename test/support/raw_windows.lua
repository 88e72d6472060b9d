-- raw.lua for Windows: the same functions over ws2_32 and the C runtime. What Windows does not have is
-- missing here, and is a capability in can.lua.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local can = require 'can'
local C = ffi.C

ffi.cdef [[
typedef struct { int fd; } asio_test_socket; // such a handle is a small number
struct asio_test_in { uint16_t family; uint8_t port[2]; uint8_t ip[4]; uint8_t zero[8]; };
struct asio_test_poll { intptr_t fd; short events; short revents; };
struct asio_test_linger { uint16_t on; uint16_t seconds; };
struct asio_test_found { uint32_t about[11]; char name[260], short_name[14]; };
void *FindFirstFileA(const char *, struct asio_test_found *);
int FindNextFileA(void *, struct asio_test_found *);
int FindClose(void *);
struct asio_test_memory {
  unsigned long size, faults; size_t peak, resident, pools[4], committed, peak_committed;
};
int WSAStartup(uint16_t, void *);
intptr_t socket(int, int, int);
int bind(intptr_t, const void *, int);
int listen(intptr_t, int);
int connect(intptr_t, const void *, int);
intptr_t accept(intptr_t, void *, int *);
int getsockname(intptr_t, void *, int *);
int setsockopt(intptr_t, int, int, const void *, int);
int getsockopt(intptr_t, int, int, void *, int *);
int ioctlsocket(intptr_t, long, unsigned long *);
int send(intptr_t, const void *, int, int);
int recv(intptr_t, void *, int, int);
int recvfrom(intptr_t, void *, int, int, void *, int *);
int sendto(intptr_t, const void *, int, int, const void *, int);
int shutdown(intptr_t, int);
int closesocket(intptr_t);
int WSAGetLastError(void);
int WSAPoll(struct asio_test_poll *, unsigned long, int);
int _open(const char *, int, ...);
int _close(int);
int _dup(int);
int _dup2(int, int);
intptr_t _get_osfhandle(int);
int _getpid(void);
int _utime64(const char *, int64_t *);
void *GetCurrentProcess(void);
int GetProcessHandleCount(void *, unsigned long *);
int GetProcessTimes(void *, uint64_t *, uint64_t *, uint64_t *, uint64_t *);
int K32GetProcessMemoryInfo(void *, struct asio_test_memory *, unsigned long);
int SetHandleInformation(void *, unsigned long, unsigned long);
int CreateTimerQueueTimer(void **, void *, void *, void *, unsigned long, unsigned long, unsigned long);
int DeleteTimerQueueTimer(void *, void *, void *);
int TerminateProcess(void *, unsigned);
void *GetModuleHandleA(const char *);
void *GetProcAddress(void *, const char *);
void *CreateThread(void *, size_t, void *, void *, unsigned long, unsigned long *);
int CloseHandle(void *);
unsigned long WaitForSingleObject(void *, unsigned long);
unsigned long GetTempPathA(unsigned long, char *);
]]

local ws = ffi.load 'ws2_32'
ws.WSAStartup(0x202, ffi.new 'char[512]')

local M = { linux = false, windows = true }

M.SIGHUP, M.SIGINT, M.SIGBREAK = 1, 2, 21
M.events = { [M.SIGINT] = 0, [M.SIGBREAK] = 1, [M.SIGHUP] = 2 } -- the console's numbers
--- A signal that ends a process, unless it is watched: its number and its name.
M.signal, M.signal_name = M.SIGBREAK, 'SIGBREAK'
M.other_signal, M.other_signal_name = M.SIGINT, 'SIGINT'

local AF_INET, SOCK_STREAM, SOCK_DGRAM = 2, 1, 2
local SOL_SOCKET, SO_SNDBUF, SO_RCVBUF, SO_LINGER = 0xffff, 0x1001, 0x1002, 0x80
local POLLIN, POLLOUT = 0x300, 0x10
local FIONBIO, WSAEWOULDBLOCK = ffi.cast('long', 0x8004667e - 2 ^ 32), 10035

local function check(result, what)
  if result < 0 then error(('%s: error %d'):format(what, ws.WSAGetLastError()), 3) end
  return result
end

--- The names in a directory.
function M.list(path)
  local found, files = ffi.new 'struct asio_test_found', {}
  local search = C.FindFirstFileA(path .. '/*', found)
  repeat files[#files + 1] = ffi.string(found.name) until C.FindNextFileA(search, found) == 0
  C.FindClose(search)
  table.sort(files)
  return files
end

-- Names for scratch files: what the C runtime makes lies in the root of the drive.
local names = 0

function os.tmpname() -- luacheck: ignore 122
  local dir = ffi.new 'char[300]'
  C.GetTempPathA(300, dir)
  names = names + 1
  return ('%sasio_%d_%d_%d'):format(ffi.string(dir):gsub('\\', '/'), C._getpid(), os.time(), names)
end

local function sockaddr(ip, port)
  local a, b, c, d = ip:match '^(%d+)%.(%d+)%.(%d+)%.(%d+)$'
  return ffi.new('struct asio_test_in', {
    AF_INET, { math.floor(port / 256), port % 256 },
    { tonumber(a), tonumber(b), tonumber(c), tonumber(d) },
  })
end

--- The raw socket address as a string of 128 bytes.
function M.address(ip, port)
  return ffi.string(sockaddr(ip, port), 16) .. ('\0'):rep(112)
end

local socket = {}
local new_socket = ffi.metatype('asio_test_socket', {
  __index = socket,
  __gc = function(self)
    if self.fd >= 0 then ws.closesocket(self.fd) end
  end,
})

-- None of them waits by itself.
local function own(fd)
  fd = tonumber(fd)
  local self = new_socket(fd)
  ws.ioctlsocket(fd, FIONBIO, ffi.new('unsigned long[1]', 1))
  C.SetHandleInformation(ffi.cast('void *', fd), 1, 0) -- not for programs that are started
  return self
end

local function open_socket(kind)
  return own(check(ws.socket(AF_INET, kind, 0), 'socket'))
end

local function set_option(self, name, value)
  check(ws.setsockopt(self.fd, SOL_SOCKET, name, value, ffi.sizeof(value)), 'setsockopt')
end

local function wait(self, events, seconds)
  local set = ffi.new('struct asio_test_poll[1]', { { self.fd, events, 0 } })
  return check(ws.WSAPoll(set, 1, (seconds or 0) * 1000), 'poll') > 0
end

function socket:port()
  local address, size = ffi.new 'struct asio_test_in[1]', ffi.new('int[1]', 16)
  check(ws.getsockname(self.fd, address, size), 'getsockname')
  return address[0].port[0] * 256 + address[0].port[1]
end

function socket:set_buffers(bytes)
  set_option(self, SO_RCVBUF, ffi.new('int[1]', bytes))
  set_option(self, SO_SNDBUF, ffi.new('int[1]', bytes))
  return self
end

function socket:accept(seconds)
  if not wait(self, POLLIN, seconds) then return nil end
  return own(check(ws.accept(self.fd, nil, nil), 'accept'))
end

function socket:send(data, seconds)
  local sent = 0
  while sent < #data and wait(self, POLLOUT, seconds) do
    local n = ws.send(self.fd, ffi.cast('const char *', data) + sent, #data - sent, 0)
    if n < 0 then break end
    sent = sent + n
  end
  return sent
end

function socket:recv(max, seconds)
  if not wait(self, POLLIN, seconds) then return nil end
  local buffer = ffi.new('char[?]', max)
  local n = ws.recv(self.fd, buffer, max, 0)
  if n < 0 then return false end
  return ffi.string(buffer, n)
end

local scratch = ffi.new 'char[65536]'

function socket:discard()
  local n
  repeat n = ws.recv(self.fd, scratch, ffi.sizeof(scratch), 0) until n <= 0
  return n < 0 and ws.WSAGetLastError() == WSAEWOULDBLOCK
end

function socket:shutdown()
  ws.shutdown(self.fd, 1)
end

function socket:close()
  if self.fd >= 0 then
    ws.closesocket(self.fd)
    self.fd = -1
  end
end

function socket:reset()
  if self.fd < 0 then return end
  set_option(self, SO_LINGER, ffi.new('struct asio_test_linger[1]', { { 1, 0 } }))
  self:close()
end

local function bound(kind, ip, port)
  local self = open_socket(kind)
  check(ws.bind(self.fd, sockaddr(ip or '127.0.0.1', port or 0), 16), 'bind')
  return self
end

function M.listen(options)
  options = options or {}
  local self = bound(SOCK_STREAM, options.ip, options.port)
  check(ws.listen(self.fd, options.backlog or 64), 'listen')
  return self
end

function M.udp(ip, port)
  return bound(SOCK_DGRAM, ip, port)
end

-- Begins to connect.
local function dial(port, options)
  local self = open_socket(SOCK_STREAM)
  if options.buffers then self:set_buffers(options.buffers) end
  if options.from then check(ws.bind(self.fd, sockaddr(options.from, 0), 16), 'bind') end
  if ws.connect(self.fd, sockaddr(options.ip or '127.0.0.1', port), 16) < 0
    and ws.WSAGetLastError() ~= WSAEWOULDBLOCK then
    check(-1, 'connect')
  end
  return self
end

function M.connect(port, options)
  local self = dial(port, options or {})
  assert(wait(self, POLLOUT, 5), 'connect: in vain')
  local failed, size = ffi.new 'int[1]', ffi.new('int[1]', 4)
  ws.getsockopt(self.fd, SOL_SOCKET, 0x1007, failed, size)
  assert(failed[0] == 0, 'connect: refused')
  return self
end

--- Two connected ends.
function M.pair()
  local listener = M.listen()
  local a = M.connect(listener:port())
  local b = assert(listener:accept(5))
  listener:close()
  return a, b
end

function M.full_listener()
  local listener = M.listen { backlog = 0 }
  local port, fillers = listener:port(), {}
  for i = 1, 3 do fillers[i] = dial(port, {}) end
  return listener, fillers
end

function M.file(path)
  local APPEND, CREAT, TRUNC, BINARY, RDWR, NOINHERIT = 8, 0x100, 0x200, 0x8000, 2, 0x80
  local flags = APPEND + CREAT + TRUNC + BINARY + RDWR + NOINHERIT
  local fd = C._open(path, flags, ffi.cast('int', 0x180))
  return fd >= 0 and fd or error('open: ' .. path, 2)
end

function M.redirect(from, to)
  local saved = C._dup(to)
  assert(saved >= 0 and C._dup2(from, to) == 0, 'dup2')
  return saved
end

function M.close(fd)
  C._close(fd)
end

--- Whether a number is a socket's.
function M.is_open(fd)
  local kind, size = ffi.new 'int[1]', ffi.new('int[1]', 4)
  return ws.getsockopt(fd, SOL_SOCKET, 0x1008, kind, size) == 0
end

--- Nothing here says how many sockets and pipes are open: threads and events of the system are handles too.
function M.count_fds()
  return 0
end

function M.pid()
  return C._getpid()
end

local deliver

--- A signal for this process alone. The system calls this function in a thread of its own for Ctrl-C,
--- Ctrl-Break and the console's end; that way also a process without a console gets them. After SIGHUP none
--- comes any more: libuv holds its thread up, and the system waits for that.
function M.kill(signal)
  deliver = deliver or C.GetProcAddress(C.GetModuleHandleA 'kernel32', 'CtrlRoutine')
  local thread = C.CreateThread(nil, 0, deliver, ffi.cast('void *', M.events[signal]), 0, nil)
  C.WaitForSingleObject(thread, 50)
  C.CloseHandle(thread)
end

local timer

--- The process ends after so many seconds; 0 calls it off.
function M.alarm(seconds)
  if timer then C.DeleteTimerQueueTimer(nil, timer, nil) end
  timer = nil
  if seconds == 0 then return end
  local made, process = ffi.new 'void *[1]', C.GetCurrentProcess()
  -- The timer calls it with this process, and with true, which is its status then.
  local terminate = ffi.cast('void *', C.TerminateProcess)
  assert(C.CreateTimerQueueTimer(made, nil, terminate, process, math.ceil(seconds * 1000), 0, 0x20) ~= 0)
  timer = made[0]
end

--- Processor seconds of this process.
function M.cpu()
  local t = ffi.new 'uint64_t[4]'
  C.GetProcessTimes(C.GetCurrentProcess(), t, t + 1, t + 2, t + 3)
  return tonumber(t[2] + t[3]) / 1e7
end

--- Of what raw.lua reads there, this is known here: VmRSS in KiB.
function M.status(field)
  if field ~= 'VmRSS' then can.need 'proc' end
  local memory = ffi.new 'struct asio_test_memory'
  C.K32GetProcessMemoryInfo(C.GetCurrentProcess(), memory, ffi.sizeof(memory))
  return tonumber(memory.resident) / 1024
end

function M.namespace()
  return nil
end

--- Sets when a file was changed: seconds since 1970.
function M.touch(path, seconds)
  assert(C._utime64(path, ffi.new('int64_t[2]', seconds, seconds)) == 0, path)
end

--- Runs a line of this system's own shell; its status.
M.command = os.execute

-- Commands in the tests are those of a Unix shell.
function io.popen() can.need 'shell' end -- luacheck: ignore 122
function os.execute() can.need 'shell' end -- luacheck: ignore 122

-- The others are not possible: a case that calls one is skipped.
local missing = {
  limit_fds = 'descriptors', unlimit_fds = 'descriptors', companion = 'fork', disposition = 'dispositions',
}

return setmetatable(M, {
  __index = function(_, name)
    return missing[name] and function() can.need(missing[name]) end
  end,
})
