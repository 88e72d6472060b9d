-- Echo server on copas and LuaSocket, one coroutine per connection: copas_echo.lua SIZE
-- It waits in select(), so a process holds about a thousand connections at most.
local copas = require 'copas'
local socket = require 'socket'

local size = tonumber(arg[1]) or 64

local server = assert(socket.bind('127.0.0.1', 0, 1024))
copas.addserver(server, function(raw)
    raw:setoption('tcp-nodelay', true)
    local con = copas.wrap(raw)
    while true do
        local data = con:receive(size)
        if not data then break end
        if not con:send(data) then break end
    end
end)

local _, port = server:getsockname()
print('port=' .. port)
io.stdout:flush()
copas.loop()
