-- SPDX-License-Identifier: MIT
-- asio.connect. The addresses of a name are tried as RFC 8305 ("happy eyeballs") says: IPv6 and IPv4 in
-- turn, the next address when one has failed or has had a quarter of a second; the first connection wins. One
-- deadline is for everything.

local core = ...
local asio = core.asio
local c_connect, c_lookup, c_claim, check_port = core.connect, core.lookup, core.claim, core.check_port
local c_yield, finish, connect_pipe = core.yield, core.finish, core.connect_pipe
local now, c_sleep = asio.now, core.sleep
local error, pcall, type = error, pcall, type
local huge, max, min, remove = math.huge, math.max, math.min, table.remove

local ATTEMPT_DELAY = 0.25 -- seconds that one address has before the next is tried too
local RESOLUTION_DELAY = 0.05 -- that IPv4 waits for the name server's word on IPv6
local FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.1 -- seconds until a full backlog of a Unix socket is tried again
local ADDRESSES = 32 -- of each family are tried, however many there are

-- Codes that say little once another address has got further.
local DULL = { ENETUNREACH = true, EHOSTUNREACH = true, EADDRNOTAVAIL = true, EAFNOSUPPORT = true,
    ENETDOWN = true, EACCES = true, EPERM = true }
local RANK = { EAI_NONAME = 1, EAI_NODATA = 2 } -- others: 3, they are the reason to try again

-- A race: the state of one connect.
--   v6, v4    raw addresses not yet tried; last: the list of the two that was used last
--   family    the only one wanted: 'A', 'AAAA', or nil
--   looking, running   numbers of light threads that look up, that connect
--   next_at   when the next address may be tried
--   conn      the winner; over: too late to win
--   changed   an event, set whenever any of that changes

