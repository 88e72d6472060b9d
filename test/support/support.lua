-- The harness: runs each case in a light thread (or in the main chunk) under a time limit,
-- collects garbage hard afterwards, and fails on whatever the case leaves behind: a light
-- thread, a listener, a timer, a descriptor, an error report that nobody expected.
--
-- Environment: ASIO_GC=stress collects at every opportunity; ASIO_LONG=1 runs the full counts;
-- ASIO_SANITIZED=1 (set by the launcher) grants more time and skips what the sanitizers forbid;
-- ASIO_PATIENCE=N grants N times as much, where the processor is emulated or busy. ASIO_TEST_TLS=1 puts TLS
-- over the connections that cases make here (over_tls.lua).
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local can = require 'can'
local over_tls = require 'over_tls'

local M = {}

M.stress = os.getenv 'ASIO_GC' == 'stress'
M.long = os.getenv 'ASIO_LONG' == '1'
M.sanitized = os.getenv 'ASIO_SANITIZED' == '1'

--- The repository, with a slash at the end, and what runs a script with the library that was built.
M.root = debug.getinfo(1, 'S').source:match '^@(.*)support%.lua$' .. '../../'
M.launcher = M.root .. 'test/luajit'

--- Limits in seconds are multiplied by this: sanitizers, a busy collector and an emulated processor are slow.
M.patience = (M.stress and 4 or 1) * (M.sanitized and 4 or 1) * (tonumber(os.getenv 'ASIO_PATIENCE') or 1)

local LIMIT = 20        -- seconds for a case that names no limit
local DRAIN = 3         -- seconds in which a case's last handles have to go

-- Cases ---------------------------------------------------------------------------------------

local options = setmetatable({}, { __mode = 'k' })

local function with_option(case, name, value)
  -- A case is recognised by identity: the same function under two options would mix them up.
  options[case] = options[case] or {}
  options[case][name] = value
  return case
end

--- Marks a case that runs in the main chunk, outside light threads.
function M.main(case)
  return with_option(case, 'main', true)
end

--- Marks a case that may take up to so many seconds.
function M.slow(seconds, case)
  return with_option(case, 'limit', seconds)
end

--- Scales a count: all of it with ASIO_LONG=1, else a twentieth, still less where all is slow.
function M.count(n)
  if M.long then return n end
  local divisor = 20 * (M.stress and 20 or 1) * (M.sanitized and 2 or 1)
  return math.max(10, math.floor(n / divisor))
end

-- Standard error ------------------------------------------------------------------------------

local capture = {}

--- What has been printed on standard error since the last call (or since the case began).
--- A case whose output nobody asks for fails.
function M.stderr()
  io.stderr:flush()
  local file = assert(io.open(capture.path))
  file:seek('set', capture.read)
  local text = file:read '*a'
  file:close()
  capture.read = capture.read + #text
  return text
end

--- Waits until standard error has these words; what it has had since the last look.
function M.reported(words, what)
  local text = ''
  M.wait_until(function()
    text = text .. M.stderr()
    return text:find(words, 1, true)
  end, ('%s on standard error %s'):format(words, what or ''))
  return text
end

local function capture_start()
  io.stderr:flush()
  capture.read = 0
  capture.file = raw.file(capture.path)
  capture.saved = raw.redirect(capture.file, 2)
end

local function capture_end()
  io.stderr:flush()
  raw.close(raw.redirect(capture.saved, 2))
  raw.close(capture.saved)
  raw.close(capture.file)
  return M.stderr()
end

-- Running a case ------------------------------------------------------------------------------

-- A compiled loop keeps the closure it was compiled for, with all that its upvalues hold.
local function collect()
  jit.flush()
  for _ = 1, 3 do collectgarbage() end
end

M.collect = collect

--- Turns the loop until nothing is left; false when something still is after `seconds`.
local function drain(seconds)
  local deadline = asio.now() + seconds
  repeat
    collect()
    if not asio.run_once(0.01) then return true end
  until asio.now() > deadline
  return false
