-- SPDX-License-Identifier: MIT
-- http.request and its short forms: options, the fields of the request that
-- the client itself sets, redirects. A job is one request on its way; a redirect makes a new one.

local core, c, http = ...
local asio = core.asio
local now, timeout, trace = asio.now, asio.timeout, core.trace
local error, huge, max, xpcall = error, math.huge, math.max, xpcall
local find, format, lower, match, upper = string.find, string.format, string.lower, string.match, string.upper
local getmetatable, ipairs, pairs, setmetatable, tostring, type =
    getmetatable, ipairs, pairs, setmetatable, tostring, type

local MAX_BODY = 16 * 1024 * 1024
local CONNECT, FIRST_BYTE, IDLE = 10, 60, 60 -- seconds
local REDIRECTS = 10

c.MAX_BODY = MAX_BODY
local Pool, check_self = c.Pool, c.check_self

-- RFC 9110, 9.2.2
local IDEMPOTENT = { GET = true, HEAD = true, PUT = true, DELETE = true, OPTIONS = true, TRACE = true }
local WITH_BODY = { POST = true, PUT = true, PATCH = true } -- without one, they say that it is empty

-- Options ----------------------------------------------------------------------------------------

local KINDS = {
    headers = 'table', query = 'table', body = true, length = 'number', json = true, form = 'table',
    multipart = 'table', auth = true, stream = 'boolean', max = 'number', redirects = true, proxy = true,
    proxy_tls = 'table',
    timeout = true, tls = 'table', pool = true, jar = 'table', decompress = 'boolean', expect = 'boolean',
    on_informational = 'function', connect = 'table',
}
local TIMES = { connect = true, first_byte = true, idle = true, total = true }

local function is_time(value) return type(value) == 'number' and value >= 0 end

local function check_time(fname, arg, value)
    if is_time(value) then return end
    if type(value) ~= 'table' then c.bad(arg, fname, "option 'timeout': seconds or a table expected") end
    for name, seconds in pairs(value) do
        if not TIMES[name] then
            c.unknown_option(arg, fname, name, TIMES, 'timeout.')
        elseif not is_time(seconds) then
            c.bad(arg, fname, ("option 'timeout.%s': seconds, not negative, expected"):format(name))
        end
    end
end

local function check_options(fname, arg, opts)
    if type(opts) ~= 'table' then c.bad(arg, fname, 'a table of options expected, got ' .. type(opts)) end
    for name, value in pairs(opts) do
        local kind = KINDS[name]
        if not kind then c.unknown_option(arg, fname, name, KINDS) end
        if kind ~= true and type(value) ~= kind then
            c.bad(arg, fname, ("option '%s': %s expected, got %s"):format(name, kind, type(value)))
        end
    end
    if opts.timeout ~= nil then check_time(fname, arg, opts.timeout) end
    if opts.pool and getmetatable(opts.pool) ~= Pool then
        c.bad(arg, fname, "option 'pool': a pool or false expected")
    end
    if opts.jar and getmetatable(opts.jar) ~= c.Jar then c.bad(arg, fname, "option 'jar': a jar expected") end
    if opts.proxy and type(opts.proxy) ~= 'string' then
        c.bad(arg, fname, "option 'proxy': a URL or false expected")
    end
    local length = opts.length
    if length and not (length >= 0 and length % 1 == 0) then
        c.bad(arg, fname, "option 'length': a whole number, not negative, expected")
    end
end

local function set_times(job, given)
    local times = type(given) == 'table' and given or { total = given }
    job.connect_timeout = times.connect or CONNECT
    job.first_byte, job.idle_timeout = times.first_byte or FIRST_BYTE, times.idle or IDLE
    job.deadline = times.total and times.total ~= huge and now() + times.total or nil
end

-- Fields -----------------------------------------------------------------------------------------

local AGENT = 'User-Agent: lua-asio\r\nAccept: */*\r\n'
local CODINGS = c.inflater(true) and 'Accept-Encoding: gzip, deflate\r\n' or ''
local OURS = { ['content-length'] = "'length'", ['transfer-encoding'] = "'body'" }

-- The names, in lower case, that the script has set.
local function names_of(headers)
    local names = {}
    for name in pairs(headers) do
        local key = lower(tostring(name))
        if OURS[key] then
            c.misuse(("headers: '%s' follows from the option %s"):format(name, OURS[key]))
        end
        names[key] = true
    end
    return names
end

-- What every request to this URL begins with, if the script sets none of it. Kept with the URL.
local function plain_lines(url)
    local lines = url.lines
    if not lines then
        lines = 'Host: ' .. url.authority .. '\r\n' .. AGENT .. CODINGS
        url.lines = lines
    end
    return lines
end

local function chosen_lines(job, names)
    local lines = names['host'] and '' or 'Host: ' .. job.url.authority .. '\r\n'
    if not names['user-agent'] then lines = lines .. 'User-Agent: lua-asio\r\n' end
    if not names['accept'] then lines = lines .. 'Accept: */*\r\n' end
    if names['accept-encoding'] then
        job.decompress = false -- the script has asked for something else
    elseif job.decompress then
        lines = lines .. CODINGS
    end
    return lines
