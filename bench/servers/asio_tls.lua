-- TLS server of ours: asio_tls.lua MODE CERT KEY [BYTES]
--     echo      reads messages of 64 bytes and sends each back
--     send      answers one message with a stream of BYTES, and closes
--     receive   takes BYTES, answers with a message, and closes
local asio = require 'asio'

local MESSAGE, CHUNK = 64, 65536
local mode, cert, key, bytes = arg[1], arg[2], arg[3], tonumber(arg[4])
local handlers = {}

function handlers.echo(con)
    while true do
        local data = con:read(MESSAGE)
        if not data then break end
        con:write(data)
    end
    con:close()
end

function handlers.send(con)
    local chunk = ('x'):rep(CHUNK)
    if con:read(MESSAGE) then
        for _ = 1, math.floor(bytes / CHUNK) do con:write(chunk) end
        con:write(chunk:sub(1, bytes % CHUNK))
    end
    con:close()
end

function handlers.receive(con)
    local left = bytes
    while left > 0 do
        local data = con:read_some()
        if not data then break end
        left = left - #data
    end
    con:write(('x'):rep(MESSAGE))
    con:close()
end

local server = assert(asio.server('127.0.0.1', 0, handlers[mode], { tls = { cert = cert, key = key } }))

local _, port = server:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
