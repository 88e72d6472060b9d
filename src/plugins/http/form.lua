-- SPDX-License-Identifier: MIT
--
-- Forms as tables: application/x-www-form-urlencoded as WHATWG's URL standard has it, but an escape that is
-- none is refused; multipart/form-data (multipart.lua) with what a table can hold in memory.

local _, c = ...
local concat, pairs, type = table.concat, pairs, type
local find, sub = string.find, string.sub
local unescape = c.unescape

c.request = c.request or {}

local DEFAULTS = {
    max = 1048576,    -- bytes of the body, or of all values of a multipart form
    max_fields = 1000,
}

local function limits_of(opts)
    if opts == nil then return DEFAULTS end
    if type(opts) ~= 'table' then c.bad(1, 'form', 'table expected, got ' .. type(opts)) end
    local limits = { max = DEFAULTS.max, max_fields = DEFAULTS.max_fields }
    for name, value in pairs(opts) do
        if not DEFAULTS[name] then c.unknown_option(1, 'form', name, DEFAULTS) end
        if not (type(value) == 'number' and value >= 0) then
            c.bad(1, 'form', ("option '%s': a number, not negative, expected"):format(name))
        end
        limits[name] = value
    end
    return limits
end

local function too_long() return nil, 'the form is too long', 'EMSGSIZE' end
local function too_many() return nil, 'the form has too many fields', 'EMSGSIZE' end

-- The last value of a name, and all of it.
local function store(fields, all, name, value)
    fields[name] = value
    local list = all[name]
    if list then list[#list + 1] = value else all[name] = { value } end
end

-- The fields of a text: name to value, name to list of values; nil, message, code.
function c.parse_urlencoded(text, max_fields)
    local fields, all, count, at = {}, {}, 0, 1
    while at <= #text do
        local to = find(text, '&', at, true) or #text + 1
        if to > at then
            count = count + 1
            if count > max_fields then return too_many() end
            local equals = find(text, '=', at, true)
            if not equals or equals > to then equals = to end
            local name = unescape(sub(text, at, equals - 1), true)
            local value = unescape(sub(text, equals + 1, to - 1), true)
            if not name or not value then
                return nil, 'form: a percent sign without two hexadecimal digits', 'EPROTO'
            end
            store(fields, all, name, value)
        end
        at = to + 1
    end
    return fields, all
end

local function read_urlencoded(req, limits)
    if req.length and req.length > limits.max then return too_long() end
    local list, size = {}, 0
    while true do
        local piece, message, code = req:read()
        if message then return nil, message, code end
        if not piece then return c.parse_urlencoded(concat(list), limits.max_fields) end
        size = size + #piece
        if size > limits.max then return too_long() end
        list[#list + 1] = piece
    end
end

-- A file is a table; its type is what its sender says.
local function value_of(part, data)
    if not part.filename then return data end
    return { filename = part.filename, type = part.headers:get 'content-type', data = data }
end

local function read_multipart(req, limits)
    local parts, why, its_code = req:parts()
    if not parts then return nil, why, its_code end
    local fields, all, count, room = {}, {}, 0, limits.max
    while true do
        local part, message, code = parts:next()
        if message then return nil, message, code end
        if not part then return fields, all end
        count = count + 1
        if count > limits.max_fields then return too_many() end
        local data
        data, message, code = part:read_all(room)
        if not data and code == 'EMSGSIZE' then return too_long() end
        if not data then return nil, message, code end
        room = room - #data
        store(fields, all, part.name, value_of(part, data))
    end
end

local function read_form(req, limits)
    local kind = c.parameters(req:header 'content-type' or '')
    if kind == 'application/x-www-form-urlencoded' then return read_urlencoded(req, limits) end
    if kind == 'multipart/form-data' then return read_multipart(req, limits) end
    return nil, 'this is no form', 'ENOTSUP'
end

--- Reads a form whole: a table of names and values, the last one of each name, and a table of names and lists
--- of all their values. A file of a multipart form is a table: filename, type, data. Waits; a second call
--- returns the same tables. opts: max, bytes (1 MiB); max_fields (1000). nil, message, code: `ENOTSUP`: the
--- body is no form; `EMSGSIZE`; `EPROTO`: it is damaged; or as for read.
function c.request.form(self, opts)
    local limits = limits_of(opts)
    if self.form_fields then return self.form_fields, self.form_all end
    local fields, all, code = read_form(self, limits)
    if not fields then return c.refuse_form(self, all, code) end
    self.form_fields, self.form_all = fields, all
    return fields, all
end
