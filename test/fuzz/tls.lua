-- A man in the middle of TLS: what is delivered is a prefix of what was sent, and an end that is told as such
-- comes behind all of it; nothing crashes, hangs or stays behind.
--     ./test/luajit test/fuzz/tls.lua [--seconds N | --rounds N] [--first SEED] [--only MODE] [--version 1.2]
--                                     [--limit SECONDS] [--verbose]
--
-- A round has two connections, each over one end of a socket pair. The man has the other ends: he passes on
-- what comes, in pieces of his own, and does one thing to it (`modes`). Its seed decides what; the keys are
-- new every time.
-- Exit code 1: a round has failed; its seed and mode are printed, and can be run again.
--
-- SPDX-License-Identifier: MIT

local here = (arg[0]:match '^(.*/)' or './')
package.path = here .. '../support/?.lua;' .. package.path

local ffi = require 'ffi'
local asio = require 'asio'
local raw = require 'raw'

local options = { first = 1, limit = 20 }
do
  local i = 1
  while arg[i] do
    local name = arg[i]:match '^%-%-(%w+)$' or error('not an option: ' .. arg[i], 0)
    if name == 'verbose' then
      options.verbose = true
    else
      i = i + 1
      options[name] = (name == 'only' or name == 'version') and arg[i] or assert(tonumber(arg[i]), name)
    end
    i = i + 1
  end
end

-- There is no option for the highest version: OpenSSL's own settings have one.
if options.version then
  local path = os.tmpname()
  local file = assert(io.open(path, 'w'))
  file:write('openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n[all]\n',
    'MaxProtocol = TLSv', options.version, '\n')
  file:close()
  ffi.cdef 'int setenv(const char *, const char *, int);'
  ffi.C.setenv('OPENSSL_CONF', path, 1)
  options.settings = path
end

local dir = require 'certs'.dir()

-- Random numbers ------------------------------------------------------------------------------------

-- Of a round: rounds run side by side.
local function generator(seed)
  local state = (seed * 2654435761) % 2147483647
  if state == 0 then state = 1 end
  for _ = 1, 3 do state = state * 16807 % 2147483647 end
  return function(low, high)
    state = state * 16807 % 2147483647
    if not high then low, high = 1, low end
    return low + state % (high - low + 1)
  end
end

local noise
do
  local random, parts = generator(7), {}
  for i = 1, 32768 do parts[i] = ('%08x'):format(random(0, 2 ^ 31 - 2)) end
  noise = table.concat(parts)
end

local function bytes(random, n)
  local parts = {}
  for i = 1, n do parts[i] = string.char(random(0, 255)) end
  return table.concat(parts)
end

-- What the man does ---------------------------------------------------------------------------------

-- modes[name] = function(round, way) -> function(record, n) -> what goes on instead of the n-th record: a
-- string, or a list of them; the way's `stop` ends it: 'close', 'abort', 'nothing'. One way is touched.
local modes = {}

local HEADER = 5

local function at_record(round, fn)
  local k = round.random(12) -- handshakes have 3 to 8, one way
  return function(record, n)
    if n == k then
      return fn(record)
    end
    return record
  end
end