end

-- Descriptors are closed behind the scenes: the last one may need a few more turns.
local function drain_fds(expected, seconds)
  local deadline, count = asio.now() + seconds
  repeat
    collect()
    asio.run_once(0)
    count = raw.count_fds()
  until count <= expected or asio.now() > deadline
  return count
end

local function trace(err)
  if type(err) ~= 'string' or err:find('LuaUnit test ', 1, true) then return err end
  return debug.traceback(err, 2)
end

local function run_main(case)
  return xpcall(case, trace)
end

local function run_light(case, limit)
  local thread = asio.spawn(function()
    local ok, err = xpcall(case, trace)
    return ok, err
  end)
  local joined, ok, err = thread:join(limit)
  if joined == nil then
    return false, ('still %s after %d s'):format(thread:status(), limit)
  end
  return joined and ok, joined and err or ok
end

-- What one case has left behind would be found again after every later one.
local polluted = false

local function leftovers(fds_before)
  if polluted then return nil end
  polluted = true
  if not drain(DRAIN * M.patience) then
    return 'left behind: something that keeps the loop alive'
  end
  -- What waits for something that can never come does not keep the loop alive; run tells.
  local ok, err = pcall(asio.run)
  if not ok then return 'left behind: ' .. tostring(err) end
  local fds = drain_fds(fds_before, DRAIN * M.patience)
  if fds > fds_before then
    return ('left behind: %d descriptors'):format(fds - fds_before)
  end
  polluted = false
end

local function note(name)
  local file = assert(io.open(capture.current, 'w'))
  file:write(name)
  file:close()
end

local function run_case(name, case)
  local chosen = options[case] or {}
  local limit = (chosen.limit or LIMIT) * M.patience
  note(name)
  if not polluted then drain(1) end
  local fds = raw.count_fds()
  raw.alarm(limit + 2 * DRAIN * M.patience + 10)
  capture_start()
  local ok, err = (chosen.main and run_main or run_light)(case, limit)
  local left = leftovers(fds + 2) -- the capture's own two
  local printed = capture_end()
  raw.alarm(0)
  local shown = printed:sub(1, 2000)
  if not ok then
    if printed ~= '' and type(err) == 'string' then err = err .. '\nOn stderr: ' .. shown end
    error(err, 0)
  end
  if left then error(left, 0) end
  if printed ~= '' then error('unexpected output on stderr: ' .. shown, 0) end
end

-- What the library and libc open once and keep: the loop, the resolver's helpers.
local function warm_up()
  local server = asio.server('127.0.0.1', 0, function(conn) conn:close() end)
  local _, port = server:address()
  asio.run(function()
    local conn = assert(asio.connect('localhost', port))
    conn:read(1)
    conn:close()
    server:close()
    if over_tls.on and can.has 'tls' and can.has 'openssl' then -- which keep things as well
      local a, b = over_tls.pair()
      a:close()
      b:close()
    end
  end)
  drain(1)
end

--- Prepares a table of cases for luaunit. `dir` is a directory for scratch files.
function M.suite(cases, dir)
  capture.path, capture.current = dir .. '/stderr', dir .. '/current'
  note 'loading'
  if M.stress then
    jit.off() -- compiled code that collects all the time was seen to spin in the collector
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 10000)
  end
  warm_up()
  local suite = {}
  for name, case in pairs(cases) do
    suite[name] = function()
      if over_tls.on then can.need('tls', 'openssl') end
      run_case(name, case)
    end
  end
  return suite
end

-- Assertions ----------------------------------------------------------------------------------

--- Expects the failure triple with this code; returns what follows it.
function M.failure(code, ...)
  local first, message, found = ...
  lu.assertNil(first)
  lu.assertIsString(message)
  lu.assertNotEquals(message, '')
  lu.assertEquals(found, code, message)
  return select(4, ...)
