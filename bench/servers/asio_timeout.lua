-- Echo server of ours that listens twice: on port=N as asio_read.lua does, on timed=N with a time-out
-- set on every connection. Both in one process, so that nothing else differs: asio_timeout.lua SIZE SECONDS
local asio = require 'asio'

local size = tonumber(arg[1]) or 64
local seconds = tonumber(arg[2]) or 30

local function echo(con)
    while true do
        local data = con:read(size)
        if not data then break end
        con:write(data)
    end
    con:close()
end

local timed = assert(asio.server('127.0.0.1', 0, function(con)
    con:set_timeout(seconds)
    echo(con)
end))
local plain = assert(asio.server('127.0.0.1', 0, function(con) echo(con) end))

local _, timed_port = timed:address()
print('timed=' .. timed_port)
local _, port = plain:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
