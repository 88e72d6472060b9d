-- A TCP port forwarder: connections to the port here are relayed to another host and port.
--     luajit port_forwarder.lua [PORT [HOST [PORT]]]         8080 localhost 80; port 0: any that is free
-- Ctrl-C ends it.
local asio = require 'asio'

local port, host, target = tonumber(arg[1] or 8080), arg[2] or 'localhost', tonumber(arg[3] or 80)
local SILENCE = 600 -- seconds without a byte either way, after which a connection is given up

local server = assert(asio.server('0.0.0.0', port, function(client)
    local upstream, message = asio.connect(host, target, { timeout = 10 })
    if not upstream then
        io.stderr:write(('%s port %d: %s\n'):format(host, target, message))
        return client:abort() -- the client sees a reset, and not an empty answer
    end
    local peer = client:peer()
    local up, down, code = asio.relay(client, upstream, { timeout = SILENCE }) -- closes both
    print(peer, up and ('%d bytes up, %d down'):format(up, down) or code)
    io.flush()
end))

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(0) -- no more clients; the handlers are cancelled
end)
