-- A key-value server that speaks the protocol of Redis (RESP2), on all cores: every thread has a Lua state of
-- its own, and all share one dict.
--     luajit redis_server.lua [ADDRESS [PORT [THREADS]]]     127.0.0.1 6380 auto; port 0: any that is free
-- Talk to it with `redis-cli -p 6380`, or by lines with `nc 127.0.0.1 6380`; `redis-benchmark -p 6380 -t
-- set,get,incr,mset -P 16` shows how fast it is. The commands are in the table `commands` below. Clients may
-- send many at once: the answers come in their order, and in few packets.
--
-- What differs from Redis: integers of INCR end at 2^53; MSET and MGET take their keys one by one,
-- so that another client may come between; lines have no quotes; nothing is saved. Keys and values are
-- bounded (LONGEST), and so is the memory of all, in MB (environment variable MEMORY, 256): what exceeds it
-- is refused. Ctrl-C ends the server.
local asio = require 'asio'

local address, port = arg[1] or '127.0.0.1', tonumber(arg[2] or 6380)
local threads = tonumber(arg[3]) or arg[3] or 'auto'
local memory = tonumber(os.getenv 'MEMORY' or 256) * 1024 * 1024

local LONGEST = 1024 * 1024          -- bytes of an argument
local MOST_ARGUMENTS = 1024          -- of a command
local LONGEST_COMMAND = 4 * LONGEST  -- bytes of all arguments of a command
local LONGEST_LINE = 8192
local EXACT = 2 ^ 53 - 1             -- larger integers are not
local MOST_SECONDS = 2 ^ 32          -- until a key expires

local store, failure = asio.shared.dict { max_bytes = memory, evict = 'none' }
if not store then
    io.stderr:write('no shared dict: ', failure, '\n')
    os.exit(1, true)
end

local byte, find, sub, upper, format = string.byte, string.find, string.sub, string.upper, string.format
local concat, floor, max, tonumber = table.concat, math.floor, math.max, tonumber

-- Replies ----------------------------------------------------------------------------------------

local OK, PONG, NIL, ZERO, ONE = '+OK\r\n', '+PONG\r\n', '$-1\r\n', ':0\r\n', ':1\r\n'
local NO_INTEGER = '-ERR value is not an integer or out of range\r\n'
local SYNTAX = '-ERR syntax error\r\n'

local function bulk(text) return '$' .. #text .. '\r\n' .. text .. '\r\n' end
local function integer(n) return format(':%.0f\r\n', n) end

