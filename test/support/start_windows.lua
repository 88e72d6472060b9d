-- Starting processes on Windows: with the streams of a child as files or pipes, variables for it, and a
-- time limit.
-- For support.lua and programs.lua, where other systems have a shell.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local C = ffi.C

ffi.cdef [[
struct asio_start_info {
  unsigned long size; char *reserved, *desktop, *title;
  unsigned long x, y, width, height, columns, rows, fill, flags;
  uint16_t show, reserved_size; void *reserved_bytes; void *streams[3];
};
struct asio_start_process { void *process, *thread; unsigned long pid, tid; };
struct asio_start_security { unsigned long size; void *descriptor; int inherit; };
int CreateProcessA(const char *, char *, void *, void *, int, unsigned long, void *, const char *,
  struct asio_start_info *, struct asio_start_process *);
void *CreateFileA(const char *, unsigned long, unsigned long, struct asio_start_security *, unsigned long,
  unsigned long, void *);
int CreatePipe(void **, void **, struct asio_start_security *, unsigned long);
int WriteFile(void *, const void *, unsigned long, unsigned long *, void *);
int ReadFile(void *, void *, unsigned long, unsigned long *, void *);
int CloseHandle(void *);
int SetEnvironmentVariableA(const char *, const char *);
unsigned long GetEnvironmentVariableA(const char *, char *, unsigned long);
unsigned long GetModuleFileNameA(void *, char *, unsigned long);
unsigned long WaitForSingleObject(void *, unsigned long);
int GetExitCodeProcess(void *, unsigned long *);
unsigned long GetLastError(void);
void *GetModuleHandleA(const char *);
void *GetProcAddress(void *, const char *);
void *CreateRemoteThread(void *, void *, size_t, void *, void *, unsigned long, unsigned long *);
]]

local M = {}

local GENERIC_READ, GENERIC_WRITE = 0x80000000, 0x40000000

-- As the C runtime of the child takes a command line apart.
local function quote(word)
  word = tostring(word)
  if word ~= '' and not word:find '[%s"]' then return word end
  return '"' .. word:gsub('(\\*)"', '%1%1\\"'):gsub('(\\+)$', '%1%1') .. '"'
end

--- The file of the interpreter that runs this.
function M.interpreter()
  local path = ffi.new 'char[1000]'
  C.GetModuleFileNameA(nil, path, 1000)
  return ffi.string(path)
end

local inherited = ffi.new('struct asio_start_security', { size = 24, inherit = 1 })

local function open(path, write)
  local handle = C.CreateFileA(path, write and GENERIC_WRITE or GENERIC_READ, 3, inherited,
    write and 2 or 3, 0x80, nil)
  assert(ffi.cast('intptr_t', handle) ~= -1, path)
  return handle
end

