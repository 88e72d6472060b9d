-- SPDX-License-Identifier: MIT
--
-- What handlers have of a request. Fields that few handlers ask for are made when they are asked for. Between
-- the files of the server: `link` is what a connection has (server.lua), `begun` the body has been asked for,
-- `over` it is read to its end, `got` bytes of it, `rest` the end of a piece, `refused` the status
-- of a request whose body cannot be read.

local core, c, _http = ... -- luacheck: ignore _http
local asio = core.asio
local now = asio.now
local byte, find, gmatch, sub = string.byte, string.find, string.gmatch, string.sub
local concat, error, floor, pcall = table.concat, error, math.floor, pcall
local require, rawset, tostring, type = require, rawset, tostring, type
local head_get, unescape, next_piece, send = c.head_get, c.unescape, c.next_piece, c.send

local request = {}
c.request = request

-- Fields -----------------------------------------------------------------------------------------

local lazy = {}

-- RFC 9112, 3.2.2: the absolute form has the host in front of the path; `*` and authorities are no paths.
local function path_of(target)
    if byte(target, 1) ~= 47 then
        local _, last = find(target, '^%a[%w+.-]*://[^/?#]*')
        if not last then return target end
        target = sub(target, last + 1)
        if byte(target, 1) ~= 47 then target = '/' .. target end
    end
    local mark = find(target, '?', 1, true) -- not a pattern, which would end a trace
    if mark then target = sub(target, 1, mark - 1) end
    mark = find(target, '#', 1, true)
    return mark and sub(target, 1, mark - 1) or target
end

function lazy.path(self)
    self.link.settings.paths = true
    return path_of(self.target)
end

function lazy.version() return '1.1' end -- server.lua sets the other one
function lazy.conn(self) return self.link.conn end
function lazy.state() return {} end
function lazy.params() return {} end

function c.request_index(self, key)
    local method = request[key]
    if method then return method end
    local make = lazy[key]
    if not make then return nil end
    local value = make(self)
    rawset(self, key, value)
    return value
end

--- The value of a header; the first one of several. Names are compared without regard to case.
---@param name string
---@return string?
function request.header(self, name)
    return head_get(self.headers, name)
end

-- The query --------------------------------------------------------------------------------------

local function query_text(target)
    local mark = find(target, '?', 1, true)
    if not mark then return '' end
    local fragment = find(target, '#', mark, true)
    return sub(target, mark + 1, fragment and fragment - 1)
end

-- What cannot be unescaped stays as it is.
local function part(text)
    return unescape(text, true) or text
end

local function each_pair(target, fn)
    for item in gmatch(query_text(target), '[^&]+') do
        local equals = find(item, '=', 1, true)
        fn(part(equals and sub(item, 1, equals - 1) or item), equals and part(sub(item, equals + 1)) or '')
    end
end

--- The query of the target, unescaped: of a name that is repeated, the last value.
---@return table<string, string>
function request.query(self)
    local all = self.query_last
    if all then return all end
    all = {}
    each_pair(self.target, function(name, value) all[name] = value end)
    self.query_last = all
    return all
end

