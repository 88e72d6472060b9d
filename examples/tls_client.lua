-- A client for TLS by hand: shows what was agreed on, sends the lines of standard input, prints the answers.
--     luajit tls_client.lua HOST PORT [CA]     CA: a file with authorities to trust; default: the system's
-- The end of the input (Ctrl-D) tells the server that nothing more comes; the server's end ends the program.
local asio = require 'asio'

local host, port, ca = arg[1], tonumber(arg[2]), arg[3]
if not port then
    io.stderr:write 'usage: tls_client.lua HOST PORT [CA]\n'
    os.exit(2, true)
end

local function send(conn)
    for line in asio.stdin:lines() do
        if not conn:write(line, '\r\n') then return end
    end
    conn:shutdown()
end

local function main()
    local conn, message, code = asio.connect(host, port, { tls = { ca = ca }, timeout = 10 })
    if not conn then return nil, message, code end
    local tls = conn:tls()
    print(tls.version .. ', ' .. tls.cipher)
    print(('%s, issued by %s, until %s'):format(tls.peer.subject, tls.peer.issuer,
        os.date('!%Y-%m-%d', tls.peer.not_after)))
    io.flush()
    local sender = asio.spawn(send, conn)
    local data
    repeat
        data, message, code = conn:read_some()
        if data then asio.stdout:write(data) end
    until not data
    sender:cancel()
    conn:close()
    if code ~= 'EOF' then return nil, message, code end -- ETRUNCATED: not the server's end
    return true
end

local ok, message, code = asio.run(main)
if not ok then
    io.stderr:write(('%s port %d: %s (%s)\n'):format(host, port, message, code))
    os.exit(1, true)
end
