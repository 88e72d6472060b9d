-- SPDX-License-Identifier: MIT
--
-- What handlers have of a response. Between the files of the server: `link` is what a connection has
-- (server.lua), `sent` the head is out, `over` the body, too, `left` bytes that a body of known length needs.
-- Four fields are made with every response, so that it takes little memory; the status is a fifth one if
-- it is not 200. What the head says of the connection is in `link.flags`: it is not asked for once the head
-- is out, so the next request cannot be in the way.

local _, c, _http = ... -- luacheck: ignore _http
local find, lower, next, pairs, pcall = string.find, string.lower, next, pairs, pcall
local rawget, rawset, tonumber, tostring, type = rawget, rawset, tonumber, tostring, type
local floor = math.floor
local OK, finish, c_respond, c_last_chunk = c.OK, c.finish, c.respond, c.last_chunk
local leaves_body, quick_send, send_chunk = c.leaves_body, c.quick_send, c.send_chunk
local CLOSE, KEEP_ALIVE, CHUNKED, NO_BODY, NO_LENGTH, LOOK =
    c.CLOSE, c.KEEP_ALIVE, c.CHUNKED, c.NO_BODY, c.NO_LENGTH, c.LOOK

local response = { status = 200 }
c.response = response

function c.response_index(self, key)
    local method = response[key]
    if method then return method end
    if key ~= 'headers' then return nil end
    local headers = {}
    rawset(self, 'headers', headers)
    return headers
end

-- The head ---------------------------------------------------------------------------------------

local function bad_status(fname)
    c.bad(1, fname, 'a status from 200 to 599 expected')
end

-- What a call gives replaces what is in res.headers, whatever the case of its name.
local function merge(own, given)
    for name, value in pairs(given) do
        if own[name] == nil and type(name) == 'string' then
            local small = lower(name)
            for other in pairs(own) do
                if lower(other) == small then
                    own[other] = nil
                    break
                end
            end
        end
        own[name] = value
    end
    return own
end

local function headers_of(self, given, fname)
    local own = rawget(self, 'headers')
    if given ~= nil and type(given) ~= 'table' then c.bad(2, fname, 'a table of headers expected') end
    if not own or next(own) == nil then return given end
    return given and merge(own, given) or own
end

-- Numbers of src/plugins/http/output.c: each flag once.
local function with(flags, flag)
    return floor(flags / flag) % 2 == 1 and flags or flags + flag
end

local function has(flags, flag)
    return floor(flags / flag) % 2 == 1
end

local function without(flags, flag)
    return has(flags, flag) and flags - flag or flags
end

-- The connection ends behind this response.
local function closing(flags)
    return with(without(flags, KEEP_ALIVE), CLOSE)
end

-- Of a response whose head goes out now.
local function flags_of(self, status)
    local link = self.link
    local flags = without(link.flags, LOOK)
    if status == 204 or status == 304 then flags = with(with(flags, NO_LENGTH), NO_BODY) end
    if not link.keep or link.settings.closing or leaves_body(link.req) then
        link.keep = false
        flags = closing(flags)
    end
    return flags
end

local function already()
    return nil, 'the response has been sent', 'EALREADY'
end

-- Sending at once --------------------------------------------------------------------------------

