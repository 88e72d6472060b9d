-- SPDX-License-Identifier: MIT
--
-- Compressed responses: a middleware that stands in front of a response's send, write and finish. What is
-- streamed can be read by the client as soon as it is written. A page that shows a secret beside what an
-- attacker sends is not to be compressed: the length tells of the secret.

local _, c, http = ...
local concat, ipairs, pairs, tonumber, tostring, type = table.concat, ipairs, pairs, tonumber, tostring, type
local find, gmatch, lower, match = string.find, string.gmatch, string.lower, string.match
local deflate, deflate_add = c.deflate, c.deflate_add

local KEEP, FLUSH, END = 0, 1, 2

local TYPES = {}
for _, kind in ipairs { 'application/json', 'application/javascript', 'application/xml', 'application/wasm',
    'application/x-ndjson', 'image/bmp', 'image/vnd.microsoft.icon', 'font/ttf', 'font/otf' } do
    TYPES[kind] = true
end

-- Negotiation (RFC 9110, 12.5.3) -----------------------------------------------------------------

-- The quality that the request gives to a coding; nil: it does not name it.
local function quality_of(text, coding)
    for part in gmatch(text, '[^,]+') do
        local name, rest = match(part, '^%s*([^%s;]+)%s*(.-)%s*$')
        if name and lower(name) == coding then
            local q = match(lower(rest), '^;%s*q=([%d.]+)$')
            return rest == '' and 1 or q and tonumber(q) or 0
        end
    end
end

local function accepts_gzip(req)
    local list = req.headers:all 'accept-encoding'
    if not list[1] then return false end
    local text = concat(list, ',')
    local any = quality_of(text, '*')
    local gzip = quality_of(text, 'gzip') or quality_of(text, 'x-gzip') or any or 0
    return gzip > 0 and gzip >= (quality_of(text, 'identity') or 0)
end

-- Headers ----------------------------------------------------------------------------------------

-- The key and the value of a header in a table.
local function find_header(headers, name)
    for key, value in pairs(headers or {}) do
        if type(key) == 'string' and lower(key) == name then
            return key, type(value) == 'table' and concat(value, ', ') or tostring(value)
        end
    end
end

local function is_compressible(kind, settings)
    kind = lower(match(kind, '^%s*([^;%s]+)') or '')
    if kind == 'text/event-stream' then return false end
    return find(kind, '^text/') or find(kind, '%+xml$') or find(kind, '%+json$') or TYPES[kind] or
        settings.types[kind]
end

-- Whether the response could be sent in either form.
local function is_eligible(status, headers, settings)
    if status == 204 or status == 206 or status == 304 or status < 200 then return false end
    local _, kind = find_header(headers, 'content-type')
    local _, control = find_header(headers, 'cache-control')
    return kind and is_compressible(kind, settings) and not find_header(headers, 'content-encoding') and
        not find_header(headers, 'content-range') and
        not (control and find(lower(control), 'no-transform', 1, true))
end

local function add_vary(headers)
    local key, text = find_header(headers, 'vary')
    if text and (find(lower(text), 'accept-encoding', 1, true) or text == '*') then return end
    headers[key or 'Vary'] = text and text .. ', Accept-Encoding' or 'Accept-Encoding'
end

-- Another form is no longer the same byte by byte (RFC 9110, 8.8.1).
local function mark(headers)
    local key = find_header(headers, 'content-length')
    if key then headers[key] = nil end
    local name, tag = find_header(headers, 'etag')
    if tag and find(tag, '^"') then headers[name] = 'W/' .. tag end
    if find_header(headers, 'accept-ranges') then headers[find_header(headers, 'accept-ranges')] = nil end
    headers['Content-Encoding'] = 'gzip'
end

-- In front of a response -------------------------------------------------------------------------

-- Settles how a response that is about to begin is sent: a compressor, or nil.
local function settle(state, status, headers, size)
    local settings = state.settings
    if size and size < settings.min or not is_eligible(status, headers, settings) then return nil end
    add_vary(headers)
    local compressor = state.accepts and deflate(settings.level) or nil
    if compressor then mark(headers) end
    return compressor
end

-- What is sent with a call, beside what is in res.headers.
local function all_headers(res, given)
    for name, value in pairs(given or {}) do
        local key = type(name) == 'string' and find_header(res.headers, lower(name))
        if key then res.headers[key] = nil end
        res.headers[name] = value
    end
    return res.headers
