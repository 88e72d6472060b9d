-- SPDX-License-Identifier: MIT
--
-- http.server: the life of a connection. Its light thread reads a request, runs the handler, completes what
-- the handler has left, and begins again; requests that are pipelined wait in the buffer of the connection
-- meanwhile, and are answered in order. A `link` is what a connection has here:
--   conn, input
--   req, res  of the request that is served: from its head to the end of its answer; else false
-- and by its metatable, so that an idle connection takes little memory, until it gets another value:
--   settings  of the server
--   upgraded  the connection is the handler's (false)
--   keep      another request may follow (true)
--   flags     what the head of the answer says of the connection (0), and LOOK: it is the last one, or the
--             request has a body, so an answer needs a further look

local core, c, http = ...
local asio = core.asio
local cancelled, now, trace_text = asio.cancelled, asio.now, debug and debug.traceback
local error, floor, getmetatable, min, pairs = error, math.floor, getmetatable, math.min, pairs
local rawget, setmetatable, tostring, type, xpcall = rawget, setmetatable, tostring, type, xpcall
local OK, finish = c.OK, c.finish
local c_input, c_read_head, c_state, c_refusal, send = c.input, c.read_head, c.state, c.refusal, c.send
local CLOSE, NO_BODY, KEEP_ALIVE, LOOK = c.CLOSE, c.NO_BODY, c.KEEP_ALIVE, c.LOOK
local request_meta = { __index = c.request_index, __name = 'asio.http.request' }
local response_meta = { __index = c.response_index, __name = 'asio.http.response' }

-- Time-outs of the connection while it waits for a request.
local function wait_idle(link)
    local settings = link.settings
    link.conn:set_timeout(settings.idle_timeout, settings.write_timeout)
end

-- What cannot be served --------------------------------------------------------------------------

local TEXTS = {
    [400] = 'Bad Request', [408] = 'Request Timeout', [413] = 'Content Too Large', [414] = 'URI Too Long',
    [417] = 'Expectation Failed', [431] = 'Request Header Fields Too Large', [500] = 'Internal Server Error',
    [501] = 'Not Implemented', [503] = 'Service Unavailable', [505] = 'HTTP Version Not Supported',
}

local plain_text = { ['Content-Type'] = 'text/plain' }

local function count(settings, status)
    local by_status = settings.by_status
    by_status[status] = (by_status[status] or 0) + 1
end

-- Answers a head that could not be read, and closes.
local function refuse(link, status)
    local settings = link.settings
    settings.refused = settings.refused + 1
    count(settings, status)
    send(link.conn, status, plain_text, (TEXTS[status] or status) .. '\n', CLOSE)
    link.conn:close()
end

-- No head came.
local function no_head(link, code)
    if code == 'EPROTO' then
        local status = c_refusal(link.input)
        if status > 0 then return refuse(link, status) end
        return link.conn:abort()
    end
    if code == 'ETIMEDOUT' then
        local _, begun = c_state(link.input)
        if begun then return refuse(link, 408) end
    end
    link.conn:close()
end

-- A head has begun to come before the idle time was over: it has the time of a head from then on.
local function rest_of_head(link)
    local _, begun = c_state(link.input)
    if not begun then return nil, nil, 'ETIMEDOUT' end
    local settings = link.settings
    link.conn:set_timeout(settings.header_timeout, settings.write_timeout)
    return c.next_head(link.conn, link.input)
end

-- Handlers ---------------------------------------------------------------------------------------

local function with_traceback(err)
    if err == cancelled then return err end
    return trace_text and trace_text(tostring(err), 2) or tostring(err)
end

local function report(link, err)
    local req = link.req
    core.report(('%s %s failed: %s'):format(req.method, req.path, tostring(err)))
end

-- The handler has raised. What the client has caused, by a body that cannot be read, is not reported.
local function failed(link, err)
    local req, res = link.req, link.res
    c.stop_heartbeat(res)
    if err == cancelled then
        link.conn:abort()
        error(err, 0)
    end
    local refusal = req.refused and req.refusal
    if not (refusal and type(err) == 'string' and err:find(refusal, 1, true)) then
        link.settings.failed = link.settings.failed + 1
        report(link, err)
    end
    if link.upgraded or res.sent then
        link.keep, res.over = false, true
        return link.conn:abort()
    end
    local status = req.refused or 500
    res.headers, res.status = nil, status
    res:send(status, plain_text, (TEXTS[status] or status) .. '\n')
