-- A chat server: all clients read what one of them writes.
--     luajit chat.lua [ADDRESS [PORT]]         127.0.0.1 7778; port 0: any that is free
-- Join from two or more terminals with `nc 127.0.0.1 7778`: give a name, then type. `/who` lists the
-- names, `/quit` leaves. Ctrl-C ends the server.
--
-- A slow reader holds up no other client. Lines for a client go into the queue of its connection. When
-- the client does not read, the system's buffers fill first, then this queue. A client with more than
-- BEHIND bytes in its queue is disconnected, and the others are told so.
local asio = require 'asio'

local address, port = arg[1] or '127.0.0.1', tonumber(arg[2] or 7778)
local BEHIND = 48 * 1024 -- below the 64 KB above which write would wait
local LONGEST_LINE, LONGEST_NAME = 1000, 20

local clients = {} -- connections by name

local function tell(conn, line)
    local unread, unsent = conn:pending()
    if not unread then return end -- closed already
    if unsent + #line > BEHIND then
        conn:abort() -- read_line in its handler returns; the handler tells the others
    else
        conn:write(line, '\n')
    end
end

local function tell_all(line)
    for _, conn in pairs(clients) do tell(conn, line) end
end

local function list_of_names()
    local names = {}
    for name in pairs(clients) do names[#names + 1] = name end
    table.sort(names)
    return '* here: ' .. table.concat(names, ', ')
end

local function ask_name(conn)
    conn:set_timeout(60) -- seconds
    conn:write 'your name? '
    for line in function() return (conn:read_line(LONGEST_LINE)) end do
        local name = line:match '^%s*([%w_-]+)%s*$'
        if name and #name <= LONGEST_NAME and not clients[name] then return name end
        conn:write(clients[name] and 'taken' or '1 to 20 letters and digits', '; your name? ')
    end
end

local WHY = { EOF = 'left', ECANCELED = 'was too slow', EMSGSIZE = 'said too much at once' }

local function serve(conn)
    local name = ask_name(conn)
    if not name then return conn:close() end
    clients[name] = conn
    tell_all('* ' .. name .. ' has joined')
    tell(conn, list_of_names())

    conn:set_timeout(nil)
    local line, message, code = conn:read_line(LONGEST_LINE)
    while line and line ~= '/quit' do
        if line == '/who' then
            tell(conn, list_of_names())
        else
            tell_all(name .. ': ' .. line:gsub('%c', '')) -- no control characters for terminals
        end
        line, message, code = conn:read_line(LONGEST_LINE)
    end
    clients[name] = nil
    conn:close()
    tell_all(('* %s %s'):format(name, line and 'left' or WHY[code] or 'is gone: ' .. message))
end

local server, message = asio.server(address, port, serve)
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    tell_all '* the server stops'
    for _, conn in pairs(clients) do conn:close() end -- which sends that first
    server:shutdown(0) -- no more clients; the handlers are cancelled
end)
