-- SPDX-License-Identifier: MIT
-- Connections of the client that are kept for further requests. A lease is one
-- place in the pool from before its connection is made until it goes back; whatever ends the request,
-- `give_back` or `discard` ends the lease. Semaphores bound the leases of a host and of the pool: those
-- that wait are served in turn.

local core, c, http = ...
local asio = core.asio
local now, semaphore = asio.now, asio.semaphore
local pairs, remove, setmetatable = pairs, table.remove, setmetatable

local PER_HOST, TOTAL, IDLE_TIME = 32, 256, 60
local MAX_HEAD, MAX_FIELDS = 65536, 256
local RECLAIM = 1 -- seconds between looks for dropped responses, while a light thread waits for a place

local Pool = {}
Pool.__index = Pool
Pool.__name = 'asio.http.pool'
c.Pool = Pool

-- Hosts ------------------------------------------------------------------------------------------

local function host_of(pool, key)
    local host = pool.hosts[key]
    if not host then
        host = { key = key, places = semaphore(pool.per_host), idle = {}, users = 0 }
        pool.hosts[key] = host
    end
    return host
end

local function forget_unused(pool, host)
    if host.users == 0 and #host.idle == 0 then pool.hosts[host.key] = nil end
end

local function close_idle(pool, host, i)
    local entry = remove(host.idle, i)
    pool.idle = pool.idle - 1
    entry.conn:close()
end

local function close_expired(pool, at)
    pool.swept = at
    for _, host in pairs(pool.hosts) do
        while host.idle[1] and at - host.idle[1].since > pool.idle_time do close_idle(pool, host, 1) end
        forget_unused(pool, host)
    end
end

local function close_oldest(pool)
    local oldest
    for _, host in pairs(pool.hosts) do
        local entry = host.idle[1]
        if entry and (not oldest or entry.since < oldest.idle[1].since) then oldest = host end
    end
    close_idle(pool, oldest, 1)
    forget_unused(pool, oldest)
end

-- Leases -----------------------------------------------------------------------------------------

local function end_lease(lease)
    local pool, host = lease.pool, lease.host
    if lease.placed then host.places:release() end
    if lease.counted then
        pool.places:release()
        pool.used = pool.used - 1
    end
    lease.placed, lease.counted, lease.entry = false, false, nil
    host.users = host.users - 1
    if host.users == 0 then forget_unused(pool, host) end
end

-- Ends the lease and its connection, which may be in any state. May be called twice.
function c.discard(lease)
    if lease.ended then return end
    local entry = lease.entry
    lease.ended = true
    end_lease(lease) -- first: what comes now may be out of memory
    c.stop_upload(lease)
    if entry then entry.conn:abort() end
end