end

local function ended(link, seconds)
    local ok, err = xpcall(link.settings.on_request_end, with_traceback, link.req, link.res, seconds)
    if not ok then
        if err == cancelled then error(err, 0) end
        report(link, err)
    end
end

-- What the handler has left of the answer.
local function complete(req, res)
    if not res.sent and req.refused then
        res:send(req.refused, plain_text, (TEXTS[req.refused] or '') .. '\n')
    else
        c.complete(res)
    end
end

-- What the handler has left of the request's body.
local function drain(link)
    local req = link.req
    if req.length and link.keep and not req.over and not c.drain(req) then link.keep = false end
end

local function flags_of(method, minor, keep, length)
    local flags = (length or not keep) and LOOK or 0
    if method == 'HEAD' then flags = flags + NO_BODY end
    if not keep then return flags + CLOSE end
    return minor == 0 and flags + KEEP_ALIVE or flags
end

-- Room for fields that requests get later: a table that grows costs more. Not `nil`, for which a constructor
-- would make no room.
local later = nil

local function with_body(method, target, head, link, length)
    return {
        method = method, target = target, headers = head, link = link, length = length,
        begun = later, got = later, over = later, path = later, params = later, route = later,
    }
end

local function with_path(method, target, head, link)
    return {
        method = method, target = target, headers = head, link = link,
        path = later, params = later, route = later,
    }
end

-- Not a tail call, so that what handlers end with (`return res:send(...)`) returns to a Lua function: LuaJIT
-- compiles no function on its own that returns to xpcall. Headers and a status that cannot be sent are an
-- error of the handler, also if it has only left them.
local function call(handler, req, res)
    handler(req, res)
    if not res.over then complete(req, res) end
end

-- Serves one request; whether another one may follow.
local function serve_one(link, head, method, target, minor, keep, length)
    local settings, flags = link.settings, 0
    if minor ~= 1 or length or not keep or method == 'HEAD' then
        flags = flags_of(method, minor, keep, length)
    end
    local req
    if length then
        req = setmetatable(with_body(method, target, head, link, length), request_meta)
    elseif settings.paths then
        req = setmetatable(with_path(method, target, head, link), request_meta)
    else
        req = setmetatable({ method = method, target = target, headers = head, link = link }, request_meta)
    end
    if minor ~= 1 then req.version = '1.0' end
    local res = setmetatable({ link = link, sent = false, over = false, bytes = 0 }, response_meta)
    link.req, link.res = req, res
    if flags ~= link.flags then link.flags = flags end
    if not keep then link.keep = false end
    settings.requests = settings.requests + 1
    local began = settings.on_request_end and now()
    local ok, err = xpcall(call, with_traceback, settings.handler, req, res)
    if not ok then failed(link, err) end
    if flags >= LOOK then drain(link) end
    local status = rawget(res, 'status') or 200
    if status == status then count(settings, status) end -- the handler may have set it to NaN
    if began then ended(link, now() - began) end
    link.req, link.res = false, false -- an idle connection keeps neither
    return link.keep
end

local function end_of(link)
    link.settings.links[link] = nil
    if not link.upgraded then link.conn:close() end
end

-- A connection whose light thread begins while the server shuts down (its handshake went on) may be idle.
local function first_timeout(settings)
    local seconds = settings.header_timeout
    return settings.closing and min(seconds, settings.idle_timeout) or seconds
end

-- The light thread of a connection.
local function serve(conn, settings)
    local input = c_input(false, settings.max_header, settings.max_headers, settings.max_target)
    local link = setmetatable({ conn = conn, input = input, req = false, res = false }, settings.link_meta)
    local first = true -- it has the time of a head, not that of an idle connection
    settings.links[link] = true
    settings.connections = settings.connections + 1
    conn:set_timeout(first_timeout(settings), settings.write_timeout)
    while true do
        local token, head, method, target, minor, keep, length = c_read_head(conn, input)
        if token ~= OK then
            head, method, target, minor, keep, length =
                finish(conn, token, head, method, target, minor, keep, length)
        end
        if not head and target == 'ETIMEDOUT' and not first then
            first = true
            head, method, target, minor, keep, length = rest_of_head(link)
        end
        if not head then
            settings.links[link] = nil
            return no_head(link, target)
        end
        if first then
            first = false
            wait_idle(link)
        end
        if not serve_one(link, head, method, target, minor, keep, length) then return end_of(link) end
        if settings.closing then return end_of(link) end
    end
