-- Echo server of ours that takes whatever is there: asio_some.lua
local asio = require 'asio'

local server = assert(asio.server('127.0.0.1', 0, function(con)
    while true do
        local data = con:read_some()
        if not data then break end
        con:write(data)
    end
    con:close()
end))

local _, port = server:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
