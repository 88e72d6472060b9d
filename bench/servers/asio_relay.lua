-- Relay of ours: every connection goes on to the port given as argument.
local asio = require 'asio'

local target = tonumber(arg[1])

local server = assert(asio.server('127.0.0.1', 0, function(client)
    local upstream = assert(asio.connect('127.0.0.1', target))
    asio.relay(client, upstream)
end, { backlog = 4096 }))

local _, port = server:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