--- The same with all values.
---@return table<string, string[]>
function request.query_all(self)
    local all = self.query_lists
    if all then return all end
    all = {}
    each_pair(self.target, function(name, value)
        local list = all[name]
        if not list then
            list = {}
            all[name] = list
        end
        list[#list + 1] = value
    end)
    self.query_lists = all
    return all
end

-- The body ---------------------------------------------------------------------------------------

local REFUSED = { ETIMEDOUT = 408, EMSGSIZE = 413, EPROTO = 400 }

-- The request cannot be read: what the answer is if the handler gives none, and the connection's last.
local function refuse(self, message, code)
    local status = REFUSED[code] or 400
    if code == 'EPROTO' then
        local of_input = c.refusal(self.link.input)
        if of_input > 0 then status = of_input end
    end
    self.refused, self.refusal, self.refusal_code = status, message, code
    self.link.keep = false
    return nil, message, code
end

-- Before the first piece. RFC 9110, 10.1.1: a client that expects it is told to go on.
local function begin(self)
    local link = self.link
    self.begun = true
    self.got = 0
    self.deadline = now() + link.settings.request_timeout
    if self.version == '1.1' and (link.res and not link.res.sent) and self.headers:get 'expect' then
        return send(link.conn, 100, nil, nil, c.NO_LENGTH)
    end
    return true
end

local function ended(self)
    self.over = true
    self.link:wait_idle()
end

-- The next piece of the body; nil: it is over; or nil, message, code.
local function piece_of(self)
    local link = self.link
    if self.over or self.length == nil then return nil end
    if self.refused then return nil, self.refusal, self.refusal_code end
    if not self.begun then
        local ok, message, code = begin(self)
        if not ok then return refuse(self, message, code) end
    end
    local left = self.deadline - now()
    link.conn:set_timeout(left > 0 and left or 0, link.settings.write_timeout)
    local piece, message, code = next_piece(link.conn, link.input)
    if piece then
        self.got = self.got + #piece
        if self.got == self.length then ended(self) end
        return piece
    end
    if code then return refuse(self, message, code) end
    ended(self)
    return nil
end

local function check_size(value, fname)
    if value ~= nil and not (type(value) == 'number' and value >= 1) then
        c.bad(1, fname, 'a number of bytes, at least 1, expected')
    end
end

--- The next bytes of the body, as they come, at most `max`. Waits for the first. nil: the body is over.
---@param max? integer
---@return string? data
---@return string? message
---@return string? code `ETIMEDOUT`, `EPROTO` (not as HTTP has it), `EOF` (the client has gone), ...
function request.read(self, max)
    check_size(max, 'read')
    local piece, message, code = self.rest, nil, nil
    if piece then self.rest = nil else piece, message, code = piece_of(self) end
    if not piece then return nil, message, code end
    if max and #piece > max then
        max = floor(max)
        self.rest = sub(piece, max + 1)
        return sub(piece, 1, max)
    end
    return piece
end

local function too_long(self)
    return refuse(self, 'message too long', 'EMSGSIZE')
end

-- A body that has come with its head, as small ones do: no time-out is needed to take it. RFC 9110, 10.1.1: a
-- client that has sent it needs no 100.
local function whole_body(self, length)
    local link = self.link
    local conn = link.conn
    if length < 1 or self.begun or self.refused or (conn:pending() or 0) < length then return nil end
    local piece, message, code = next_piece(conn, link.input)
    if not piece then return refuse(self, message, code) end
    self.begun, self.got = true, #piece
    if #piece == length then
        self.over = true
        return piece
    end
    self.deadline, self.rest = now() + link.settings.request_timeout, piece
end

--- The whole body, '' if there is none. Waits for its end.
---@param max? integer at most so many bytes (the option `max_body`); `math.huge`: no limit
---@return string? body
---@return string? message
---@return string? code `EMSGSIZE`: there is more; or as `read`
function request.read_all(self, max)
    check_size(max, 'read_all')
    max = max or self.link.settings.max_body
    local length = self.length
    if length then
        if length - (self.got or 0) > max then return too_long(self) end
        local body, message, code = whole_body(self, length)
        if body or code then return body, message, code end
    end
    local first, message, code = self:read()
    if not first then
        if code then return nil, message, code end
        return ''
    end
    if self.over and not self.rest and #first <= max then return first end
    local list, n, size = { first }, 1, #first
    while size <= max do
        local piece, why, its_code = piece_of(self)
        if not piece then
            if its_code then return nil, why, its_code end
            return concat(list)
        end
        n, size = n + 1, size + #piece
        list[n] = piece
    end
    return too_long(self)
end

--- For loops: `for piece in req:chunks() do`, to the end of the body. A failure raises. Waits.
---@return fun(): string?
function request.chunks(self)
    return function()
        local piece, message, code = self:read()
        if code then error(('%s (%s)'):format(message, code), 2) end
        return piece
    end
end

-- Whether an answer that goes out now leaves a body that is not worth reading to its end.
function c.leaves_body(self)
    if self.length == nil or self.over then return false end
    if self.refused then return true end
    if not self.begun and self.headers:get 'expect' then return true end
    return self.length - (self.got or 0) > self.link.settings.max_drain
end

-- Reads what the handler has left of the body. False: the connection is of no further use.
function c.drain(self)
    local link, bytes = self.link, 0
    if self.refused or not self.begun and self.headers:get 'expect' then return false end
    self.begun, self.got = true, self.got or 0
    self.deadline = now() + link.settings.idle_timeout
    while true do
        local piece, _, code = piece_of(self)
        if not piece then return not code end
        bytes = bytes + #piece
        if bytes > link.settings.max_drain then return false end
    end
end

-- JSON -------------------------------------------------------------------------------------------

local found_json

-- The pair of functions of the option `json`, else of lua-cjson.
function c.json_of(settings)
    local json = settings.json or found_json
    if json then return json end
    local ok, cjson = pcall(require, 'cjson.safe')
    if ok then found_json = cjson end
    return found_json or nil
end

function c.no_json()
    return nil, 'no library for JSON: install lua-cjson or set the option json', 'ENOTSUP'
end

--- The body as JSON. Waits for its end.
---@param max? integer as for `read_all`
---@return any value
---@return string? message
---@return string? code `EINVAL`: it is no JSON; `ENOTSUP`: there is no lua-cjson, and no option `json`
function request.json(self, max)
    local json = c.json_of(self.link.settings)
    if not json then return c.no_json() end
    local text, message, code = self:read_all(max)
    if not text then return nil, message, code end
    local ok, value, why = pcall(json.decode, text)
    if ok and (value ~= nil or not why) then return value end
    self.refused, self.refusal, self.refusal_code = 400, tostring(ok and why or value), 'EINVAL'
    return nil, self.refusal, 'EINVAL'
end

-- The peer ---------------------------------------------------------------------------------------

--- The address and port of the client: of the connection; or, if that comes from a network of the option
--- `trust`, what `Forwarded` or `X-Forwarded-For` say (RFC 7239).
---@return string? address
---@return integer|string? port nil: not known
function request.peer(self)
    local address, port = self.conn:peer()
    local trust = self.link.settings.trust
    if not trust or not address then return address, port end
    return c.forwarded_peer(trust, self.headers, address, port)
end
