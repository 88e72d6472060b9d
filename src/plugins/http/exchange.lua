-- SPDX-License-Identifier: MIT
-- One request and its response on a connection of the pool: connecting
-- (through a proxy, with TLS), sending, waiting for the head. What goes wrong is nil, message, code; the
-- caller ends the lease.

local core, c = ...
local asio = core.asio
local timeout, yield = asio.timeout, asio.yield
local pairs, setmetatable, type, unpack = pairs, setmetatable, type, unpack

local INFORMATIONAL = 32 -- responses 1xx before the final one
local EARLY = 1          -- seconds for a response to a request that could not be sent to its end
local CONTINUE = 1       -- seconds to wait for 100 Continue

-- TLS --------------------------------------------------------------------------------------------

local ids, last_id = setmetatable({}, { __mode = 'k' }), 0

-- A number for a table of options, which is part of what a kept connection is known by.
local function id_of(options)
    if not ids[options] then
        last_id = last_id + 1
        ids[options] = last_id
    end
    return ids[options]
end

local DEFAULT = { alpn = { 'http/1.1' } }
local with_alpn = setmetatable({}, { __mode = 'k' })

local function tls_options(tls)
    if type(tls) ~= 'table' then return DEFAULT end
    if tls.alpn ~= nil then return tls end
    if not with_alpn[tls] then
        local all = { alpn = DEFAULT.alpn }
        for name, value in pairs(tls) do all[name] = value end
        with_alpn[tls] = all
    end
    return with_alpn[tls]
end

-- Places -----------------------------------------------------------------------------------------

-- What connections are interchangeable under: where they lead, through what, with which options.
function c.place_key(job)
    local url, proxy = job.url, job.proxy
    local key = url.origin
    if proxy and url.scheme == 'http' then
        key = 'proxy ' .. proxy.origin
    elseif proxy then
        key = ('%s via %s %s:%s'):format(key, proxy.origin, proxy.user or '', proxy.password or '')
    end
    if proxy and job.opts.proxy_tls then key = key .. ' proxy tls ' .. id_of(job.opts.proxy_tls) end
    if type(job.tls) == 'table' then key = key .. ' tls ' .. id_of(job.tls) end
    if job.connect then key = key .. ' connect ' .. id_of(job.connect) end
    return key
end

local function dial(job, url, tls)
    local opts = {}
    if job.connect then
        for name, value in pairs(job.connect) do opts[name] = value end
    end
    opts.timeout = job.connect_timeout
    opts.tls = url.scheme == 'https' and tls or nil
    if url.unix then return asio.connect(url.unix, opts) end
    return asio.connect(url.host, url.port, opts)
end

-- RFC 9110, 9.3.6. The proxy's answer has no body; the tunnel begins behind its head.
local function tunnel(job, conn)
    local url = job.url
    local place = url.name .. ':' .. url.port
    local lines = 'Host: ' .. place .. '\r\n' .. c.proxy_lines(job)
    local ok, message, code = c.send_request(conn, 'CONNECT', place, lines, nil, nil, c.NO_LENGTH)
    if not ok then return nil, 'proxy: ' .. message, code end
    local input = c.input(true, 65536, 256)
    local status, reason
    repeat
        local head
        head, status, reason = c.next_head(conn, input, true)
        if not head then return nil, 'proxy: ' .. status, reason end
    until status >= 200
    if status >= 300 then return nil, ('proxy: %d %s'):format(status, reason), 'ECONNREFUSED' end
    local opts = { server_name = url.host }
    for name, value in pairs(tls_options(job.tls)) do opts[name] = value end
    return conn:start_tls(opts)
end

local function dial_through(job)
    local conn, message, code = dial(job, job.proxy, tls_options(job.opts.proxy_tls))
    if not conn then return nil, 'proxy: ' .. message, code end
    job.dialled = conn
    if job.url.scheme == 'http' then return conn end
    conn:set_timeout(job.connect_timeout, job.connect_timeout)
    local ok
    ok, message, code = tunnel(job, conn)
    if ok then return conn end
    conn:abort()
    return nil, message, code
end

-- A new connection for the lease. It is the job's until the pool has it.
local function open_entry(job, lease)
    c.make_room(lease.pool)
    local conn, message, code
    if job.proxy then
        conn, message, code = timeout(job.connect_timeout, dial_through, job)
    else
        conn, message, code = dial(job, job.url, tls_options(job.tls))
    end
    if not conn then
        if job.dialled then job.dialled:abort() end
        job.dialled = false
        return nil, message, code
    end
    job.dialled = conn -- until the lease has it: there may be no memory for that
    local entry = c.adopt(lease, conn)
    job.dialled = false
    return entry
end

-- Whether the peer has closed a kept connection, as far as this system knows by now.
local function is_fresh(entry)
    entry.conn:set_timeout(0, 0)
    local byte, _, code = entry.conn:peek(1)
    entry.timeout = nil
    return byte == nil and code == 'ETIMEDOUT'
end

-- RFC 9112, 9.2: what came before the request is no answer to it. It is in the buffer once the system has
-- been asked for it, which is between two turns of the loop. A request that must not be sent twice
-- does not go to a connection that has been closed.
local function can_use(job, entry)
    if not job.repeatable then return is_fresh(entry) end
    yield()
    yield()
    return entry.conn:pending() == 0
end

local function entry_for(job, lease)
    local entry = not job.fresh and c.take_idle(lease) or nil
    while entry and not can_use(job, entry) do
        entry.conn:close()
        lease.entry = nil
        entry = c.take_idle(lease)
    end
    if entry then return entry end
    return open_entry(job, lease)
