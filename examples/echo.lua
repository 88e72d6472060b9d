-- Sends back what it receives, over TCP or a Unix socket.
--     luajit echo.lua [ADDRESS [PORT]]         127.0.0.1 7777; port 0: any that is free
--     luajit echo.lua unix:/tmp/echo.sock
-- Try it from another terminal: `nc 127.0.0.1 7777`, or `nc -U /tmp/echo.sock`; each line that you type
-- comes back. Ctrl-C ends it.
local asio = require 'asio'

local address, port = arg[1] or '127.0.0.1', tonumber(arg[2] or 7777)

-- A client that does not read what it gets back makes write wait: then nothing more is read from it.
local function serve(conn)
    local data = conn:read_some()
    while data and conn:write(data) do data = conn:read_some() end
    conn:close() -- what was written still arrives
end

local server, message
if address:find '^unix:' then
    server, message = asio.server(address, serve, { unlink_stale = true })
else
    server, message = asio.server(address, port, serve)
end
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(0) -- no more clients; the handlers are cancelled
end)
