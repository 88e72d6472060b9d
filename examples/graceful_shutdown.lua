-- A server that stops gracefully: after SIGTERM it accepts no more connections, lets the running handlers
-- finish for some seconds, then cancels the rest.
--     luajit graceful_shutdown.lua [port [seconds]]
local asio = require 'asio'

local port = arg[1] or 0 -- 0: any that is free
local grace = tonumber(arg[2]) or 10

-- The work of the server: this one sends everything back until the client ends.
local function serve(conn)
    local data = conn:read_some()
    while data do
        conn:write(data)
        data = conn:read_some()
    end
end

-- The first error in a group cancels the others, so the error of one client is caught here.
local function handle(conn)
    local ok, err = xpcall(serve, debug.traceback, conn)
    conn:close() -- what was written still arrives
    if not ok and err ~= asio.cancelled then io.stderr:write(tostring(err), '\n') end
end

local connections = asio.group()
local server = assert(asio.server('127.0.0.1', port, function(conn)
    connections:spawn(handle, conn)
end, { linger = 5 })) -- seconds for a client that does not read

-- From here on SIGTERM does not end the process, however often it comes.
local term = assert(asio.signal 'SIGTERM')

asio.run(function()
    print('listening', server:address())
    io.flush()
    term:wait()

    print 'stopping'
    io.flush()
    server:close()
    asio.timeout(grace, connections.wait, connections) -- after the time-out the group cancels the rest
end)
print 'stopped'
