-- A SOCKS5 proxy (RFC 1928, 1929): connects onward for its clients, by IPv4, IPv6 or name.
--     luajit socks5.lua [ADDRESS [PORT [USER:PASSWORD]]]       127.0.0.1 1080; port 0: any that is free
-- Try it: `curl -x socks5h://127.0.0.1:1080 http://example.org/`, with a password
-- `curl -x socks5h://USER:PASSWORD@127.0.0.1:1080 ...`. It prints a line for each connection. Ctrl-C ends it.
-- The environment variable CONNECT: seconds that connecting may take (10).
-- Without a password, do not listen on an address that other people can reach.
local asio = require 'asio'

local address, port = arg[1] or '127.0.0.1', tonumber(arg[2] or 1080)
local user, password = (arg[3] or ''):match '^(.-):(.*)$'
local HANDSHAKE, CONNECT, IDLE = 10, tonumber(os.getenv 'CONNECT' or 10), 600 -- seconds

if arg[3] and not user then
    io.stderr:write 'usage: socks5.lua [ADDRESS [PORT [USER:PASSWORD]]]\n'
    os.exit(2, true)
end

local OK, FAILURE, NO_COMMAND, NO_ADDRESS_TYPE = 0, 1, 7, 8
local REPLIES = { EACCES = 2, EPERM = 2, ENETUNREACH = 3, EHOSTUNREACH = 4, ETIMEDOUT = 4, EAI_NONAME = 4,
    EAI_NODATA = 4, EAI_AGAIN = 4, ECONNREFUSED = 5 }

-- A byte with a count, and so many bytes after it; nil at the end of the stream.
local function read_counted(conn)
    local count = conn:read(1)
    return count and conn:read(count:byte())
end

local function authenticate(conn)
    local method = user and '\2' or '\0' -- user and password; none
    local methods = conn:read(1) == '\5' and read_counted(conn)
    if not methods then return false end
    if not methods:find(method, 1, true) then
        conn:write '\5\255'
        return false
    end
    conn:write('\5', method)
    if not user then return true end
    local version = conn:read(1)
    local name, word = read_counted(conn), read_counted(conn)
    local right = version == '\1' and name == user and word == password
    conn:write(right and '\1\0' or '\1\1')
    return right
end

-- How to read an address, by its type. A name comes from an unknown client: it must not be 'unix:/...'.
local read_host = {}

read_host['\1'] = function(conn)
    local bytes = conn:read(4)
    return bytes and ('%d.%d.%d.%d'):format(bytes:byte(1, 4))
end

read_host['\3'] = function(conn)
    local name = read_counted(conn)
    return name and (name:match '^[%w._-]+$' or '')
end

read_host['\4'] = function(conn)
    local bytes = conn:read(16)
    return bytes and ('%02x%02x:'):rep(8):sub(1, -2):format(bytes:byte(1, 16))
end

-- The address is that of our end of the onward connection. An IPv6 address is left out: no client needs it.
local function reply(conn, code, ip, from)
    local a, b, c, d = (ip or ''):match '^(%d+)%.(%d+)%.(%d+)%.(%d+)$'
    if not a then a, b, c, d, from = 0, 0, 0, 0, 0 end
    conn:write('\5', string.char(code, 0, 1, a, b, c, d, math.floor(from / 256), from % 256))
end

local function connect(conn, host, onward_port)
    if host == '' or onward_port == 0 then return reply(conn, FAILURE) end
    local onward, message, code = asio.connect(host, onward_port, { timeout = CONNECT })
    print(conn:peer(), host, onward_port, message or 'connected')
    io.flush()
    if not onward then return reply(conn, REPLIES[code] or FAILURE) end
    reply(conn, OK, onward:address())
    asio.relay(conn, onward, { timeout = IDLE }) -- until both have ended; closes both
end

local function request(conn)
    local header = conn:read(4)
    if not header or header:byte() ~= 5 then return end
    local read = read_host[header:sub(4)]
    if not read then return reply(conn, NO_ADDRESS_TYPE) end
    local host, port_bytes = read(conn), conn:read(2)
    if not (host and port_bytes) then return end
    if header:byte(2) ~= 1 then return reply(conn, NO_COMMAND) end -- BIND, UDP ASSOCIATE
    local high, low = port_bytes:byte(1, 2)
    connect(conn, host, high * 256 + low)
end

local server, message = asio.server(address, port, function(conn)
    conn:set_timeout(HANDSHAKE)
    if authenticate(conn) then request(conn) end
    conn:close()
end)
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
