-- The program `asio`: its command line, scripts with and without asio.run, what it says and its exit status.
-- ASIO_PROGRAM names another one than that of the build.
--
-- SPDX-License-Identifier: MIT

local can = require 'can'
local lu = require 'luaunit'
local t = require 'support'
local process = require 'process'
local programs = require 'programs'
local raw = require 'raw'

local program = os.getenv 'ASIO_PROGRAM' or os.getenv 'ASIO_BUILD' .. '/bin/asio'

local T = {}

-- Runs it with words of the shell; returns what it prints, and its exit status.
local function asio(words, before)
  local line = ('%s %s %s'):format(before or '', t.quote(program), words)
  return programs.run('sh -c ' .. t.quote(line))
end

local function script(text)
  local path = os.tmpname()
  local file = assert(io.open(path, 'w'))
  file:write(text)
  file:close()
  return path
end

local function run_script(text, words)
  local path = script(text)
  local out, status = asio(path .. ' ' .. (words or ''))
  os.remove(path)
  return out, status, path
end

local function code(text, words)
  return asio('-e ' .. t.quote(text) .. ' ' .. (words or ''))
end

if not require('can').works(t.quote(program) .. ' -v') then
  return { test_program = function() lu.skip('no program that runs here: ' .. program) end }
end

-- Scripts -----------------------------------------------------------------------------------------

function T.test_a_script_is_a_light_thread()
  local out, status = run_script [[
    local asio = require 'asio'
    print(asio.current() ~= nil)
    asio.spawn(function() asio.sleep(0.02) print 'last' end)
    asio.sleep(0.01)
    print 'first'
  ]]
  lu.assertEquals(out, 'true\nfirst\nlast\n')
  lu.assertEquals(status, 0)
end

function T.test_arg()
  local itself = code 'io.write(arg[-1])' -- behind a script, it has another path than the script
  lu.assertStrContains(itself, program)
  local out, _, path = run_script('print(arg[-1], arg[0], arg[1], arg[2], #arg, ...)', 'a "b c"')
  lu.assertEquals(out, ('%s\t%s\ta\tb c\t2\ta\tb c\n'):format(itself, path))
  lu.assertEquals(code('print(arg[-1], arg[0], arg[1], #arg, ...)', 'x'), itself .. '\t-e\tx\t1\tx\n')
end

function T.test_a_script_from_standard_input()
  lu.assertEquals(asio('- a b', 'echo "print(arg[0], ...)" |'), '-\ta\tb\n')
  lu.assertEquals(asio('', 'echo "print(#arg)" |'), '0\n')
end

function T.test_code_has_the_module()
  lu.assertEquals({ code 'asio.sleep(0.01) print(asio.now() > 0)' }, { 'true\n', 0 })
end

function T.test_version_and_help()
  local out, status = asio '-v'
  lu.assertStrMatches(out, 'LuaAsio %d+%.%d+%.%d+, LuaJIT [^\n]+\n')
  lu.assertEquals(status, 0)
  out, status = asio '-h'
  lu.assertStrContains(out, 'asio -e CODE')
  lu.assertEquals(status, 0)
end

-- asio.run within a script ------------------------------------------------------------------------

function T.test_a_plain_script_runs_the_loop_itself()
  local out, status = run_script [[
    local asio = require 'asio'
    local server
    server = asio.server('127.0.0.1', 0, function(conn)
      conn:write(conn:read(5), '-pong')
      conn:close()
      server:close()
    end)
    local _, port = server:address()
    asio.spawn(function()
      local conn = asio.connect('127.0.0.1', port)
      conn:write 'hello'
      print(conn:read(10))
      conn:close()
    end)
    asio.run()
    print 'after'
  ]]
  lu.assertEquals({ out, status }, { 'hello-pong\nafter\n', 0 })
end

function T.test_run_returns_results_and_raises_errors()
  lu.assertEquals(code 'print(asio.run(function(a) asio.sleep(0.01) return a, nil, 3 end, 1))', '1\tnil\t3\n')
  lu.assertEquals(code [[
    local t = {}
    print(select(2, pcall(asio.run, function() asio.sleep(0.01) error(t) end)) == t)
    print((select(2, pcall(asio.run, function() error 'bad' end)):match '^[^\n]*'))
  ]], 'true\n-e:3: bad\n')
end

function T.test_run_again_and_again()
  lu.assertEquals(code [[
    for i = 1, 3 do
      asio.spawn(function() asio.sleep(0.01) print(i) end)
      asio.run()
    end
    asio.spawn(function() asio.sleep(0.01) print 'once' end)
    while asio.run_once() do end
  ]], '1\n2\n3\nonce\n')
end

function T.test_stop_ends_the_run_and_not_the_program()
  local out, status = asio('-e ' .. t.quote [[
    asio.spawn(function() asio.sleep(0.01) asio.stop() end)
    asio.spawn(function() asio.sleep(60) end)
    asio.run()
    print 'stopped'
    os.exit(3)
  ]], t.ignore_leaks)
  lu.assertEquals({ out, status }, { 'stopped\n', 3 })
  lu.assertEquals({ code 'asio.spawn(asio.sleep, 60) asio.sleep(0.01) asio.stop()' }, { '', 0 })
