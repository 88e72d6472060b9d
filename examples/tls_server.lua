-- A server with TLS for several names, each with its own certificate: says which name was asked for, and
-- echoes lines.
--     luajit tls_server.lua [PORT [NAME=DIR...]]     8443 localhost=certs; port 0: any that is free
-- Each DIR has server.pem and server.key: `sh certs.sh certs localhost`, `sh certs.sh certs2 other.example`.
-- Clients that ask for no name, or another one, get the first certificate. NAME may be '*.example.org'.
-- Try it: `luajit tls_client.lua localhost 8443 certs/ca.pem`, or
-- `openssl s_client -connect localhost:8443 -servername other.example -CAfile certs2/ca.pem`. Ctrl-C ends it.
local asio = require 'asio'

local port = tonumber(arg[1] or 8443)
local tls = { names = {} }
for i = 2, math.max(#arg, 2) do
    local name, dir = (arg[i] or 'localhost=certs'):match '^([^=]+)=(.+)$'
    if not name then
        io.stderr:write 'usage: tls_server.lua [PORT [NAME=DIR...]]\n'
        os.exit(2, true)
    end
    local own = { cert = dir .. '/server.pem', key = dir .. '/server.key' }
    tls.names[name] = own
    if i == 2 then tls.cert, tls.key = own.cert, own.key end
end

local function serve(conn)
    local info = conn:tls()
    conn:write('you asked for ', info.server_name or 'no name', ', and have ', info.version, '\n')
    conn:set_timeout(60)
    local line = conn:read_line()
    while line and conn:write(line, '\n') do line = conn:read_line() end
    conn:close() -- what was written still arrives
end

-- Handshakes fail every day: scanners, clients that do not know the authority.
local function on_tls_error(info, message, code)
    local name = info.server_name or 'no name'
    io.stderr:write(('%s, %s: %s (%s)\n'):format(info.peer or '?', name, message, code))
end

local server, message = asio.server('127.0.0.1', port, serve, { tls = tls, on_tls_error = on_tls_error })
if not server then
    io.stderr:write('cannot serve: ', message, '\n')
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(0) -- no more clients; the handlers are cancelled
end)