end

local function wrap_send(state, send)
    return function(self, status, headers, body)
        if type(status) ~= 'number' then
            if status ~= nil then headers, body = status, headers end
            status = self.status
        end
        if body == nil and headers ~= nil and type(headers) ~= 'table' then headers, body = nil, headers end
        if self.sent or type(body) ~= 'string' then return send(self, status, headers, body) end
        local compressor = settle(state, status, all_headers(self, headers), #body)
        if compressor then body = deflate_add(compressor, body, END) end
        return send(self, status, nil, body)
    end
end

local function wrap_write(state, write)
    return function(self, data)
        if not self.sent and not state.settled then
            local _, length = find_header(self.headers, 'content-length')
            state.compressor = settle(state, self.status, self.headers, tonumber(length))
            state.settled = true
        end
        if not state.compressor or type(data) ~= 'string' then return write(self, data) end
        if not self.sent then
            local ok, message, code = write(self, '')
            if not ok then return nil, message, code end
        end
        if data == '' or self.bodiless or self.over then return write(self, data) end
        return write(self, deflate_add(state.compressor, data, state.whole and KEEP or FLUSH))
    end
end

local function wrap_finish(state, finish, write)
    return function(self, trailers)
        local compressor = state.compressor
        if compressor and not self.over then
            state.compressor = nil
            local rest = deflate_add(compressor, '', END)
            local ok, message, code = write(self, self.bodiless and '' or rest)
            if not ok then return nil, message, code end
        end
        return finish(self, trailers)
    end
end

-- What file.lua asks: whether a file of this type and size is to be written in pieces, and not as it is.
local function wants_file(state)
    return function(self, kind, size)
        if self.sent or state.settled then return false end
        local key = find_header(self.headers, 'content-type')
        if not key then self.headers['Content-Type'] = kind end
        state.compressor = settle(state, self.status, self.headers, size)
        state.settled, state.whole = state.compressor ~= nil, true
        return state.settled
    end
end

local function install(req, res, settings)
    local state = { settings = settings, accepts = accepts_gzip(req) }
    local write = res.write
    res.send, res.finish = wrap_send(state, res.send), wrap_finish(state, res.finish, write)
    res.write, res.compresses = wrap_write(state, write), wants_file(state)
end

http.internal = http.internal or {}
http.internal.compress = install -- by this name in other Lua states, see router.lua

-- Settings ---------------------------------------------------------------------------------------

local function settings_of(opts, fname, arg)
    local settings = { min = 1024, level = 6, types = {} }
    if opts == nil or opts == true then return settings end
    if type(opts) ~= 'table' then c.bad(arg, fname, 'gzip: table expected, got ' .. type(opts)) end
    for name, value in pairs(opts) do
        if settings[name] == nil then
            c.unknown_option(arg, fname, name, settings, fname ~= 'gzip' and 'gzip.' or nil)
        end
        if type(value) ~= type(settings[name]) then
            local text = "gzip: option '%s': %s expected, got %s"
            c.bad(arg, fname, text:format(name, type(settings[name]), type(value)))
        end
        settings[name] = value
    end
    if settings.level % 1 ~= 0 or settings.level < 1 or settings.level > 9 then
        c.bad(arg, fname, "gzip: option 'level': a number from 1 to 9 expected")
    end
    local types = {}
    for _, kind in ipairs(settings.types) do types[lower(kind)] = true end
    settings.types = types
    return settings
end

--- A middleware that compresses what the client accepts so, by type and size: `r:use(http.gzip())`, or the
--- option `gzip` of a server. opts: min, bytes from which on a body of known length is compressed (1024);
--- level (6); types, a list of types beside text, JSON, XML, JavaScript, SVG, ...
---@param opts? table
---@return fun(req, res, next)
function http.gzip(opts)
    local settings = settings_of(opts, 'gzip', 1)
    return function(req, res, continue)
        install(req, res, settings)
        return continue()
    end
end

-- For the option of a server: a handler with this in front.
function c.with_gzip(handler, opts, arg)
    local settings = settings_of(opts, 'server', arg)
    return function(req, res)
        install(req, res, settings)
        return handler(req, res)
    end
end
