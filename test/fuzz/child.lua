-- One seed: light threads that do operations at random, until there have been enough; then the end.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local raw = require 'raw'
ffi.cdef 'int setenv(const char *, const char *, int);'

local asio = require 'asio'
local w = require 'fuzz.world'
local surface = require 'fuzz.surface'
local tasks = require 'fuzz.tasks'
local links = require 'fuzz.links'
local net = require 'fuzz.net'
local modes = require 'fuzz.modes'

local M = {}

local random, pick, chance = w.random, w.pick, w.chance

-- Defects that are known and not mended yet: what leads to them is left out.
w.open_defect = {}
w.coroutines, w.own_mutexes, w.serial, w.special = {}, {}, 0, 0

function w.avoid(name)
  local open = w.open_defect
  if open.group_cycles and name == 'group.wait' then return true end
  if w.special == 0 then return false end
  if open.finalizer_watchdog and name == 'asio.watchdog' then return true end
  return (open.finalizer_resume or open.hook_spawn) and name:find '^coroutine' ~= nil
end

-- Operations ----------------------------------------------------------------------------------------

local choices, special_choices = {}, {}
local SPECIAL = { coroutine = true, wrapped = true, left_coroutine = true, foreign_coroutine = true,
  forged_resume = true, inside_c = true,
  -- A finalizer that comes between what a matched endpoint does and its book-keeping would confuse that.
  write = true, read = true, second_reader = true, close = true, pass = true, tcp = true, unix = true,
  socketpair = true, relayed = true }

