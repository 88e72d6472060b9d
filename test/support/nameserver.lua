-- A name server for the tests, in a process of its own (see ns.lua): answers over UDP and TCP on one port of
-- 127.0.0.1 (and UDP on ::1), as each name says it should be treated. Ends when its standard input does.
--
-- A name is LABEL.OPTIONS...test; an option is a label, in any order before 'test':
--   ttl5        of each record (60)          delay100   milliseconds before it answers
--   n3          so many records (1)          a, aaaa    has only that one of the two
--   none        has no record of the type    missing    does not exist
--   soa7        with an SOA record whose minimum is 7, in a negative answer
--   servfail, refused, formerr, notimp       that response code
--   silent      never answers                silent6    never answers for AAAA
--   delay6x100  as delay, for AAAA alone     trunc      truncated by UDP, whole by TCP
--   truncall    truncated by TCP too         notcp      truncated, and TCP connections are closed at once
--   wrongid, wrongname, wrongaddr            an answer with another id, question, from another address
--   wrongthen   first a wrong one, then the right one
--   alias, loop                              through a CNAME; through one that leads to itself
--   fuzz17      mangled: one of endless many, by number
--   big         a TXT record that is large   to127x0x0x2   the address of A records (127.0.0.1)
--   far6        AAAA records of addresses that are nowhere
--   count       TXT: how many questions for the rest of the name have come
--   ports       TXT: from how many ports the questions have come for names that end with the rest of it, and
--               have one label before that
--   held        answered when the line 'g NAME' comes on standard input; 'f NAME': it does not exist;
--               without NAME all that are held
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local bit = require 'bit'
local numbers = require 'numbers'
local C = ffi.C

ffi.cdef [[
struct ns_in { uint16_t family; uint8_t port[2]; uint8_t ip[4]; uint8_t zero[8]; };
struct ns_in6 { uint16_t family; uint8_t port[2]; uint32_t flow; uint8_t ip[16]; uint32_t scope; };
struct ns_any { char bytes[28]; };
struct ns_poll { int fd; short events; short revents; };
struct ns_time { long seconds, nanoseconds; };
int socket(int, int, int);
int bind(int, const void *, unsigned);
int listen(int, int);
int accept(int, void *, unsigned *);
int getsockname(int, void *, unsigned *);
int setsockopt(int, int, int, const void *, unsigned);
ssize_t recvfrom(int, void *, size_t, int, void *, unsigned *);
ssize_t sendto(int, const void *, size_t, int, const void *, unsigned);
ssize_t recv(int, void *, size_t, int);
ssize_t send(int, const void *, size_t, int);
ssize_t read(int, void *, size_t);
int poll(struct ns_poll *, unsigned long, int);
int close(int);
unsigned alarm(unsigned);
int clock_gettime(int, struct ns_time *);
]]

local TYPES = { [1] = 'A', [12] = 'PTR', [15] = 'MX', [16] = 'TXT', [28] = 'AAAA', [33] = 'SRV' }

local function now()
  local t = ffi.new 'struct ns_time'
  C.clock_gettime(1, t)
  return tonumber(t.seconds) + tonumber(t.nanoseconds) / 1e9
end

-- Bytes ------------------------------------------------------------------------------------------

local function u16(n) return string.char(math.floor(n / 256) % 256, n % 256) end
local function u32(n) return u16(math.floor(n / 65536)) .. u16(n % 65536) end

