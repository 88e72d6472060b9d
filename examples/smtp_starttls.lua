-- STARTTLS as SMTP has it (RFC 3207): a dialogue that begins in clear and goes on with TLS. A tiny server
-- that throws the mail away, and a client that sends one message; both in this program, which ends by itself.
--     luajit smtp_starttls.lua [DIR]     certs; made by `sh certs.sh certs localhost`
-- You will see the dialogue: C is the client, S the server.
local asio = require 'asio'

local dir = (arg[1] or 'certs') .. '/'
local tls = { server = true, cert = dir .. 'server.pem', key = dir .. 'server.key' }

-- The server -------------------------------------------------------------------------------------

local function take_message(conn)
    local lines = 0
    for line in conn:lines(1000) do
        if line == '.' then break end
        lines = lines + 1
    end
    return lines
end

local function session(conn)
    local safe = false
    local function say(...) conn:write(..., '\r\n') end
    say '220 localhost ready'
    for line in conn:lines(512) do
        local command = line:match '^%a*':upper()
        if command == 'EHLO' then
            say(safe and '250 localhost' or '250-localhost\r\n250 STARTTLS')
        elseif command == 'STARTTLS' and not safe then
            say '220 go ahead'
            -- What the client has sent in clear behind its command is refused, and the connection closed.
            if not conn:start_tls(tls) then return end
            safe = true -- all that was said before is forgotten
        elseif command == 'QUIT' then
            return say '221 bye'
        elseif not safe then
            say '530 STARTTLS first'
        elseif command == 'MAIL' or command == 'RCPT' then
            say '250 OK'
        elseif command == 'DATA' then
            say '354 end with a dot'
            say(('250 took %d lines'):format(take_message(conn)))
        else
            say '500 what?'
        end
    end
end

local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:set_timeout(30)
    pcall(session, conn) -- raises when the client is silent for too long, or gone
    conn:close()
end))

-- The client -------------------------------------------------------------------------------------

-- Reads an answer, which may have several lines ("250-..."), and checks its first digit.
local function expect(conn, digit)
    local line
    repeat
        line = assert(conn:read_line())
        print('S: ' .. line)
    until line:sub(4, 4) ~= '-'
    assert(line:sub(1, 1) == digit, line)
end

local function ask(conn, digit, command)
    print('C: ' .. command)
    conn:write(command, '\r\n')
    expect(conn, digit)
end

local function send_mail(host, port)
    local conn = assert(asio.connect(host, port, { timeout = 10 }))
    expect(conn, '2')
    ask(conn, '2', 'EHLO client.example')
    ask(conn, '2', 'STARTTLS')
    assert(conn:start_tls { server_name = host, ca = dir .. 'ca.pem' })
    print('   ' .. conn:tls().version)
    ask(conn, '2', 'EHLO client.example')
    ask(conn, '2', 'MAIL FROM:<ann@client.example>')
    ask(conn, '2', 'RCPT TO:<bob@localhost>')
    ask(conn, '3', 'DATA')
    ask(conn, '2', 'Subject: greeting\r\n\r\nHello, Bob.\r\n.')
    ask(conn, '2', 'QUIT')
    conn:close()
end

local sent, message = asio.run(function()
    local _, port = server:address()
    local ok, why = asio.timeout(30, pcall, send_mail, 'localhost', port)
    server:close()
    return ok, why
end)
if not sent then
    io.stderr:write(message, '\n')
    os.exit(1, true)
end
