-- A server and two clients in one program: each client sends a word and gets it back with "-pong".
local asio = require 'asio'

local server = assert(asio.server('127.0.0.1', 0, function(con)
    asio.spawn_light_thread(function(c)
        local data = c:read(5) -- waits; other light threads go on
        c:write(data .. '-pong')
        c:close()
    end, con)
end))
local _, port = server:address()

local function ping(text)
    local con = assert(asio.connect('localhost', port))
    con:write(text)
    print(text, con:read(10))
    con:close()
end

asio.run(function()
    local first = asio.spawn_light_thread(ping, 'ping1')
    local second = asio.spawn_light_thread(ping, 'ping2')
    first:join()
    second:join()
    server:close()
end)