-- Assignments as for a shell: A=1 B='two words' C="$A".
local function assignments(text)
  local list = {}
  for name, value in (text or ''):gmatch '([%w_]+)=(%S*)' do
    list[#list + 1] = { name, (value:gsub('[\'"]', '')) }
  end
  return list
end

-- Sets the variables for as long as fn runs.
local function with_variables(list, fn)
  local before, buffer = {}, ffi.new 'char[32000]'
  for i, pair in ipairs(list) do
    before[i] = C.GetEnvironmentVariableA(pair[1], buffer, 32000) > 0 and ffi.string(buffer) or nil
    C.SetEnvironmentVariableA(pair[1], pair[2])
  end
  local result = fn()
  for i = #list, 1, -1 do C.SetEnvironmentVariableA(list[i][1], before[i]) end
  return result
end

local process = {}
process.__index = process

--- Starts words[1] with the arguments behind it. Options: env, assignments; out, err: paths of files; without
--- `out` its standard output and error are a pipe, from which line() and all() read; input: the path of a
--- file, or true for a pipe that write() fills.
function M.start(words, options)
  local line = {}
  for i, word in ipairs(words) do line[i] = quote(word) end
  line = table.concat(line, ' ')
  local command = ffi.new('char[?]', #line + 1, line)
  local self = setmetatable({ text = '' }, process)
  local info, made = ffi.new 'struct asio_start_info', ffi.new 'struct asio_start_process'
  local streams = { options.input ~= true and open(options.input or 'NUL', false) or nil }
  if options.input == true then
    local from, to = ffi.new 'void *[1]', ffi.new 'void *[1]'
    assert(C.CreatePipe(from, to, inherited, 65536) ~= 0, 'CreatePipe')
    C.SetHandleInformation(to[0], 1, 0)
    streams[1], self.to = from[0], to[0]
  end
  if options.out then
    streams[2] = open(options.out, true)
    streams[3] = options.err == options.out and streams[2] or open(options.err, true)
  else
    local from, to = ffi.new 'void *[1]', ffi.new 'void *[1]'
    assert(C.CreatePipe(from, to, inherited, 65536) ~= 0, 'CreatePipe')
    C.SetHandleInformation(from[0], 1, 0)
    self.from, streams[2], streams[3] = from[0], to[0], to[0]
  end
  info.size, info.flags = ffi.sizeof(info), 0x100 -- the streams are given
  for i = 0, 2 do info.streams[i] = streams[i + 1] end
  local ok, code
  for _ = 1, 3 do -- Wine fails now and then with ERROR_INTERNAL_ERROR, where the next try works
    ok = with_variables(assignments(options.env), function()
      return C.CreateProcessA(nil, command, nil, nil, 1, 0, nil, nil, info, made)
    end)
    code = C.GetLastError()
    if ok ~= 0 or code ~= 1359 then break end
  end
  for i = 1, streams[3] == streams[2] and 2 or 3 do C.CloseHandle(streams[i]) end
  assert(ok ~= 0, ('CreateProcess: error %d: %s'):format(tonumber(code), line))
  C.CloseHandle(made.thread)
  self.process, self.pid = made.process, tonumber(made.pid)
  return self
end

--- Its exit code; nil: it runs after so many seconds.
function process:wait(seconds)
  if self.code then return self.code end
  if C.WaitForSingleObject(self.process, seconds * 1000) ~= 0 then return nil end
  local code = ffi.new 'unsigned long[1]'
  C.GetExitCodeProcess(self.process, code)
  C.CloseHandle(self.process)
  self.code = tonumber(code[0])
  return self.code
end

function process:kill()
  if not self.code then C.TerminateProcess(self.process, 137) end
end

--- Ctrl-C, for it alone: it runs what the system runs in it then. That works without a console, too.
function process:interrupt()
  local deliver = C.GetProcAddress(C.GetModuleHandleA 'kernel32', 'CtrlRoutine')
  local thread = C.CreateRemoteThread(self.process, nil, 0, deliver, nil, 0, nil)
  if thread ~= nil then C.CloseHandle(thread) end -- nil: it has ended
end

-- More of what it has printed; false: that was all.
local function read_more(self)
  local buffer, n = ffi.new 'char[4096]', ffi.new 'unsigned long[1]'
  if C.ReadFile(self.from, buffer, 4096, n, nil) == 0 or n[0] == 0 then return false end
  self.text = self.text .. ffi.string(buffer, n[0]):gsub('\r\n', '\n')
  return true
end

--- Writes to its standard input; nil: that was all.
function process:write(text)
  if not text then
    C.CloseHandle(self.to)
    return
  end
  local n = ffi.new 'unsigned long[1]'
  assert(C.WriteFile(self.to, text, #text, n, nil) ~= 0 and n[0] == #text, 'WriteFile')
end

--- The next line of its output; waits for it.
function process:line()
  while not self.text:find('\n', 1, true) and read_more(self) do end -- luacheck: ignore 542
  local line, rest = self.text:match '^([^\n]*)\n?(.*)$'
  if line == '' and rest == '' and self.text == '' then return nil end
  self.text = rest
  return line
end

--- What else it prints until its end.
function process:all()
  while read_more(self) do end -- luacheck: ignore 542
  C.CloseHandle(self.from)
  return self.text
end

--- Runs words[1] with the arguments behind it, for at most so many seconds (then 124); returns its exit code.
function M.run(words, options)
  local self = M.start(words, options)
  local code = self:wait(options.seconds)
  if code then return code end
  self:kill()
  self:wait(5)
  return 124
end

-- Consoles --------------------------------------------------------------------------------------

ffi.cdef [[
struct asio_start_info_more { struct asio_start_info info; void *attributes; };
int PeekNamedPipe(void *, void *, unsigned long, unsigned long *, unsigned long *, unsigned long *);
long CreatePseudoConsole(uint32_t, void *, void *, unsigned long, void **);
void ClosePseudoConsole(void *);
int InitializeProcThreadAttributeList(void *, unsigned long, unsigned long, size_t *);
int UpdateProcThreadAttribute(void *, unsigned long, size_t, void *, size_t, void *, size_t *);
]]

local console = setmetatable({}, { __index = process })
console.__index = console

local function pipe()
  local from, to = ffi.new 'void *[1]', ffi.new 'void *[1]'
  assert(C.CreatePipe(from, to, nil, 65536) ~= 0, 'CreatePipe')
  return from[0], to[0]
end

--- Starts words[1] with a console of its own, 80 columns wide. Its standard streams are none: see
--- attach_console. type(text) types; shown() is what it has written so far, with escape sequences; hang_up()
--- ends the console.
function M.start_with_console(words)
  local line = {}
  for i, word in ipairs(words) do line[i] = quote(word) end
  line = table.concat(line, ' ')
  local self = setmetatable({ text = '' }, console)
  local made = ffi.new 'struct asio_start_process'
  local input, to = pipe()
  local from, output = pipe()
  self.to, self.from = to, from
  local pseudo, size = ffi.new 'void *[1]', ffi.new 'size_t[1]'
  assert(C.CreatePseudoConsole(25 * 65536 + 80, input, output, 0, pseudo) == 0, 'CreatePseudoConsole')
  C.CloseHandle(input)
  C.CloseHandle(output)
  C.InitializeProcThreadAttributeList(nil, 1, 0, size)
  local attributes = ffi.new('char[?]', size[0])
  C.InitializeProcThreadAttributeList(attributes, 1, 0, size)
  C.UpdateProcThreadAttribute(attributes, 0, 0x20016, pseudo[0], ffi.sizeof 'void *', nil, nil)
  local info = ffi.new 'struct asio_start_info_more'
  info.info.size, info.info.flags = ffi.sizeof(info), 0x100 -- the streams are given: none
  info.attributes = ffi.cast('void *', attributes)
  local command = ffi.new('char[?]', #line + 1, line)
  local ok = C.CreateProcessA(nil, command, nil, nil, 0, 0x80000, nil, nil,
    ffi.cast('struct asio_start_info *', info), made)
  assert(ok ~= 0, 'CreateProcess: ' .. line)
  C.CloseHandle(made.thread)
  self.process, self.pid, self.pseudo = made.process, tonumber(made.pid), pseudo[0]
  return self
end

function console:type(text)
  local wrote = ffi.new 'unsigned long[1]'
  assert(C.WriteFile(self.to, text, #text, wrote, nil) ~= 0, 'WriteFile')
end

function console:shown()
  local buffer, n = ffi.new 'char[4096]', ffi.new 'unsigned long[1]'
  while C.PeekNamedPipe(self.from, nil, 0, nil, n, nil) ~= 0 and n[0] > 0 do
    C.ReadFile(self.from, buffer, 4096, n, nil)
    self.text = self.text .. ffi.string(buffer, n[0])
  end
  return self.text
end

function console:hang_up()
  if self.pseudo then C.ClosePseudoConsole(self.pseudo) end
  self.pseudo = nil
end

return M