end

function T.test_a_deadline_around_run()
  lu.assertEquals(code 'print(asio.timeout(0.02, asio.run, asio.sleep, 60)) asio.stop()',
    'nil\toperation timed out\tETIMEDOUT\n')
end

function T.test_run_reports_a_deadlock()
  local out, status = code [[
    asio.spawn(function() asio.event():wait() end)
    print(select(3, asio.run { deadlock = 'return' }))
    print((select(2, pcall(asio.run)):match '^deadlock'))
  ]]
  lu.assertStrContains(out, 'EDEADLK\ndeadlock\nasio: deadlock')
  lu.assertEquals(status, 1)
end

function T.test_run_in_another_light_thread_is_refused()
  lu.assertStrContains(code 'asio.spawn(function() print(pcall(asio.run)) end)', 'called by a light thread')
  lu.assertStrContains(code 'print(pcall(asio.run, 5))', "bad argument #1 to 'run'")
  lu.assertStrContains(code 'print(pcall(asio.run, { deadlok = 1 }))', "unknown option 'deadlok'")
end

-- What goes wrong -----------------------------------------------------------------------------------

function T.test_an_error_gives_its_traceback()
  local out, status, path = run_script [[
    local function inner() require 'asio'.sleep(0.01) error 'boo' end
    inner()
    print 'not reached'
  ]]
  lu.assertEquals(out, ([[
asio: PATH:1: boo
stack traceback:
	[C]: in function 'error'
	PATH:1: in function 'inner'
	PATH:2: in main chunk
]]):gsub('PATH', path), nil)
  lu.assertEquals(status, 1)
  lu.assertStrContains(code 'error(setmetatable({}, { __tostring = function() return "an object" end }))',
    'asio: an object\n')
  lu.assertStrContains(code 'error {}', 'asio: (error object is a table value)\n')
end

function T.test_an_error_ends_the_program_at_once()
  local out, status = code 'asio.spawn(asio.sleep, 60) asio.sleep(0.01) error "boo"'
  lu.assertStrContains(out, 'asio: -e:1: boo')
  lu.assertEquals(status, 1)
end

function T.test_scripts_that_cannot_be_loaded()
  lu.assertEquals({ asio '/nowhere/script.lua' },
    { 'asio: cannot open /nowhere/script.lua: No such file or directory\n', 1 })
  lu.assertEquals({ asio '/' }, { 'asio: cannot read /: Is a directory\n', 1 })
  lu.assertEquals({ code 'x x' }, { "asio: -e:1: '=' expected near 'x'\n", 1 })
end

function T.test_command_lines_without_sense()
  for words, message in pairs {
    ['-e'] = "asio: '-e' needs code\n",
    ['-x'] = "asio: unknown option '-x'\n",
    ['--'] = "asio: '--' needs a script\n",
  } do
    local out, status = asio(words)
    lu.assertEquals(out:sub(1, #message), message)
    lu.assertStrContains(out, 'asio SCRIPT')
    lu.assertEquals(status, 2)
  end
end

function T.test_what_cannot_be_printed_shows()
  local out, status = asio("-e 'print(1)' >/dev/full")
  lu.assertStrMatches(out, 'asio: standard output: [^\n]+\n') -- with musl without the reason
  lu.assertEquals(status, 1)
end

-- As any filter: by the signal, which a shell shows as 141. Where that is ignored, the error shows.
function T.test_a_broken_pipe_on_standard_output()
  local words = t.quote(program) .. " -e 'for i = 1, 1e5 do print(i) end'"
  local line = "%s { %s; echo $? >&3; } 3>&2 | head -n 1 >/dev/null"
  lu.assertEquals(programs.run(('sh -c %s'):format(t.quote(line:format('', words)))), '141\n')
  lu.assertEquals(programs.run(('sh -c %s'):format(t.quote(line:format('trap "" PIPE;', words)))),
    'asio: standard output: Broken pipe\n1\n')
end

local function become(path, ...)
  local ffi = require 'ffi'
  ffi.cdef 'int execl(const char *, const char *, ...);'
  local option, text = ...
  ffi.C.execl(path, path, option, text, ffi.cast('char *', nil))
end

-- By SIGINT itself, so that a shell which runs it in a loop stops as well.
local function interrupted(text, pattern)
  local null, out, into = assert(raw.file '/dev/null'), process.pipe()
  local child = process.spawn(become, { null, into, into }, { program, '-e', text })
  process.close(null, into)
  process.expect(out, pattern)
  child:kill(2)
  local status, rest = child:wait(), process.expect(out)
  process.close(out)
  return status, rest
end

function T.test_an_interrupt()
  can.need 'real_kernel'
  local begun = 'asio.spawn(function() print "begun" io.stdout:flush() end) '
  lu.assertEquals({ interrupted(begun .. 'asio.sleep(60)', 'begun') }, { -2, '' })
  lu.assertEquals({ interrupted(begun .. 'print(pcall(asio.run, asio.sleep, 60)) asio.stop()', 'begun') },
    { 0, 'false\tinterrupted!\n' })
end

return T
