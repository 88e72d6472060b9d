-- Sockets, signals and limits straight from libc, for the parts of a test that the library
-- under test must not play itself: a peer that resets, one that never reads, a listener that
-- never accepts. Calls that may block take a limit in seconds and are meant to be polled from
-- light threads with the limit 0.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
if ffi.os == 'Windows' then return require 'raw_windows' end
local numbers = require 'numbers'
local C = ffi.C

ffi.cdef [[
typedef struct { int fd; } asio_test_socket;
struct asio_test_in { uint16_t family; uint8_t port[2]; uint8_t ip[4]; uint8_t zero[8]; };
struct asio_test_poll { int fd; short events; short revents; };
struct asio_test_linger { int on; int seconds; };
struct asio_test_limit { unsigned long soft, hard; };
struct asio_test_time { long seconds, nanoseconds; };
int socket(int, int, int);
int socketpair(int, int, int, int *);
int bind(int, const void *, unsigned);
int listen(int, int);
int connect(int, const void *, unsigned);
int accept(int, void *, void *);
int getsockname(int, void *, unsigned *);
int setsockopt(int, int, int, const void *, unsigned);
int getsockopt(int, int, int, void *, unsigned *);
ssize_t send(int, const void *, size_t, int);
ssize_t recv(int, void *, size_t, int);
ssize_t recvfrom(int, void *, size_t, int, void *, unsigned *);
ssize_t sendto(int, const void *, size_t, int, const void *, unsigned);
int shutdown(int, int);
int poll(struct asio_test_poll *, unsigned long, int);
int close(int);
int open(const char *, int, ...);
int dup(int);
int dup2(int, int);
int fcntl(int, int, ...);
int getpid(void);
int kill(int, int);
unsigned alarm(unsigned);
void (*signal(int, void (*)(int)))(int);
int getrlimit(int, struct asio_test_limit *);
int setrlimit(int, const struct asio_test_limit *);
int clock_gettime(int, struct asio_test_time *);
char *strerror(int);
int fork(void);
int pipe(int *);
ssize_t read(int, void *, size_t);
ssize_t write(int, const void *, size_t);
void _exit(int);
int unshare(int);
int getuid(void);
int setuid(unsigned);
int setns(int, int);
]]

local M = { linux = ffi.os == 'Linux' }

M.SIGHUP, M.SIGINT, M.SIGPIPE = 1, 2, 13
--- A signal that ends a process, unless it is watched: its number and its name.
M.signal, M.signal_name = numbers.SIGUSR2, 'SIGUSR2'
M.other_signal, M.other_signal_name = numbers.SIGUSR1, 'SIGUSR1'

local AF_UNIX, AF_INET, SOCK_STREAM, SOCK_DGRAM = 1, 2, numbers.SOCK_STREAM, numbers.SOCK_DGRAM
local SOL_SOCKET, SO_REUSEADDR, SO_LINGER = numbers.SOL_SOCKET, numbers.SO_REUSEADDR, numbers.SO_LINGER
local SO_SNDBUF, SO_RCVBUF = numbers.SO_SNDBUF, numbers.SO_RCVBUF
local SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_DONTWAIT = 0x80000, 0x4000, 0x40
local EAGAIN = 11
local CLONE_NEWNET, O_CLOEXEC = 0x40000000, 0x80000
local POLLIN, POLLOUT, RLIMIT_NOFILE, F_GETFD = 1, 4, numbers.RLIMIT_NOFILE, 1
local RLIMIT_NPROC = 6

local function check(result, what)
  if result < 0 then
    error(what .. ': ' .. ffi.string(C.strerror(ffi.errno())), 3)
  end
  return result
end

-- The address as the kernel wants it, zero-padded to 16 bytes.
local function sockaddr(ip, port)
  local a, b, c, d = ip:match '^(%d+)%.(%d+)%.(%d+)%.(%d+)$'
  return ffi.new('struct asio_test_in', {
    AF_INET, { math.floor(port / 256), port % 256 },
    { tonumber(a), tonumber(b), tonumber(c), tonumber(d) },
  })
end

--- The raw socket address as a string of 128 bytes, as getsockopt(SO_ORIGINAL_DST) returns it.
function M.address(ip, port)
  return ffi.string(sockaddr(ip, port), 16) .. ('\0'):rep(112)
end

