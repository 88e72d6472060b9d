-- A small key-value store with a line protocol, as memcached and Redis have.
--     luajit command_server.lua [ADDRESS [PORT]]   127.0.0.1 7779; port 0: any that is free
-- Talk to it with `nc 127.0.0.1 7779`:
--     SET colour deep blue     OK
--     GET colour               VALUE deep blue
--     INCR visits              VALUE 1
--     DEL colour               OK
--     GET colour               NONE
-- PING, COUNT and QUIT are the other commands. A client may send many at once: the answers come in their
-- order, and in few packets. A client that sends nothing for IDLE seconds (300), or too long a line, is
-- disconnected. When CLIENTS (1000) are connected the next one waits. IDLE and CLIENTS are environment
-- variables. Ctrl-C ends the server.
local asio = require 'asio'

local address, port = arg[1] or '127.0.0.1', tonumber(arg[2] or 7779)
local idle = tonumber(os.getenv 'IDLE' or 300) -- seconds
local most_clients = tonumber(os.getenv 'CLIENTS' or 1000)
local LONGEST_LINE, MOST_KEYS = 8192, 100000

local store, keys = {}, 0

local function set(key, value)
    if not store[key] then
        if keys == MOST_KEYS then return 'ERROR the store is full' end
        keys = keys + 1
    end
    store[key] = value
end

-- Each command gets a key and the rest of the line, and returns the answer.
local commands = {}

function commands.PING() return 'PONG' end
function commands.COUNT() return 'VALUE ' .. keys end
function commands.GET(key) return store[key] and 'VALUE ' .. store[key] or 'NONE' end
function commands.SET(key, value) return set(key, value) or 'OK' end

function commands.DEL(key)
    if not store[key] then return 'NONE' end
    store[key], keys = nil, keys - 1
    return 'OK'
end

function commands.INCR(key)
    local n = tonumber(store[key] or 0)
    if not n then return 'ERROR not a number' end
    n = ('%.0f'):format(n + 1)
    return set(key, n) or 'VALUE ' .. n
end

local needs = { GET = 1, SET = 2, DEL = 1, INCR = 1 } -- arguments

local function answer(line)
    local name, rest = line:match '^(%a+)%s*(.*)$'
    local command = name and commands[name:upper()]
    if not command then return 'ERROR no such command' end
    local key, value = rest:match '^(%S+)%s*(.*)$'
    local given = not key and 0 or value == '' and 1 or 2
    if given < (needs[name:upper()] or 0) then return 'ERROR something is missing' end
    return command(key, value)
end

local function serve(conn)
    conn:set_timeout(idle)
    local line, _, code = conn:read_line(LONGEST_LINE)
    while line and line:upper() ~= 'QUIT' do
        if not conn:write(answer(line), '\n') then break end
        line, _, code = conn:read_line(LONGEST_LINE)
    end
    if code == 'EMSGSIZE' then conn:write 'ERROR the line is too long\n' end
    if code == 'ETIMEDOUT' then conn:write 'ERROR idle for too long\n' end
    conn:close()
end

local server, message = asio.server(address, port, serve, { max_connections = most_clients })
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
