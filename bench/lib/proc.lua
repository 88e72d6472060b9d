-- Processes for the benchmarks: starts them on a chosen CPU, reads their output with a time limit,
-- ends them by pid. LuaJIT alone is enough for it. A child is told by the kernel when its parent is
-- gone, so that nothing is left behind, whatever ends the parent.
-- SPDX-License-Identifier: MIT
local ffi = require 'ffi'
local bit = require 'bit'

ffi.cdef [[
typedef int32_t bench_pid;
struct bench_timespec { long seconds, nanoseconds; };
struct bench_pollfd { int fd; short events, revents; };
struct bench_rlimit { unsigned long soft, hard; };
bench_pid fork(void);
bench_pid getpid(void);
bench_pid getppid(void);
bench_pid waitpid(bench_pid pid, int *status, int options);
int execvp(const char *file, char *const argv[]);
void _exit(int status);
int kill(bench_pid pid, int signal);
int pipe2(int fds[2], int flags);
int dup2(int from, int to);
int open(const char *path, int flags, ...);
int close(int fd);
long read(int fd, void *buffer, size_t length);
int poll(struct bench_pollfd *fds, unsigned long count, int timeout);
int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int sched_setaffinity(bench_pid pid, size_t size, const void *mask);
int sched_getaffinity(bench_pid pid, size_t size, void *mask);
int setenv(const char *name, const char *value, int overwrite);
int setrlimit(int what, const struct bench_rlimit *limit);
int getrlimit(int what, struct bench_rlimit *limit);
int nanosleep(const struct bench_timespec *wanted, struct bench_timespec *left);
int clock_gettime(int clock, struct bench_timespec *time);
int socket(int domain, int type, int protocol);
int bind(int fd, const void *address, unsigned length);
int getsockname(int fd, void *address, unsigned *length);
]]

local C = ffi.C
local O_CLOEXEC, O_WRONLY, POLLIN, EINTR = 0x80000, 1, 1, 4
local PR_SET_PDEATHSIG, SIGTERM, SIGKILL, WNOHANG = 1, 15, 9, 1
local CLOCK_MONOTONIC, RLIMIT_NOFILE = 1, 7
local MASK_BYTES = 128
local AF_INET, SOCK_STREAM = 2, 1

local M = {}
local running = {} -- pid -> process, of those not waited for yet

function M.now()
    local t = ffi.new 'struct bench_timespec'
    C.clock_gettime(CLOCK_MONOTONIC, t)
    return tonumber(t.seconds) + tonumber(t.nanoseconds) / 1e9
end

function M.sleep(seconds)
    local whole = math.floor(seconds)
    C.nanosleep(ffi.new('struct bench_timespec', whole, (seconds - whole) * 1e9), nil)
end