local socket = {}
local new_socket = ffi.metatype('asio_test_socket', {
  __index = socket,
  __gc = function(self)
    if self.fd >= 0 then C.close(self.fd) end
  end,
})

local function open_socket(kind)
  return new_socket(check(C.socket(AF_INET, kind + SOCK_CLOEXEC, 0), 'socket'))
end

local function set_option(self, name, value)
  check(C.setsockopt(self.fd, SOL_SOCKET, name, value, ffi.sizeof(value)), 'setsockopt')
end

local function wait(self, events, seconds)
  local set = ffi.new('struct asio_test_poll[1]', { { self.fd, events, 0 } })
  return check(C.poll(set, 1, (seconds or 0) * 1000), 'poll') > 0
end

function socket:port()
  local address, size = ffi.new 'struct asio_test_in[1]', ffi.new('unsigned[1]', 16)
  check(C.getsockname(self.fd, address, size), 'getsockname')
  return address[0].port[0] * 256 + address[0].port[1]
end

--- Small buffers make a peer that does not read felt early.
function socket:set_buffers(bytes)
  set_option(self, SO_RCVBUF, ffi.new('int[1]', bytes))
  set_option(self, SO_SNDBUF, ffi.new('int[1]', bytes))
  return self
end

--- The next connection, or nil when none comes within `seconds`.
function socket:accept(seconds)
  if not wait(self, POLLIN, seconds) then return nil end
  return new_socket(check(C.accept(self.fd, nil, nil), 'accept'))
end

