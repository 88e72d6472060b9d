-- SPDX-License-Identifier: MIT
-- What scripts see of TLS, over the functions of module.c. Embedded in asio/tls.so; lua/asio/tls.lua calls
-- what is returned here. A context is made of a table of options once, and found again by what the options
-- say.

local core, c = ...
local asio, server = core.asio, core.server
local INTERRUPT, finish = core.INTERRUPT, core.finish
local now, huge = asio.now, math.huge
local error, ipairs, pairs, pcall, type, unpack = error, ipairs, pairs, pcall, type, unpack
local concat, max, setmetatable, tostring = table.concat, math.max, setmetatable, tostring
local find, format, lower = string.find, string.format, string.lower

local HANDSHAKE = 10 -- seconds
local CONTEXTS = 100 -- are kept

-- Options ----------------------------------------------------------------------------------------

local FILES = { 'cert', 'key', 'ca', 'crl', 'ocsp' } -- a name of a file, or PEM text
local VALUES = { 'password', 'verify', 'min_version', 'ciphers' }
local LISTS = { 'alpn', 'pin', 'ticket_keys' }
local OTHERS = { server_name = true, handshake_timeout = true, names = true, server = true, peeked = true }
local known = {}
for _, list in ipairs { FILES, VALUES, LISTS } do
    for _, name in ipairs(list) do known[name] = true end
end
for name in pairs(OTHERS) do known[name] = true end

local function check(opts, fname, arg)
    if type(opts) ~= 'table' then
        local expected = fname == 'connect' and 'true or a table' or 'table'
        c.bad(arg, fname, ("option 'tls': %s expected, got %s"):format(expected, type(opts)))
    end
    for name in pairs(opts) do
        if not known[name] then c.bad(arg, fname, ("unknown option 'tls.%s'"):format(tostring(name))) end
    end
    local seconds = opts.handshake_timeout
    if seconds ~= nil and not (type(seconds) == 'number' and seconds >= 0) then
        c.bad(arg, fname, "option 'tls.handshake_timeout': seconds, not negative, expected")
    end
    local keys = opts.ticket_keys
    if keys == nil then return end
    if type(keys) ~= 'table' or #keys < 1 or #keys > 3 then
        c.bad(arg, fname, "option 'tls.ticket_keys': a list of 1 to 3 strings expected")
    end
    for _, key in ipairs(keys) do
        if type(key) ~= 'string' or #key ~= 80 then
            c.bad(arg, fname, "option 'tls.ticket_keys': strings of 80 bytes expected")
        end
    end
end