-- The CPUs this process may use, as numbers.
function M.cpus()
    local mask = ffi.new('uint8_t[?]', MASK_BYTES)
    local list = {}
    if C.sched_getaffinity(0, MASK_BYTES, mask) < 0 then return list end
    for cpu = 0, MASK_BYTES * 8 - 1 do
        if bit.band(bit.rshift(mask[math.floor(cpu / 8)], cpu % 8), 1) == 1 then list[#list + 1] = cpu end
    end
    return list
end

-- A TCP port of 127.0.0.1 that is free now, for programs that have to be told one.
function M.free_port()
    local fd = C.socket(AF_INET, SOCK_STREAM, 0)
    local address = ffi.new('uint8_t[16]', AF_INET, 0, 0, 0, 127, 0, 0, 1)
    local length = ffi.new('unsigned[1]', 16)
    local ok = fd >= 0 and C.bind(fd, address, 16) == 0 and C.getsockname(fd, address, length) == 0
    C.close(fd)
    assert(ok, 'no free port')
    return address[2] * 256 + address[3]
end

-- Raises the limit of open files, for the children too; returns it.
function M.raise_file_limit()
    local limit = ffi.new 'struct bench_rlimit'
    C.getrlimit(RLIMIT_NOFILE, limit)
    limit.soft = limit.hard
    C.setrlimit(RLIMIT_NOFILE, limit)
    return tonumber(limit.soft)
end

local function pin(cpu)
    local mask = ffi.new('uint8_t[?]', MASK_BYTES)
    mask[math.floor(cpu / 8)] = bit.lshift(1, cpu % 8)
    C.sched_setaffinity(0, MASK_BYTES, mask)
end

-- In the child: never returns and never comes back to Lua code of the parent.
local function become(argv, out, opts, parent)
    C.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if C.getppid() ~= parent then C._exit(126) end -- it went before we asked to be told
    if opts.cpu then pin(opts.cpu) end
    C.dup2(out, 1)
    if opts.quiet then C.dup2(C.open('/dev/null', O_WRONLY), 2) end
    for name, value in pairs(opts.env or {}) do C.setenv(name, tostring(value), 1) end
    local args = ffi.new('const char *[?]', #argv + 1)
    for i, text in ipairs(argv) do args[i - 1] = text end
    args[#argv] = nil
    C.execvp(argv[1], ffi.cast('char *const *', args))
    C._exit(127)
end

local Process = {}
Process.__index = Process

-- Starts argv[1] with its arguments. opts: cpu (a number), env (a table), quiet (without stderr).
function M.start(argv, opts)
    local words = {}
    for i, word in ipairs(argv) do words[i] = tostring(word) end
    local fds = ffi.new 'int[2]'
    assert(C.pipe2(fds, O_CLOEXEC) == 0, 'pipe2 failed')
    io.stdout:flush()
    local parent = C.getpid()
    local pid = C.fork()
    assert(pid >= 0, 'fork failed')
    if pid == 0 then become(words, fds[1], opts or {}, parent) end
    C.close(fds[1])
    local process = setmetatable({ pid = pid, fd = fds[0], name = words[1], buffered = '' }, Process)
    running[pid] = process
    return process
end

-- The CPU time of the process with all its threads, in ns: what clock_getcpuclockid gives on Linux.
function Process:cpu_ns()
    local t = ffi.new 'struct bench_timespec'
    local clock = bit.bor(bit.lshift(bit.bnot(self.pid), 3), 2)
    if C.clock_gettime(clock, t) ~= 0 then return nil end
    return tonumber(t.seconds) * 1e9 + tonumber(t.nanoseconds)
end

-- Waits for output. Returns false at its end or at the deadline; a signal to us raises.
function Process:fill(deadline)
    local item = ffi.new('struct bench_pollfd', self.fd, POLLIN, 0)
    local left = math.max(0, deadline - M.now())
    local ready = C.poll(item, 1, math.ceil(left * 1000))
    if ready < 0 and ffi.errno() == EINTR then error('interrupted!', 0) end
    if ready <= 0 then return false end
    local chunk = ffi.new 'char[4096]'
    local n = tonumber(C.read(self.fd, chunk, 4096))
    if n <= 0 then return false end
    self.buffered = self.buffered .. ffi.string(chunk, n)
    return true
end

-- Waits until a key=value has been printed; returns the value, or nil when it does not come in time.
function Process:wait_for(key, seconds)
    local deadline = M.now() + seconds
    local sought = '%f[%w_]' .. key .. '=(%S+)%s'
    while true do
        local value = self.buffered:match(sought)
        if value then return value end
        if not self:fill(deadline) then return nil end
    end
end

-- Takes note that the process has ended, if it has by the deadline.
function Process:reap(seconds)
    local status = ffi.new 'int[1]'
    local deadline = M.now() + seconds
    while not self.ended do
        if C.waitpid(self.pid, status, WNOHANG) ~= 0 then
            self.ended = true
            self.status = status[0] == 0 and 0 or bit.rshift(status[0], 8)
            if bit.band(status[0], 127) ~= 0 then self.status = 128 + bit.band(status[0], 127) end
            running[self.pid] = nil
            C.close(self.fd)
        elseif M.now() >= deadline then
            return false
        else
            M.sleep(0.005)
        end
    end
    return true
end

function Process:stop()
    if self.ended then return end
    C.kill(self.pid, SIGTERM)
    if self:reap(1) then return end
    C.kill(self.pid, SIGKILL)
    self:reap(5)
end

-- All it prints until it ends, and its exit status; ends it by force after so many seconds.
function Process:finish(seconds)
    local deadline = M.now() + seconds
    while self:fill(deadline) do end
    if not self:reap(math.max(0, deadline - M.now())) then
        self:stop()
        return self.buffered, 'time limit'
    end
    return self.buffered, self.status
end

function M.run(argv, opts)
    return M.start(argv, opts):finish(opts and opts.limit or 60)
end

function M.stop_all()
    for _, process in pairs(running) do C.kill(process.pid, SIGTERM) end
    for _, process in pairs(running) do process:stop() end
end

return M