local function wire(name)
  local parts = {}
  for label in name:gmatch '[^.]+' do parts[#parts + 1] = string.char(#label) .. label end
  return table.concat(parts) .. '\0'
end

-- The question's name, type, and its bytes.
local function question(message)
  local labels, at = {}, 13
  while message:byte(at) and message:byte(at) ~= 0 do
    local n = message:byte(at)
    labels[#labels + 1] = message:sub(at + 1, at + n)
    at = at + 1 + n
  end
  if not message:byte(at + 4) then return nil end
  return table.concat(labels, '.'), message:byte(at + 1) * 256 + message:byte(at + 2),
    message:sub(13, at + 4)
end

-- What a name asks for ---------------------------------------------------------------------------

local WORDS = { 'none', 'missing', 'servfail', 'refused', 'formerr', 'notimp', 'silent', 'silent6', 'trunc',
  'truncall', 'notcp', 'wrongid', 'wrongname', 'wrongaddr', 'wrongthen', 'alias', 'loop', 'big', 'a',
  'aaaa', 'held', 'far6' }
local NUMBERS = { 'ttl', 'delay', 'delay6x', 'n', 'soa', 'fuzz' }

local function options(name)
  local found = {}
  if name:lower():find '^count%.' then return { count = true } end
  if name:lower():find '^ports%.' then return { ports = true } end
  for label in name:lower():gmatch '[^.]+' do
    for _, word in ipairs(WORDS) do
      if label == word then found[word] = true end
    end
    for _, word in ipairs(NUMBERS) do
      local n = label:match('^' .. word .. '(%d+)$')
      if n then found[word] = tonumber(n) end
    end
    local a, b, c, d = label:match '^to(%d+)x(%d+)x(%d+)x(%d+)$'
    if a then found.to = string.char(a, b, c, d) end
  end
  return found
end

local counts = {}
local ports = {} -- by what comes behind the first label: sets

local function note_port(name, from)
  local rest = name:lower():match '^[^.]*%.(.*)$' or ''
  ports[rest] = ports[rest] or {}
  ports[rest][from.bytes[2] .. ' ' .. from.bytes[3]] = true
end

local function count_ports(rest)
  local n = 0
  for _ in pairs(ports[rest] or {}) do n = n + 1 end
  return n
end

local function data(kind, i, o, name)
  if kind == 'A' then return o.to or string.char(127, 0, 0, i) end
  if kind == 'AAAA' and o.far6 then return '\32\1\13\184' .. ('\0'):rep(11) .. string.char(i) end
  if kind == 'AAAA' then return ('\0'):rep(15) .. string.char(i) end
  if kind == 'MX' then return u16(10 * (4 - i)) .. wire('mx' .. i .. '.test') end
  if kind == 'SRV' then
    return u16(10 * (4 - i)) .. u16(i) .. u16(8000 + i) .. wire('host' .. i .. '.test')
  end
  if kind == 'PTR' then return wire('name' .. i .. '.test') end
  if kind ~= 'TXT' then return nil end
  if o.ports then
    local text = tostring(count_ports(name:lower():match '^ports%.(.*)$'))
    return string.char(#text) .. text
  end
  if o.count then
    local text = tostring(counts[name:lower():match '^count%.(.*)$'] or 0)
    return string.char(#text) .. text
  end
  if o.big then return (string.char(200) .. ('x'):rep(200)):rep(20) end
  return string.char(5) .. 'text ' .. string.char(1) .. i
end

local function records(owner, kind, type, o, name)
  local list = {}
  if o.none or (o.a and kind == 'AAAA') or (o.aaaa and kind == 'A') then return list end
  for i = 1, o.n or 1 do
    local rdata = data(kind, i, o, name)
    if rdata then
      list[#list + 1] = owner .. u16(type) .. u16(1) .. u32(o.ttl or 60) .. u16(#rdata) .. rdata
    end
  end
  return list
end

local RCODES = { formerr = 1, servfail = 2, missing = 3, notimp = 4, refused = 5 }

local function answer(message, name, type, asked, o, tcp)
  local list, authority, rcode, flags = {}, '', 0, 0x8180
  for word, code in pairs(RCODES) do
    if o[word] then rcode = code end
  end
  if (o.trunc or o.notcp) and not tcp or o.truncall then
    flags = flags + 0x0200
  elseif rcode == 0 and o.loop then
    list = { '\192\12' .. u16(5) .. u16(1) .. u32(60) .. u16(2) .. '\192\12' }
  elseif rcode == 0 and o.alias then
    local target = wire('real.' .. name)
    list = records(target, TYPES[type], type, o, name)
    table.insert(list, 1,
      '\192\12' .. u16(5) .. u16(1) .. u32(o.ttl or 60) .. u16(#target) .. target)
  elseif rcode == 0 then
    list = records('\192\12', TYPES[type], type, o, name)
  end
  if o.soa and #list == 0 then
    local rdata = wire 'ns.test' .. wire 'root.test' .. u32(1) .. u32(2) .. u32(3) .. u32(4) .. u32(o.soa)
    authority = wire 'test' .. u16(6) .. u16(1) .. u32(3600) .. u16(#rdata) .. rdata
  end
  return message:sub(1, 2) .. u16(flags + rcode) .. u16(1) .. u16(#list) .. u16(authority ~= '' and 1 or 0)
    .. u16(0) .. asked .. table.concat(list) .. authority
end

-- Some bytes changed, taken away, added or doubled; the id is left, and more often than not the header.
local function mangled(reply, seed)
  math.randomseed(seed)
  for _ = 1, 5 do math.random() end
  for _ = 1, math.random(1, 4) do
    local way, at = math.random(5), math.random(math.random(4) == 1 and 3 or 13, math.max(#reply, 14))
    if way == 1 then reply = reply:sub(1, at - 1) .. string.char(math.random(0, 255)) .. reply:sub(at + 1)
    elseif way == 2 then reply = reply:sub(1, at - 1)
    elseif way == 3 then reply = reply:sub(1, at - 1) .. reply:sub(at + math.random(4))
    elseif way == 4 then reply = reply .. reply:sub(at)
    else reply = reply:sub(1, at - 1) .. '\192' .. string.char(math.random(0, 255)) .. reply:sub(at + 2) end
  end
  return reply
end

-- Sockets ----------------------------------------------------------------------------------------

local AF_INET, AF_INET6, STREAM, DGRAM, DONTWAIT = 2, 10, numbers.SOCK_STREAM, numbers.SOCK_DGRAM, 0x40
local size = ffi.new('unsigned[1]')
local buffer = ffi.new 'char[65536]'

local function check(result, what)
  if result < 0 then error(what .. ': errno ' .. ffi.errno()) end
  return result
end

local function bound(kind, port)
  local fd = check(C.socket(AF_INET, kind, 0), 'socket')
  C.setsockopt(fd, numbers.SOL_SOCKET, numbers.SO_RCVBUF, ffi.new('int[1]', 4194304), 4)
  local address = ffi.new('struct ns_in',
    { AF_INET, { math.floor(port / 256), port % 256 }, { 127, 0, 0, 1 } })
  return fd, C.bind(fd, address, 16) == 0
end

local function port_of(fd)
  local address = ffi.new 'struct ns_in'
  size[0] = 16
  check(C.getsockname(fd, address, size), 'getsockname')
  return address.port[0] * 256 + address.port[1]
end

-- One port for both.
local function open(wanted)
  for _ = 1, 100 do
    local udp, fine = bound(DGRAM, wanted)
    assert(fine, 'bind')
    local port = port_of(udp)
    local tcp, too = bound(STREAM, port)
    if too then
      check(C.listen(tcp, 64), 'listen')
      return udp, tcp, port
    end
    C.close(udp)
    C.close(tcp)
  end
  error 'no port that is free for both'
end

local function open_six(port)
  local fd = C.socket(AF_INET6, DGRAM, 0)
  if fd < 0 then return -1 end
  local address = ffi.new 'struct ns_in6'
  address.family, address.ip[15] = AF_INET6, 1
  address.port[0], address.port[1] = math.floor(port / 256), port % 256
  if C.bind(fd, address, 28) == 0 then return fd end
  C.close(fd)
  return -1
end

-- Answering --------------------------------------------------------------------------------------

local later = {} -- {at, function}, the earliest first

local function at(time, fn)
  local i = #later
  while i > 0 and later[i].time > time do i = i - 1 end
  table.insert(later, i + 1, { time = time, fn = fn })
end

local held = {} -- {name, answer}

local other = -1 -- a socket with another address

local function other_name(reply)
  return reply:sub(1, 13) .. 'z' .. reply:sub(15)
end

local function treat(message, tcp, send, send_other)
  local name, type, asked = question(message)
  if not name then return end
  local o = options(name)
  counts[name:lower()] = (counts[name:lower()] or 0) + 1
  if o.silent or (o.silent6 and type == 28) then return end
  local reply = answer(message, name, type, asked, o, tcp)
  if o.fuzz then reply = mangled(reply, o.fuzz * 64 + type) end
  local wrong_id = string.char(bit.bxor(message:byte(1), 255)) .. reply:sub(2)
  if o.wrongid then reply = wrong_id end
  if o.wrongname then reply = other_name(reply) end
  local delay = type == 28 and o.delay6x or o.delay
  local function go()
    if o.wrongthen then
      send(wrong_id)
      send(other_name(reply))
      send_other(reply)
    end
    return (o.wrongaddr and send_other or send)(reply)
  end
  if o.held then
    held[#held + 1] = { name = name, answer = function(failed)
      if failed then reply = reply:sub(1, 3) .. '\131' .. reply:sub(5) end
      go()
    end }
  elseif delay then
    at(now() + delay / 1000, go)
  else
    go()
  end
end

local function datagrams(fd, six)
  while true do
    local from = ffi.new 'struct ns_any'
    size[0] = 28
    local n = C.recvfrom(fd, buffer, 65536, DONTWAIT, from, size)
    if n < 0 then return end
    local length = six and 28 or 16
    local message = ffi.string(buffer, n)
    local name = question(message)
    if name and not name:lower():find '^ports%.' then note_port(name, from) end
    treat(message, false,
      function(reply) C.sendto(fd, reply, #reply, 0, from, length) end,
      function(reply) C.sendto(other, reply, #reply, 0, from, length) end)
  end
end

-- What was asked before the command came counts.
local function command(udp)
  datagrams(udp, false)
  local n = C.read(0, buffer, 4096)
  if n <= 0 then return true end
  for how, name in ffi.string(buffer, n):gmatch '([gf]) (%S*)\n' do
    local ready = held
    held = {}
    for _, one in ipairs(ready) do
      if name == '' or one.name == name then
        one.answer(how == 'f')
      else
        held[#held + 1] = one
      end
    end
  end
end

local streams = {}

local function accept(fd)
  local client = C.accept(fd, nil, nil)
  if client >= 0 then streams[client] = '' end
end

local function stream(fd)
  local n = C.recv(fd, buffer, 65536, DONTWAIT)
  if n <= 0 then
    C.close(fd)
    streams[fd] = nil
    return
  end
  streams[fd] = streams[fd] .. ffi.string(buffer, n)
  while streams[fd] and #streams[fd] >= 2 do
    local length = streams[fd]:byte(1) * 256 + streams[fd]:byte(2)
    if #streams[fd] < 2 + length then return end
    local message = streams[fd]:sub(3, 2 + length)
    streams[fd] = streams[fd]:sub(3 + length)
    if (question(message) or ''):find 'notcp' then
      C.close(fd)
      streams[fd] = nil
      return
    end
    local function send(reply)
      -- In two parts: who reads must put them together.
      local bytes = u16(#reply) .. reply
      if not streams[fd] then return end
      C.send(fd, bytes, 1, 0x4000)
      C.send(fd, bytes:sub(2), #bytes - 1, 0x4000)
    end
    treat(message, true, send, send)
  end
end

local function turn(set, handlers, count)
  for i = 0, count - 1 do
    if set[i].revents ~= 0 and handlers[i](set[i].fd) then return true end
  end
end

local function main(port_file, wanted)
  local udp, tcp, port = open(wanted)
  local six = open_six(port)
  other = bound(DGRAM, 0)
  local file = assert(io.open(port_file .. '.new', 'w'))
  file:write(port)
  file:close()
  assert(os.rename(port_file .. '.new', port_file))
  local set, handlers = ffi.new 'struct ns_poll[300]', {}
  while true do
    local count = 0
    local function watch(fd, handler)
      set[count].fd, set[count].events, set[count].revents = fd, 1, 0
      handlers[count] = handler
      count = count + 1
    end
    watch(0, function() return command(udp) end)
    watch(udp, function(fd) datagrams(fd, false) end)
    watch(tcp, accept)
    if six >= 0 then watch(six, function(fd) datagrams(fd, true) end) end
    for fd in pairs(streams) do watch(fd, stream) end
    local wait = later[1] and math.max(0, (later[1].time - now()) * 1000 + 0.9) or 1000
    C.poll(set, count, math.floor(wait))
    if turn(set, handlers, count) then return end
    local time, due = now(), 0
    while later[due + 1] and later[due + 1].time <= time do
      due = due + 1
      later[due].fn()
    end
    if due > 0 then
      local rest = {}
      for i = due + 1, #later do rest[#rest + 1] = later[i] end
      later = rest
    end
  end
end

C.alarm(600) -- whatever happens to whoever started it
main(arg[1], tonumber(arg[2] or 0))