end

-- Options ----------------------------------------------------------------------------------------

local SECONDS = { idle_timeout = 5, header_timeout = 60, request_timeout = 300, write_timeout = 60 }
local BYTES = {
    max_header = 16384, max_headers = 100, max_target = 8192, max_body = 1048576, max_drain = 65536,
}
local OTHERS = { trust = true, json = true, on_request_end = true, gzip = true }

local function bad_option(arg, name, wanted)
    c.bad(arg, 'server', ("option '%s': %s expected"):format(name, wanted))
end

local function check_numbers(opts, settings, arg)
    for name, default in pairs(SECONDS) do
        local value = opts[name]
        local fits = value == nil or type(value) == 'number' and value > 0
        if not fits then bad_option(arg, name, 'seconds') end
        settings[name] = value or default
    end
    for name, default in pairs(BYTES) do
        local value, least = opts[name], name == 'max_header' and 256 or name == 'max_drain' and 0 or 1
        if value ~= nil and not (type(value) == 'number' and value >= least) then
            bad_option(arg, name, ('a number, at least %d,'):format(least))
        end
        settings[name] = floor(value or default)
    end
    -- A stream keeps 64 KB that are not read: a larger head would never be complete.
    if settings.max_header > 65000 then bad_option(arg, 'max_header', 'at most 65000 bytes') end
end

local function check_json(json, arg)
    if json == nil then return nil end
    if type(json) ~= 'table' or type(json.encode) ~= 'function' or type(json.decode) ~= 'function' then
        bad_option(arg, 'json', 'a table with the functions encode and decode')
    end
    return json
end

-- What the connections of a server share.
local function settings_of(handler, opts, arg)
    local settings = {
        handler = opts.gzip and c.with_gzip(handler, opts.gzip, arg) or handler,
        links = setmetatable({}, { __mode = 'k' }), closing = false,
        requests = 0, connections = 0, failed = 0, refused = 0, by_status = {},
        paths = false, -- handlers ask for paths
    }
    settings.link_meta = {
        __index = { settings = settings, upgraded = false, keep = true, flags = 0, wait_idle = wait_idle },
    }
    check_numbers(opts, settings, arg)
    settings.json = check_json(opts.json, arg)
    if opts.trust then settings.trust = c.trust_of(opts.trust, arg) end
    local hook = opts.on_request_end
    if hook ~= nil and type(hook) ~= 'function' then bad_option(arg, 'on_request_end', 'a function') end
    settings.on_request_end = hook
    return settings
end

c.settings_of = settings_of

local function connections_of(settings)
    return function(conn) return serve(conn, settings) end
end
c.connections_of = connections_of

-- Ours, and those of asio.server.
local function split_options(opts)
    local own, others = {}, {}
    for name, value in pairs(opts) do
        local is_own = SECONDS[name] or BYTES[name] or OTHERS[name]
        if is_own then own[name] = value else others[name] = value end
    end
    if type(others.tls) == 'table' and others.tls.alpn == nil then
        local tls = { alpn = 'http/1.1' }
        for name, value in pairs(others.tls) do tls[name] = value end
        others.tls = tls
    end
    return own, others
end

-- Servers ----------------------------------------------------------------------------------------

local server = {}
local server_meta = { __index = server, __name = 'asio.http.server' }

local function check_server(self, fname) c.check_self(self, server_meta, fname, 'server of HTTP') end

function server_meta.__tostring(self) return 'http ' .. tostring(self.listener) end

--- Stops listening, at once. Connections and their handlers go on.
function server.close(self)
    check_server(self, 'close')
    self.listener:close()
end

---@return string? address
---@return integer? port
function server.address(self)
    check_server(self, 'address')
    return self.listener:address()
end

function server.set_tls(self, opts)
    check_server(self, 'set_tls')
    return self.listener:set_tls(opts)
end

--- Of a server with the option `threads`.
function server.stats(self, ...)
    check_server(self, 'stats')
    local listener = self.listener
    if not listener.stats then c.misuse "stats: of a server with the option 'threads'" end
    return listener:stats(...)
