-- Runs the tests:
--     ./test/luajit ./test/test.lua [-j N] [--gc] [--tls] [--max-skipped PERCENT] [NAME ...]
--                                   [luaunit's options]
--
-- Every FOLDER/NAME_test.lua runs in a process of its own, so that one that crashes or hangs is one
-- error and not the end of the run; and, where the system lets us, in a network of its own, so that
-- files that run side by side never meet. -j N: so many at a time.
-- --gc (or ASIO_GC=stress) collects garbage at every opportunity. --tls (or ASIO_TEST_TLS=1) puts TLS over
-- the connections that the cases make (support/over_tls.lua). The last lines say how many cases were
-- skipped for which reason, and then luaunit's, summed over all files; the exit code is 0 when nothing
-- failed, and not more than PERCENT of the cases were skipped.
--
-- A file may say in a comment of its own how it is to be run:
--   -- test: alone         it measures time or memory: nothing runs beside it
--   -- test: 40 s          it takes about so long: the longest files begin first
--   -- test: over TLS      it runs a second time, with --tls, as NAME_over_tls
--   -- test: needs tls     without this capability (support/can.lua) it is one case, which is skipped; there
--                          may be several such lines
--
-- SPDX-License-Identifier: MIT

local here = (arg[0]:match '^(.*/)' or './')
package.path = here .. 'support/?.lua;' .. package.path

local function read_file(path)
  local file = io.open(path)
  local text = file and file:read '*a' or ''
  if file then file:close() end
  return text
end

-- One file, in this process ---------------------------------------------------------------------

local function run_here(dir, name, path, options)
  _G.arg = options -- luaunit takes them from here, when it is loaded
  local lu, can = require 'luaunit', require 'can'
  local cases
  for needed in ('\n' .. read_file(path)):gmatch '\n%-%- test: needs ([%w_]+)' do
    if not cases and not can.has(needed) then cases = { test_all = function() can.need(needed) end } end
  end
  cases = cases or dofile(path)
  local suite = require 'support'.suite(cases, dir)
  local runner = lu.LuaUnit.new()
  local failed = runner:runSuiteByInstances { { name, suite } }
  for _, node in ipairs(runner.result.skippedTests) do
    print('skipped ' .. node.testName .. ': ' .. node.msg)
  end
  -- Closing the Lua state is part of the test: the sanitizers look for leaks behind it.
  os.exit(failed == 0 and 0 or 1, true)
end

if arg[1] == '--inner' then
  return run_here(arg[2], arg[3], arg[4], { unpack(arg, 5) })
end

-- What there is to run --------------------------------------------------------------------------

local ffi = require 'ffi'
ffi.cdef [[
int setenv(const char *, const char *, int);
struct test_time { long seconds, nanoseconds; };
int clock_gettime(int, struct test_time *);
]]

local function now()
  local time = ffi.new 'struct test_time'
  ffi.C.clock_gettime(0, time) -- CLOCK_REALTIME, the one that has the same number everywhere
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

local function output_of(command)
  local pipe = io.popen(command)
  local text = pipe:read '*a'
  pipe:close()
  return text
end

-- Whether files run a second time over TLS: it was built, and certificates can be made.
local function has_tls()
  local build = os.getenv 'ASIO_BUILD' or ''
  return os.getenv 'ASIO_TEST_TLS' ~= '1' and read_file(build .. '/asio/tls.so') ~= '' and
    output_of 'command -v openssl 2>/dev/null' ~= ''
end

-- Every FOLDER/NAME_test.lua by its name, so that no new file is forgotten.
local function all_files()
  local files, twice = {}, has_tls()
  for path in output_of('ls ' .. quote(here) .. '*/*_test.lua'):gmatch '[^\n]+' do
    local name, text = path:match '([^/]*)_test%.lua$', '\n' .. read_file(path)
    assert(not files[name], 'two test files with one name: ' .. name)
    files[name] = { name = name, path = path, alone = text:find('\n-- test: alone', 1, true) ~= nil,
      seconds = tonumber(text:match '\n%-%- test: (%d+) s') or 0 }
    if twice and text:find('\n-- test: over TLS', 1, true) then
      local second = {}
      for key, value in pairs(files[name]) do second[key] = value end
      second.name, second.environment = name .. '_over_tls', 'ASIO_TEST_TLS=1 '
      files[second.name] = second
    end
  end
  assert(next(files), 'no tests beside test.lua')
  return files
end

local function chosen_files(names)
  local files, list = all_files(), {}
  for _, name in ipairs(names) do
    if not files[name] then
      io.stderr:write('test.lua: there is no ', name, '_test.lua\n')
      os.exit(2)
    end
    list[#list + 1] = files[name]
  end
  if #names > 0 then return list end
  for _, file in pairs(files) do list[#list + 1] = file end
  table.sort(list, function(a, b)
    if a.seconds ~= b.seconds then return a.seconds > b.seconds end
    return a.name < b.name
  end)
  return list
end

-- Each in a child -------------------------------------------------------------------------------

-- A network of its own for each file. Only for root: in a user namespace every user looks like root.
-- ASIO_SHARED_NETWORK=1: without; where sockets are made by another process, such as Wine's server.
local function own_network()
  if os.getenv 'ASIO_SHARED_NETWORK' == '1' then return '' end
  local words = "unshare -n sh -c 'ip link set lo up && ip route add 224.0.0.0/4 dev lo && exec \"$@\"' sh "
  return os.execute('test "$(id -u)" = 0 && ' .. words .. 'true >/dev/null 2>&1') == 0 and words or ''
end

local function start(run, file)
  file.dir, file.started = run.dir .. '/' .. file.name, now()
  os.execute('mkdir ' .. file.dir)
  local words = { (file.environment or '') .. run.network .. quote(here .. 'luajit'),
    quote(here .. 'test.lua'), '--inner', file.dir, file.name, quote(file.path) }
  for _, option in ipairs(run.options) do words[#words + 1] = quote(option) end
  -- Not with "&": the shell would have such a child ignore SIGINT.
  file.process = io.popen(('%s >%s/out 2>&1; echo "status $?" >>%s/out; echo %s >%s'):format(
    table.concat(words, ' '), file.dir, file.dir, file.name, run.dir .. '/ended'))
end

local function add_up(total, line)
  total.tests = total.tests + line:match 'Ran (%d+)'
  for _, word in ipairs { 'success', 'failure', 'error', 'skipped', 'non%-selected' } do
    total[word] = (total[word] or 0) + (line:match('(%d+) ' .. word) or 0)
  end
end

local function finish(run, file)
  local total = run.total
  file.process:close()
  print(('== %s: %.1f s'):format(file.name, now() - file.started))
  local status, ran = -1, false
  for line in io.lines(file.dir .. '/out') do
    line = line:gsub('\r$', '')
    status = tonumber(line:match '^status (%d+)$') or status
    if line:find '^Ran %d+ tests in ' then
      -- Printed once, at the end, for all files: a reader who adds up such lines must not count twice.
      add_up(total, line)
      ran = true
    elseif line ~= 'OK' and not line:find '^status %d+$' then
      local reason = line:match '^skipped [^%s:]+: (.*)'
      if reason then total.reasons[reason] = (total.reasons[reason] or 0) + 1 end
      print(line)
    end
  end
  if status ~= 0 then total.failed = true end
  if status ~= 0 and (not ran or status ~= 1) then
    total.error = (total.error or 0) + 1
    print(('%s.%s: the process died with status %d'):format(
      file.name, read_file(file.dir .. '/current'), status))
    print(read_file(file.dir .. '/stderr'):sub(-8000))
  end
  io.flush()
end

-- Runs the files of a list, at most `width` at a time.
local function run_list(run, list, width)
  local running, count, position = {}, 0, 1
  while position <= #list or count > 0 do
    while position <= #list and count < width do
      local file = list[position]
      start(run, file)
      running[file.name], count, position = file, count + 1, position + 1
    end
    local name = run.ended:read '*l'
    if not name then error('interrupted', 0) end
    finish(run, running[name])
    running[name], count = nil, count - 1
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

local function print_reasons(total)
  local list = {}
  for reason in pairs(total.reasons) do list[#list + 1] = reason end
  table.sort(list, function(a, b)
    if total.reasons[a] ~= total.reasons[b] then return total.reasons[a] > total.reasons[b] end
    return a < b
  end)
  for _, reason in ipairs(list) do print(('%5d skipped: %s'):format(total.reasons[reason], reason)) end
end

-- Whether no more were skipped than may be.
local function skipped_within(total, percent)
  local skipped = total.skipped or 0
  local share = 100 * skipped / math.max(1, total.tests + skipped)
  if share <= percent then return true end
  print(('%.1f%% of the cases were skipped, more than %g%%'):format(share, percent))
  return false
end

local function run_all(files, options, width, max_skipped)
  local dir, total, started = os.tmpname(), { tests = 0, reasons = {} }, now()
  os.remove(dir)
  os.execute('mkdir -p ' .. dir .. ' && mkfifo ' .. dir .. '/ended')
  local run = { dir = dir, total = total, options = options, network = own_network(),
    ended = assert(io.open(dir .. '/ended', 'r+e')) } -- open at both ends: never at its end
  local together, alone = {}, {}
  for _, file in ipairs(files) do
    local list = file.alone and alone or together
    list[#list + 1] = file
  end
  run_list(run, together, width)
  run_list(run, alone, 1)
  os.execute('rm -r ' .. dir)
  print_reasons(total)
  if not skipped_within(total, max_skipped) then total.failed = true end
  print(closing_line(total, now() - started))
  if not total.failed then print 'OK' end
  os.exit(total.failed and 1 or 0)
end

-- Arguments -------------------------------------------------------------------------------------

-- Two thirds of its time a file waits: three of them keep two processors busy.
local processors = tonumber(output_of 'getconf _NPROCESSORS_ONLN 2>/dev/null') or 1
local names, options, width, max_skipped = {}, {}, math.ceil(processors * 1.5), 100
local position = 1
while arg[position] do
  local word = arg[position]
  if word == '--gc' then
    ffi.C.setenv('ASIO_GC', 'stress', 1)
  elseif word == '--tls' then
    ffi.C.setenv('ASIO_TEST_TLS', '1', 1)
  elseif word == '-j' then
    position = position + 1
    width = assert(tonumber(arg[position]), '-j: how many at a time?')
  elseif word == '--max-skipped' then
    position = position + 1
    max_skipped = assert(tonumber(arg[position]), '--max-skipped: how many percent?')
  elseif #options == 0 and word:sub(1, 1) ~= '-' then
    names[#names + 1] = word:match '([^/]*)_test%.lua$' or word
  else
    options[#options + 1] = word
  end
  position = position + 1
end
run_all(chosen_files(names), options, math.max(1, width), max_skipped)
