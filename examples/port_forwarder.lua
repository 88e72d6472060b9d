-- A TCP port forwarder: whoever connects to the port here talks to that host and port.
--     luajit port_forwarder.lua port host port
local asio = require 'asio'

local port, host, target = arg[1] or 0, arg[2] or 'localhost', arg[3] or 80
local SILENCE = 600 -- seconds without a byte either way, after which a connection is given up

local server = assert(asio.server('0.0.0.0', port, function(client)
    local upstream, message = asio.connect(host, target, { timeout = 10 })
    if not upstream then
        io.stderr:write(('%s:%s: %s\n'):format(host, target, message))
        return client:abort() -- the client sees a reset, and not an empty answer
    end
    local peer = client:peer()
    local up, down, code = asio.relay(client, upstream, { timeout = SILENCE }) -- closes both
    print(peer, up and ('%d bytes up, %d down'):format(up, down) or code)
    io.flush()
end))

print('listening', server:address())
io.flush()
asio.run()