end

local function credentials(job)
    local auth, url = job.auth, job.url
    if type(auth) == 'string' then
        local user, password = match(auth, '^([^:]*):?(.*)$')
        return c.basic(user, password)
    elseif type(auth) == 'table' then
        return c.basic(auth[1] or auth.user, auth[2] or auth.password)
    end
    return c.basic(url.user, url.password)
end

-- Fields for the proxy.
function c.proxy_lines(job)
    local value = c.basic(job.proxy.user, job.proxy.password)
    return value and 'Proxy-Authorization: ' .. value .. '\r\n' or ''
end

local function body_lines(job, names)
    local lines = ''
    if job.kind and not names['content-type'] then lines = 'Content-Type: ' .. job.kind .. '\r\n' end
    if job.source and not job.length then
        job.flags = c.CHUNKED
    elseif c.is_upload(job) or (job.expect and job.body) then
        job.flags = c.NO_LENGTH
        lines = lines .. format('Content-Length: %.0f\r\n', job.length or #job.body)
    else
        job.flags = (job.body or WITH_BODY[job.method]) and 0 or c.NO_LENGTH
    end
    if job.expect and (job.source or job.body) then
        lines = lines .. 'Expect: 100-continue\r\n'
    else
        job.expect = false
    end
    return lines
end

local NONE = {}

local function set_lines(job)
    local names = job.headers and names_of(job.headers) or NONE
    local lines = (job.headers or not job.decompress) and chosen_lines(job, names) or plain_lines(job.url)
    if (job.auth or job.url.user) and not names['authorization'] then
        lines = lines .. 'Authorization: ' .. credentials(job) .. '\r\n'
    end
    if job.jar and not names['cookie'] then
        local cookies = c.cookies_for(job.jar, job.url)
        if cookies then lines = lines .. 'Cookie: ' .. cookies .. '\r\n' end
    end
    lines = lines .. body_lines(job, names)
    job.target = job.url.target
    if job.proxy and job.url.scheme == 'http' then
        job.target = c.url_text(job.url)
        lines = lines .. c.proxy_lines(job)
    end
    if job.no_keep then job.flags = job.flags + c.CLOSE end
    job.lines = lines
end

-- Redirects (RFC 9110, 15.4) -----------------------------------------------------------------------

local FOLLOWED = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }
local PRIVATE = { authorization = true, cookie = true, ['proxy-authorization'] = true, host = true }
local ABOUT_BODY = {
    ['content-type'] = true, ['content-encoding'] = true, ['content-language'] = true,
    ['content-location'] = true, ['content-md5'] = true, digest = true, ['content-digest'] = true,
}

local function without(headers, names)
    if not headers then return nil end
    local rest = {}
    for name, value in pairs(headers) do
        if not names[lower(tostring(name))] then rest[name] = value end
    end
    return rest
end

-- What identifies the client to one host is not shown to another.
local TRUST = { 'ca', 'crl', 'verify', 'min_version', 'ciphers', 'handshake_timeout' }
local trust_of = setmetatable({}, { __mode = 'k' })

local function trust_alone(tls)
    if type(tls) ~= 'table' then return nil end
    if not trust_of[tls] then
        local rest = {}
        for _, name in ipairs(TRUST) do rest[name] = tls[name] end
        trust_of[tls] = rest
    end
    return trust_of[tls]
end

local function drop_body(job)
    job.body, job.source, job.length, job.kind, job.expect = nil, nil, nil, nil, false
    job.headers = without(job.headers, ABOUT_BODY)
end

-- Changes the job; false: the request cannot be repeated, and the script gets the redirect itself.
local function change_method(job, status)
    local method = job.method
    if (status == 303 and method ~= 'HEAD' and method ~= 'GET') or
        ((status == 301 or status == 302) and method == 'POST') then
        job.method, job.no_body = 'GET', false
        job.repeatable = true
        drop_body(job)
    elseif job.source then
        if not job.position then return false end
        c.end_upload(job.lease) -- which reads the file
        return c.rewind(job.opts, job.position)
    end
    return true
end

local function redirect(job, url, status)
    if not change_method(job, status) then return false end
    if url.origin ~= job.url.origin then
        job.headers = without(job.headers, PRIVATE)
        job.auth, job.tls = nil, trust_alone(job.tls)
    end
    job.url, job.fresh = url, job.no_keep
    local message, code
    job.proxy, message, code = c.proxy_of(url, job.opts.proxy)
    return true, message, code
end

-- The parsed URL of a redirect; nil: there is none, or with message and code: it leads to no place.
local function destination(job, reply)
    if not FOLLOWED[reply.status] or not job.follows then return nil end
    local location = reply.headers:get 'location'
    if not location then return nil end
    local url, message, code = c.parse_url(c.resolve_url(job.url, location))
    if not url then return nil, 'redirect: ' .. message, code end
    -- A server does not choose among the sockets of this machine.
    if url.unix and url.unix ~= job.url.unix then
        return nil, 'redirect: to a Unix socket', 'EPROTO'
    end
    return url
