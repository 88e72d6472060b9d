-- asio.stdin and stdout on Windows with a console behind them. (signal_wait_test.lua has Ctrl-C: Wine's
-- console ends the program itself.)
--
-- test: needs console
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'
local start = require 'start_windows'

local T = {}

-- In the child: the console becomes its standard streams, as the system does it for a program that it starts
-- in a window.
local attach = [[
local ffi = require 'ffi'
ffi.cdef 'typedef unsigned long ul; void *CreateFileA(const char *, ul, ul, void *, ul, ul, void *);'
ffi.cdef 'int _open_osfhandle(intptr_t, int); int _dup2(int, int); int SetStdHandle(unsigned long, void *);'
local crt = ffi.load 'msvcrt'
for number, name in pairs { [0] = 'CONIN$', 'CONOUT$', 'CONOUT$' } do
  local handle = ffi.C.CreateFileA(name, 0xc0000000, 3, nil, 3, 0, nil)
  ffi.C.SetStdHandle(0xfffffff6ull - number, handle)
  crt._dup2(crt._open_osfhandle(ffi.cast('intptr_t', handle), 0), number)
end
local asio = require 'asio'
]]

-- fn(child, sees): runs a script in a console; sees(words) waits until they are shown.
local function case(script, fn)
  return function()
    local path = t.temporary(attach .. script)
    local child = start.start_with_console { start.interpreter(), path }
    local function sees(words)
      t.wait_until(function() return child:shown():find(words, 1, true) end, words, 10)
    end
    local ok, err = pcall(fn, child, sees)
    if not child:wait(0) then child:kill() end
    child:hang_up()
    os.remove(path)
    if not ok then error(err, 0) end
  end
end

local function ended(child)
  return t.wait_until(function() return child:wait(0) end, 'its end', 10)
end

T.test_lines = case([[
asio.run(function()
  asio.stdout:write('ready ', tostring(asio.stdin), '\n')
  for line in asio.stdin:lines() do
    asio.stdout:write('got <', line, '>\n')
    if line == 'enough' then break end
  end
end)
os.exit(7, true)
]], function(child, sees)
  sees 'ready connection (stdio)'
  child:type 'hello\r'
  sees 'got <hello>'
  child:type 'in '
  child:type 'parts\r'
  sees 'got <in parts>'
  child:type 'mistakf\8e\r' -- the console edits the line
  sees 'got <mistake>'
  child:type 'enough\r'
  lu.assertEquals(ended(child), 7)
end)

T.test_others_go_on_while_it_waits_for_a_line = case([[
asio.run(function()
  local reader = asio.spawn(function() return asio.stdin:read_line() end)
  for i = 1, 3 do asio.sleep(0.02) asio.stdout:write('tick ', i, '\n') end
  asio.stdout:write('line ', select(2, reader:join()), '\n')
end)
]], function(child, sees)
  sees 'tick 3'
  child:type 'last\r'
  sees 'line last'
  lu.assertEquals(ended(child), 0)
end)

return T