-- A text that is the same only for options that mean the same. Files count with their time.
local function text_of(opts, is_server)
    local parts = { is_server and 's' or 'c' }
    local function add(name, value)
        local text = format('%s', value)
        parts[#parts + 1] = format('%s=%s%d:%s', name, type(value):sub(1, 1), #text, text)
    end
    for _, name in ipairs(FILES) do
        local value = opts[name]
        if value ~= nil then
            add(name, value)
            if type(value) == 'string' and not find(value, '-----BEGIN', 1, true) then
                parts[#parts + 1] = format('%.0f', c.stamp(value))
            end
        end
    end
    for _, name in ipairs(VALUES) do
        if opts[name] ~= nil then add(name, opts[name]) end
    end
    for _, name in ipairs(LISTS) do
        local value = opts[name]
        if type(value) == 'table' then
            for _, entry in ipairs(value) do add(name, entry) end
            parts[#parts + 1] = ';'
        elseif value ~= nil then
            add(name, value)
        end
    end
    if not is_server and opts.ca == nil then parts[#parts + 1] = format('%.0f', c.stamp(c.trusted())) end
    return concat(parts, '\n')
end

local contexts, count = {}, 0
local by_table = setmetatable({}, { __mode = 'k' }) -- of options with names: the table is looked at once
local context_of

local function inherited(opts, own)
    local all = {}
    for name, value in pairs(opts) do all[name] = value end
    if own.cert ~= nil then all.key, all.password, all.ocsp = nil, nil, nil end
    for name, value in pairs(own) do all[name] = value end
    all.names, all.ticket_keys = nil, nil
    return all
end

-- names = { ['example.org'] = { cert = ... }, ['*.example.org'] = { ... } }, or a function
local function set_names(context, opts, fname, arg)
    if type(opts.names) == 'function' then
        c.asks(context)
        return true
    elseif type(opts.names) ~= 'table' then
        c.bad(arg, fname, "option 'tls.names': table or function expected, got " .. type(opts.names))
    end
    for pattern, own in pairs(opts.names) do
        if type(pattern) ~= 'string' or type(own) ~= 'table' or find(pattern, '*', 2, true) or
            (find(pattern, '*', 1, true) and not find(pattern, '^%*%.[^.]')) then
            local text = "option 'tls.names': names or '*.name' with tables of options expected, got '%s'"
            c.bad(arg, fname, text:format(tostring(pattern)))
        end
        check(own, fname, arg)
        local other, message, code = context_of(inherited(opts, own), true, fname, arg)
        if not other then return nil, pattern .. ': ' .. message, code end
        c.name(context, (lower(pattern):gsub('%.$', '')), other)
    end
    return true
end

local function new_context(opts, is_server, fname, arg, keys_of)
    if is_server and opts.cert == nil and type(opts.names) ~= 'function' then
        return nil, 'cert: a server needs a certificate', 'EINVAL'
    end
    local context, message, code = c.context(opts, is_server, fname, arg)
    if not context then return nil, message, code end
    if opts.names ~= nil and is_server then
        local ok, why, its_code = set_names(context, opts, fname, arg)
        if not ok then return nil, why, its_code end
    end
    if is_server and keys_of and not opts.ticket_keys then
        c.share_keys(context, keys_of)
    elseif is_server then
        c.ticket_keys(context, opts.ticket_keys)
    end
    return context
end

-- The context of checked options; with names it is the server's own.
function context_of(opts, is_server, fname, arg)
    local context, message, code
    if opts.names ~= nil and is_server then
        context = by_table[opts]
        if context then return context end
        context, message, code = new_context(opts, is_server, fname, arg)
        by_table[opts] = context
        return context, message, code
    end
    local text = text_of(opts, is_server)
    context = contexts[text]
    if context then return context end
    context, message, code = new_context(opts, is_server, fname, arg)
    if not context then return nil, message, code end
    if count >= CONTEXTS then contexts, count = {}, 0 end
    contexts[text], count = context, count + 1
    return context
end

-- The handshake ----------------------------------------------------------------------------------

-- Lets the script's function choose; true, or what ends the handshake.
local function choose(con, opts, name)
    local own = opts.names(name)
    if own == nil then
        if opts.cert == nil then return nil, 'no certificate for ' .. name, 'EINVAL' end
        c.choose(con)
        return true
    end
    check(own, 'names', 1)
    local context, message, code = context_of(inherited(opts, own), true, 'names', 1)
    if not context then return nil, message, code end
    c.choose(con, context)
    return true
end

local function steps(con, opts, deadline)
    while true do
        local token, state, message, code = c.handshake(con, deadline and max(deadline - now(), 0))
        if token == INTERRUPT then
            con:abort()
            error(state, 0)
        end
        state, message, code = finish(con, token, state, message, code)
        if state == 'done' then return true end
        if state == nil then return nil, message, code end
        if state == false then -- message is the name that is asked for
            local ran, ok, why, its_code = pcall(choose, con, opts, message)
            if not (ran and ok) then c.choose(con, false) end
            if not ran then
                con:close()
                error(ok, 0)
            elseif not ok then
                return nil, why, its_code
            end
        end
    end
end

-- As steps; a function that chooses is under the deadline as well. A connection that has failed is closed, so
-- that the peer gets the alert.
local function handshake(con, opts, deadline)
    local ok, message, code
    if type(opts.names) == 'function' then
        local left = deadline and max(deadline - now(), 0)
        ok, message, code = asio.timeout(left, steps, con, opts)
    else
        ok, message, code = steps(con, opts, deadline)
    end
    if ok then return true end
    return nil, message, code
end

local function give_up(con, message, code)
    if code == 'ETIMEDOUT' then con:abort() else con:close() end
    return nil, message, code
end

local function deadline_of(opts)
    local seconds = opts.handshake_timeout or HANDSHAKE
    return seconds < huge and now() + seconds or nil
end

-- Clients ----------------------------------------------------------------------------------------

local function is_address(name)
    return find(name, ':', 1, true) or find(name, '^%d+%.%d+%.%d+%.%d+$')
end

-- The name that the peer has to prove; nil: none.
local function peer_name(opts, host, fname, arg)
    local name = opts.server_name
    if name == nil then name = host end
    if not name and opts.verify ~= false then
        c.bad(arg, fname, "option 'tls.server_name' is needed: the name in the server's certificate")
    elseif name and type(name) ~= 'string' then
        c.bad(arg, fname, "option 'tls.server_name': string expected, got " .. type(name))
    end
    if not name then return nil end
    name = name:gsub('^%[(.*)%]$', '%1'):gsub('%%.*$', '')
    if is_address(name) then return name end
    return (lower(name):gsub('%.$', ''))
end

-- By what a session is kept, to be resumed.
local function key_of(con, name)
    local _, port = con:peer()
    return format('%s|%s', name or '', port) -- tostring of a number crashes LuaJIT when memory is out
end

local M = {}

-- See core.client: the function that goes on where connect has a connection. A path and a raw address have no
-- port behind them, and are no name.
function M.client(host, opts, arg)
    if opts == true then opts = {} end
    check(opts, 'connect', arg)
    local name = peer_name(opts, arg == 3 and host or nil, 'connect', arg)
    local context, message, code = context_of(opts, false, 'connect', arg)
    if not context then return nil, message, code end
    return function(con, deadline)
        local own = deadline_of(opts)
        if not deadline or own and own < deadline then deadline = own end
        local ok, why, its_code = c.start(con, context, key_of(con, name), name, opts.verify ~= false)
        if ok then ok, why, its_code = handshake(con, opts, deadline) end
        if ok then return con end
        return give_up(con, why, its_code)
    end
end

-- Servers ----------------------------------------------------------------------------------------

-- What the server has now: { context = ..., opts = ..., on_error = function or nil }. A handler's light
-- thread refers to it, and not to the server.
local states = setmetatable({}, { __mode = 'k' })

local function report(state, con, address, port, message, code)
    if not state.on_error then return give_up(con, message, code) end
    local info = c.info(con)
    give_up(con, message, code)
    state.on_error({ peer = address, port = port, server_name = info and info.server_name }, message, code)
    return nil
end

local function start(state, con)
    return c.start(con, state.context, nil, nil, false, true)
end

-- The rest of the arguments is what `start` has returned.
local function secure(state, con, ok, message, code)
    local opts, address, port = state.opts, nil, nil
    if state.on_error then address, port = con:peer() end -- once the peer has gone it has no address
    if not address then port = nil end
    if ok then ok, message, code = handshake(con, opts, deadline_of(opts)) end
    if ok then return true end
    -- The script has closed it; what it has written is still sent.
    if code == 'ECANCELED' or code == 'EBADF' then return nil end
    return report(state, con, address, port, message, code)
end

function M.server(plain, opts, arg, ...)
    local tls, on_error = opts.tls, opts.on_tls_error
    check(tls, 'server', arg)
    if on_error ~= nil and type(on_error) ~= 'function' then
        c.bad(arg, 'server', "option 'on_tls_error': function expected, got " .. type(on_error))
    end
    local context, message, code = context_of(tls, true, 'server', arg)
    if not context then return nil, message, code end
    local state = { context = context, opts = tls, on_error = on_error }
    local arguments = { ... }
    local handler = arguments[arg - 1]
    if type(handler) == 'function' then
        arguments[arg - 1] = function(con)
            if secure(state, con, start(state, con)) then return handler(con) end
        end
    end
    local made, why, its_code = plain(unpack(arguments, 1, arg))
    if not made then return nil, why, its_code end
    states[made] = state
    return made
end

-- Those of `accept` whose handshake goes on: an event for its end.
local pending = setmetatable({}, { __mode = 'k' })

local function secure_behind(state, con, over, ...)
    local ok, err = pcall(secure, state, con, ...)
    pending[con] = nil
    over:set()
    if not ok then error(err, 0) end
end

-- The handshake goes on behind: one slow client must not keep the others from being accepted. What reads or
-- writes waits for its end, so does M.info. It begins here: the light thread may have to wait before it runs,
-- and what the script writes meanwhile must not go out in clear.
local plain_accept = server.accept
function server.accept(self, timeout)
    local con, message, code = plain_accept(self, timeout)
    local state = con and states[self]
    if state then
        pending[con] = asio.event()
        asio.spawn_light_thread(secure_behind, state, con, pending[con], start(state, con))
    end
    return con, message, code
end

function M.set_tls(self, opts)
    local state = states[self]
    if not state then
        c.misuse "calling 'set_tls' on something that is not a server made with the option 'tls'"
    end
    check(opts, 'set_tls', 1)
    if opts.cert == nil and type(opts.names) ~= 'function' then
        return nil, 'cert: a server needs a certificate', 'EINVAL'
    end
    local context, message, code = new_context(opts, true, 'set_tls', 1, state.context)
    if not context then return nil, message, code end
    state.context, state.opts = context, opts
    return true
end

-- Connections --------------------------------------------------------------------------------------

function M.start(con, opts)
    if opts == nil then opts = {} end
    check(opts, 'start_tls', 1)
    local is_server = opts.server and true or false
    local name = not is_server and peer_name(opts, nil, 'start_tls', 1) or nil
    local context, message, code = context_of(opts, is_server, 'start_tls', 1)
    if not context then return nil, message, code end
    local key, ok = not is_server and key_of(con, name) or nil
    ok, message, code = c.start(con, context, key, name, opts.verify ~= false, opts.peeked)
    if not ok then
        if code ~= 'EPROTO' then return nil, message, code end -- nothing has changed
    else
        ok, message, code = handshake(con, opts, deadline_of(opts))
    end
    if ok then return true end
    return give_up(con, message, code)
end

function M.info(con)
    local over = pending[con]
    if over then
        local ok, message, code = over:wait()
        if not ok then return nil, message, code end
    end
    return c.info(con)
end

return M
