-- The first Lua state, on a thread of its own: answers lines until one says "stop". Returns its port.
local asio, host = require 'asio', require 'host'

local server

local function serve(conn)
    for line in conn:lines() do
        if line == 'stop' then server:close() end -- so that asio.run returns when this client has gone
        conn:write(host.shout(line), '\n')
    end
    conn:close()
end

server = assert(asio.server('127.0.0.1', 0, serve))
local _, port = server:address()
return port
