-- A chat server on all cores: as chat.lua, but each of its threads has a Lua state and clients of its own.
--     luajit shared_chat.lua [ADDRESS [PORT [THREADS]]]      127.0.0.1 7778 4; port 0: any that is free
-- Join from two or more terminals with `nc 127.0.0.1 7778`: give a name, then type. `/who` lists the
-- names, `/quit` leaves. Ctrl-C ends the server.
--
-- Every state has an inbox, a shared channel. What a client writes goes to the clients of the same state, and
-- into the inboxes of the others. All see the lines of one client in their order; the lines of two clients
-- may come in another order to others. A slow reader holds up no other client: see chat.lua.
local asio = require 'asio'

local address, port = arg[1] or '127.0.0.1', tonumber(arg[2] or 7778)
local threads = tonumber(arg[3] or 4)
local BEHIND = 48 * 1024 -- below the 64 KB above which write would wait
local LONGEST_LINE, LONGEST_NAME = 1000, 20

-- What all states have. Copies of the handler refer to the same channels and dicts.
local inboxes, names, states = {}, asio.shared.dict(), asio.shared.dict()
for i = 1, threads do inboxes[i] = assert(asio.shared.channel(1000)) end
states:set('count', 0)

-- What each state has for itself: the handler's upvalues are copied once for each.
local clients = {} -- connections by name
local mine         -- number of its inbox
local stopped      -- the server stops: there is nothing more to tell

local function tell(conn, line)
    local unread, unsent = conn:pending()
    if not unread then return end -- closed already
    if unsent + #line > BEHIND then
        conn:abort() -- read_line in its handler returns; the handler tells the others
    else
        conn:write(line, '\n')
    end
end

local function tell_here(line)
    for _, conn in pairs(clients) do tell(conn, line) end
end

-- Waits while an inbox is full. Its reader never waits for another state, so that this ends.
local function tell_all(line)
    if stopped then return end
    tell_here(line)
    for i = 1, states:get 'count' do
        if i ~= mine then inboxes[i]:send(line) end
    end
end

-- With the first client of a state. The main chunk closes the inboxes in the end.
local function open_inbox()
    mine = states:incr 'count'
    asio.spawn(function()
        for line in inboxes[mine]:iter() do tell_here(line) end
        stopped = true
        for _, conn in pairs(clients) do conn:close() end -- which sends what was written
    end)
end

local function list_of_names()
    local list = names:keys()
    table.sort(list)
    return '* here: ' .. table.concat(list, ', ')
end

-- The name is taken in all states at once.
local function ask_name(conn)
    conn:set_timeout(60) -- seconds
    conn:write 'your name? '
    for line in function() return (conn:read_line(LONGEST_LINE)) end do
        local name = line:match '^%s*([%w_-]+)%s*$'
        local fits = name and #name <= LONGEST_NAME
        if fits and names:add(name, true) then return name end
        conn:write(fits and 'taken' or '1 to 20 letters and digits', '; your name? ')
    end
end

local WHY = { EOF = 'left', ECANCELED = 'was too slow', EMSGSIZE = 'said too much at once' }

local function serve(conn)
    if not mine then open_inbox() end
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
    names:delete(name)
    conn:close()
    tell_all(('* %s %s'):format(name, line and 'left' or WHY[code] or 'is gone: ' .. message))
end

-- On one thread where the system cannot have several.
local server, message, code = asio.server(address, port, serve, { threads = threads })
if code == 'ENOTSUP' then server, message = asio.server(address, port, serve) end
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    for i = 1, states:get 'count' do inboxes[i]:send '* the server stops' end
    for _, inbox in ipairs(inboxes) do inbox:close() end
    server:shutdown(1) -- no more clients; the handlers that are left then are cancelled
end)
