-- The prompt of the program `asio`, at a pseudo-terminal.
--
-- test: 8 s
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local process = require 'process'

local program = os.getenv 'ASIO_PROGRAM' or os.getenv 'ASIO_BUILD' .. '/bin/asio'
local CTRL_C, CTRL_D, UP, ENTER = '\3', '\4', '\27[A', '\r'

ffi.cdef 'int tcgetattr(int, void *);'

local T = {}

if not can.works(program .. ' -v') then
  return { test_program = function() lu.skip('no program that runs here: ' .. program) end }
end

local function become(path)
  local ffi = require 'ffi' -- luacheck: ignore 431
  ffi.cdef 'int execl(const char *, const char *, ...);'
  ffi.C.execl(path, path, ffi.cast('char *', nil))
end

local home -- with the history

local function forget_history()
  if home then os.execute('rm -r ' .. home) end
  home = os.tmpname()
  os.execute(('rm %s && mkdir %s'):format(home, home))
end

-- Starts it with a terminal; returns the process, and what types a line and waits for a text.
local function start(options)
  options = options or {}
  can.need 'terminals'
  local master, slave = process.terminal()
  if not home then forget_history() end
  local wrap = ('%s env HOME=%s TERM=%s LC_ALL=C.UTF-8'):format(
    options.alone and '' or 'setsid -c', home, options.term or 'xterm')
  local child = process.spawn(become, { slave, slave, options.errors or slave }, { program }, wrap)
  process.close(slave)
  process.expect(master, '> $')
  local function type_keys(keys, answer)
    process.write(master, keys)
    return process.expect(master, answer)
  end
  return child, type_keys, master
end

local function case(fn)
  return function()
    lu.skipIf(not process.linux, 'the helpers of these tests are for Linux')
    forget_history()
    fn()
    os.execute('rm -r ' .. home)
    home = nil
  end
end

local function quit(child, keys, master)
  process.write(master, CTRL_D)
  lu.assertEquals(child:wait(), 0)
  process.close(master)
  return keys
end

T.test_expressions_and_statements = case(function()
  local child, keys, master = start()
  lu.assertStrContains(keys('1 + 1, "a"' .. ENTER, '\n> $'), '\n2\ta\r\n')
  lu.assertNotStrContains(keys('x = 5' .. ENTER, '\n> $'), 'nil')
  lu.assertStrContains(keys('=x' .. ENTER, '\n> $'), '\n5\r\n')
  lu.assertStrContains(keys('nil' .. ENTER, '\n> $'), '\nnil\r\n')
  lu.assertStrContains(keys('"\195\164"' .. ENTER, '\n> $'), '\n\195\164\r\n')
  quit(child, keys, master)
end)

T.test_several_lines = case(function()
  local child, keys, master = start()
  keys('for i = 1, 2 do' .. ENTER, '\n>> $')
  lu.assertStrContains(keys('print("row", i) end' .. ENTER, '\n> $'), '\nrow\t1\r\nrow\t2\r\n')
  quit(child, keys, master)
end)

T.test_errors = case(function()
  local child, keys, master = start()
  lu.assertStrContains(keys('local t = nil; t.x = 1' .. ENTER, '\n> $'),
    "asio: stdin:1: attempt to index local 't' (a nil value)")
  lu.assertStrContains(keys('x x' .. ENTER, '\n> $'), "asio: stdin:1: '=' expected near 'x'")
  quit(child, keys, master)
end)

-- A line that waits does not stop the others, nor does typing.
T.test_waiting_calls = case(function()
  local child, keys, master = start()
  keys('ch = asio.channel()' .. ENTER, '\n> $')
  keys('_ = asio.spawn(function() for v in ch:iter() do print("got " .. v) end end) ' .. ENTER, '\n> $')
  keys('local a = asio.sleep(0.02)' .. ENTER, '\n> $')
  keys('asio.spawn(function() asio.sleep(0.3) print "meanwhile" end); typed = 1' .. ENTER, '\n> $')
  keys('"half', 'half')
  process.expect(master, 'meanwhile')
  lu.assertStrContains(keys(' a line"' .. ENTER, '\n> $'), '\nhalf a line\r\n')
  keys('ch:send "it"' .. ENTER, 'got it\r\n')
  quit(child, keys, master)
end)

T.test_asio_run_is_harmless = case(function()
  local child, keys, master = start()
  lu.assertStrContains(keys('asio.run(function(a) asio.sleep(0.01) return a + 1 end, 4)' .. ENTER, '\n> $'),
    '\n5\r\n')
  keys('asio.run()' .. ENTER, '\n> $')
  quit(child, keys, master)
end)

