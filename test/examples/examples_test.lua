-- The examples, each run for real in a process of its own.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'
local can = require 'can'

local T = {}


local function example(name)
  return t.root .. 'examples/' .. name .. '.lua'
end

-- Runs an example that ends by itself; returns what it prints.
local function output_of(name)
  return t.quiet_child(function(path)
    assert(loadfile(path))()
  end, { args = { example(name) } })
end

function T.test_ping_pong()
  local lines = {}
  for line in output_of 'ping_pong':gmatch '[^\n]+' do lines[#lines + 1] = line end
  table.sort(lines)
  lu.assertEquals(lines, { 'ping1\tping1-pong', 'ping2\tping2-pong' })
end

-- Starts the server on a free port with so many seconds of grace, and has a client talk to it before
-- and after SIGTERM. Returns what the server and the client have to tell.
local function stop_gracefully(grace, client_closes)
  can.need 'shell'
  return t.quiet_child(function(command, path, seconds, closes)
    local asio = require 'asio'
    -- `timeout` passes SIGTERM on, in the foreground once only, and exits with the status of what it ran.
    local run = ("timeout --foreground 60 '%s' '%s' 0 %s 2>&1"):format(command, path, seconds)
    local server = io.popen(run .. ' & echo pid $!; wait $!; echo status $?')
    local pid, port
    while not (pid and port) do -- whichever is printed first
      local line = assert(server:read '*l', 'the server has ended')
      pid = pid or line:match '^pid (%d+)$'
      port = port or line:match '^listening\t127%.0%.0%.1\t(%d+)$'
    end
    local conn = assert(asio.connect('127.0.0.1', port))
    conn:write 'before'
    print(conn:read(6))
    os.execute('kill -TERM ' .. pid)
    print(server:read '*l')
    if closes == 'yes' then
      -- It says so before it closes, and clients in the queue are reset then.
      local another, _, code
      repeat
        another, _, code = asio.connect('127.0.0.1', port)
        if another then another:close() end
      until code == 'ECONNREFUSED'
      conn:write 'after'
      print(conn:read(5))
    else
      print(select(3, conn:read(1)))
    end
    conn:close()
    io.write(server:read '*a')
  end, { args = { t.launcher, example 'graceful_shutdown', grace, client_closes and 'yes' or 'no' },
    seconds = 30 })
end

function T.test_graceful_shutdown_lets_what_runs_finish()
  lu.assertEquals(stop_gracefully(30, true), 'before\nstopping\nafter\nstopped\nstatus 0\n')
end

function T.test_graceful_shutdown_cancels_what_takes_too_long()
  lu.assertEquals(stop_gracefully(0.2, false), 'before\nstopping\nEOF\nstopped\nstatus 0\n')
end

-- The other examples have files of their own: examples_NAME_test.lua.
function T.test_every_example_has_a_case()
  local cases = {}
  local list = io.popen('cat ' .. t.quote(t.root) .. 'test/examples/*_test.lua')
  for name in list:read '*a':gmatch 'function T%.test_([%w_]*)' do cases[#cases + 1] = name end
  list:close()
  list = io.popen('ls ' .. t.quote(t.root .. 'examples'))
  local readme = assert(io.open(t.root .. 'examples/README.md')):read '*a'
  for file in list:lines() do
    local name, found = file:match '^(.*)%.lua$', false
    for _, case in ipairs(cases) do found = found or name and case:find(name, 1, true) == 1 end
    lu.assertTrue(not name or found, 'no case runs ' .. file)
    lu.assertTrue(not name or readme:find(file, 1, true) ~= nil, 'README.md does not tell of ' .. file)
  end
  list:close()
end

return T
