-- SPDX-License-Identifier: MIT
--
-- Which part of something a request asks for, if any of it: conditional requests (RFC 9110, 13) and ranges
-- (14).

local _, c = ...
local find, gmatch, lower, match, sub = string.find, string.gmatch, string.lower, string.match, string.sub
local concat, min, tonumber = table.concat, math.min, tonumber

local MAX_RANGES = 16 -- more than that ask for nothing that a reader needs

-- Whether a list of entity-tags names this one. Strong: neither may be weak (RFC 9110, 8.8.3.2).
local function names_tag(text, tag, strong)
    if match(text, '^%s*%*%s*$') then return true end
    local opaque = match(tag, '"[^"]*"')
    if strong and sub(tag, 1, 2) == 'W/' then return false end
    for weak, other in gmatch(text, '(W?/?)("[^"]*")') do
        if other == opaque and not (strong and weak == 'W/') then return true end
    end
    return false
end

local function header(req, name)
    local list = req.headers:all(name)
    if list[1] then return concat(list, ', ') end
end

local function date_of(req, name)
    local list = req.headers:all(name)
    if list[1] and not list[2] then return c.parse_date(list[1]) end
end

-- RFC 9110, 13.2.2: in this order. nil: the request is to be answered; else the status that answers it.
function c.precondition(req, tag, modified)
    local text = header(req, 'if-match')
    local since = not text and date_of(req, 'if-unmodified-since')
    if text and not names_tag(text, tag, true) or since and modified > since then return 412 end
    local reads = req.method == 'GET' or req.method == 'HEAD'
    text = header(req, 'if-none-match')
    if text then
        if names_tag(text, tag, false) then return reads and 304 or 412 end
        return nil
    end
    since = reads and date_of(req, 'if-modified-since')
    if since and modified <= since then return 304 end
end

-- RFC 9110, 13.1.5: a part is of use only to a client that has the rest of the same thing.
local function is_same(req, tag, modified)
    local text = header(req, 'if-range')
    if not text then return true end
    if find(text, '"', 1, true) then return sub(tag, 1, 2) ~= 'W/' and text == tag end
    return sub(tag, 1, 2) ~= 'W/' and c.parse_date(text) == modified
end

-- One range: first and last byte; false: nothing of it is there; nil: it is none.
local function parse_range(text, size)
    local first, last = match(text, '^%s*(%d*)%-(%d*)%s*$')
    if not first or first == '' and last == '' then return nil end
    first, last = tonumber(first), tonumber(last)
    if first and last and last < first then return nil end
    if not first then -- the last so many bytes
        if last == 0 or size == 0 then return false end
        return size - min(last, size), size - 1
    end
    if first >= size then return false end
    return first, min(last or size - 1, size - 1)
end

-- The ranges of `text`, in the order in which they came; nil: they are none, or not to be followed.
local function parse_ranges(text, size)
    local unit, set = match(text, '^%s*(%a+)=(.*)$')
    if not unit or lower(unit) ~= 'bytes' then return nil end
    local ranges, count, bytes = {}, 0, 0
    for part in gmatch(set .. ',', '([^,]*),') do
        if find(part, '%S') then
            local first, last = parse_range(part, size)
            count = count + 1
            if first == nil or count > MAX_RANGES then return nil end
            if first then
                ranges[#ranges + 1] = { first = first, last = last }
                bytes = bytes + last - first + 1
            end
        end
    end
    if count == 0 or bytes > size then return nil end -- they overlap: the whole is less
    return ranges
end

-- The ranges with which a GET is to be answered; an empty list: none of them is there; nil: with the whole.
function c.ranges_of(req, size, tag, modified)
    if req.method ~= 'GET' then return nil end
    local list = req.headers:all 'range'
    if not list[1] or list[2] or not is_same(req, tag, modified) then return nil end
    return parse_ranges(list[1], size)
end
