-- Goes through seeds, each in a process of its own, and adds up.
--
-- SPDX-License-Identifier: MIT

local M = {}

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local function read_file(path)
  local file = io.open(path)
  local text = file and file:read '*a' or ''
  if file then file:close() end
  return text
end

-- Lines on standard error that are no report of the library's.
local BAD = { 'Sanitizer', 'runtime error:', 'Assertion', 'assertion', 'PANIC', 'attempt to ', 'DEBUGGER' }

local function bad_output(text)
  for _, words in ipairs(BAD) do
    if text:find(words, 1, true) then return true end
  end
end

local sum = { ops = 0, seeds = 0, failed = 0, called = {}, public = {} }

local function add_up(result)
  sum.ops = sum.ops + (tonumber(result:match '^ops (%d+)') or 0)
  for name, n in result:gmatch '\ncall (%S+) (%d+)' do sum.called[name] = (sum.called[name] or 0) + n end
  for name in result:gmatch '\npublic (%S+)' do sum.public[name] = true end
end

-- The limit is one of processor time, since a loaded machine lets a seed wait; it may take so often as long.
local PATIENCE = 5
local HANG = { [124] = true, [137] = true, [152] = true } -- timeout's, SIGKILL, SIGXCPU

-- One run of a seed: what went wrong (nil: nothing), the fault it names, its last words.
local function try_seed(seed, options, words, here, base)
  local out, err = base .. '.result', base .. '.err'
  os.remove(out)
  local limit = options.limit or 60
  local command = 'ulimit -S -t %d; timeout -k 5 %d %s %s --seed %d --ops %d --result %s %s '
  command = (command .. '</dev/null >/dev/null 2>%s; echo $?'):format(
    limit, PATIENCE * limit, quote(here .. '../luajit'), quote(here .. 'api.lua'), seed, options.ops, out,
    words, err)
  local pipe = io.popen(command)
  local code = tonumber(pipe:read '*a')
  pipe:close()
  local result, text = read_file(out), read_file(err)
  add_up(result)
  if code == 0 and result ~= '' and not bad_output(text) then return nil end
  local kind = HANG[code] and 'hang' or code > 128 and 'crash (signal ' .. code - 128 .. ')'
    or bad_output(text) and 'bad output' or 'failure'
  local at = result:find('FAULT', 1, true)
  return kind, at and result:sub(at, at + 12000) or '', ('exit code %s; standard error ends:\n%s'):format(
    code, text:sub(-3000))
end

-- Timing is no part of a seed. With `confirm` a failure or a hang has to come again in one of so many further
-- runs;
-- a crash, a failed assertion and a sanitizer's report never have to.
local function confirmed(kind, seed, options, ...)
  if not options.confirm or kind ~= 'failure' and kind ~= 'hang' then return true end
  for _ = 1, options.confirm do
    if try_seed(seed, options, ...) then return true end
  end
  return false
end

local function run_seed(seed, options, words, here, base)
  local kind, fault, last_words = try_seed(seed, options, words, here, base)
  sum.seeds = sum.seeds + 1
  if not kind then return end
  print(('== seed %d: %s\nreplay: test/luajit test/fuzz/api.lua --seed %d --ops %d %s\n%s\n%s'):format(
    seed, kind, seed, options.ops, words, fault, last_words))
  if confirmed(kind, seed, options, words, here, base) then
    sum.failed = sum.failed + 1
  else
    print(('seed %d: not once more in %d runs'):format(seed, options.confirm))
  end
  io.stdout:flush()
end

-- Of HTTP only the arguments are of interest here: its calls are fuzzed in test/fuzz/http.lua.
local function not_covered()
  local list = {}
  for name in pairs(sum.public) do
    if not sum.called[name] and not name:find '^http' then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

-- What no seed has called with success, once there were so many calls that it should have been.
local function missing_calls()
  return sum.ops > 40000 and not_covered() or {}
end

-- Chance may leave a function out: then it goes on, up to four times as long.
local function time_is_up(seconds, started)
  local passed = os.time() - started
  return passed >= seconds and (passed >= 4 * seconds or #missing_calls() == 0)
end

--- Options: seconds, first, seeds, ops, limit (seconds of a processor a seed), stop (after so many failures),
--- confirm (further runs of a seed that failed, see there).
function M.run(options, forced, here)
  local words = {}
  for word, value in pairs(forced) do words[#words + 1] = quote(word .. '=' .. value) end
  words = table.concat(words, ' ')
  local base = os.tmpname()
  local started, seed = os.time(), options.first
  while true do
    if options.seconds and time_is_up(options.seconds, started) then break end
    if options.seeds and sum.seeds >= options.seeds then break end
    if not options.seconds and not options.seeds and sum.seeds >= 20 then break end
    run_seed(seed, options, words, here, base)
    if sum.failed >= (options.stop or 10) then break end
    seed = seed + 1
  end
  for _, suffix in ipairs { '', '.result', '.err' } do os.remove(base .. suffix) end
  local missing = missing_calls()
  if #missing > 0 then print('never called with success: ' .. table.concat(missing, ', ')) end
  print(('%d operations of %d seeds (%d to %d) in %d s, %d failed'):format(
    sum.ops, sum.seeds, options.first, seed - 1, os.time() - started, sum.failed))
  os.exit(sum.failed == 0 and #missing == 0 and 0 or 1)
end

return M