end

local function set_timeout(entry, seconds)
    if entry.timeout == seconds then return end
    entry.conn:set_timeout(seconds, seconds)
    entry.timeout = seconds
end

-- Sending ----------------------------------------------------------------------------------------

-- The time-out begins when the request has been sent.
local function next_head(job, entry)
    while true do
        local head, status, reason, minor, keep, length = c.next_head(entry.conn, entry.input, job.no_body)
        if head or reason ~= 'ETIMEDOUT' then return head, status, reason, minor, keep, length end
        local left = c.time_left(job.lease, job.first_byte)
        if not left then return nil, status, reason end
        set_timeout(entry, left)
    end
end

local function read_final_head(job, entry)
    for _ = 1, INFORMATIONAL do
        local head, status, reason, minor, keep, length = next_head(job, entry)
        if not head then return nil, status, reason end
        if status >= 200 or status == 101 or (status == 100 and job.expecting) then
            return head, status, reason, minor, keep, length
        end
        if job.on_informational then job.on_informational(status, head) end
    end
    return nil, 'too many informational responses', 'EPROTO'
end

-- RFC 9110, 10.1.1. True: the body may go; false: there is an answer; nil: failure.
local function await_continue(job, entry)
    set_timeout(entry, CONTINUE)
    job.expecting = true
    local head, status, reason, minor, keep, length = read_final_head(job, entry)
    job.expecting = false
    set_timeout(entry, job.first_byte)
    if not head and reason == 'ETIMEDOUT' then return true end
    if not head then return nil, status, reason end
    if status == 100 then return true end
    job.early, job.complete = { head, status, reason, minor, keep, length }, false
    return false
end

-- A body that does not go out with the head. True: it goes out, or there is an answer already.
local function send_body(job, lease)
    local entry = lease.entry
    if job.expect then
        local ready, message, code = await_continue(job, entry)
        if not ready then return ready == false or nil, message, code end
    end
    if not c.is_upload(job) then return entry.conn:write(job.body) end
    c.start_upload(job, lease)
    return true
end

local function send(job, lease)
    local later = job.expect or c.is_upload(job)
    job.early, job.expecting, job.complete = nil, false, true
    local ok, message, code = c.send_request(lease.entry.conn, job.method, job.target, job.lines, job.headers,
        not later and job.body or nil, job.flags)
    if ok and later then return send_body(job, lease) end
    return ok, message, code
end

-- The response's head --------------------------------------------------------------------------

local function explained(entry, message, code)
    local status, reason = c.refusal(entry.input)
    if code ~= 'EPROTO' or status == 0 then return message, code end
    if status == 431 then return 'the head of the response is too large', 'EMSGSIZE' end
    return 'the response is malformed' .. (reason ~= '' and ': ' .. reason or ''), code
end

local function receive(job, entry)
    if job.early then return unpack(job.early, 1, 6) end
    local head, status, reason, minor, keep, length = read_final_head(job, entry)
    if head then return head, status, reason, minor, keep, length end
    return nil, explained(entry, status, reason)
end

local LOST = {
    EOF = true, ECONNRESET = true, EPIPE = true, ECONNABORTED = true, ENOTCONN = true, ESHUTDOWN = true,
}

-- A kept connection that its peer had closed meanwhile: nothing came back, and to ask twice does no harm.
local function is_stale(job, entry, code)
    local _, begun = c.state(entry.input)
    return entry.uses > 0 and LOST[code] and job.repeatable and not begun
end

-- An error ends the upload (RFC 9112, 9.5); any other answer may be that of a server that reads on.
local function answer_upload(job, lease, status, keep)
    local upload = lease.upload
    upload.answered, upload.closes = true, not keep and not job.no_keep
    if status >= 400 then c.end_upload(lease) end
    if status ~= 101 then return true end
    local ok, message, code = c.await_upload(lease)
    if ok and not upload.complete then return nil, upload.message, upload.code end
    return ok, message, code
end

-- The head of the response: head, status, reason, minor, whether the connection may be kept, length; or
-- nil, message, code, and whether it is worth another try.
local function attempt(job, lease)
    local entry, message, code = entry_for(job, lease)
    if not entry then return nil, message, code end
    set_timeout(entry, job.first_byte)
    local sent, why, its_code = send(job, lease)
    if not sent then set_timeout(entry, EARLY) end
    local head, status, reason, minor, keep, length = receive(job, entry)
    if not head then
        if not sent then status, reason = why, its_code end
        status, reason = c.upload_failure(lease, status, reason)
        return nil, status, reason, is_stale(job, entry, reason)
    end
    -- RFC 9110, 15.5.9: a server that closes an idle connection may say so.
    if status == 408 and entry.uses > 0 and job.repeatable and not keep then
        return nil, reason, 'ETIMEDOUT', true
    end
    if lease.upload then
        sent, why, its_code = answer_upload(job, lease, status, keep)
        if not sent then return nil, why, its_code end
    end
    return head, status, reason, minor, keep and sent and job.complete, length
end

-- The same; a kept connection that turns out to be closed is replaced by a new one, once.
function c.exchange(job, lease)
    c.enter(lease)
    local head, status, reason, minor, keep, length = attempt(job, lease)
    if head or not minor then return head, status, reason, minor, keep, length end
    lease.entry.conn:abort()
    c.end_upload(lease)
    lease.entry, lease.upload, job.fresh = nil, nil, true
    return attempt(job, lease)
end

-- While the body is read.
c.set_idle_timeout = set_timeout
