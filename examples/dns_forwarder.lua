-- A name server for a small network: forwards questions, and keeps the answers for their time to live.
--     luajit dns_forwarder.lua [ADDRESS [PORT [UPSTREAM ...]]]    127.0.0.1 5353 9.9.9.9 1.1.1.1
-- Try it: `dig @127.0.0.1 -p 5353 example.org`, twice: the second answer comes from the cache, and its TTL
-- is smaller. An UPSTREAM is `IP` or `IP:PORT`, `[IP]:PORT` by IPv6. Ctrl-C ends it.
--
-- When an upstream does not answer in SECONDS, or answers with a failure, the next one is asked, ROUNDS
-- times through the list; then the client gets SERVFAIL. An answer that is too long for a datagram is
-- truncated. The client then asks again by TCP, and its connection is relayed to the first upstream.
local asio = require 'asio'

local address, port = arg[1] or '127.0.0.1', tonumber(arg[2] or 5353)
local upstreams = #arg > 2 and { unpack(arg, 3) } or { '9.9.9.9', '1.1.1.1' }
local SECONDS, ROUNDS = 1, 2
local MOST_ENTRIES = 5000 -- of each of the two generations of the cache
local LARGEST = 4096 -- bytes of an answer that is kept
local MOST_BUSY = 500 -- questions under way; further ones are dropped, and the client asks again
local LONGEST_LIFE, LONGEST_NO = 86400, 60 -- seconds: for records, and for "no such name"

local floor, min, char = math.floor, math.min, string.char
local random = assert(io.open('/dev/urandom', 'rb')) -- ids must not be predictable

for i, text in ipairs(upstreams) do
    local ip, its_port = text:match '^%[(.*)%]:(%d+)$'
    if not ip then ip, its_port = text:match '^([%d.]+):(%d+)$' end
    upstreams[i] = { ip = ip or text, port = its_port or 53 }
end

-- Messages ---------------------------------------------------------------------------------------------

local function u16(message, at)
    local a, b = message:byte(at, at + 1)
    return b and a * 256 + b
end

local function u32(message, at) return u16(message, at) * 65536 + u16(message, at + 2) end
local function put16(n) return char(floor(n / 256), n % 256) end
local function put32(n) return put16(floor(n / 65536)) .. put16(n % 65536) end

-- The position behind a name; nil if it is not well formed. In an answer a name may end with a pointer.
local function skip_name(message, at, whole)
    local length = message:byte(at)
    while length and length > 0 and length < 64 do
        at = at + 1 + length
        length = message:byte(at)
    end
    if length == 0 then return at + 1 end
    if length and length >= 192 and not whole then return at + 2 end
end

-- The records from `at` on, one by one: number, position of type, class, TTL, and length of its data.
local function records(message, at)
    local count = u16(message, 7) + u16(message, 9) + u16(message, 11)
    return function(_, i)
        local start = i < count and at and skip_name(message, at)
        local length = start and u16(message, start + 8)
        at = length and start + 10 + length
        if at and at <= #message + 1 then return i + 1, start, length end
    end, nil, 0
end

-- A client's question: { id, question (its bytes), room (the largest datagram it takes), key }. The key is
-- the message for the upstream without its id: flags, the name in small letters, and, from the client's EDNS
-- record (41), only whether there is one and whether it asks for signatures. Nil if it is not a question.
local function parse_question(message)
    if #message < 17 or message:byte(3) >= 128 then return nil end
    local stop = skip_name(message, 13, true)
    if not stop or stop + 3 > #message or u16(message, 5) ~= 1 or message:byte(3) >= 8 then return nil end
    local q = { id = message:sub(1, 2), question = message:sub(13, stop + 3), room = 512 }
    local edns = ''
    for _, at in records(message, stop + 4) do
        if u16(message, at) == 41 then
            q.room = math.max(512, u16(message, at + 2))
            local signatures = message:byte(at + 6) >= 128 and '\128' or '\0'
            edns = '\0' .. put16(41) .. put16(1232) .. '\0\0' .. signatures .. '\0\0\0'
        end
    end
    local flags = char(message:byte(3) % 2, floor(message:byte(4) / 16) % 2 * 16) -- RD, CD
    q.key = flags .. '\0\1\0\0\0\0\0' .. (edns == '' and '\0' or '\1') .. message:sub(13, stop - 1):lower()
        .. message:sub(stop, stop + 3) .. edns
    return q
end

local function is_answer(message, id, key)
    local length = skip_name(key, 11) + 3 - 10
    return #message >= 12 + length and message:sub(1, 2) == id and message:byte(3) >= 128
        and u16(message, 5) == 1 and message:sub(13, 12 + length):lower() == key:sub(11, 10 + length):lower()
end

local function rcode(message) return message:byte(4) % 16 end
local function truncated(message) return floor(message:byte(3) / 2) % 2 == 1 end

