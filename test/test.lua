-- Runs the tests:  ./test/luajit ./test/test.lua [--gc] [NAME ...] [luaunit's options]
--
-- Every FOLDER/NAME_test.lua runs in a process of its own, so that one that crashes or hangs is one
-- error and not the end of the run. --gc (or ASIO_GC=stress) collects garbage at every
-- opportunity. The last line is luaunit's, summed over all files; the exit code is 0 when
-- nothing failed.
--
-- SPDX-License-Identifier: MIT

local here = (arg[0]:match '^(.*/)' or './')
package.path = here .. 'support/?.lua;' .. package.path

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- Every FOLDER/NAME_test.lua by its name, so that no new file is forgotten.
local files = {}
do
  local list = io.popen('ls ' .. quote(here) .. '*/*_test.lua')
  for path in list:lines() do
    local name = path:match '([^/]*)_test%.lua$'
    assert(not files[name], 'two test files with one name: ' .. name)
    files[name] = path
  end
  list:close()
  assert(next(files), 'no tests beside test.lua')
end

-- One file, in this process ---------------------------------------------------------------------

local function run_here(dir, name, options)
  _G.arg = options -- luaunit takes them from here, when it is loaded
  local lu = require 'luaunit'
  local suite = require 'support'.suite(dofile(files[name]), dir)
  local runner = lu.LuaUnit.new()
  local failed = runner:runSuiteByInstances { { name, suite } }
  for _, node in ipairs(runner.result.skippedTests) do
    print('skipped ' .. node.testName .. ': ' .. node.msg)
  end
  -- Closing the Lua state is part of the test: the sanitizers look for leaks behind it.
  os.exit(failed == 0 and 0 or 1, true)
end

-- All of them, each in a child ------------------------------------------------------------------

local function read_file(path)
  local file = io.open(path)
  local text = file and file:read '*a' or ''
  if file then file:close() end
  return text
end

-- Which case it was that took the process down, and its last words.
local function obituary(name, status, dir)
  print(('%s.%s: the process died with status %d'):format(name, read_file(dir .. '/current'), status))
  print(read_file(dir .. '/stderr'):sub(-8000))
end

local function add_up(total, line)
  total.tests = total.tests + line:match 'Ran (%d+)'
  for _, word in ipairs { 'success', 'failure', 'error', 'skipped', 'non%-selected' } do
    total[word] = (total[word] or 0) + (line:match('(%d+) ' .. word) or 0)
  end
end

local function run_child(total, dir, name, options)
  local words = { quote(here .. 'luajit'), quote(here .. 'test.lua'), '--inner', dir, name }
  for _, option in ipairs(options) do words[#words + 1] = quote(option) end
  io.write('== ', name, '\n')
  io.flush()
  local child = io.popen(table.concat(words, ' ') .. ' 2>&1; echo "status $?"')
  local status, ran = -1, false
  for line in child:lines() do
    status = tonumber(line:match '^status (%d+)$') or status
    if line:find '^Ran %d+ tests in ' then
      -- Said once, at the end, for all: whoever adds up such lines shall not count twice.
      add_up(total, line)
      ran = true
    elseif line ~= 'OK' and not line:find '^status %d+$' then
      print(line)
    end
  end
  child:close()
  if status ~= 0 then total.failed = true end
  if status ~= 0 and (not ran or status ~= 1) then
    total.error = (total.error or 0) + 1
    obituary(name, status, dir)
  end
end

local function plural(n, word, plural_ending)
  return ('%d %s%s'):format(n, word, n == 1 and '' or plural_ending)
end

local function closing_line(total, seconds)
  local parts = {
    ('Ran %d tests in %.3f seconds'):format(total.tests, seconds),
    plural(total.success or 0, 'success', 'es'),
    plural(total.failure or 0, 'failure', 's'),
  }
  if (total.error or 0) > 0 then parts[#parts + 1] = plural(total.error, 'error', 's') end
  if (total.skipped or 0) > 0 then parts[#parts + 1] = total.skipped .. ' skipped' end
  return table.concat(parts, ', ')
end

local function all_names()
  local names = {}
  for name in pairs(files) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function run_all(names, options)
  local dir, total, started = os.tmpname(), { tests = 0 }, os.time()
  os.remove(dir)
  os.execute('mkdir -p ' .. dir)
  for _, name in ipairs(names) do run_child(total, dir, name, options) end
  os.execute('rm -r ' .. dir)
  print(closing_line(total, os.time() - started))
  if not total.failed then print 'OK' end
  os.exit(total.failed and 1 or 0)
end

-- Arguments -------------------------------------------------------------------------------------

if arg[1] == '--inner' then
  return run_here(arg[2], arg[3], { unpack(arg, 4) })
end

local ffi = require 'ffi'
ffi.cdef 'int setenv(const char *, const char *, int);'

local names, options = {}, {}
for _, word in ipairs(arg) do
  if word == '--gc' then
    ffi.C.setenv('ASIO_GC', 'stress', 1)
  elseif #options == 0 and word:sub(1, 1) ~= '-' then
    names[#names + 1] = word:match '([^/]*)_test%.lua$' or word
  else
    options[#options + 1] = word
  end
end
run_all(#names > 0 and names or all_names(), options)