-- Ends the lease. `clean`: a response has been read to its end, nothing is behind it, and the peer keeps
-- the connection.
function c.give_back(lease, clean)
    if lease.ended then return end
    local pool, host, entry = lease.pool, lease.host, lease.entry
    if not clean or pool.closed or entry.conn:pending() > 0 then
        lease.ended = true
        end_lease(lease)
        return entry.conn:close()
    end
    local at = now()
    entry.since, entry.uses = at, entry.uses + 1
    host.idle[#host.idle + 1] = entry -- or out of memory, and the lease is still to be ended
    pool.idle = pool.idle + 1
    lease.ended = true
    end_lease(lease)
    if at - pool.swept > 1 then close_expired(pool, at) end
end

-- The caller no longer owns the connection's end: a tunnel, a WebSocket.
function c.detach(lease)
    local conn = lease.entry.conn
    lease.ended = true
    end_lease(lease)
    return conn
end

-- Responses that the script has dropped without reading them: their finalizers can only set a flag.
local function reclaim(pool)
    for lease in pairs(pool.watched) do
        if lease.lost[1] or lease.ended then
            pool.watched[lease] = nil
            c.discard(lease)
        end
    end
end

-- Has the place given back if the response is collected: `guard` is what the response refers to.
function c.watch(lease)
    local lost = { false }
    local guard = newproxy(true)
    getmetatable(guard).__gc = function() lost[1] = true end
    lease.lost = lost
    lease.pool.watched[lease] = true
    return guard
end

function c.unwatch(lease) lease.pool.watched[lease] = nil end

local function acquire(pool, places)
    if places:acquire(0) then return end
    repeat
        if next(pool.watched) then
            collectgarbage()
            reclaim(pool)
        end
    until places:acquire(RECLAIM)
end

-- A place for a request. Waits while all are taken. Raises interrupts; the caller then discards the lease.
function c.lease(pool, key)
    local host = host_of(pool, key)
    local lease = { pool = pool, host = host, placed = false, counted = false, ended = false }
    host.users = host.users + 1
    return lease
end

function c.enter(lease)
    local pool = lease.pool
    acquire(pool, lease.host.places)
    lease.placed = true
    acquire(pool, pool.places)
    lease.counted = true
    pool.used = pool.used + 1
end

-- A kept connection for the lease, the one that was used last. Bytes that nothing has asked for make it
-- unusable.
function c.take_idle(lease)
    local pool, idle = lease.pool, lease.host.idle
    local oldest = now() - pool.idle_time
    while #idle > 0 do
        local entry = remove(idle)
        pool.idle = pool.idle - 1
        if entry.since >= oldest and entry.conn:pending() == 0 then
            lease.entry = entry
            return entry
        end
        entry.conn:close()
    end
end

-- Takes the connection: it is the lease's from here on.
function c.adopt(lease, conn)
    local entry = { conn = conn, input = c.input(true, MAX_HEAD, MAX_FIELDS), uses = 0, since = 0 }
    lease.entry = entry
    return entry
end

-- Before a connection is made: idle ones make room.
function c.make_room(pool)
    while pool.idle > 0 and pool.idle + pool.used > pool.total do close_oldest(pool) end
end

-- For scripts ------------------------------------------------------------------------------------

local function bound(opts, name, default, least)
    local value = opts[name]
    if value == nil then return default end
    if type(value) ~= 'number' or value ~= value or value < least then
        c.bad(1, 'pool', ("option '%s': a number, at least %d, expected"):format(name, least))
    end
    return value
end

local OPTIONS = { per_host = true, total = true, idle_time = true }

--- A pool of connections for http.request, with bounds of its own. It has the methods request, get, post,
--- put, delete, head of the module; close(); stats().
---@param opts? table per_host (32) and total (256): connections; idle_time (60): seconds
function http.pool(opts)
    opts = opts or {}
    if type(opts) ~= 'table' then c.bad(1, 'pool', 'table expected, got ' .. type(opts)) end
    for name in pairs(opts) do
        if not OPTIONS[name] then c.unknown_option(1, 'pool', name, OPTIONS) end
    end
    local total = bound(opts, 'total', TOTAL, 1)
    return setmetatable({
        per_host = bound(opts, 'per_host', PER_HOST, 1), total = total,
        idle_time = bound(opts, 'idle_time', IDLE_TIME, 0),
        hosts = {}, places = semaphore(total), used = 0, idle = 0, swept = 0, closed = false, watched = {},
    }, Pool)
end

--- Closes the idle connections; those in use are closed when their responses are read. The pool stays
--- usable, and keeps connections again, unless `forever` is true.
function Pool:close(forever)
    c.check_self(self, Pool, 'close', 'pool')
    reclaim(self)
    for _, host in pairs(self.hosts) do
        while #host.idle > 0 do close_idle(self, host, #host.idle) end
        forget_unused(self, host)
    end
    self.closed = forever == true
end

--- Connections in use and idle ones, and hosts that are known.
function Pool:stats()
    c.check_self(self, Pool, 'stats', 'pool')
    local hosts = 0
    for _ in pairs(self.hosts) do hosts = hosts + 1 end
    return { used = self.used, idle = self.idle, hosts = hosts }
end
