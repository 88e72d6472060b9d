-- Matched endpoints: what is written at one end is a known text, of which each read at the other end has to
-- be the next piece. No wild call touches them.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local w = require 'fuzz.world'

local M = { links = {} }

local random, pick, chance, call, try, check = w.random, w.pick, w.chance, w.call, w.try, w.check
local moment, moment_or_never, codes = w.moment, w.moment_or_never, w.codes

-- The text of all streams, from an offset of its own in each. Its period is a prime.
local PERIOD = 65521
local text
do
  local parts = {}
  for i = 1, PERIOD do parts[i] = string.char(97 + (i * i + i / 7) % 26) end
  for i = 80, PERIOD, 83 do parts[i] = '\n' end
  text = table.concat(parts)
  text = text:rep(6) -- more than is ever under way, and a period
end

local function piece(way, from, n)
  local at = (way.offset + from) % PERIOD
  return text:sub(at + 1, at + n)
end

local SIZES = { 1, 2, 10, 64, 300, 700, 5000, 20000, 70000 }
local ENOUGH = 300000 -- bytes under way
local MOST = 14       -- links

-- One direction: `sent` and `got` count bytes; `cut`: it need not arrive whole; `sealed`: the writing end was
-- closed or shut down; `over`: its end, or an error, was read.
local function new_way(from, to)
  return { from = from, to = to, offset = random(PERIOD), sent = 0, got = 0, readers = 0, writers = 0 }
end

