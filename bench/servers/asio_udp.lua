-- Echo server of ours for datagrams.
local asio = require 'asio'

local sock = assert(asio.udp('127.0.0.1', 0))

asio.spawn(function()
    while true do
        local data, ip, port = sock:recv()
        if data then sock:send(data, ip, port) end
    end
end)

local _, port = sock:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