local function replaced(s, i, with)
  return s:sub(1, i - 1) .. with .. s:sub(i + #with)
end

function modes.pass()
  return function(record) return record end
end

function modes.flip(round)
  return at_record(round, function(record)
    local i = round.random(#record)
    return replaced(record, i, string.char(bit.bxor(record:byte(i), 2 ^ round.random(0, 7))))
  end)
end

function modes.flip_header(round)
  return at_record(round, function(record)
    local i = round.random(HEADER)
    return replaced(record, i, string.char(round.random(0, 255)))
  end)
end

function modes.scramble(round)
  return at_record(round, function(record)
    local i = round.random(#record)
    return replaced(record, i, bytes(round.random, math.min(round.random(40), #record - i + 1)))
  end)
end

function modes.cut(round, way)
  return at_record(round, function(record)
    way.stop = ({ 'close', 'abort', 'nothing' })[round.random(3)]
    return record:sub(1, round.random(0, #record))
  end)
end

-- Bytes of a record are missing: what follows moves up.
function modes.shorten(round)
  return at_record(round, function(record)
    local i = round.random(#record)
    return record:sub(1, i - 1) .. record:sub(i + round.random(20))
  end)
end

function modes.drop(round)
  return at_record(round, function() return '' end)
end

function modes.replay(round)
  return at_record(round, function(record)
    local list = { record }
    for i = 1, round.random(3) do list[i + 1] = record end
    return list
  end)
end

function modes.swap(round)
  local held
  local k = round.random(12)
  return function(record, n)
    if n == k then
      held = record
      return ''
    elseif n == k + 1 then
      return { record, held }
    end
    return record
  end
end

-- A record of an earlier round, of either way.
local seen = {}

function modes.foreign(round)
  return at_record(round, function(record)
    return { #seen > 0 and seen[round.random(#seen)] or '', record }
  end)
end

function modes.reflect(round, way)
  return at_record(round, function(record)
    way.back:write(record)
    return record
  end)
end

function modes.insert(round)
  return at_record(round, function(record)
    return { bytes(round.random, round.random(600)), record }
  end)
end

-- Well formed, in clear: alerts, changes of the cipher, parts of a handshake, bytes for the script, and
-- unknown ones.
function modes.insert_record(round)
  return at_record(round, function(record)
    local random, list = round.random, {}
    for i = 1, random(4) do
      local kind = random(20, 25)
      local body = bytes(random, random(0, 100))
      if kind == 20 then
        body = random(4) == 1 and bytes(random, 2) or '\1'
      elseif kind == 21 then
        body = string.char(random(2), random(3) == 1 and 0 or random(0, 120))
      elseif kind == 22 then
        local n = random(0, 50)
        body = string.char(random(0, 24), 0, 0, random(2) == 1 and n or random(0, 255)) .. bytes(random, n)
      end
      list[i] = string.char(kind, 3, random(0, 4), math.floor(#body / 256), #body % 256) .. body
    end
    if random(2) == 1 then table.insert(list, record) else table.insert(list, 1, record) end
    return list
  end)
end

-- Many that are small, or one that is too large.
function modes.insert_many(round)
  return at_record(round, function(record)
    local random = round.random
    local way = random(3)
    if way == 1 then return { ('\20\3\3\0\1\1'):rep(random(100)), record } end
    if way == 2 then return { ('\23\3\3\0\0'):rep(random(100)), record } end
    return { '\23\3\3\255\255' .. bytes(random, random(65535)), record }
  end)
end

-- Nothing of what comes, only this.
function modes.garbage(round, way)
  local first = true
  return function()
    if not first then return '' end
    first = false
    local random = round.random
    local starts = { '', '\22\3\1', '\22\3\3\64\0', '\21\3\3\0\2', '\128\46\1\0\2', 'GET / HTTP/1.1\r\n' }
    local start = starts[random(#starts)]
    if random(2) == 1 then way.stop = 'close' end
    return start .. bytes(random, random(2000))
  end
end

-- The handshake's messages in records of their own, a few bytes in each.
function modes.fragment(round)
  local size = round.random(4)
  return function(record, n)
    local kind, body = record:byte(1), record:sub(HEADER + 1)
    if kind ~= 22 or n > 2 then return record end
    local list = {}
    for i = 1, #body, size do
      local part = body:sub(i, i + size - 1)
      list[#list + 1] = record:sub(1, 3) .. string.char(0, #part) .. part
    end
    return list
  end
end

local WHOLE = { pass = true, fragment = true } -- all has to arrive

local names = {}
for name in pairs(modes) do names[#names + 1] = name end
table.sort(names)

-- A way ---------------------------------------------------------------------------------------------

local function send(round, way, data)
  local random = round.random
  if data ~= '' and random(400) == 1 then seen[random(200)] = data end
  local n = round.small and random(round.small) or 20000
  for i = 1, #data, n do
    if not way.to:write(data:sub(i, i + n - 1)) then return end
    if round.small and way.count < 4000 then asio.yield() end
    way.count = way.count + n
  end
end

local function record_at(data)
  if #data < HEADER then return nil end
  local size = HEADER + data:byte(4) * 256 + data:byte(5)
  return #data >= size and size or nil
end

-- Passes on what comes until it ends.
local function pass_on(round, way)
  local data, n = '', 0
  way.count = 0
  repeat
    local came = way.from:read_some()
    data = data .. (came or '')
    local size = record_at(data)
    while size and not way.stop do
      n = n + 1
      local instead = way.change(data:sub(1, size), n)
      for _, part in ipairs(type(instead) == 'table' and instead or { instead }) do send(round, way, part) end
      data = data:sub(size + 1)
      size = record_at(data)
    end
  until not came or way.stop
  if way.stop == 'nothing' then
    while way.from:read_some() do end -- luacheck: ignore 542
  end
  if way.stop == 'abort' then way.to:abort() else way.to:shutdown() end
end

-- The two sides -------------------------------------------------------------------------------------

local CODES = {}
for code in ('EOF EPROTO ECONNRESET EPIPE ETIMEDOUT ETRUNCATED ECANCELED EBADF'):gmatch '%S+' do
  CODES[code] = true
end

local function fail(round, text, ...)
  error(('seed %d, mode %s: %s'):format(round.seed, round.mode, text:format(...)), 0)
end

-- A certificate that was touched has codes of its own.
local function check_code(round, side, message, code)
  if not CODES[code] and (side.secure or WHOLE[round.mode]) then
    fail(round, '%s: %s: %s', side.name, tostring(code), tostring(message))
  end
  side.code = side.code or code
end

local function write_all(round, side)
  local random = round.random
  while side.handed < #side.data do
    local n = math.min(random(4) == 1 and random(40000) or random(300), #side.data - side.handed)
    local piece = side.data:sub(side.handed + 1, side.handed + n)
    side.handed = side.handed + n
    local ok, message, code = side.conn:write(piece)
    if ok or code == 'ETIMEDOUT' then side.accepted = side.handed end -- it stays queued
    if not ok then return check_code(round, side, message, code) end
    if random(3) == 1 then asio.yield() end
  end
  if round.half then side.conn:shutdown() end
end

local function read_all(round, side, other)
  local random = round.random
  local count, data, message, code = 0, nil, nil, nil
  while not code and (round.half or count < #other.data) do
    if random(3) == 1 then
      local n = random(500) -- without a half-close no more than will come
      data, message, code = side.conn:read(round.half and n or math.min(n, #other.data - count))
    end
    if not data then data, message, code = side.conn:read_some(random(2) == 1 and random(3000) or nil) end
    if data then
      local expected = other.data:sub(count + 1, count + #data)
      if data ~= expected then fail(round, '%s got wrong bytes behind %d', side.name, count) end
      count, data = count + #data, nil
    elseif code ~= 'EOF' then
      check_code(round, side, message, code)
    end
  end
  side.got = count
  if count > other.handed then fail(round, '%s got more than was sent', side.name) end
  if code == 'EOF' and count < other.accepted then
    fail(round, '%s was told the end at byte %d of %d', side.name, count, other.accepted)
  end
end

local function run_side(round, side, other)
  local ok, message, code = side.conn:start_tls(side.options)
  side.secure = ok
  if not ok then
    check_code(round, side, message, code)
  else
    local writer = asio.spawn(write_all, round, side)
    if round.leave and side.name == 'client' then
      asio.yield()
    else
      read_all(round, side, other)
    end
    if not round.leave then
      local joined, err = writer:join()
      if not joined then error(err, 0) end
    end
  end
  if round.random(10) == 1 then side.conn:abort() else side.conn:close() end
end

-- A round -------------------------------------------------------------------------------------------

local function tls_options(round)
  local random, patience = round.random, WHOLE[round.mode] and options.limit or 0.1
  local server = { server = true, cert = dir .. 'server.pem', key = dir .. 'server.key' }
  server.handshake_timeout = patience
  local client = { verify = false, handshake_timeout = patience }
  local kind = random(6)
  if kind == 1 then
    server.verify, server.ca = 'optional', dir .. 'ca.pem'
    client.cert, client.key = dir .. 'client.pem', dir .. 'client.key'
  elseif kind == 2 then
    server.cert, server.key, server.alpn = dir .. 'by_inter.pem', dir .. 'by_inter.key', { 'h2', 'http/1.1' }
    client.verify, client.ca, client.server_name, client.alpn = nil, dir .. 'ca.pem', 'localhost', 'http/1.1'
  elseif kind == 3 then
    client.server_name = 'localhost'
    server.names = function() if random(2) == 1 then asio.yield() end end
  end
  return server, client, patience
end

local function new_side(round, name, conn, opts, patience)
  local random = round.random
  local n = random(3) == 1 and random(100000) or random(0, 3000)
  local at = random(#noise - n)
  conn:set_timeout(patience, patience)
  local data = noise:sub(at, at + n - 1)
  return { name = name, conn = conn, options = opts, data = data, handed = 0, accepted = 0, got = 0 }
end

local function expect_whole(round, a, b)
  if not (a.secure and b.secure) then
    fail(round, 'no handshake: %s, %s', tostring(a.code), tostring(b.code))
  end
  if round.leave or not round.half then return end
  if a.got ~= #b.data or b.got ~= #a.data then
    fail(round, '%d of %d and %d of %d bytes: %s, %s', a.got, #b.data, b.got, #a.data, tostring(a.code),
      tostring(b.code))
  end
end

local counts = {}

local function run_round(seed)
  local round = { seed = seed, random = generator(seed) }
  local random = round.random
  round.mode = options.only or names[random(#names)]
  round.small = random(4) == 1 and random(3) == 1 and 1 or random(3) == 1 and 200 or nil
  round.half = random(3) > 1           -- sides end by half-close, else as soon as they have all
  round.leave = random(8) == 1         -- the client writes and goes
  local client, client_far = asio.socketpair()
  local server, server_far = asio.socketpair()
  local server_options, client_options, patience = tls_options(round)
  local a = new_side(round, 'client', client, client_options, patience)
  local b = new_side(round, 'server', server, server_options, patience)
  local there = { from = client_far, to = server_far, back = client_far }
  local back = { from = server_far, to = client_far, back = server_far }
  there.change, back.change = modes.pass(), modes.pass()
  local touched = random(2) == 1 and there or back
  touched.change = modes[round.mode](round, touched)
  local threads = {
    asio.spawn(run_side, round, a, b), asio.spawn(run_side, round, b, a),
    asio.spawn(pass_on, round, there), asio.spawn(pass_on, round, back),
  }
  local deadline = asio.now() + options.limit
  for i, thread in ipairs(threads) do
    local joined, err, code = thread:join(math.max(0, deadline - asio.now()))
    if joined == nil then fail(round, 'hangs: thread %d, %s', i, tostring(code)) end
    if not joined then fail(round, '%s', tostring(err)) end
  end
  client_far:close()
  server_far:close()
  if WHOLE[round.mode] then expect_whole(round, a, b) end
  local what = a.secure and b.secure and 'handshakes' or 'none'
  counts[round.mode] = counts[round.mode] or { rounds = 0, handshakes = 0, none = 0 }
  counts[round.mode].rounds = counts[round.mode].rounds + 1
  counts[round.mode][what] = counts[round.mode][what] + 1
end

-- All of it -----------------------------------------------------------------------------------------

local SIDE_BY_SIDE = 16

local function run_all()
  local seed, failures = options.first - 1, {}
  local last = options.rounds and options.first + options.rounds or math.huge
  local finish = options.rounds and math.huge or asio.now() + (options.seconds or 5)
  local threads = {}
  for i = 1, SIDE_BY_SIDE do
    threads[i] = asio.spawn(function()
      while asio.now() < finish and seed + 1 < last and #failures == 0 do
        seed = seed + 1
        if options.verbose then print(seed) end
        local ok, err = pcall(run_round, seed)
        if not ok then failures[#failures + 1] = tostring(err) end
      end
    end)
  end
  for _, thread in ipairs(threads) do thread:join() end
  return seed - options.first + 1, failures
end

-- What stays of connections and light threads once all is closed.
local function left_over()
  local deadline = asio.now() + options.limit
  repeat
    collectgarbage()
    asio.sleep(0.01)
  until asio.stats().connections == 0 or asio.now() > deadline
  return asio.stats().connections
end

-- Loads what is loaded once.
asio.run(run_round, 0)
collectgarbage()
collectgarbage()
asio.run(asio.sleep, 0.05)
local fds = raw.count_fds()

local rounds, failures, connections
asio.run(function()
  rounds, failures = run_all()
  connections = left_over()
end)
for _, name in ipairs(names) do
  local c = counts[name]
  if c then print(('%-14s %6d rounds, %6d handshakes'):format(name, c.rounds, c.handshakes)) end
end
if #failures == 0 and connections > 0 then failures[1] = connections .. ' connections are left over' end
if #failures == 0 and raw.count_fds() > fds then
  failures[1] = raw.count_fds() - fds .. ' descriptors are left over'
end
if options.settings then os.remove(options.settings) end
print(('%d rounds'):format(rounds))
for _, text in ipairs(failures) do print('FAILED: ' .. text) end
os.exit(#failures == 0 and 0 or 1, true)
