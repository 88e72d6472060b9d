-- Programs that tests use for real: the examples, and tools such as curl and dig. Each is a process of its
-- own, under a time limit, and ended by its id.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local raw = require 'raw'
local can = require 'can'
local windows = raw.windows and require 'start_windows'

local M = {}

local LIMIT = 60 -- seconds that a program may run

--- The path of an example.
function M.example(name)
  return t.root .. 'examples/' .. name .. '.lua'
end

-- A shell command that runs an example under the time limit; what it reports is part of its output.
local function command(name, options, ...)
  local words = { t.quote(t.launcher), t.quote(M.example(name)) }
  for _, word in ipairs { ... } do words[#words + 1] = t.quote(word) end
  return ('env %s timeout --foreground -k 5 %d %s 2>&1'):format(
    options.env or '', LIMIT * t.patience, table.concat(words, ' '))
end

local program = {}
program.__index = program

--- Starts an example; options: env, assignments for the shell.
function M.start(name, options, ...)
  local self = setmetatable({}, program)
  if windows then
    self.process = windows.start({ windows.interpreter(), M.example(name), ... }, { env = options.env })
    return self
  end
  -- Its id comes before all that it prints.
  local run = t.quote('echo pid $$; exec ' .. command(name, options, ...))
  self.output = io.popen('sh -c ' .. run .. '; echo status $?')
  self.pid = assert(self.output:read '*l':match '^pid (%d+)$')
  return self
end

--- Its next line. Blocks.
function program:line()
  return windows and self.process:line() or not windows and self.output:read '*l' or nil
end

--- As Ctrl-C does.
function program:interrupt()
  if windows then
    self.process:interrupt()
  else
    os.execute('kill -INT ' .. self.pid)
  end
end

--- As a closed terminal does, and as daemons are told to read their files again.
function program:hangup()
  os.execute('kill -HUP ' .. self.pid)
end

-- Waits for its end; returns the rest of its output, and its exit code as a string.
local function finish(self)
  if windows then
    local rest = self.process:all()
    return rest, tostring(self.process:wait(LIMIT))
  end
  local rest = self.output:read '*a'
  self.output:close()
  return rest:match '^(.*)status (%d+)\n$'
end

--- Interrupts it, waits for its end, which has to be a good one, and returns what else it has printed.
function program:stop()
  self:interrupt()
  local text, status = finish(self)
  lu.assertEquals(status, '0', text)
  return text
end

-- Starts a server; returns it and its first line. One that takes a port of the system's choice for two
-- sockets may find that the second one's is in use.
local function start_server(name, options, ...)
  for _ = 1, 10 do
    local self = M.start(name, options, ...)
    local first = self:line()
    if not first:find 'already in use' then return self, first end
    finish(self)
  end
  lu.fail('no free port for ' .. name)
end

--- Starts a server among the examples, calls fn(port, ip, program) when it listens, and stops it.
--- Returns what it has printed since that nobody has read.
function M.with(fn, name, options, ...)
  local self, first = start_server(name, options, ...)
  local ok, err = xpcall(function()
    local ip, port = first:match '^listening\t(%S+)\t?(%d*)$'
    assert(ip, first)
    fn(tonumber(port), ip, self)
  end, function(e)
    return type(e) == 'string' and not e:find('LuaUnit test ', 1, true) and debug.traceback(e, 2) or e
  end)
  local stopped, rest = pcall(self.stop, self)
  if not ok then error(err, 0) end
  assert(stopped, rest)
  return rest
end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function slurp(path)
  local file = assert(io.open(path))
  local text = file:read '*a'
  file:close()
  os.remove(path)
  return text
end

-- A program that is talked to while the loop goes on.
local talk = {}
talk.__index = talk

--- Sends text to its standard input.
function talk:say(text)
  self.input:write(text)
  self.input:flush()
end

--- Ends its standard input.
function talk:eof()
  if self.input then self.input:close() end
  self.input = nil
end

--- All that it has said.
function talk:text() return t.contents(self.base) end

--- Waits until it has said what matches the pattern; returns all that it has said.
function talk:expect(pattern)
  local text
  local ok = pcall(t.wait_until, function()
    text = self:text()
    return text:find(pattern) or exists(self.base .. '.done')
  end, pattern, 15)
  text = self:text()
  if not ok or not text:find(pattern) then error(('no %q in what it said:\n%s'):format(pattern, text), 2) end
  return text
end

--- Sends a signal: "TERM", "KILL".
function talk:kill(signal)
  os.execute(('kill -%s %s 2>/dev/null'):format(signal, t.contents(self.base .. '.pid'):match '%d+'))
end

--- Waits for its end; returns all that it has said, and its exit code.
function talk:wait()
  t.wait_until(function() return exists(self.base .. '.done') end, 'the end of ' .. self.command, LIMIT)
  return self:text(), tonumber(t.contents(self.base .. '.done'))
end

--- Runs a shell command beside and calls fn(program) with it; ends it afterwards, if it has not ended yet.
function M.talk(line, fn)
  can.need 'shell'
  local base = t.temporary()
  local self = setmetatable({ base = base, command = line }, talk)
  local inner = t.quote(('echo $$ >%s.pid; exec %s'):format(base, line))
  local command_line = '(timeout -k 2 %d sh -c %s <%s.in >%s 2>&1; echo $? >%s.new; mv %s.new %s.done) &'
  os.execute(('mkfifo %s.in; ' .. command_line):format(
    base, LIMIT * t.patience, inner, base, base, base, base, base))
  self.input = assert(io.open(base .. '.in', 'r+e'))
  t.wait_until(function() return exists(base .. '.pid') and t.contents(base .. '.pid') ~= '' end, line)
  local ok, err = xpcall(fn, function(e)
    return type(e) == 'string' and not e:find('LuaUnit test ', 1, true) and debug.traceback(e, 2) or e
  end, self)
  self:eof()
  if not exists(base .. '.done') then self:kill 'TERM' end
  self:wait()
  os.execute(('rm -f %s %s.*'):format(base, base))
  if not ok then error(err, 0) end
end

-- Runs it while the loop goes on; returns its output and its exit code.
local function beside(line)
  local base = os.tmpname()
  os.execute(('(%s; echo $? >%s.new; mv %s.new %s.done) </dev/null >%s 2>&1 &'):format(
    line, base, base, base, base))
  t.wait_until(function() return exists(base .. '.done') end, line, LIMIT)
  return slurp(base), tonumber(slurp(base .. '.done'))
end

--- A free port, for a program that cannot be asked which one it has.
function M.free_port()
  local listener = raw.listen()
  local port = listener:port()
  listener:close()
  return port
end

--- Waits until a program listens on a port.
function M.listening(port)
  t.wait_until(function()
    local conn = asio.connect('127.0.0.1', port)
    if conn then conn:close() end
    return conn
  end, 'a server on port ' .. port, 15)
end

--- Runs a program with a file of this text, whose name goes into the shell command `line`; calls
--- fn(program) when it listens on the port.
function M.with_file(name, line, text, port, fn)
  can.run(name)
  local path = t.temporary(text)
  local ok, err = pcall(M.talk, line:format(path), function(running)
    M.listening(port)
    fn(running)
  end)
  os.remove(path)
  if not ok then error(err, 0) end
end

--- Runs a shell command beside: this process' light threads go on. Returns its output and its exit code.
function M.run(line)
  can.need 'shell'
  return beside(('timeout -k 2 %d %s'):format(LIMIT * t.patience, line))
end

--- The same for an example that ends by itself.
function M.run_example(name, ...)
  if windows then
    local path = os.tmpname()
    local process = windows.start({ windows.interpreter(), M.example(name), ... },
      { out = path .. '.out', err = path .. '.err' })
    t.wait_until(function() return process:wait(0) end, name, LIMIT)
    return slurp(path .. '.out') .. slurp(path .. '.err'), process:wait(0)
  end
  return beside(command(name, {}, ...))
end

return M