local function new_link(a, b, kind)
  local link = { a, b, kind = kind }
  link.ways = { new_way(a, b), new_way(b, a) }
  for _, way in ipairs(link.ways) do way.link = link end
  local list = M.links
  if #list < MOST then
    list[#list + 1] = link
  else
    local at = random(MOST)
    local old = list[at]
    list[at] = link
    M.finish(old)
  end
  return link
end

local function cut(link)
  link.ways[1].cut, link.ways[2].cut = true, true
end

-- Making them ---------------------------------------------------------------------------------------

local CONNECT = codes('ECONNREFUSED', 'ETIMEDOUT', 'EADDRNOTAVAIL', 'ECONNRESET', 'ECANCELED', 'EAGAIN')

local function pair()
  local a, b, code = call('asio.socketpair', asio.socketpair)
  if not a then return nil, w.check_failure('asio.socketpair', {}, b, code) end
  return a, b
end

function M.socketpair()
  local a, b = pair()
  if a then new_link(a, b, 'pair') end
end

local listening = {}

local function listener(where)
  local server = listening[where]
  if server and server:address() then return server end
  local message, code
  if where == 'tcp' then
    server, message, code = call('asio.server', asio.server, '127.0.0.1', 0)
  else
    server, message, code = call('asio.server', asio.server, 'unix:@', nil, { handles = where == 'handles' })
  end
  if not server then return nil, w.check_failure('asio.server', {}, message, code) end
  listening[where] = server
  return server
end

local ACCEPT = codes('ETIMEDOUT', 'ECANCELED', 'EBADF')

-- Several connect to one listener at a time: the first words tell which end belongs to which.
local waiting = {}

local function through(where)
  local server = listener(where)
  if not server then return end
  local host, port = server:address()
  if not host then return end
  local opts = { timeout = 1, handles = where == 'handles' or nil }
  local a, message, code
  if port then
    a, message, code = call('asio.connect', asio.connect, host, port, opts)
  else
    a, message, code = call('asio.connect', asio.connect, host, opts)
  end
  if not a then return w.check_failure('asio.connect', CONNECT, message, code) end
  w.serial = w.serial + 1
  local id = ('%08d'):format(w.serial)
  waiting[id] = a
  a:write(id)
  a:flush()
  local b
  b, message, code = call('server.accept', server.accept, server, chance(4) and 0 or 0.5)
  if not b then
    waiting[id] = nil
    a:close()
    return w.check_failure('server.accept', ACCEPT, message, code)
  end
  b:set_timeout(1)
  local hello = call('conn.read', b.read, b, 8)
  b:set_timeout(nil)
  local other = hello and waiting[hello]
  if not other then return b:abort() end
  waiting[hello] = nil
  new_link(other, b, where)
end

function M.tcp() through 'tcp' end
function M.unix() through(chance(2) and 'unix' or 'handles') end

-- A pair with a relay in the middle.
function M.relayed()
  local a, p = pair()
  if not a then return end
  local q, b = pair()
  if not q then
    p:close()
    return a:close()
  end
  local link = new_link(a, b, 'relay')
  link.relay = call('asio.spawn', asio.spawn, function()
    local ok, to, from, code = try('asio.relay', asio.relay, p, q, chance(3) and { timeout = 0.5 } or nil)
    if not ok or not to then cut(link) end
    if not ok then error(to, 0) end
    if not to then w.check_failure('asio.relay', nil, from, code) end
  end)
  w.keep(link.relay)
end

-- Using them ----------------------------------------------------------------------------------------

local function some_way()
  local link = #M.links > 0 and pick(M.links)
  if not link then return M.socketpair() end
  return link.ways[random(2)], link
end

local GONE = codes('EPIPE', 'ECONNRESET', 'EBADF', 'ECANCELED')

-- A failed write: what may be in the queue all the same.
local function not_written(way, name, message, code, unsent)
  if code == 'ETIMEDOUT' then
    return check(type(unsent) == 'number', '%s timed out without a number', name)
  end
  if code == 'EBUSY' then
    way.cut, way.spoiled = true, true
    return check(way.link.kind == 'relay' or way.link.lent, 'busy')
  end
  way.cut = true
  w.check_failure(name, GONE, message, code)
  check(way.link.torn or way.sealed or way.link.ways[1].cut or way.link.ways[2].cut or way.peer_left
    or w.exhausted > 0 or w.closing, '%s failed with %s for no reason', name, code)
end

function M.write()
  local way = some_way()
  if not way or way.sent - way.got > ENOUGH then return end
  local n = pick(SIZES)
  local data = piece(way, way.sent, n)
  way.sent = way.sent + n
  way.writers = way.writers + 1
  local split = chance(3) and random(0, n)
  local ok, done, message, code, unsent
  if split then
    ok, done, message, code, unsent = try('conn.write', way.from.write, way.from, data:sub(1, split),
      { data:sub(split + 1) })
  else
    ok, done, message, code, unsent = try('conn.write', way.from.write, way.from, data)
  end
  way.writers = way.writers - 1
  if not ok then
    if not w.is_interrupt(done) then way.cut, way.spoiled = true, true end -- refused: not queued
    error(done, 0)
  end
  if not done then not_written(way, 'conn.write', message, code, unsent) end
end

function M.flush()
  local way = some_way()
  if not way then return end
  local done, message, code, unsent = call('conn.flush', way.from.flush, way.from)
  if not done then not_written(way, 'conn.flush', message, code, unsent) end
end

local function take(way, data, taken)
  local expected = piece(way, way.got, #data)
  if data ~= expected and not way.spoiled then
    way.cut, way.spoiled = true, true
    w.fault('%s: other bytes at %d of %d: %q, not %q', way.link.kind, way.got, way.sent, data:sub(1, 60),
      expected:sub(1, 60))
  end
  way.got = way.got + taken
  check(way.got <= way.sent or way.cut, 'more bytes than were written')
end

local READ = codes('EOF', 'ETIMEDOUT', 'EBADF', 'ECANCELED', 'EBUSY', 'ECONNRESET', 'EPIPE', 'EMSGSIZE',
  'ENOBUFS')

local function not_read(way, name, message, code)
  w.check_failure(name, READ, message, code)
  if code == 'EOF' and (name == 'conn.read_some' or name == 'conn.read_line') then
    check(way.cut or way.got == way.sent or way.readers > 0 and way.link.kind == 'relay',
      '%s: end at %d of %d', way.link.kind, way.got, way.sent)
  elseif code == 'EBADF' or code == 'ECANCELED' then
    check(way.link.torn or w.closing or not asio.current(), '%s: %s: %s, and was not closed',
      way.link.kind, name, code)
  elseif code == 'ECONNRESET' then
    local relay = way.link.relay -- one that was cancelled has let go, and may not have run since
    check(way.cut or way.link.torn or relay and relay:status() ~= 'waiting', '%s: reset for no reason', name)
  end
end

local readers = {
  ['conn.read'] = function(way, n)
    local data, message, code = call('conn.read', way.to.read, way.to, n)
    if data then check(#data == n, 'read: %d of %d', #data, n) end
    return data, message, code
  end,
  ['conn.read_some'] = function(way, n)
    local max = chance(3) and n or nil
    local data, message, code = call('conn.read_some', way.to.read_some, way.to, max)
    if data then check(#data >= 1 and #data <= (max or #data), 'read_some: %d', #data) end
    return data, message, code
  end,
  ['conn.peek'] = function(way, n)
    local data, message, code = call('conn.peek', way.to.peek, way.to, n)
    if data then
      check(#data == n, 'peek: %d of %d', #data, n)
      take(way, data, 0)
      return false
    end
    return data, message, code
  end,
  ['conn.read_line'] = function(way)
    local data, message, code = call('conn.read_line', way.to.read_line, way.to, chance(2) and 100 or nil)
    if data and way.got + #data < way.sent then return data, #data + 1 end
    if data then way.cut = true end -- the last, without its end
    return data, data and #data or message, code
  end,
  ['conn.read_until'] = function(way, n)
    local delim = piece(way, way.got + random(0, 200), random(1, 3)) -- occurs sooner or later
    local data, message, code = call('conn.read_until', way.to.read_until, way.to, delim, n)
    if data then
      take(way, data .. delim, #data + #delim)
      return false
    end
    return data, message, code
  end,
  ['conn.read_all'] = function(way, n)
    local data, message, code = call('conn.read_all', way.to.read_all, way.to, n)
    return data, data and #data or message, code
  end,
  ['conn.lines'] = function(way)
    local following = call('conn.lines', way.to.lines, way.to)
    local ok, data = pcall(following)
    if not ok then
      if type(data) ~= 'string' or not data:find '%(E%w+%)' then error(data, 0) end
      return false
    end
    if not data then return false end
    if way.got + #data < way.sent then return data, #data + 1 end
    way.cut = true
    return data, #data
  end,
}
local READERS = {}
for name in pairs(readers) do READERS[#READERS + 1] = name end
table.sort(READERS)

function M.read()
  local way = some_way()
  if not way or way.readers > 0 then return end
  local name = chance(2) and 'conn.read_some' or pick(READERS)
  way.readers = way.readers + 1
  local ok, data, a, b = pcall(readers[name], way, pick(SIZES))
  way.readers = way.readers - 1
  if not ok then error(data, 0) end
  if data then
    take(way, data, type(a) == 'number' and a or #data)
  elseif data == nil then
    not_read(way, name, a, b)
  end
end

-- A second reader is refused, and takes nothing. Where the first has its bytes, and is only still to run, the
-- second waits in its place: it counts as a reader too.
function M.second_reader()
  local way = some_way()
  if not way or way.readers == 0 then return end
  way.readers = way.readers + 1
  local ok, data, message, code = pcall(call, 'conn.peek', way.to.peek, way.to, 1)
  way.readers = way.readers - 1
  if not ok then error(data, 0) end
  if not data then w.check_failure('conn.peek', READ, message, code) end
end

local FACTS = { 'peer', 'address', 'fd', 'pending', 'credentials', 'get_original_dst' }

function M.facts()
  local way = some_way()
  if not way then return end
  local name = pick(FACTS)
  local a, b, code = call('conn.' .. name, way.to[name], way.to)
  if a == nil then w.check_failure('conn.' .. name, nil, b, code) end
  local _ = tostring(way.to)
end

function M.set_timeout()
  local way = some_way()
  if not way then return end
  local ok, message, code = call('conn.set_timeout', way.from.set_timeout, way.from, moment_or_never(),
    moment_or_never())
  if not ok then w.check_failure('conn.set_timeout', codes 'EBADF', message, code) end
end

-- Ending them ---------------------------------------------------------------------------------------

function M.shutdown()
  local way = some_way()
  if not way or not chance(3) then return end
  local done, message, code = call('conn.shutdown', way.from.shutdown, way.from)
  way.sealed = true
  if not done then not_written(way, 'conn.shutdown', message, code) end
end

local function torn(link)
  link.torn = true
end

-- The writing end closes: all that was written arrives, unless the other end goes as well.
function M.finish(link)
  torn(link)
  local way = link.ways[random(2)]
  local back = link.ways[1] == way and link.ways[2] or link.ways[1]
  back.cut, way.sealed = true, true
  local choice = random(4)
  if choice == 1 then
    cut(link)
    call('conn.abort', way.from.abort, way.from)
    if chance(2) then way.to:close() end
  elseif choice == 2 then
    cut(link)
    call('conn.close', way.from.close, way.from)
    if chance(2) then way.to:abort() else way.to:close() end
  elseif choice == 3 then
    cut(link)
    link[1], link[2] = nil, nil -- left to the collector
    way.from, way.to, back.from, back.to = nil, nil, nil, nil
  else
    call('conn.close', way.from.close, way.from)
    w.keep(call('asio.spawn', asio.spawn, M.drain, way, link))
  end
end

-- Reads to the end, which has to be that of the text.
function M.drain(way, link)
  local deadline = asio.now() + 20
  while way.readers > 0 do
    if asio.now() > deadline then return w.fault 'a reader stays' end
    asio.sleep(1e-3)
  end
  way.readers = 1
  local ok, set = pcall(way.to.set_timeout, way.to, 10)
  local data, message, code
  if ok and set then
    repeat
      ok, data, message, code = try('conn.read_some', way.to.read_some, way.to)
      if ok and data then take(way, data, #data) end
    until not ok or not data
  end
  way.readers = 0
  if not ok then -- cancelled
    way.to:close()
    error(data, 0)
  end
  if code == 'EOF' then
    check(way.got == way.sent or way.cut, '%s: closed after %d, read %d', link.kind, way.sent, way.got)
  elseif code and w.longest_gap < 2 then -- the closing end waits for 2 seconds, and resets what comes then
    check(way.cut or w.exhausted > 0, '%s: closed, but %s after %d of %d (%s), %d read, %d write, %s, %s',
      link.kind, code, way.got, way.sent, tostring(message), way.readers, way.writers, tostring(way.from),
      tostring(way.to))
  end
  way.to:close()
end

function M.close()
  if #M.links < 4 or not chance(2) then return end
  local at = random(#M.links)
  local link = M.links[at]
  table.remove(M.links, at)
  M.finish(link)
end

function M.close_all()
  for i = #M.links, 1, -1 do
    local link = M.links[i]
    M.links[i] = nil
    torn(link)
    cut(link)
    for _, conn in pairs { link[1], link[2] } do
      if chance(2) then conn:close() else conn:abort() end
    end
  end
  for where, server in pairs(listening) do
    server:close()
    listening[where] = nil
  end
  for id, conn in pairs(waiting) do
    conn:abort()
    waiting[id] = nil
  end
end

-- A connection travels over another: the far end goes on as if nothing had happened.
function M.pass()
  local carrier
  for _, link in ipairs(M.links) do
    if link.kind == 'handles' and not link.torn and not link.lent and not link.spoiled then carrier = link end
  end
  if not carrier then return end
  carrier.lent = true
  local a, b = pair() -- waits: the carrier may be gone afterwards
  local from, to = carrier[1], carrier[2]
  if a and not (from and to) then
    a:close()
    b:close()
  end
  if not (a and from and to) then carrier.lent = false return end
  local ok, sent, message, code = try('conn.send_handle', from.send_handle, from, a)
  if ok and sent then
    local got
    ok, got, message, code = try('conn.recv_handle', to.recv_handle, to)
    if ok and got then
      new_link(got, b, 'passed')
    else
      b:close()
      carrier.spoiled = true -- what is on its way would be taken for the next
    end
    carrier.lent = false
    if not ok then error(got, 0) end
    if not got then w.check_failure('conn.recv_handle', nil, message, code) end
    return
  end
  carrier.lent = false
  carrier.spoiled = not ok
  a:close()
  b:close()
  if not ok then error(sent, 0) end
  w.check_failure('conn.send_handle', nil, message, code)
end

M.weights = {
  socketpair = 1, tcp = 1, unix = 1, relayed = 1, write = 10, flush = 2, read = 14, second_reader = 1,
    facts = 2,
  set_timeout = 3, shutdown = 1, close = 1, pass = 1,
}
M.moment = moment

return M