end

--- Expects one of several codes; returns the one found.
function M.failure_among(codes, first, message, found)
  lu.assertNil(first)
  lu.assertIsString(message)
  lu.assertItemsEquals({ codes[found] }, { true }, tostring(found) .. ': ' .. message)
  return found
end

function M.codes(...)
  local set = {}
  for _, code in ipairs { ... } do set[code] = true end
  return set
end

-- A peer that goes away shows as either, depending on what the kernel noticed first.
M.gone = M.codes('EPIPE', 'ECONNRESET')

--- Expects fn(...) to raise a string that matches all of the given plain words.
function M.raises(words, fn, ...)
  local ok, err = pcall(fn, ...)
  lu.assertFalse(ok, 'an error was expected')
  err = tostring(err)
  for _, word in ipairs(type(words) == 'table' and words or { words }) do
    lu.assertStrContains(err, word)
  end
  return err
end

--- Expects an argument error that blames the line on which `call` calls the function: `call`
--- is a function with that call alone on its one line after its first line.
function M.bad_argument(number, name, call)
  local info = debug.getinfo(call, 'S')
  local file = info.short_src:match '[^/]*$'
  local err = M.raises(("bad argument #%d to '%s'"):format(number, name), call)
  local found, line = err:match '([^/]*):(%d+): bad argument'
  lu.assertEquals(found, file)
  line = tonumber(line)
  lu.assertTrue(line >= info.linedefined and line <= info.lastlinedefined, err)
end

