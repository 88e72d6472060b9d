-- TLS server on LuaSec and copas, one coroutine per connection: luasec_tls.lua MODE CERT KEY [BYTES]
-- The modes are those of asio_tls.lua. It waits in select(), so a process holds about a thousand connections.
local copas = require 'copas'
local socket = require 'socket'
local ssl = require 'ssl'

local MESSAGE, CHUNK = 64, 65536
local mode, cert, key, bytes = arg[1], arg[2], arg[3], tonumber(arg[4])
local context = assert(ssl.newcontext {
    mode = 'server', protocol = 'tlsv1_3', certificate = cert, key = key,
})
local handlers = {}

-- What copas 1 takes for a socket: LuaSec's names for a wait become the one it knows. The first receive does
-- the handshake.
local Stream = {}
Stream.__index = Stream

local function waiting(err)
    return (err == 'wantread' or err == 'wantwrite') and 'timeout' or err
end

function Stream:receive(pattern, part)
    if not self.shaken then
        local ok, err = self.ssl:dohandshake()
        if not ok then return nil, waiting(err), part end
        self.shaken = true
    end
    local data, err, rest = self.ssl:receive(pattern, part)
    return data, waiting(err), rest
end

function Stream:send(...)
    local last, err, sent = self.ssl:send(...)
    return last, waiting(err), sent
end

function Stream:getfd() return self.ssl:getfd() end
function Stream:dirty() return self.ssl:dirty() end
function Stream:close() return self.ssl:close() end

function handlers.echo(con)
    while true do
        local data = copas.receive(con, MESSAGE)
        if not data or not copas.send(con, data) then break end
    end
end

function handlers.send(con)
    local chunk = ('x'):rep(CHUNK)
    if not copas.receive(con, MESSAGE) then return end
    for _ = 1, math.floor(bytes / CHUNK) do copas.send(con, chunk) end
    copas.send(con, chunk:sub(1, bytes % CHUNK))
end

function handlers.receive(con)
    local left = bytes
    while left > 0 do
        local data = copas.receive(con, math.min(left, CHUNK))
        if not data then break end
        left = left - #data
    end
    copas.send(con, ('x'):rep(MESSAGE))
end

local server = assert(socket.bind('127.0.0.1', 0, 1024))
copas.addserver(server, function(raw)
    raw:setoption('tcp-nodelay', true)
    local con = setmetatable({ ssl = assert(ssl.wrap(raw, context)) }, Stream)
    con.ssl:settimeout(0)
    handlers[mode](con)
    con:close()
end)

local _, port = server:getsockname()
print('port=' .. port)
io.stdout:flush()
copas.loop()
