-- A TLS-terminating proxy: speaks TLS with clients, and passes what they send to a server that speaks none.
--     luajit tls_terminator.lua [PORT [HOST PORT [DIR]]]     8443 localhost 8080 certs; port 0: any free one
-- `sh certs.sh certs localhost` makes certificates to try it with: server.pem and server.key in DIR are used.
-- SIGHUP (`kill -HUP`) makes it take new ones; open connections keep theirs. Ctrl-C ends it.
local asio = require 'asio'

local port, host, target = tonumber(arg[1] or 8443), arg[2] or 'localhost', tonumber(arg[3] or 8080)
local dir = arg[4] or 'certs'
local SILENCE = 600 -- seconds without a byte either way, after which a connection is given up

local function say(...)
    io.stderr:write(..., '\n')
end

local tls = { cert = dir .. '/server.pem', key = dir .. '/server.key' }

local function serve(client)
    local backend, message = asio.connect(host, target, { timeout = 10 })
    if not backend then
        say(('%s port %d: %s'):format(host, target, message))
        return client:abort() -- the client sees a reset, and not an empty answer
    end
    asio.relay(client, backend, { timeout = SILENCE }) -- closes both
end

local server, message = asio.server('0.0.0.0', port, serve, {
    tls = tls,
    on_tls_error = function(info, why, code) say(('%s: %s (%s)'):format(info.peer or '?', why, code)) end,
})
if not server then
    say('cannot serve: ', message)
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C
local hangup = asio.signal 'SIGHUP' -- nil where the system has no such signal

local function reload()
    for _ in hangup:iter() do
        local ok, why = server:set_tls(tls)
        print('certificates', ok and 'reloaded' or 'stay as they were: ' .. why)
        io.flush()
    end
end

asio.run(function()
    if hangup then asio.spawn(reload) end
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(0) -- no more clients; the handlers are cancelled
    if hangup then hangup:close() end
end)