local function look_up(race, family)
    local v6, v4, first4 = finish(nil, c_lookup(race.host, race.port, nil, race.opts, family))
    race.looking = race.looking - 1
    if not v6 then
        local message, code = v4, first4
        if (RANK[code] or 3) >= (RANK[race.unknown_code] or race.unknown_code and 3 or 0) then
            race.unknown, race.unknown_code = message, code
        end
    else
        if race.family == 'A' then v6 = {} elseif race.family == 'AAAA' then v4 = {} end
        if #v6 + #v4 == 0 then
            race.unknown, race.unknown_code = 'no address of the family that was asked for', 'EAI_NODATA'
        end
        for i = 1, min(#v6, ADDRESSES) do race.v6[#race.v6 + 1] = v6[i] end
        for i = 1, min(#v4, ADDRESSES) do race.v4[#race.v4 + 1] = v4[i] end
        if first4 and not family then race.last = race.v6 end -- the system knows which is better
    end
    if not race.started then
        race.next_at = family == 'A' and race.looking > 0 and now() + RESOLUTION_DELAY or 0
    end
    race.changed:set()
end

local function try(race, address)
    local conn, message, code = finish(nil, c_connect(address, nil, nil, race.opts))
    race.running = race.running - 1
    if not conn then
        if not race.code or DULL[race.code] or not DULL[code] then race.message, race.code = message, code end
        race.next_at = 0
    elseif race.over or race.conn then
        conn:close()
    else
        race.conn = conn
    end
    race.changed:set()
end

local function next_address(race)
    local list = race.last == race.v6 and race.v4 or race.v6
    if #list == 0 then list = list == race.v6 and race.v4 or race.v6 end
    race.last = list
    return remove(list, 1)
end

-- Waits for a change, or for the time to try the next address. A connection at the deadline still counts.
local function pause(race, t, untried)
    local deadline = race.deadline
    if deadline and t >= deadline then
        if race.looked then return nil, 'operation timed out', 'ETIMEDOUT' end
        race.looked = true
        return finish(nil, c_yield())
    end
    local till = untried and min(race.next_at, deadline or race.next_at) or deadline
    race.changed:clear()
    local ok, message, code = race.changed:wait(till and max(till - t, 0))
    if not ok and code ~= 'ETIMEDOUT' then return nil, message, code end -- asio.stop, in the main chunk
    return true
end

local function run(race, g)
    while not race.conn do
        local t, untried = now(), #race.v6 + #race.v4 > 0
        if untried and t >= race.next_at then
            race.next_at, race.started, race.running = t + ATTEMPT_DELAY, true, race.running + 1
            g:spawn(try, race, next_address(race))
        elseif not untried and race.running == 0 and race.looking == 0 then
            return race.message or race.unknown, race.code or race.unknown_code
        else
            local ok, message, code = pause(race, t, untried)
            if not ok then return message, code end
        end
    end
end

-- The group cancels, and waits for, the rest of the race.
local function connect_name(host, port, deadline, opts, family)
    local kind, message, code = core.resolver()
    if not kind then return nil, message, code end
    finish(nil, c_claim(opts))
    local race = { host = host, port = port, opts = opts, family = family, deadline = deadline,
        v6 = {}, v4 = {}, running = 0, looking = 0, next_at = 0, changed = asio.event() }
    local ok
    local stopped -- asio.stop() while the main chunk waits for the group
    ok, message, code, stopped = pcall(asio.group, function(g)
        -- The system's resolver is asked once, c-ares for each family.
        local families = kind ~= 'ares' and { false } or { family or 'AAAA', not family and 'A' or nil }
        race.looking = #families
        for i = 1, #families do g:spawn(look_up, race, families[i] or nil) end
        local failure, failure_code = run(race, g)
        race.over = true
        g:cancel()
        return failure, failure_code
    end)
    if ok and race.conn then return race.conn end
    if race.conn then race.conn:close() end
    if not ok then error(message, 0) end
    if stopped then return nil, code, stopped end
    return nil, message, code
end

local function check_timeout(timeout)
    if timeout == nil or timeout == huge then return nil end
    if type(timeout) ~= 'number' or timeout ~= timeout or timeout < 0 then
        error("bad argument #3 to 'connect' (timeout must be a number of seconds, not negative or NaN)", 3)
    end
    return now() + timeout
end

-- `name` begins with 'unix:'. The system returns EAGAIN when the backlog is full, and has no event for
-- room in it. The arguments are checked by the first try.
local function connect_unix(name, opts)
    local timeout = type(opts) == 'table' and opts.timeout or nil
    local conn_or_nil, message, code = finish(nil, connect_pipe(name, timeout, opts))
    local deadline, interval = now() + (timeout or huge), FIRST_PAUSE
    while code == 'EAGAIN' do
        local left = deadline - now()
        if left <= 0 then return nil, 'operation timed out', 'ETIMEDOUT' end
        finish(nil, c_sleep(min(interval, left)))
        interval = min(interval * 2, LONGEST_PAUSE)
        left = max(deadline - now(), 0)
        conn_or_nil, message, code = finish(nil, connect_pipe(name, left, opts))
    end
    return conn_or_nil, message, code
end

-- What follows once there is a connection; see core.client.
local function secured(secure, deadline, conn, message, code)
    if conn and secure then return secure(conn, deadline) end
    return conn, message, code
end

--- Connects by TCP. A name is looked up without blocking; its addresses are tried as RFC 8305 says: IPv6 and
--- IPv4 in turn, the next one a quarter of a second after the last; the first connection wins. Waits.
---@param host string address (IPv6 with or without brackets) or name; or a raw address, as `get_original_dst`
--- returns it, then without a port
---@param port? integer|string 1 to 65535
---@param opts? asio.connect_opts|boolean true: a name is looked up for IPv6 only, false: for IPv4 only
---@return table? conn
---@return string? message
---@return string? code `ECONNREFUSED`, `ETIMEDOUT`, `EAI_NONAME`, ...; of several addresses the last one's
function asio.connect(host, port, opts)
    if type(host) ~= 'string' then
        error(("bad argument #1 to 'connect' (host or address expected, got %s)"):format(type(host)), 2)
    end
    local unix = host:find('unix:', 1, true) == 1
    local raw = not unix and #host >= 64 and (port == nil or type(port) == 'table' or type(port) == 'boolean')
    local at, family = 3, nil
    if unix or raw then
        if port ~= nil then opts = port end
        port, at = nil, 2
    else
        port = check_port(port, 1, 2, 'connect')
    end
    local kind = not unix and type(opts) or 'nil' -- connect_pipe checks its options
    if kind == 'boolean' then
        family, opts = opts and 'AAAA' or 'A', nil
    elseif kind ~= 'table' and kind ~= 'nil' then -- a null pointer of ffi equals nil, and is none
        error(("bad argument #3 to 'connect' (table expected, got %s)"):format(kind), 2)
    end
    local secure, message, code = core.client(host, opts, at)
    if code then return nil, message, code end
    if unix then return secured(secure, nil, connect_unix(host, opts)) end
    local deadline = check_timeout(opts and opts.timeout)
    local seconds = deadline and max(deadline - now(), 0)
    local conn
    conn, message, code = finish(nil, c_connect(host, port, seconds, opts))
    if conn ~= false then return secured(secure, deadline, conn, message, code) end
    return secured(secure, deadline, connect_name(host, port, deadline, opts, family))
end