-- For how many seconds an answer may be kept (nil: not at all), and the positions of its TTLs. "No such name"
-- and "no such record" are kept as long as the zone's SOA record (6) says.
local function life_of(message)
    if truncated(message) or #message > LARGEST then return nil end
    if rcode(message) ~= 0 and rcode(message) ~= 3 then return nil end
    local life, ttls, seen, soa = LONGEST_LIFE, {}, 0, nil
    for i, at, length in records(message, skip_name(message, 13) + 4) do
        seen = i
        if u16(message, at) ~= 41 then
            local ttl = u32(message, at + 4)
            life = min(life, ttl < 2 ^ 31 and ttl or 0)
            ttls[#ttls + 1] = at + 4
            if u16(message, at) == 6 and length >= 22 then soa = u32(message, at + 6 + length) end
        end
    end
    if seen < u16(message, 7) + u16(message, 9) + u16(message, 11) then return nil end -- not well formed
    if u16(message, 7) == 0 or rcode(message) == 3 then life = soa and min(life, soa, LONGEST_NO) or 0 end
    return life > 0 and life or nil, ttls
end

-- The cache ---------------------------------------------------------------------------------------------
-- Two tables, used in turn. When the younger one is full, the older one is dropped, with all answers that no
-- client has asked for since.

local young, old, count = {}, {}, 0

local function keep(key, entry)
    if count == MOST_ENTRIES then young, old, count = {}, young, 0 end
    if not young[key] then count = count + 1 end
    young[key] = entry
end

local function find(key)
    local entry = young[key] or old[key]
    local age = entry and floor(asio.now() - entry.since)
    if not entry or age >= entry.life then return nil end
    if not young[key] then keep(key, entry) end
    local parts, from = {}, 1
    for i, at in ipairs(entry.ttls) do
        parts[i] = entry.message:sub(from, at - 1) .. put32(math.max(u32(entry.message, at) - age, 0))
        from = at + 4
    end
    return table.concat(parts) .. entry.message:sub(from)
end

-- Asking ----------------------------------------------------------------------------------------------

-- Each attempt has a socket of its own: another port each time, and only the upstream is received.
local function ask_one(upstream, key)
    local sock = asio.udp()
    local id = random:read(2)
    local message
    if sock and sock:connect(upstream.ip, upstream.port) and sock:send(id .. key) then
        local deadline = asio.now() + SECONDS
        repeat
            message = sock:recv(nil, math.max(0, deadline - asio.now()))
        until not message or is_answer(message, id, key)
    end
    if sock then sock:close() end
    return message
end

local FAILURES = { [2] = true, [4] = true, [5] = true } -- of the server, not implemented, refused

local function ask(key)
    local message
    for _ = 1, ROUNDS do
        for _, upstream in ipairs(upstreams) do
            local found = ask_one(upstream, key)
            message = found or message
            if found and not FAILURES[rcode(found)] then
                local life, ttls = life_of(found)
                if life then keep(key, { message = found, life = life, ttls = ttls, since = asio.now() }) end
                return found
            end
        end
        if message then break end -- an upstream has answered, with a failure
    end
    return message
end

-- Serving ---------------------------------------------------------------------------------------------

local asking, busy = {}, 0 -- light threads by key: equal questions share one

local function reply_to(q, message)
    if not message then return q.id .. char(128 + q.key:byte(1)) .. '\130\0\1\0\0\0\0\0\0' .. q.question end
    if #message <= q.room then
        return q.id .. message:sub(3, 12) .. q.question .. message:sub(13 + #q.question)
    end
    local flags = char(message:byte(3) + (truncated(message) and 0 or 2)) .. message:sub(4, 4)
    return q.id .. flags .. '\0\1\0\0\0\0\0\0' .. q.question
end

local function ask_and_reply(sock, q, ip, from)
    busy = busy + 1
    local thread = asking[q.key] or asio.spawn(ask, q.key)
    asking[q.key] = thread
    local ok, message = thread:join()
    if asking[q.key] == thread then asking[q.key] = nil end
    busy = busy - 1
    sock:send(reply_to(q, ok and message), ip, from)
end

local function serve(sock)
    local data, ip, from = sock:recv()
    while data do
        local q = parse_question(data)
        local message = q and find(q.key)
        if message then
            sock:send(reply_to(q, message), ip, from)
        elseif q and busy < MOST_BUSY then
            asio.spawn(ask_and_reply, sock, q, ip, from)
        end
        data, ip, from = sock:recv()
    end
end

local function pass_through(conn)
    local onward = asio.connect(upstreams[1].ip, upstreams[1].port, { timeout = 3 * SECONDS })
    if not onward then return conn:close() end
    asio.relay(conn, onward, { timeout = 10 })
end

local sock, message = asio.udp(address, port)
local server
if sock then server, message = asio.server(address, select(2, sock:address()), pass_through) end
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', sock:address())
    io.flush()
    asio.spawn(serve, sock)
    interrupt:wait()
    asio.stop() -- answers that are under way are not needed
end)
