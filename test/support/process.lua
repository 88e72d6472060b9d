-- Processes whose standard streams a test holds the other ends of: pseudo-terminals, pipes, sockets,
-- files. Straight from libc, so that the library under test has no part in it.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
if ffi.os == 'Windows' then
  local function missing() require('can').need 'fork' end
  return setmetatable({ linux = false }, { __index = function() return missing end })
end
local numbers = require 'numbers'
local raw = require 'raw'
local t = require 'support'
local C = ffi.C

ffi.cdef [[
int posix_openpt(int);
int grantpt(int);
int unlockpt(int);
int ptsname_r(int, char *, size_t);
int waitpid(int, int *, int);
int execv(const char *, const char *const *);
]]

local M = {}

local O_RDWR, O_NOCTTY, O_CLOEXEC, O_NONBLOCK, F_GETFL = 2, numbers.O_NOCTTY, 0x80000, numbers.O_NONBLOCK, 3
local POLLIN, WNOHANG = 1, 1

local function check(result)
  if result < 0 then error(ffi.string(C.strerror(ffi.errno())), 3) end
  return result
end

--- Whether the description behind a descriptor, which others share, does not wait.
function M.is_nonblocking(fd)
  return bit.band(check(C.fcntl(fd, F_GETFL)), O_NONBLOCK) ~= 0
end

--- A pseudo-terminal: master, slave.
function M.terminal()
  local master = check(C.posix_openpt(O_RDWR + O_NOCTTY + O_CLOEXEC))
  local name = ffi.new 'char[100]'
  check(C.grantpt(master))
  check(C.unlockpt(master))
  check(C.ptsname_r(master, name, 100))
  return master, check(C.open(ffi.string(name), O_RDWR + O_NOCTTY + O_CLOEXEC))
end

--- A pipe: the end to read from, the end to write to.
function M.pipe()
  local fds = ffi.new 'int[2]'
  check(C.pipe(fds))
  for i = 0, 1 do C.fcntl(fds[i], 2, ffi.cast('int', 1)) end -- FD_CLOEXEC
  return fds[0], fds[1]
end

function M.close(...)
  for _, fd in ipairs { ... } do C.close(fd) end
end

--- Up to 64 KB that are there; nil: nothing; false: the end.
function M.poll(fd)
  local set = ffi.new('struct asio_test_poll[1]', { { fd, POLLIN, 0 } })
  if C.poll(set, 1, 0) <= 0 then return nil end
  local buffer = ffi.new 'char[65536]'
  local n = C.read(fd, buffer, 65536)
  return n > 0 and ffi.string(buffer, n)
end

--- Reads until there is `pattern` (nil: the end) in what has come; returns all of it.
function M.expect(fd, pattern)
  local text, ended = '', false
  t.wait_until(function()
    local data = M.poll(fd)
    if data then text = text .. data end
    ended = data == false
    return ended or pattern and text:find(pattern)
  end, ('%q'):format(pattern or 'the end'), 15)
  if pattern and not text:find(pattern) then error(('ended with %q'):format(text), 2) end
  return text
end

function M.write(fd, text)
  assert(check(C.write(fd, text, #text)) == #text)
end

local process = {}
process.__index = process

--- Runs a function (no upvalues; arguments are strings) in a process with these descriptors as 0, 1, 2
--- (false: closed). `wrap`: words before the interpreter's.
function M.spawn(fn, fds, args, wrap)
  local path = os.tmpname()
  local file = assert(io.open(path, 'w'))
  file:write(string.dump(fn))
  file:close()
  os.execute('chmod 644 ' .. path)
  local words = {}
  for word in (wrap or ''):gmatch '%S+' do words[#words + 1] = word end
  for _, word in ipairs { t.launcher, path, unpack(args or {}) } do words[#words + 1] = word end
  local argv = ffi.new('const char *[?]', #words + 4)
  for i, word in ipairs(words) do argv[i + 2] = word end
  argv[0], argv[1], argv[2] = 'sh', '-c', 'exec "$0" "$@"'
  local pid = check(C.fork())
  if pid == 0 then
    local high = {}
    for i = 1, 3 do high[i] = fds[i] and C.fcntl(fds[i], 0, ffi.cast('int', 100)) end -- out of the way
    for i = 1, 3 do
      if high[i] then C.dup2(high[i], i - 1) else C.close(i - 1) end
      if high[i] then C.close(high[i]) end
    end
    C.execv('/bin/sh', argv)
    C._exit(127)
  end
  return setmetatable({ pid = pid, path = path, words = words }, process)
end

function process:kill(signal)
  C.kill(self.pid, signal)
end

--- Its exit code, or minus the signal that ended it; nil: it runs.
function process:ended()
  local status = ffi.new 'int[1]'
  if C.waitpid(self.pid, status, WNOHANG) == 0 then return nil end
  local signal = bit.band(status[0], 127)
  return signal ~= 0 and -signal or bit.rshift(status[0], 8)
end

--- Waits for that.
function process:wait()
  local ok, code = pcall(t.wait_until, function() return self:ended() end, 'the process', 20)
  if not ok then
    self:kill(9)
    C.waitpid(self.pid, nil, 0)
  end
  os.remove(self.path)
  if not ok then error(code, 0) end
  return code
end

--- Words for `wrap` with which pipes of ours cannot be opened again; skips the case elsewhere.
function M.stranger()
  require('luaunit').skipIf(os.execute(
    ("setpriv --reuid=65534 --regid=65534 --clear-groups %s -e 'require [[asio]]' 2>/dev/null")
    :format(t.launcher)) ~= 0, 'needs root, setpriv, and a build that everybody can read')
  return 'setpriv --reuid=65534 --regid=65534 --clear-groups'
end

M.linux = raw.linux

return M