end

-- Running ----------------------------------------------------------------------------------------

local function perform(job)
    set_lines(job)
    local lease = c.lease(job.pool, c.place_key(job))
    job.lease = lease
    local head, status, reason, minor, keep, length = c.exchange(job, lease)
    if not head then return nil, status, reason end
    if job.jar then c.store_cookies(job.jar, job.url, head:all 'set-cookie') end
    return c.new_reply(job, lease, head, status, reason, minor, keep and not job.no_keep, length)
end

local function finished(job, reply)
    if reply.conn then return reply end
    if job.stream then
        c.hand_over(reply)
        return reply
    end
    local body, message, code = c.whole_body(reply, job.max)
    if not body then return nil, message, code end
    reply.body = body
    return reply
end

local function run(job)
    while true do
        local reply, message, code = perform(job)
        if not reply then return nil, message, code end
        local url
        url, message, code = destination(job, reply)
        if code then return nil, message, code end
        if not url then return finished(job, reply) end
        if job.redirects == 0 then return nil, 'too many redirects', 'ELOOP' end
        job.redirects = job.redirects - 1
        local repeated
        repeated, message, code = redirect(job, url, reply.status)
        if not repeated then return finished(job, reply) end
        if code then return nil, message, code end
        c.skip(reply)
    end
end

-- However it ends, no connection stays behind.
local function clean(job, ok, ...)
    if ok and ... then return ... end
    if job.lease then c.discard(job.lease) end -- first: there may be no memory for what follows
    if job.dialled then job.dialled:abort() end
    if job.lease then c.end_upload(job.lease) end
    if ok then return ... end
    error((...), 0)
end

local function start(job)
    if not job.deadline then return clean(job, xpcall(run, trace, job)) end
    return clean(job, xpcall(timeout, trace, max(job.deadline - now(), 0), run, job))
end

-- Jobs -------------------------------------------------------------------------------------------

local function with_query(url, query)
    local text = c.encode_form(query)
    if text == '' then return url end
    local copy = {}
    for name, value in pairs(url) do copy[name] = value end
    copy.target = url.target .. (find(url.target, '?', 1, true) and '&' or '?') .. text
    return copy
end

local function redirects_of(opts)
    local given = opts.redirects
    if given == false then return 0 end
    return type(given) == 'number' and given >= 0 and given or REDIRECTS
end

local function new_job(pool, method, url, opts)
    local job = {
        pool = pool, method = method, url = url, opts = opts, no_body = method == 'HEAD',
        headers = opts.headers, auth = opts.auth, tls = opts.tls, jar = opts.jar, connect = opts.connect,
        stream = opts.stream, max = opts.max or MAX_BODY, redirects = redirects_of(opts),
        decompress = opts.decompress ~= false, expect = opts.expect, on_informational = opts.on_informational,
        no_keep = opts.pool == false, fresh = opts.pool == false, dialled = false, lease = false,
    }
    job.body, job.source, job.length, job.kind = c.request_body(opts)
    job.follows = job.redirects > 0
    job.position = job.source and c.position(opts)
    job.repeatable = IDEMPOTENT[method] and not job.source
    set_times(job, opts.timeout)
    return job
end

local EMPTY = {}

local function request(pool, fname, arg, method, address, opts)
    if type(method) ~= 'string' then c.bad(arg - 1, fname, 'string expected, got ' .. type(method)) end
    if type(address) ~= 'string' then c.bad(arg, fname, 'string expected, got ' .. type(address)) end
    if opts == nil then opts = EMPTY else check_options(fname, arg + 1, opts) end
    method = upper(method)
    if method == 'CONNECT' then c.bad(arg - 1, fname, 'CONNECT is for proxies: see the option proxy') end
    local url, message, code = c.parse_url(address)
    if not url then return nil, message, code end
    if opts.query then url = with_query(url, opts.query) end
    local job = new_job(opts.pool or pool, method, url, opts)
    job.proxy, message, code = c.proxy_of(url, opts.proxy)
    if code then return nil, message, code end
    return start(job)
end

-- For scripts ------------------------------------------------------------------------------------

local default = http.pool()

--- The pool of requests that name none.
http.default_pool = default

--- Sends a request and waits for the response: status, reason, headers, version, url (behind redirects),
--- and body, or with `stream = true` the methods read, read_all, chunks, close. See docs/http.md for the
--- options.
---@param method string
---@param url string http://, https://, http://unix:/path:/target
---@param opts? table
---@return table? response
---@return string? message
---@return string? code
function http.request(method, url, opts) return request(default, 'request', 2, method, url, opts) end

function Pool:request(method, url, opts)
    check_self(self, Pool, 'request', 'pool')
    return request(self, 'request', 2, method, url, opts)
end

for _, name in pairs { 'get', 'post', 'put', 'patch', 'delete', 'head', 'options' } do
    local method = upper(name)
    http[name] = function(url, opts) return request(default, name, 1, method, url, opts) end
    Pool[name] = function(self, url, opts)
        check_self(self, Pool, name, 'pool')
        return request(self, name, 1, method, url, opts)
    end
end
