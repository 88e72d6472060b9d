-- SPDX-License-Identifier: MIT
--
-- Multipart/form-data, part by part (RFC 7578, RFC 2046 5.1). What has come of the body lies in `buffer`,
-- from `at` on; `cut` is where the next delimiter begins in it. Bytes that could be the beginning of a
-- delimiter stay until more have come. Nothing is given back: a part that is not read is skipped.

local _, c = ...
local error, rawget, setmetatable, type = error, rawget, setmetatable, type
local concat, huge, min = table.concat, math.huge, math.min
local byte, find, gsub, lower, match, sub =
    string.byte, string.find, string.gsub, string.lower, string.match, string.sub

local MAX_HEAD = 8192   -- bytes of the head of a part
local MAX_FIELDS = 20   -- in it
local MAX_PREAMBLE = 4096
local MAX_BLANKS = 100  -- behind a delimiter

c.request = c.request or {}

-- Fields of a part, as those of a request --------------------------------------------------------

local fields = {}

function fields.get(self, name)
    name = lower(name)
    for i = 1, #self do
        if self[i].key == name then return self[i].value end
    end
end

function fields.all(self, name)
    local list = {}
    name = lower(name)
    for i = 1, #self do
        if self[i].key == name then list[#list + 1] = self[i].value end
    end
    return list
end

function fields.field(self, i)
    local field = rawget(self, i)
    if field then return field.name, field.value end
end

function fields.count(self) return #self end

local fields_meta = {}

-- As in fields.lua.
function fields_meta.__index(self, name)
    return fields[name] or type(name) == 'string' and fields.get(self, name) or nil
end

-- A quoted string whose quote is at `at`, and what is behind it. Browsers do not escape backslashes, so one
-- stays unless a quote or another one follows.
local function quoted(text, at)
    local to = at + 1
    while byte(text, to) and byte(text, to) ~= 34 do
        to = to + (find(text, '^\\["\\]', to) and 2 or 1)
    end
    if byte(text, to) == 34 then return (gsub(sub(text, at + 1, to - 1), '\\(["\\])', '%1')), to + 1 end
end

-- A value with parameters (RFC 9110, 5.6.6): what is in front, in lower case, and a table; nil: it is none. A
-- name that comes twice is refused: which one would be meant?
function c.parameters(text)
    local first, at = match(text, '^%s*([^;%s]+)%s*()')
    if not first then return nil end
    local values = {}
    while at <= #text do
        local name, from = match(text, '^;%s*([^%s;="]+)=()', at)
        if name then
            local value
            if byte(text, from) == 34 then
                value, from = quoted(text, from)
            else
                value, from = match(text, '^([^%s;"]*)()', from)
            end
            name = lower(name)
            if not value or values[name] then return nil end
            values[name], at = value, match(text, '^%s*()', from)
        else
            at = match(text, '^;%s*()', at) -- an empty one
            if not at then return nil end
        end
    end
    return lower(first), values
end

-- The body ---------------------------------------------------------------------------------------

local REFUSED = { EPROTO = 400, EMSGSIZE = 413, ENOTSUP = 415 }

-- What the server answers if the handler does not: see request.lua.
function c.refuse_form(req, message, code)
    if REFUSED[code] and not req.refused then
        req.refused, req.refusal, req.refusal_code = REFUSED[code], message, code
    end
    return nil, message, code
end

local parts, part = {}, {}
parts.__index, part.__index = parts, part

local function fail(self, message, code)
    self.message, self.code, self.part = message, code or 'EPROTO', nil
    c.refuse_form(self.req, message, self.code)
    return nil, self.message, self.code
end

-- One more piece of the body. nil, message, code: also at the end of the body, which has to end with a
-- delimiter.
local function more(self)
    local piece, message, code = self.req:read()
    if not piece then
        return fail(self, message or 'multipart: the body ends before its last delimiter', message and code)
    end
    self.buffer = sub(self.buffer, self.at) .. piece
    self.at, self.cut = 1, nil
    return true
end

local function find_cut(self)
    if self.cut == nil then self.cut = find(self.buffer, self.delimiter, self.at, true) or false end
    return self.cut
end

-- The next bytes in front of the delimiter, at most n; '': it is there.
local function next_bytes(self, n)
    while true do
        local cut = find_cut(self)
        local last = cut and cut - 1 or #self.buffer - #self.delimiter + 1
        if last >= self.at or cut then
            local from = self.at
            self.at = min(last, from + n - 1) + 1
            return sub(self.buffer, from, self.at - 1)
        end
        local ok, message, code = more(self)
        if not ok then return nil, message, code end
    end
end

local function skip(self, limit)
    local skipped = 0
    while true do
        local data, message, code = next_bytes(self, huge)
        if not data then return nil, message, code end
        if data == '' then return true end
        skipped = skipped + #data
        if skipped > limit then return fail(self, 'multipart: too much in front of the first part') end
    end
end

-- Takes the delimiter and what ends its line: true, there is a part; false, that was the last one.
local function take_delimiter(self)
    self.at, self.cut = self.at + #self.delimiter, nil
    while true do
        local buffer, at = self.buffer, self.at
        if find(buffer, '^%-%-', at) then
            self.at = at + 2
            return false
        end
        local from, to = find(buffer, '^[ \t]*\r\n', at)
        if from and to - at - 1 <= MAX_BLANKS then
            self.at = to - 1 -- the line break may be that of the next delimiter, or end the part's head
            return true
        end
        if from or #buffer - at > MAX_BLANKS or
            not find(buffer, '^%-?$', at) and not find(buffer, '^[ \t]*\r?$', at) then
            return fail(self, 'multipart: a delimiter goes on where its line should end')
        end
        local ok, message, code = more(self)
        if not ok then return nil, message, code end
    end
end

-- The head of a part, without the empty line; the buffer is at the line break in front of it.
local function take_head(self)
    while true do
        local from, to = find(self.buffer, '\r\n\r\n', self.at, true)
        if from then
            if from - self.at > MAX_HEAD then break end
            local text = sub(self.buffer, self.at + 2, from + 1)
            self.at = to - 1 -- an empty part's delimiter begins with this line break
            self.cut = nil
            return text
        end
        if #self.buffer - self.at > MAX_HEAD + 2 then break end -- its end can have come in part
        local ok, message, code = more(self)
        if not ok then return nil, message, code end
    end
    return fail(self, 'multipart: the head of a part is too long', 'EMSGSIZE')
end

local function parse_head(self, text)
    local list = setmetatable({}, fields_meta)
    local at = 1
    while at <= #text do
        local name, value, behind = match(text, "^([%w!#$%%&'*+.^_`|~-]+):[ \t]*([^\r\n%z]*)\r\n()", at)
        if not name then return fail(self, 'multipart: a line in the head of a part is no field') end
        if #list == MAX_FIELDS then
            return fail(self, 'multipart: too many fields in the head of a part', 'EMSGSIZE')
        end
        list[#list + 1] = { name = name, key = lower(name), value = match(value, '^(.-)[ \t]*$') }
        at = behind
    end
    return list
end

-- RFC 7578, 4.2: each part has the disposition form-data, and a name.
local function new_part(self, list)
    local kind, values = c.parameters(list:get 'content-disposition' or '')
    if kind ~= 'form-data' or not values.name then
        return fail(self, 'multipart: a part without a name')
    end
    local new = { headers = list, name = values.name, filename = values.filename, parts = self }
    self.part = setmetatable(new, part)
    return new
end

-- Goes behind the line break that ends the head, unless that is the one of a delimiter: the part is empty
-- then.
local function enter(self)
    local delimiter = self.delimiter
    while #self.buffer - self.at + 1 < #delimiter do
        local ok, message, code = more(self)
        if not ok then return nil, message, code end
    end
    if sub(self.buffer, self.at, self.at + #delimiter - 1) ~= delimiter then self.at = self.at + 2 end
    return true
end

-- What is behind the last part says nothing.
local function finish(self)
    self.over, self.buffer = true, ''
    while true do
        local piece, message, code = self.req:read()
        if message then return fail(self, message, code) end
        if not piece then return nil end
    end
end

local function next_part(self)
    local text, list, ok, message, code
    text, message, code = take_head(self)
    if text then list, message, code = parse_head(self, text) end
    if list then ok, message, code = enter(self) end
    if not ok then return nil, message, code end
    return new_part(self, list)
end

--- The next part; nil: there are no more; nil, message, code: `EPROTO` (damaged), `EMSGSIZE`, or as for
--- req:read. What is left of the part before it is skipped.
function parts.next(self)
    if self.code then return nil, self.message, self.code end
    if self.over then return nil end
    local ok, message, code = skip(self, self.started and huge or MAX_PREAMBLE)
    self.started, self.part = true, nil
    if ok then ok, message, code = take_delimiter(self) end
    if ok then return next_part(self) end
    if ok == false then return finish(self) end
    return nil, message, code
end

--- For loops: `for part in req:parts() do`. A failure raises there: the loop would look as if all parts had
--- come.
function parts.__call(self)
    local new, message, code = parts.next(self)
    if code then error(('%s (%s)'):format(message, code), 2) end
    return new
end

--- The next bytes of the part, at most n; nil: it is over; nil, message, code.
function part.read(self, n)
    if n ~= nil and not (type(n) == 'number' and n >= 1) then
        c.bad(1, 'read', 'a number of bytes, at least 1, expected')
    end
    local all = self.parts
    if all.code then return nil, all.message, all.code end
    if all.part ~= self or self.over then return nil end
    local data, message, code = next_bytes(all, n or huge)
    if data ~= '' then return data, message, code end
    self.over = true
    return nil
end

--- For loops: `for data in part:chunks() do`. A failure raises.
function part.chunks(self)
    return function()
        local data, message, code = part.read(self)
        if code then error(('%s (%s)'):format(message, code), 2) end
        return data
    end
end

--- The rest of the part; nil, message, `EMSGSIZE`: it is longer than max (1 MiB).
function part.read_all(self, max)
    max = max or 1048576
    local list, size = {}, 0
    while true do
        local data, message, code = self:read()
        if not data then
            if code then return nil, message, code end
            return concat(list)
        end
        size = size + #data
        if size > max then return nil, 'the part is too long', 'EMSGSIZE' end
        list[#list + 1] = data
    end
end

-- RFC 2046, 5.1.1: at most 70 characters, of these, the last one no space.
local function boundary_of(req)
    local kind, values = c.parameters(req:header 'content-type' or '')
    if kind ~= 'multipart/form-data' then
        return c.refuse_form(req, 'this is no multipart/form-data', 'ENOTSUP')
    end
    local boundary = values.boundary
    if not boundary or #boundary > 70 or not find(boundary, "^[%w'()+_,./:=? -]*[%w'()+_,./:=?-]$") then
        return c.refuse_form(req, 'multipart: no boundary, or one that cannot be', 'EPROTO')
    end
    return boundary
end

--- The parts of a form, one after the other; nil, message, code: `ENOTSUP`: it is not multipart/form-data.
function c.request.parts(self)
    local boundary, message, code = boundary_of(self)
    if not boundary then return nil, message, code end
    -- The first delimiter needs no line break in front of it.
    local new = { req = self, delimiter = '\r\n--' .. boundary, buffer = '\r\n', at = 1 }
    return setmetatable(new, parts)
end