--- Sends what the kernel takes without waiting longer than `seconds`; returns the bytes taken.
function socket:send(data, seconds)
  local sent = 0
  while sent < #data and wait(self, POLLOUT, seconds) do
    local rest = ffi.cast('const char *', data) + sent
    local n = C.send(self.fd, rest, #data - sent, MSG_NOSIGNAL + MSG_DONTWAIT)
    if n < 0 then break end
    sent = sent + tonumber(n)
  end
  return sent
end

--- Up to `max` bytes: a string, '' at the end of the stream, nil when nothing comes within
--- `seconds`, or false after a reset.
function socket:recv(max, seconds)
  if not wait(self, POLLIN, seconds) then return nil end
  local buffer = ffi.new('char[?]', max)
  local n = C.recv(self.fd, buffer, max, MSG_DONTWAIT)
  if n < 0 then return false end
  return ffi.string(buffer, n)
end

local scratch = ffi.new 'char[65536]'

--- Throws away what has come and says whether more may follow.
function socket:discard()
  local n
  repeat n = C.recv(self.fd, scratch, ffi.sizeof(scratch), MSG_DONTWAIT) until n <= 0
  return n < 0 and ffi.errno() == EAGAIN
end

--- A question that came to this datagram socket, if it is a name server's: the name, and a
--- function that answers with 127.0.0.1 (which has no IPv6 address), or that there is no such
--- name. nil when there is none.
function socket:question()
  if not wait(self, POLLIN, 0) then return nil end
  local buffer, from = ffi.new 'uint8_t[512]', ffi.new 'struct asio_test_in[1]'
  local size = ffi.new('unsigned[1]', 16)
  local n = check(C.recvfrom(self.fd, buffer, 512, MSG_DONTWAIT, from, size), 'recvfrom')
  local query, labels, at = ffi.string(buffer, n), {}, 13 -- behind the header
  while query:byte(at) ~= 0 do
    labels[#labels + 1] = query:sub(at + 1, at + query:byte(at))
    at = at + 1 + query:byte(at)
  end
  local question, kind = query:sub(13, at + 4), query:byte(at + 2)
  return table.concat(labels, '.'), function(exists)
    local has_address = exists and kind == 1
    local reply = table.concat {
      query:sub(1, 2), '\129', exists and '\128' or '\131', '\0\1\0', has_address and '\1' or '\0',
      '\0\0\0\0', question, has_address and '\192\12\0\1\0\1\0\0\0\60\0\4\127\0\0\1' or '',
    }
    check(C.sendto(self.fd, reply, #reply, 0, from, 16), 'sendto')
  end
end

--- Half-close: the other side reads the end of the stream.
function socket:shutdown()
  C.shutdown(self.fd, 1)
end

function socket:close()
  if self.fd >= 0 then
    C.close(self.fd)
    self.fd = -1
  end
end

--- Closes with a reset instead of an orderly end.
function socket:reset()
  if self.fd < 0 then return end
  set_option(self, SO_LINGER, ffi.new('struct asio_test_linger[1]', { { 1, 0 } }))
  self:close()
end

local function bound(kind, ip, port)
  local self = open_socket(kind)
  set_option(self, SO_REUSEADDR, ffi.new('int[1]', 1))
  check(C.bind(self.fd, sockaddr(ip or '127.0.0.1', port or 0), 16), 'bind')
  return self
end

function M.listen(options)
  options = options or {}
  local self = bound(SOCK_STREAM, options.ip, options.port)
  check(C.listen(self.fd, options.backlog or 64), 'listen')
  return self
end

--- A datagram socket that takes what it gets and never answers.
--- Lets this process start no further thread, for which root gives up its rights. False where that cannot be.
function M.forbid_threads()
  local limit = ffi.new('struct asio_test_limit[1]', { { 1, 1 } })
  check(C.setrlimit(RLIMIT_NPROC, limit), 'setrlimit')
  return C.getuid() ~= 0 or C.setuid(61234) == 0
end

function M.udp(ip, port)
  return bound(SOCK_DGRAM, ip, port)
end

--- Connects to a listener on this host; the kernel answers, so nobody need accept first.
--- `from` is the local address, so that many connections do not run out of ports.
function M.connect(port, options)
  options = options or {}
  local self = open_socket(SOCK_STREAM)
  if options.buffers then self:set_buffers(options.buffers) end
  if options.from then check(C.bind(self.fd, sockaddr(options.from, 0), 16), 'bind') end
  check(C.connect(self.fd, sockaddr(options.ip or '127.0.0.1', port), 16), 'connect')
  return self
end

--- Two connected ends of a Unix socket.
function M.pair()
  local ends = ffi.new 'int[2]'
  check(C.socketpair(AF_UNIX, SOCK_STREAM + SOCK_CLOEXEC, 0, ends), 'socketpair')
  return new_socket(ends[0]), new_socket(ends[1])
end

--- A listener whose queue is full: the kernel drops further SYNs, so that connecting to it
--- takes for ever. Keep the second result for as long as it shall last.
function M.full_listener()
  local listener = M.listen { backlog = 0 }
  local port, fillers = listener:port(), {}
  for i = 1, 3 do
    local filler = open_socket(SOCK_STREAM)
    check(C.fcntl(filler.fd, 4, ffi.cast('int', numbers.O_NONBLOCK)), 'fcntl') -- F_SETFL
    C.connect(filler.fd, sockaddr('127.0.0.1', port), 16)
    fillers[i] = filler
  end
  return listener, fillers
end

--- Opens a file, for reading and appending, and empties it.
function M.file(path)
  local flags = 2 + numbers.O_CREAT + numbers.O_TRUNC + numbers.O_APPEND -- O_RDWR
  return check(C.open(path, flags, ffi.cast('int', 384)), 'open')
end

--- Makes descriptor `to` a copy of `from`; returns a copy of what `to` was.
function M.redirect(from, to)
  local saved = check(C.dup(to), 'dup')
  check(C.dup2(from, to), 'dup2')
  return saved
end

function M.close(fd)
  C.close(fd)
end

function M.is_open(fd)
  return C.fcntl(fd, F_GETFD) >= 0
end

--- How many descriptors are open; `max` bounds the search.
function M.count_fds(max)
  local count = 0
  for fd = 0, (max or 4096) - 1 do
    if M.is_open(fd) then count = count + 1 end
  end
  return count
end

local limit_before

--- Lowers the limit of open files so that `spare` more can be opened: new ones take the lowest
--- free numbers, and only numbers below the limit.
function M.limit_fds(spare)
  local fd, free = 0, 0
  while free < spare or M.is_open(fd) do
    if not M.is_open(fd) then free = free + 1 end
    fd = fd + 1
  end
  local limit = ffi.new 'struct asio_test_limit[1]'
  check(C.getrlimit(RLIMIT_NOFILE, limit), 'getrlimit')
  limit_before = limit_before or limit[0].soft
  limit[0].soft = fd
  check(C.setrlimit(RLIMIT_NOFILE, limit), 'setrlimit')
  return fd
end

--- Ends what limit_fds has begun.
function M.unlimit_fds()
  local limit = ffi.new 'struct asio_test_limit[1]'
  check(C.getrlimit(RLIMIT_NOFILE, limit), 'getrlimit')
  limit[0].soft = limit_before
  check(C.setrlimit(RLIMIT_NOFILE, limit), 'setrlimit')
  limit_before = nil
end

--- The names in a directory.
function M.list(path)
  local files, pipe = {}, io.popen(("ls '%s'"):format(path))
  for name in pipe:lines() do files[#files + 1] = name end
  pipe:close()
  return files
end

function M.pid()
  return C.getpid()
end

function M.kill(signal)
  C.kill(C.getpid(), signal)
end

--- The process dies of SIGALRM after so many seconds; 0 calls it off.
function M.alarm(seconds)
  C.alarm(math.ceil(seconds))
end

local handler_type = ffi.typeof 'void (*)(int)'

--- Sets a signal's disposition ('default', 'ignore', or 'own': a C function that does
--- nothing) and returns what it was as one of these words, or 'other'.
function M.disposition(signal, word)
  local words = {
    default = ffi.cast(handler_type, 0),
    ignore = ffi.cast(handler_type, 1),
    -- Any C function that a handler's argument does not harm will do.
    own = ffi.cast(handler_type, C.strerror),
  }
  local old = C.signal(signal, words[word])
  for name, handler in pairs(words) do
    if old == handler then return name end
  end
  return 'other'
end

--- Starts a process that runs `fn` with the number that `tell(number)` will give it, and then
--- ends; returns `tell`. To be called before the library is loaded: what that has open must not
--- be shared.
function M.companion(fn)
  local ends = ffi.new 'int[2]'
  check(C.pipe(ends), 'pipe')
  local number = ffi.new 'double[1]'
  if check(C.fork(), 'fork') == 0 then
    C.close(ends[1])
    local told = C.read(ends[0], number, 8) == 8
    local ok, err = pcall(fn, tonumber(number[0]))
    if told and not ok then io.stderr:write('companion: ', tostring(err), '\n') end
    C._exit(ok and 0 or 1)
  end
  C.close(ends[0])
  return function(value)
    number[0] = value
    C.write(ends[1], number, 8)
    C.close(ends[1])
  end
end

--- Processor seconds of this process, finer than os.clock and deaf to its wrap-around.
function M.cpu()
  local time = ffi.new 'struct asio_test_time[1]'
  check(C.clock_gettime(2, time), 'clock_gettime')
  return tonumber(time[0].seconds) + tonumber(time[0].nanoseconds) / 1e9
end

--- A number out of /proc/self/status, such as 'VmRSS' (KiB) or 'voluntary_ctxt_switches'.
function M.status(field)
  local file = assert(io.open '/proc/self/status')
  local text = file:read '*a'
  file:close()
  return tonumber(text:match(field .. ':%s*(%d+)'))
end

-- Network namespaces ---------------------------------------------------------------------------

local namespace = {}
namespace.__index = namespace

local function own_namespace()
  return check(C.open('/proc/self/ns/net', O_CLOEXEC), 'open')
end

--- A network of its own, with the loopback interface up, set up by shell commands; nil when the system does
--- not allow it. Sockets made inside of `run` stay in it.
function M.namespace(setup)
  if not M.linux then return nil end
  local self = setmetatable({ here = own_namespace() }, namespace)
  if C.unshare(CLONE_NEWNET) ~= 0 then
    self:close()
    return nil
  end
  local ok = os.execute('PATH=$PATH:/usr/sbin:/sbin; exec >/dev/null 2>&1; ip link set lo up && '
    .. (setup or 'true')) == 0
  self.there = own_namespace()
  check(C.setns(self.here, CLONE_NEWNET), 'setns')
  if ok then return self end
  self:close()
  return nil
end

--- Runs a function inside; it must not wait.
function namespace:run(fn, ...)
  check(C.setns(self.there, CLONE_NEWNET), 'setns')
  local function leave(ok, ...)
    check(C.setns(self.here, CLONE_NEWNET), 'setns')
    if not ok then error((...), 0) end
    return ...
  end
  return leave(pcall(fn, ...))
end

function namespace:close()
  if self.here then C.close(self.here) end
  if self.there then C.close(self.there) end
  self.here, self.there = nil, nil
end

return M
