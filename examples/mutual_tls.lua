-- Certificates on both sides: a server lets in only clients whose certificate its own authority has signed,
-- and knows them by it. Server and clients are in this one program, which ends by itself.
--     luajit mutual_tls.lua [DIR]     certs; made by `sh certs.sh certs localhost`
-- You will see that the first client is let in by its name, and the second one, which has none, is not.
local asio = require 'asio'

local dir = (arg[1] or 'certs') .. '/'

local function serve(conn)
    local peer = conn:tls().peer
    conn:write('welcome, ', peer.subject, '\n')
    conn:close()
end

local server, message = asio.server('127.0.0.1', 0, serve, {
    tls = {
        cert = dir .. 'server.pem', key = dir .. 'server.key',
        verify = 'require', ca = dir .. 'ca.pem', -- whose clients are let in
    },
    on_tls_error = function(_, why, code) print('server:', why, code) end,
})
if not server then
    io.stderr:write('cannot serve: ', message, '\n')
    os.exit(1, true)
end

-- With TLS 1.3 a client learns by its first read that the server refuses it.
local function visit(tls)
    local _, port = server:address()
    local conn = assert(asio.connect('localhost', port, { tls = tls, timeout = 10 }))
    local line, why, code = conn:read_line()
    print('client:', line or why, code or '')
    conn:close()
end

asio.run(function()
    visit { ca = dir .. 'ca.pem', cert = dir .. 'client.pem', key = dir .. 'client.key' }
    visit { ca = dir .. 'ca.pem' }
    server:shutdown(5)
end)