--- Sends the whole response. Waits only while more than 64 KB are queued. Any argument may be left out:
--- `res:send('text')`, `res:send(404)`, `res:send(200, { ['Content-Type'] = 'text/plain' }, 'text')`.
---@param status? integer `res.status` (200)
---@param headers? table<string, string|number|string[]> beside those in `res.headers`
---@param body? string|number
---@return true? ok
---@return string? message
---@return string? code `EALREADY`: it has been sent
function response.send(self, status, headers, body)
    if type(status) ~= 'number' then
        if status ~= nil then headers, body = status, headers end
        if self.sent then return already() end -- an upgrade has left a status of its own
        status = self.status
        if type(status) ~= 'number' then bad_status 'send' end
    end
    if body == nil and headers ~= nil and type(headers) ~= 'table' then headers, body = nil, headers end
    if not (status >= 200 and status <= 599) then bad_status 'send' end
    if body ~= nil and type(body) ~= 'string' then
        if type(body) ~= 'number' then c.bad(3, 'send', 'a body that is a string expected') end
        body = tostring(body)
    end
    if self.sent then return already() end
    local link = self.link
    local flags = link.flags
    if flags >= LOOK or status == 204 or status == 304 or link.settings.closing then
        flags = flags_of(self, status)
    end
    headers = headers_of(self, headers, 'send')
    local conn = link.conn
    local token, ok, message, code = OK, nil, nil, nil
    if not quick_send(conn, status, headers, body, flags) then
        token, ok, message, code = c_respond(conn, status, headers, body, flags, link.input)
    end
    self.sent, self.over, self.bytes = true, true, body and #body or 0
    if status ~= (rawget(self, 'status') or 200) then self.status = status end
    if token == OK then return true end
    return finish(conn, token, ok, message, code)
end

--- Sends a value as JSON.
---@param value any
---@param status? integer `res.status` (200)
---@return true? ok
---@return string? message
---@return string? code `ENOTSUP`: there is no lua-cjson, and no option `json`; `EINVAL`: it cannot be JSON
function response.json(self, value, status)
    local json = c.json_of(self.link.settings)
    if not json then return c.no_json() end
    local ok, text, why = pcall(json.encode, value)
    if not ok or text == nil then return nil, tostring(ok and why or text), 'EINVAL' end
    return self:send(status or self.status, { ['Content-Type'] = 'application/json' }, text)
end

--- Sends the client to another place.
---@param location string
---@param status? integer 302
function response.redirect(self, location, status)
    if type(location) ~= 'string' then
        c.bad(1, 'redirect', 'string expected, got ' .. type(location))
    end
    return self:send(status or 302, { Location = location }, '')
end

--- A response that comes before the response (RFC 9110, 15.2; 103: RFC 8297). HTTP/1.0 has none, and nothing
--- is sent.
---@param status integer 102 to 199
---@param headers? table
function response.informational(self, status, headers)
    if not (type(status) == 'number' and status >= 100 and status <= 199 and status ~= 101) then
        c.bad(1, 'informational', 'a status from 100 to 199, but for 101, expected')
    end
    if self.sent then return already() end
    if self.link.req.version == '1.0' then return true end
    return c.send(self.link.conn, status, headers, nil, NO_LENGTH)
end

-- Streaming --------------------------------------------------------------------------------------

-- The length that the script has given: it says it instead of chunks.
local function given_length(headers)
    for name, value in pairs(headers or {}) do
        if type(name) == 'string' and lower(name) == 'content-length' then
            local n = (type(value) == 'number' or find(tostring(value), '^%d+$')) and tonumber(value)
            if not (n and n >= 0 and n % 1 == 0) then c.misuse 'Content-Length: a whole number expected' end
            return n
        end
    end
end

-- Sends the head of a body that follows. RFC 9112, 6.1: HTTP/1.0 knows no chunks; there it ends with the
-- connection.
local function begin(self)
    local link, status, headers = self.link, self.status, headers_of(self, nil, 'write')
    if not (type(status) == 'number' and status >= 200 and status <= 599) then bad_status 'write' end
    local flags, length, chunked = flags_of(self, status), given_length(headers), nil
    if has(flags, NO_LENGTH) then
        length = nil
    elseif length then
        flags = with(flags, NO_LENGTH)
    elseif link.req.version == '1.0' then
        link.keep = false
        flags = with(closing(flags), NO_LENGTH)
    else
        flags, chunked = with(flags, CHUNKED), true
    end
    local conn = link.conn
    local token, ok, message, code = c_respond(conn, status, headers, nil, flags, link.input)
    self.sent, self.bytes = true, 0 -- not before: what raises has sent nothing
    self.left, self.chunked, self.bodiless = length, chunked, has(flags, NO_BODY)
    if token == OK then return true end
    return finish(conn, token, ok, message, code)