end

-- No request is being served, and none has begun to come.
local function is_idle(link)
    local _, begun = c_state(link.input)
    return not link.req and not begun
end

-- From now on answers say that the connection ends behind them.
function c.close_idle(settings)
    settings.closing = true
    local idle = {}
    for link in pairs(settings.links) do
        if is_idle(link) then idle[#idle + 1] = link end
    end
    for i = 1, #idle do idle[i].conn:close() end
end

--- Stops listening, closes connections that wait for a request, and waits for those that are served: their
--- answers say `Connection: close`. As asio.server's otherwise.
---@param timeout? number seconds; then the handlers are cancelled
---@return true? ok
---@return string? message
---@return string? code
function server.shutdown(self, timeout)
    check_server(self, 'shutdown')
    if self.settings then c.close_idle(self.settings) end
    return self.listener:shutdown(timeout)
end

function c.metrics_of(settings)
    local active, responses = 0, {}
    for link in pairs(settings.links) do
        if link.conn:pending() then active = active + 1 end -- nil: closed, its light thread was cancelled
    end
    for status, n in pairs(settings.by_status) do responses[status] = n end
    return {
        requests = settings.requests, connections = settings.connections, active = active,
        failed = settings.failed, refused = settings.refused, responses = responses,
    }
end

--- Counters since the start: requests, connections, active (connections now), failed (handlers that have
--- raised), refused (requests that could not be read), responses by status. With the option `threads` these
--- are sums, beside a list of the same by thread; it asks the threads, and waits.
---@param timeout? number seconds that a thread may take to answer (1)
---@return table metrics
function server.metrics(self, timeout)
    check_server(self, 'metrics')
    if not self.settings then return c.metrics_of_threads(self.listener, timeout) end
    return c.metrics_of(self.settings)
end

local function check_handler(handler, arg, fname)
    if type(handler) == 'function' then return end
    if type(handler) == 'table' and getmetatable(handler) and getmetatable(handler).__call then return end
    c.bad(arg, fname, 'handler function expected, got ' .. type(handler))
end

local function check_opts(opts, arg, fname) -- a NULL of the FFI is equal to nil
    if type(opts) ~= 'nil' and type(opts) ~= 'table' then c.bad(arg, fname, 'a table of options expected') end
end

--- A handler for `asio.server`, or for any connection: it speaks HTTP there until the connection ends. Waits.
---@param handler fun(req: table, res: table)
---@param opts? table those of `http.server` that asio.server does not have
---@return fun(conn: table)
function http.handler(handler, opts)
    check_handler(handler, 1, 'handler')
    check_opts(opts, 2, 'handler')
    local own, others = split_options(opts or {})
    for name in pairs(others) do bad_option(2, tostring(name), 'another name') end
    return connections_of(settings_of(handler, own, 2))
end

--- As asio.server, with HTTP/1.1 on its connections.
---@param ip string numeric address, '*', 'unix:...', 'systemd:...'
---@param port integer left out for the last two
---@param handler fun(req: table, res: table)
---@param opts? table see docs/http.md; and all of asio.server's
---@return table? server
---@return string? message
---@return string? code
function http.server(ip, port, handler, opts)
    local with_port = type(port) == 'number' or type(port) == 'string'
    if not with_port then handler, opts = port, handler end
    local arg = with_port and 3 or 2
    check_handler(handler, arg, 'server')
    check_opts(opts, arg + 1, 'server')
    local own, others = split_options(opts or {})
    if others.timeout ~= nil then
        c.bad(arg + 1, 'server',
            "unknown option 'timeout': idle_timeout, header_timeout, request_timeout, write_timeout")
    end
    local settings = settings_of(handler, own, arg + 1)
    local listen, accept = asio.server, c.portable(handler)
    if others.threads then
        listen, settings = c.threaded_server(accept, own, arg), nil
    else
        accept = connections_of(settings)
    end
    -- Made first: a listener without it would go on listening if there was no memory.
    local self = setmetatable({ listener = false, settings = settings }, server_meta)
    local listener, message, code
    if with_port then
        listener, message, code = listen(ip, port, accept, others)
    else
        listener, message, code = listen(ip, accept, others)
    end
    if not listener then return nil, message, code end
    self.listener = listener
    return self
end