--- Compares long strings without printing them.
function M.same_bytes(found, expected)
  if found == expected then return end
  lu.assertIsString(found)
  lu.assertEquals(#found, #expected, 'length')
  for i = 1, #found do
    if found:byte(i) ~= expected:byte(i) then
      lu.fail(('byte %d of %d differs: %q, expected %q'):format(
        i, #found, found:sub(i, i + 20), expected:sub(i, i + 20)))
    end
  end
end

--- Waits for what sends no event; to be used only where there is nothing to wait on.
function M.wait_until(condition, what, seconds)
  local deadline = asio.now() + (seconds or 5) * M.patience
  while true do
    local result = condition()
    if result then return result end
    if asio.now() > deadline then lu.fail('waited in vain for ' .. (what or 'a condition')) end
    asio.sleep(0.001)
  end
end

--- Reports come at the end of a turn, after those who slept have run.
function M.next_turn()
  asio.sleep(0.002)
  asio.yield()
end

--- How often words occur in a text.
function M.occurrences(text, words)
  return select(2, text:gsub(words:gsub('%p', '%%%0'), ''))
end

-- Connections ---------------------------------------------------------------------------------

-- These two are asio's, unless there is to be TLS.
M.server, M.connect = over_tls.server, over_tls.connect

--- Where a server can listen on a Unix socket; without a file, where this system has abstract names.
function M.unix_path()
  return can.has 'abstract_names' and 'unix:@' or 'unix:' .. os.tmpname() .. '.s'
end

function M.pair()
  local a, b, code = asio.socketpair()
  return assert(a, b, code), b
end

-- Listens for one connection; `open(port)` makes the other end of it.
local function accept_one(server_options, open)
  local accepted
  local server = assert(asio.server('127.0.0.1', 0, function(conn) accepted = conn end,
    server_options))
  local _, port = server:address()
  local other = open(port)
  M.wait_until(function() return accepted end, 'the connection')
  server:close()
  return accepted, other
end

--- Two connected ends over TCP: the accepted one, the connecting one.
function M.tcp(server_options, connect_options)
  return over_tls.both(accept_one(server_options, function(port)
    return assert(asio.connect('127.0.0.1', port, connect_options))
  end))
end

--- An accepted connection and a peer that does nothing by itself: a raw socket; over TLS a connection with
--- the same methods.
function M.raw_peer(server_options, raw_options)
  if over_tls.on then
    local conn, peer = M.tcp(server_options)
    return conn, over_tls.peer(peer)
  end
  return accept_one(server_options, function(port) return raw.connect(port, raw_options) end)
end

--- Reads from a raw peer, letting the loop run, until `n` bytes or the end.
function M.recv(peer, n)
  local parts, size = {}, 0
  M.wait_until(function()
    local data = peer:recv(65536, 0)
    while data and data ~= '' do
      parts[#parts + 1], size = data, size + #data
      if n and size >= n then return true end
      data = peer:recv(65536, 0)
    end
    return data == '' or data == false
  end, 'bytes at the raw peer', 15)
  return table.concat(parts)
end

-- Child processes -----------------------------------------------------------------------------

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

M.quote = quote

local function slurp(path)
  local file = io.open(path)
  if not file then return '' end
  local text = file:read '*a'
  file:close()
  os.remove(path)
  return text
end

--- A file of this text; its path.
function M.temporary(text)
  local path = os.tmpname()
  local file = assert(io.open(path, 'wb'))
  file:write(text or '')
  file:close()
  return path
end

local windows = require 'ffi'.os == 'Windows'

-- Unix commands about a path; on Windows its own shell's.
local function make_directory(path)
  if not windows then return os.execute('mkdir -p ' .. quote(path)) end
  path = path:gsub('/', '\\')
  return raw.command(('if not exist "%s" mkdir "%s"'):format(path, path))
end

local function remove_directory(path)
  if not windows then return os.execute('rm -rf ' .. quote(path)) end
  return raw.command(('rd /s /q "%s"'):format(path:gsub('/', '\\')))
end
--- The case with LuaJIT's compiler off.
function M.interpreted(case)
  return function()
    local was_on = jit.status()
    jit.off()
    local ok, err = xpcall(case, trace)
    if was_on then jit.on() end
    if not ok then error(err, 0) end
  end
end

--- Runs fn(dir) with a directory of files, { name = text }, which goes afterwards.
function M.with_files(files, fn)
  local dir = M.temporary()
  os.remove(dir)
  assert(make_directory(dir) == 0, dir)
  for name, text in pairs(files) do
    local path = dir .. '/' .. name
    if name:find '/' then assert(make_directory(path:match '^(.*)/') == 0, path) end
    local file = assert(io.open(path, 'wb'))
    file:write(text)
    file:close()
  end
  local ok, err = xpcall(fn, trace, dir)
  remove_directory(dir)
  if not ok then error(err, 0) end
end

--- Sets when a file was changed: seconds since 1970.
function M.touch(path, seconds)
  if windows then return raw.touch(path, seconds) end
  assert(os.execute(('touch -d @%d %s'):format(seconds, quote(path))) == 0, path)
end

--- What is in a file.
function M.contents(path)
  local file = assert(io.open(path, 'rb'))
  local text = file:read '*a'
  file:close()
  return text
end

local prelude = [[
if os.getenv 'ASIO_GC' == 'stress' then
  collectgarbage('setpause', 0)
  collectgarbage('setstepmul', 10000)
end
package.loaded['child of a test'] = true
local f = assert(loadstring(%q, %q))
return f(...)
]]

-- Runs the script `base`, its output into base.out and base.err; returns its exit code.
local function run_child(base, child_options, seconds)
  local args = child_options.args or {}
  if raw.windows then
    local start = require 'start_windows'
    return start.run({ start.interpreter(), base, unpack(args) }, {
      env = child_options.env, out = base .. '.out', seconds = seconds,
      err = base .. (child_options.merged and '.out' or '.err'),
    })
  end
  local words = { quote(M.launcher), quote(base) }
  for _, word in ipairs(args) do words[#words + 1] = quote(word) end
  local status = io.popen(("%s timeout -k 2 %d %s %s </dev/null >%s.out 2>%s.err; echo $?"):format(
    child_options.env or '', seconds, child_options.wrap or '', table.concat(words, ' '),
    base, base))
  local code = tonumber(status:read '*a')
  status:close()
  return code
end

--- Runs a function in a process of its own, under a time limit, and returns {code, out, err}.
--- The function is sent as bytecode: it may use no upvalues; its arguments are strings.
--- Options: args; wrap, a shell command that gets the child's command line as its arguments;
--- seconds; env, assignments for the shell; code, the exit code expected (0; false: any); merged, on Windows:
--- its standard error is in `out`.
function M.child(fn, child_options)
  child_options = child_options or {}
  lu.assertEquals(debug.getinfo(fn, 'u').nups, 0, 'upvalues of a child')
  local base = os.tmpname()
  local script = assert(io.open(base, 'wb'))
  script:write(prelude:format(string.dump(fn), '=child'))
  script:close()
  local seconds = (child_options.seconds or 15) * M.patience
  local result = { code = run_child(base, child_options, seconds) }
  os.remove(base)
  result.out, result.err = slurp(base .. '.out'), slurp(base .. '.err')
  if result.code == 77 then can.need(result.err:match '^skip ([%w_]+)' or error(result.err, 0)) end
  local err = result.err
  if #err > 8000 then err = err:sub(1, 4000) .. '\n...\n' .. err:sub(-4000) end
  local told = ('exit code %d\n%s%s'):format(result.code, result.out:sub(1, 2000), err)
  lu.assertNotStrContains(result.err, 'Sanitizer', false, told)
  lu.assertNotStrContains(result.err, 'runtime error: ', false, told)
  if child_options.code ~= false then
    lu.assertEquals(result.code, child_options.code or 0, told)
  end
  return result
end

--- Runs a child that has to end well and print nothing on standard error.
function M.quiet_child(fn, child_options)
  local result = M.child(fn, child_options)
  lu.assertEquals(result.err, '')
  return result.out
end

-- Leaks cannot be looked for in a process that is traced, nor in one that leaves without closing
-- its Lua state.
M.ignore_leaks = 'ASAN_OPTIONS=detect_leaks=0'

-- A process without descriptors cannot find the names of functions, by which test/tsan.supp tells what is
-- no race.
M.ignore_races = 'TSAN_OPTIONS=report_bugs=0'

--- Skips the case unless these programs are there.
M.need = can.run

--- A wrapper for `child` that traces its system calls; skips the case where that is forbidden.
function M.strace(arguments)
  M.need 'strace'
  can.need 'strace'
  return 'strace -f ' .. arguments
end

--- A wrapper for `child` that gives it a network of its own, with the loopback interface up;
--- `setup` are further shell commands. Skips the case where the machine does not allow it.
function M.network(setup)
  can.need 'namespaces'
  M.need('unshare', 'ip')
  local unshare = can.works 'unshare -nm true' and 'unshare -nm' or 'unshare -rnm'
  local commands = 'ip link set lo up && ' .. (setup and setup .. ' && ' or '') .. 'exec "$@"'
  return ('%s sh -c %s sh'):format(unshare, quote(commands))
end

--- A wrapper for `child` in whose network the name server 127.0.0.1 is asked for every name but
--- localhost and twice, and given up after so many seconds; and what removes it afterwards.
function M.slow_names(seconds)
  local conf, hosts = os.tmpname(), os.tmpname()
  local file = io.open(conf, 'w')
  file:write(('nameserver 127.0.0.1\noptions timeout:%d attempts:1\n'):format(seconds))
  file:close()
  file = io.open(hosts, 'w')
  file:write '127.0.0.1 localhost\n127.0.0.1 twice\n127.0.0.2 twice\n'
  file:close()
  local wrap = M.network(('mount --bind %s /etc/resolv.conf && mount --bind %s /etc/hosts')
    :format(conf, hosts))
  return wrap, function()
    os.remove(conf)
    os.remove(hosts)
  end
end

return M