end

-- A body that is not whole: the client must not take it for the whole.
local function cut(self)
    self.over, self.link.keep = true, false
    self.link.conn:abort()
end

--- Sends a part of the body; the first one sends the head, with `res.status` and `res.headers`. In chunks, or
--- as many bytes as a header Content-Length says. Waits only while more than 64 KB are queued.
---@param data string
---@return true? ok
---@return string? message
---@return string? code `EALREADY`: the body is over; `EMSGSIZE`: more than Content-Length says; ...
function response.write(self, data)
    if type(data) ~= 'string' then
        if type(data) ~= 'number' then c.bad(1, 'write', 'string expected, got ' .. type(data)) end
        data = tostring(data)
    end
    if self.over then return already() end
    if not self.sent then
        local ok, message, code = begin(self)
        if not ok then return nil, message, code end
    end
    if data == '' or self.bodiless then return true end
    local left = self.left
    if left then
        if #data > left then return nil, 'more than Content-Length says', 'EMSGSIZE' end
        self.left = left - #data
    end
    self.bytes = self.bytes + #data
    if self.chunked then return send_chunk(self.link.conn, data) end
    return self.link.conn:write(data)
end

--- Ends the body; after `write`, or instead of it. A handler that returns has it done.
---@param trailers? table<string, string|number> headers behind a body that is sent in chunks
---@return true? ok
---@return string? message
---@return string? code `EPIPE`: fewer bytes than Content-Length says were written; the connection is reset
function response.finish(self, trailers)
    if trailers ~= nil and type(trailers) ~= 'table' then
        c.bad(1, 'finish', 'a table of headers expected')
    end
    if self.over then return already() end
    if not self.sent then
        if not trailers then return self:send(self.status) end
        local ok, message, code = begin(self)
        if not ok then return nil, message, code end
    end
    if self.left and self.left > 0 and not self.bodiless then
        cut(self)
        return nil, 'fewer bytes than Content-Length says', 'EPIPE'
    end
    self.over = true
    if not self.chunked or self.bodiless then return true end
    local conn = self.link.conn
    local token, ok, message, code = c_last_chunk(conn, trailers)
    if token == OK then return true end
    return finish(conn, token, ok, message, code)
end

-- Leaving HTTP -----------------------------------------------------------------------------------

--- Answers 101, or 200 to CONNECT, and hands the connection over, with what has been read beyond the
--- request. The server leaves it alone from here on; the handler closes it.
---@param headers? table Upgrade, and what the protocol needs
---@return table? conn
---@return string? message
---@return string? code
function response.upgrade(self, headers)
    local link = self.link
    if self.sent then return already() end
    if link.req.length and not link.req.over then
        return nil, 'the body of the request has not been read', 'EBUSY'
    end
    local status = link.req.method == 'CONNECT' and 200 or 101
    headers = headers_of(self, headers, 'upgrade') or {}
    if status == 101 then headers = merge({ Connection = 'Upgrade' }, headers) end
    local conn = link.conn
    local token, ok, message, code = c_respond(conn, status, headers, nil, NO_LENGTH)
    self.sent, self.over, self.status = true, true, status
    link.keep = false
    if token ~= OK then
        ok, message, code = finish(conn, token, ok, message, code)
        if not ok then return nil, message, code end
    end
    link.upgraded = true
    conn:set_timeout(nil)
    return conn
end

-- What the server does with what a handler leaves; false: the connection is cut.
function c.complete(self)
    if self.over then return true end
    local _, _, code = self:finish()
    if code == nil then return true end
    if code ~= 'EALREADY' then self.link.keep = false end
    return false
end

function c.cut(self)
    return cut(self)
end