T.test_history = case(function()
  can.need 'line_editing'
  local child, keys, master = start()
  keys('"the " .. "first"' .. ENTER, '\n> $')
  lu.assertStrContains(keys(UP .. ENTER, '\n> $'), '\nthe first\r\n')
  quit(child, keys, master)
  child, keys, master = start()
  lu.assertStrContains(keys(UP .. ENTER, '\n> $'), '\nthe first\r\n')
  quit(child, keys, master)
end)

-- A lone escape must not hold up the loop.
T.test_keys = case(function()
  can.need 'line_editing'
  local child, keys, master = start()
  keys('asio.spawn(function() asio.sleep(0.3) print "going on" end); y = 1' .. ENTER, '\n> $')
  keys('13\27[D2', '2')
  process.write(master, '\27')
  process.expect(master, 'going on')
  lu.assertStrContains(keys(ENTER, '\n> $'), '\n123\r\n')
  quit(child, keys, master)
end)

-- Ctrl-C --------------------------------------------------------------------------------------------

T.test_ctrl_c_interrupts_a_line_that_waits = case(function()
  local child, keys, master = start()
  keys('asio.sleep(60)' .. ENTER, '\n')
  asio.sleep(0.1)
  lu.assertStrContains(keys(CTRL_C, '\n> $'), 'interrupted!')
  lu.assertStrContains(keys('1 + 2' .. ENTER, '\n> $'), '\n3\r\n')
  quit(child, keys, master)
end)

T.test_ctrl_c_interrupts_a_line_that_computes = case(function()
  local child, keys, master = start()
  keys('jit.off()' .. ENTER, '\n> $')
  keys('print "begun" while true do end' .. ENTER, '\nbegun\r\n')
  lu.assertStrContains(keys(CTRL_C, '\n> $'), 'interrupted!')
  lu.assertStrContains(keys('1 + 2' .. ENTER, '\n> $'), '\n3\r\n')
  quit(child, keys, master)
end)

T.test_ctrl_c_forgets_what_was_typed = case(function()
  local child, keys, master = start()
  keys('1 + nonsense', 'nonsense')
  keys(CTRL_C, '\n> $')
  keys('for i = 1, 2 do' .. ENTER, '\n>> $')
  keys(CTRL_C, '\n> $')
  lu.assertStrContains(keys('1 + 2' .. ENTER, '\n> $'), '\n3\r\n')
  quit(child, keys, master)
end)

T.test_ctrl_c_twice_leaves = case(function()
  local child, keys, master = start()
  keys(CTRL_C, 'once more, or Ctrl%-D, to leave.*> $')
  process.write(master, CTRL_C)
  lu.assertEquals(child:wait(), -2)
  process.close(master)
end)

-- Compiled loops ask for no hook.
T.test_ctrl_c_twice_leaves_whatever_runs = case(function()
  for _, line in ipairs { 'while true do end', 'while true do pcall(asio.sleep, 60) end' } do
    local child, keys, master = start()
    keys(('print "begun" %s'):format(line) .. ENTER, '\nbegun\r\n')
    asio.sleep(0.2)
    process.write(master, CTRL_C)
    asio.sleep(0.2)
    process.write(master, CTRL_C)
    lu.assertEquals(child:wait(), -2, line)
    process.close(master)
  end
end)

-- The end -------------------------------------------------------------------------------------------

T.test_os_exit = case(function()
  local child, _, master = start()
  local closing = os.getenv 'ASIO_SANITIZED' and ', true' or '' -- else leaks are seen
  process.write(master, 'os.exit(7' .. closing .. ')' .. ENTER)
  lu.assertEquals(child:wait(), 7)
  process.close(master)
end)

T.test_the_terminal_is_left_as_it_was = case(function()
  can.need 'line_editing'
  local master, slave = process.terminal()
  local function settings()
    local buffer = ffi.new 'char[256]'
    assert(ffi.C.tcgetattr(slave, buffer) == 0)
    return ffi.string(buffer, 256)
  end
  local before = settings()
  local wrap = ('setsid -c env HOME=%s TERM=xterm'):format(home)
  local child = process.spawn(become, { slave, slave, slave }, { program }, wrap)
  process.expect(master, '> $')
  lu.assertNotEquals(settings(), before)
  process.write(master, CTRL_D)
  lu.assertEquals(child:wait(), 0)
  lu.assertEquals(settings(), before)
  process.close(master, slave)
end)

T.test_its_controlling_terminal_goes_away = case(function()
  local child, _, master = start()
  process.close(master)
  lu.assertEquals(child:wait(), -1) -- SIGHUP
end)

T.test_a_terminal_that_goes_away = case(function()
  can.need 'line_editing' -- else it is the end of the input
  local out, errors = process.pipe()
  local child, _, master = start { alone = true, errors = errors }
  process.close(master, errors)
  lu.assertEquals(child:wait(), 1)
  lu.assertEquals(process.expect(out), 'asio: the terminal has gone\n')
  process.close(out)
end)

return T