-- Each seed has its own likings: some operations are left out, some come often.
local function draw_operations()
  local without = ',' .. (w.switches.without or '') .. ','
  local function add(operations, from)
    local names = {}
    for name in pairs(from) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      local fn, times = operations[name], from[name] * random(0, 3)
      if without:find(',' .. name .. ',', 1, true) then times = 0 end
      for _ = 1, times do
        choices[#choices + 1] = { name, fn }
        if not SPECIAL[name] then special_choices[#special_choices + 1] = { name, fn } end
      end
    end
  end
  for _, part in ipairs { tasks, links, net } do
    if not chance(4) then add(part, part.weights) end
  end
  if #choices == 0 then add(tasks, tasks.weights) end
  local wild = math.ceil(#choices * w.switches.wild / 100)
  for _ = 1, wild do
    choices[#choices + 1] = { 'wild', surface.wild }
    special_choices[#special_choices + 1] = choices[#choices]
  end
end

local depths = setmetatable({}, { __mode = 'k' })

local function limited(fn)
  return asio.timeout(w.chance(4) and 0 or w.random() * 0.01, fn)
end

local function left(key, depth, ok, ...)
  depths[key] = depth
  if not ok then error((...), 0) end
end

--- One operation, inside of another: it does not last.
function w.act()
  local key = asio.current() or 'main'
  local depth = depths[key] or 0
  if depth > 4 or w.closing then return end
  depths[key] = depth + 1
  local choice = pick(w.special > 0 and special_choices or choices)
  w.trace('nested %s', choice[1])
  left(key, depth, pcall(limited, choice[2]))
end

local function act_outside()
  local choice = pick(choices)
  w.trace('does %s', choice[1])
  if chance(3) then return limited(choice[2]) end
  return choice[2]()
end

local function actor()
  for _ = 1, random(2, 200) do
    if w.closing then return end
    local ok, err = pcall(act_outside)
    if not ok and (err == asio.cancelled or chance(6)) then error(err, 0) end
    if chance(20) then asio.yield() end
  end
end

--- Told of errors that nobody joins.
function w.on_error(err, traceback, thread)
  if thread then w.check_error(nil, err, traceback) end
end

-- The run -------------------------------------------------------------------------------------------

local actors, done = {}, false
local ACTORS = 24

local function crowd(target)
  local i, before = 0, asio.now()
  w.driver = asio.current()
  while w.ops < target do
    local now = asio.now()
    w.longest_gap, before = math.max(w.longest_gap, now - before), now
    i = i % ACTORS + 1
    local status = actors[i] and actors[i]:status()
    if not status or status == 'done' or status == 'failed' then
      actors[i] = asio.spawn(actor)
    elseif chance(6) then
      actors[i]:cancel()
    end
    if i == ACTORS or chance(10) then pcall(asio.sleep, chance(2) and 0 or 1e-3) end
  end
end

-- The main chunk takes part: each of its waits runs the loop.
local function in_main(target)
  local ticker = asio.every(2e-3, function()
    if chance(20) then asio.stop() end
  end)
  local driver = asio.spawn(crowd, target)
  while w.ops < target do
    w.main_calls = (w.main_calls or 0) + 1
    pcall(limited, pick(choices)[2])
    if chance(20) then w.try('asio.run_once', asio.run_once, w.moment()) end
  end
  while driver:status() ~= 'done' and driver:status() ~= 'failed' do asio.run_once(0.01) end
  ticker:stop()
end

local function in_light(target)
  local driver = asio.spawn(function()
    crowd(target)
    done = true
    asio.stop()
  end)
  while not done do
    asio.run() -- until something says stop
    if driver:status() == 'failed' then
      w.fault('the driver: %s', tostring(select(2, driver:join())))
      return
    end
  end
end

-- The end -------------------------------------------------------------------------------------------

local function write_result(path)
  local file = assert(io.open(path, 'w'))
  file:write(('ops %d\n'):format(w.ops))
  for word, value in pairs(w.switches) do file:write(('switch %s=%s\n'):format(word, value)) end
  for name, n in pairs(w.calls) do file:write(('call %s %d\n'):format(name, n)) end
  for _, name in ipairs(surface.names) do file:write(('public %s\n'):format(name)) end
  for _, text in ipairs(w.faults) do file:write('FAULT ', text:gsub('\n', '\n  '), '\n') end
  file:close()
end

local function cancel_all()
  local left_over = 0
  for _, info in ipairs(asio.threads()) do
    if info.thread ~= asio.current() then
      info.thread:cancel()
      left_over = left_over + 1
    end
  end
  return left_over
end

local function wind_up(patience)
  w.closing = true
  links.close_all()
  w.drop_all()
  local deadline = asio.now() + 10 * patience
  repeat
    local left_over = cancel_all()
    if left_over == 0 then break end
    asio.run_once(0.005)
    links.close_all()
    w.drop_all()
  until asio.now() > deadline
  if cancel_all() > 0 then
    local text = {}
    asio.dump { write = function(_, ...) text[#text + 1] = table.concat { ... } end }
    w.fault('light threads stay after they were cancelled:\n%s', table.concat(text))
  end
end

local function collect_all()
  w.coroutines, w.own_mutexes = {}, {}
  jit.flush()
  for _ = 1, 4 do collectgarbage() end
end

local function check_descriptors(at_start, patience)
  net.close_pipe()
  local deadline = asio.now() + 8 * patience
  local count
  repeat
    w.drop_all()
    collect_all()
    asio.run_once(0.005)
    count = raw.count_fds(1024)
    if count <= at_start then break end
    asio.timeout(0.01, asio.sleep, 0.01)
  until asio.now() > deadline
  if count > at_start then
    os.execute(('ls -l /proc/%d/fd >&2; cd /proc/%d/net; for s in $(ls -l ../fd | grep -o "socket:.[0-9]*" | '
      .. 'tr -dc "0-9\\n"); do grep $s tcp tcp6 udp udp6 unix >&2; done'):format(raw.pid(), raw.pid()))
    w.fault('%d descriptors at the end, %d at the start', count, at_start)
  end
end

-- The pool of asio.offload keeps its states, as many as there are processors.
local function start_states()
  local before
  local n = 2
  repeat
    before, n = raw.count_fds(1024), n * 2
    asio.run(function()
      for _ = 1, n do
        asio.spawn(asio.offload, function() require('asio').sleep(0.01) end)
      end
    end)
  until raw.count_fds(1024) == before
end

-- What is opened once and kept.
local function warm_up()
  -- TLS is loaded now: LuaJIT crashes when a VM event is handled while it reads a chunk.
  local end_a, end_b = asio.socketpair()
  end_a:tls()
  end_a:close()
  end_b:close()
  local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:close() end))
  local _, port = server:address()
  asio.run(function()
    local conn = assert(asio.connect('localhost', port))
    conn:read(1)
    conn:close()
    asio.udp('127.0.0.1', 0):close()
    asio.signal('SIGWINCH'):close()
    server:close()
  end)
  start_states()
end

local function use_stdio()
  if w.switches.stdio ~= 'stdio' then return end
  local fd = raw.file '/dev/null'
  raw.redirect(fd, 0)
  raw.redirect(fd, 1)
  for _ = 1, 3 do w.keep(pick { asio.stdin, asio.stdout }) end
end

--- Runs a seed. Options: seed, ops, forced, result (a path), trace (a path).
function M.run(options)
  local patience = os.getenv 'ASIO_SANITIZED' == '1' and 5 or 1
  math.randomseed(options.seed)
  if options.trace then w.trace_to(options.trace) end
  surface.walk()
  modes.draw(options.forced)
  draw_operations()
  if options.show then
    for word, value in pairs(w.switches) do io.stderr:write(word, '=', value, ' ') end
    io.stderr:write '\n'
  end
  ffi.C.setenv('ASIO_RESOLVER', w.switches.resolver, 1)
  warm_up()
  collect_all()
  asio.run_once(0)
  asio.on_error(w.on_error)
  local at_start = raw.count_fds(1024)
  use_stdio()
  modes.begin()
  local run = w.switches.place == 'main' and in_main or in_light
  run(options.ops / (w.switches.gc == 'stress' and 4 or 1))
  local ending = w.switches.ending
  if ending == 'orderly' then
    modes.finish()
    asio.watchdog(nil)
    asio.dump_on('SIGUSR2', false)
    wind_up(patience)
    if w.switches.stdio ~= 'stdio' then check_descriptors(at_start, patience) end
    collect_all() -- servers that were dropped keep the loop running
    local ok, err = w.try('asio.run', asio.run)
    if not ok then w.fault('something waits at the end: %s', tostring(err)) end
  end
  modes.plenty()
  write_result(options.result)
  -- In mid-flight: parked light threads, open connections, finalizers to come.
  if ending == 'exit_light' then
    asio.spawn(function()
      asio.yield()
      os.exit(#w.faults == 0 and 0 or 1, true)
    end)
    while true do asio.run_once(0) end
  end
  if ending ~= 'drop' or #w.faults > 0 then os.exit(#w.faults == 0 and 0 or 1, true) end
end

return M