local function array(list)
    local out = { '*' .. #list .. '\r\n' }
    for i, text in ipairs(list) do out[i + 1] = bulk(text) end
    return concat(out)
end

local function refused(message, code)
    if code == 'ENOMEM' then return "-OOM command not allowed when used memory > 'maxmemory'.\r\n" end
    return '-ERR ' .. message .. '\r\n'
end

-- What a client sent, as a part of an error.
local function shown(text) return (text:sub(1, 128):gsub('[%c\127-\255]', '?')) end

-- An integer as Redis takes it: no space, no plus, no leading zero. Nil for anything else.
local function to_integer(text)
    if not find(text, '^-?[1-9]%d*$') and text ~= '0' then return nil end
    local n = tonumber(text)
    return n >= -EXACT and n <= EXACT and n or nil
end

-- Commands ---------------------------------------------------------------------------------------

-- Each gets the list of arguments, whose first is the name, their number and the connection; it returns the
-- reply, or the last part of it.
local commands = {}

-- The least and the largest number of arguments.
local counts = {
    GET = { 2, 2 }, SET = { 3, 7 }, DEL = { 2 }, EXISTS = { 2 }, INCR = { 2, 2 }, DECR = { 2, 2 },
    INCRBY = { 3, 3 }, DECRBY = { 3, 3 }, EXPIRE = { 3, 3 }, PEXPIRE = { 3, 3 }, PERSIST = { 2, 2 },
    TTL = { 2, 2 }, PTTL = { 2, 2 }, MGET = { 2 }, MSET = { 3 }, PING = { 1, 2 }, ECHO = { 2, 2 },
    SELECT = { 2, 2 }, DBSIZE = { 1, 1 }, FLUSHALL = { 1, 2 }, INFO = { 1 }, COMMAND = { 1 },
    CONFIG = { 3, 3 }, QUIT = { 1 },
}

local function value_of(key)
    local value = store:get(key)
    return value and bulk(value) or NIL
end

function commands.GET(args) return value_of(args[2]) end

-- The options of SET: seconds or nil, and the method of the dict. Or nil, nil and an error.
local function set_options(args, n)
    local seconds, method
    local i = 4
    while i <= n do
        local option = upper(args[i])
        if (option == 'NX' or option == 'XX') and not method then
            method = option == 'NX' and store.add or store.replace
        elseif (option == 'EX' or option == 'PX') and not seconds and i < n then
            i = i + 1
            seconds = to_integer(args[i])
            if not seconds then return nil, nil, NO_INTEGER end
            if option == 'PX' then seconds = seconds / 1000 end
            if seconds <= 0 or seconds > MOST_SECONDS then
                return nil, nil, "-ERR invalid expire time in 'set' command\r\n"
            end
        else
            return nil, nil, SYNTAX
        end
        i = i + 1
    end
    return seconds, method or store.set
end

function commands.SET(args, n)
    local seconds, method, wrong
    if n > 3 then
        seconds, method, wrong = set_options(args, n)
        if wrong then return wrong end
    else
        method = store.set
    end
    local ok, message, code = method(store, args[2], args[3], seconds)
    if ok then return OK end
    if code == 'EEXIST' or code == 'ENOENT' then return NIL end
    return refused(message, code)
end

-- Written one by one: a client that reads slowly makes write wait, and few of the values are in memory here.
function commands.MGET(args, n, conn)
    conn:write('*', n - 1, '\r\n')
    for i = 2, n - 1 do
        if not conn:write(value_of(args[i])) then break end
    end
    return value_of(args[n])
end

function commands.MSET(args, n)
    if n % 2 == 0 then return "-ERR wrong number of arguments for 'mset' command\r\n" end
    for i = 2, n, 2 do
        local ok, message, code = store:set(args[i], args[i + 1])
        if not ok then return refused(message, code) end
    end
    return OK
end

function commands.DEL(args, n)
    local count = 0
    for i = 2, n do
        if store:delete(args[i]) then count = count + 1 end
    end
    return integer(count)
end

function commands.EXISTS(args, n)
    local count = 0
    for i = 2, n do
        if store:ttl(args[i]) then count = count + 1 end
    end
    return integer(count)
end

-- What `add` adds, and the result; there is no wait between.
local by, result

local function add(value)
    local old = to_integer(value or '0')
    local new = old and old + by
    result = not old and NO_INTEGER
        or (new > EXACT or new < -EXACT) and '-ERR increment or decrement would overflow\r\n'
        or new
    return type(result) == 'number' and format('%.0f', new) or value
end

local function increase(key, n)
    if not n then return NO_INTEGER end
    by = n
    local value, message, code = store:update(key, add)
    if type(result) == 'string' then return result end
    return value and integer(result) or refused(message, code)
end

function commands.INCR(args) return increase(args[2], 1) end
function commands.DECR(args) return increase(args[2], -1) end
function commands.INCRBY(args) return increase(args[2], to_integer(args[3])) end

function commands.DECRBY(args)
    local n = to_integer(args[3])
    return increase(args[2], n and -n)
end

local function expire(key, seconds)
    if not seconds then return NO_INTEGER end
    if seconds > MOST_SECONDS then return "-ERR invalid expire time in 'expire' command\r\n" end
    if seconds <= 0 then return store:delete(key) and ONE or ZERO end
    return store:expire(key, seconds) and ONE or ZERO
end

function commands.EXPIRE(args) return expire(args[2], to_integer(args[3])) end

function commands.PEXPIRE(args)
    local ms = to_integer(args[3])
    return expire(args[2], ms and ms / 1000)
end

function commands.PERSIST(args)
    local seconds = store:ttl(args[2])
    return seconds and seconds < math.huge and store:expire(args[2]) and ONE or ZERO
end

local function time_left(key, unit)
    local seconds = store:ttl(key)
    if not seconds then return ':-2\r\n' end
    return seconds == math.huge and ':-1\r\n' or integer(floor(seconds * unit + 0.5))
end

function commands.TTL(args) return time_left(args[2], 1) end
function commands.PTTL(args) return time_left(args[2], 1000) end

function commands.PING(args, n) return n == 1 and PONG or bulk(args[2]) end
function commands.ECHO(args) return bulk(args[2]) end
function commands.QUIT() return OK end

function commands.SELECT(args)
    local n = to_integer(args[2])
    return n == 0 and OK or n and '-ERR DB index is out of range\r\n' or NO_INTEGER
end

function commands.DBSIZE() return integer(store:count()) end

function commands.FLUSHALL()
    store:clear()
    return OK
end

function commands.INFO()
    local lines = {
        '# Server', 'redis_version:7.0.0', 'redis_mode:standalone', '# Memory', 'used_memory:%.0f',
        'maxmemory:%.0f', '# Keyspace', 'db0:keys=%.0f,expires=0,avg_ttl=0', '',
    }
    return bulk(concat(lines, '\r\n'):format(store:bytes(), memory, store:count()))
end

-- Clients ask for these when they start.
function commands.COMMAND(args, n)
    if n > 1 and upper(args[2]) == 'COUNT' then
        local count = 0
        for _ in pairs(counts) do count = count + 1 end
        return integer(count)
    end
    return '*0\r\n'
end

function commands.CONFIG(args)
    if upper(args[2]) ~= 'GET' then return '-ERR unknown subcommand. Only GET is known.\r\n' end
    local settings = { save = '', appendonly = 'no', maxmemory = format('%.0f', memory) }
    local found = {}
    for name, value in pairs(settings) do
        if args[3] == '*' or args[3]:lower() == name then
            found[#found + 1] = name
            found[#found + 1] = value
        end
    end
    return array(found)
end

local function run(args, n, conn)
    local name = args[1]
    local command = commands[name]
    if not command then
        name = upper(name)
        command = commands[name]
        if not command then return "-ERR unknown command '" .. shown(args[1]) .. "'\r\n" end
    end
    local count = counts[name]
    if n < count[1] or n > (count[2] or n) then
        return "-ERR wrong number of arguments for '" .. name:lower() .. "' command\r\n"
    end
    return command(args, n, conn)
end

-- Reading ----------------------------------------------------------------------------------------

local STAR, DOLLAR, CR, NUL, NINE = byte '*', byte '$', byte '\r', byte '0', byte '9'

-- The number of a line such as `$12`, whose first byte is at `at`, and where the next line begins.
-- Nil: the line is incomplete. False: it has no number.
local function number_at(data, at)
    local _, a, b, c, d = byte(data, at, at + 4)
    if not c then return nil end
    if a >= NUL and a <= NINE then -- one digit or two, as most are
        if b == CR then return a - NUL, at + 4 end
        if c == CR and d and a > NUL and b >= NUL and b <= NINE then return a * 10 + b - NUL * 11, at + 5 end
    end
    local from, to = find(data, '\r\n', at, true)
    if not from and #data - at < 20 then return nil end
    if not from or from - at > 20 then return false end
    return to_integer(sub(data, at + 1, from - 1)) or false, to + 1
end

local Reader = {}
Reader.__index = Reader

-- Takes the arguments that are in self.data, of the command that has begun. True: it is complete. False: more
-- is needed. Nil, message: it is wrong.
function Reader:arguments()
    local data, at, args, n = self.data, self.at, self.args, self.n
    while n < self.wanted do
        local first = byte(data, at)
        if not first then break end
        if first ~= DOLLAR then return nil, "expected '$', got '" .. shown(string.char(first)) .. "'" end
        local length, from = number_at(data, at)
        if length == nil then break end
        if not length or length < 0 or length > LONGEST then return nil, 'invalid bulk length' end
        if from + length + 1 > #data then
            self.missing = from + length + 1 - #data
            break
        end
        n = n + 1
        args[n] = sub(data, from, from + length - 1)
        at = from + length + 2
        self.bytes = self.bytes + length
        if self.bytes > LONGEST_COMMAND then return nil, 'too many bytes in a command' end
    end
    self.at, self.n = at, n
    return n == self.wanted
end

-- The same for the words of a line, a command that people type.
function Reader:line()
    local from, to = find(self.data, '\n', self.at, true)
    if not from then
        if #self.data - self.at + 1 >= LONGEST_LINE then return nil, 'too big inline request' end
        return false
    end
    local n = 0
    for word in sub(self.data, self.at, from - 1):gmatch '%S+' do
        n = n + 1
        self.args[n] = word
    end
    self.at, self.n = to + 1, n
    return true
end

-- Begins a command, or goes on with it. Results as above.
function Reader:command()
    if self.wanted then return self:arguments() end
    local first = byte(self.data, self.at)
    if not first then return false end
    if first ~= STAR then return self:line() end
    local count, from = number_at(self.data, self.at)
    if count == nil then return false end
    if not count or count > MOST_ARGUMENTS then return nil, 'invalid multibulk length' end
    self.wanted, self.at, self.n, self.bytes = max(count, 0), from, 0, 0
    return self:arguments()
end

-- Waits for more. What is there of an argument is kept.
function Reader:fill()
    local rest = sub(self.data, self.at)
    self.data, self.at = rest, 1
    local more
    if self.missing then
        more = self.conn:read(self.missing) -- a large argument is put together once
    else
        more = self.conn:read_some()
    end
    self.missing = nil
    if not more then return false end
    self.data = rest .. more
    return true
end

-- Keeps the list for the next command, unless there is much in it.
function Reader:done()
    self.wanted = nil
    if self.n > 16 or self.bytes > 65536 then self.args = {} end
end

local function serve(conn)
    local reader = setmetatable({ conn = conn, data = '', at = 1, args = {}, n = 0, bytes = 0 }, Reader)
    while true do
        local complete, wrong = reader:command()
        if wrong then
            conn:write('-ERR Protocol error: ', wrong, '\r\n')
            break
        elseif not complete then
            if not reader:fill() then break end
        else
            local args, n = reader.args, reader.n
            reader:done()
            if n > 0 then
                if not conn:write(run(args, n, conn)) then break end
                if upper(args[1]) == 'QUIT' then break end
            end
        end
    end
    conn:close()
end

-- Without threads where the system has none that share a port.
local options = { threads = threads, max_connections = 10000 }
local server, message, code = asio.server(address, port, serve, options)
if not server and code == 'ENOTSUP' then
    options.threads = nil
    server, message = asio.server(address, port, serve, options)
end
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(0) -- no more clients; the handlers are cancelled
end)
