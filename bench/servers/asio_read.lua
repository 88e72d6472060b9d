-- Echo server of ours that reads messages of one exact size: asio_read.lua SIZE
local asio = require 'asio'

local size = tonumber(arg[1]) or 64

local server = assert(asio.server('127.0.0.1', 0, function(con)
    while true do
        local data = con:read(size)
        if not data then break end
        con:write(data)
    end
    con:close()
end))

local _, port = server:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
