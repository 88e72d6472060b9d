-- SPDX-License-Identifier: MIT
-- What a request of the client carries: a string, or a source: a function that
-- returns the next piece, nil at the end, or nil, message, code. Multipart forms (RFC 7578) are one or the
-- other.

local core, c = ...
local asio = core.asio
local byte, concat, find, format, gsub = string.byte, table.concat, string.find, string.format, string.gsub
local io_type, ipairs, pairs, tostring, type = io.type, ipairs, pairs, tostring, type

local PIECE = 65536

local ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

local function digit(n, shift)
    local i = math.floor(n / 2 ^ shift) % 64 + 1
    return ALPHABET:sub(i, i)
end

function c.base64(text)
    local out = {}
    for i = 1, #text, 3 do
        local a, b, d = byte(text, i, i + 2)
        local n = a * 65536 + (b or 0) * 256 + (d or 0)
        out[#out + 1] = digit(n, 18) .. digit(n, 12) ..
            (b and digit(n, 6) or '=') .. (d and digit(n, 0) or '=')
    end
    return concat(out)
end

-- Sources ----------------------------------------------------------------------------------------

-- What is left of a file, which then need not be sent in chunks; nil: it cannot be told.
local function rest_of(file)
    local at = file:seek()
    local last = at and file:seek 'end'
    if not last then return nil end
    file:seek('set', at)
    return last - at
end

local function source_of_object(object)
    if io_type(object) then
        return function() return object:read(PIECE) end, rest_of(object)
    elseif object.read_some then -- a connection: its end is no failure
        return function()
            local piece, message, code = object:read_some(PIECE)
            if piece or code == 'EOF' then return piece end
            return nil, message, code
        end
    elseif object.chunks then -- of a request or a response: the next piece
        return function() return object:read() end
    end
    return function() return object:read(PIECE) end
end

local function can_read(value)
    local kind = type(value)
    return io_type(value) == 'file' or
        ((kind == 'table' or kind == 'userdata') and type(value.read) == 'function')
end

-- A string, or nil, a source, and its length if that is known; or nil: it is none of these.
local function content_of(value, length)
    if type(value) == 'string' then return value end
    if type(value) == 'number' then return tostring(value) end
    if type(value) == 'function' then return nil, value, length end
    if not can_read(value) then return nil end
    local source, its_length = source_of_object(value)
    return nil, source, length or its_length
end

-- Multipart --------------------------------------------------------------------------------------

-- Random, so that no content can hold it on purpose.
local function boundary_of()
    local seed = c.random(24) or
        tostring({}):match '%S+$' .. format('%.17g', asio.now()) .. math.random(2 ^ 31 - 1)
    return 'asio-' .. gsub(seed, '.', function(b) return format('%02x', byte(b)) end)
end
c.boundary_of = boundary_of

-- RFC 7578, 4.2, as browsers write it: these three are escaped in names.
local function quoted(text)
    return '"' .. gsub(tostring(text), '["\r\n]', { ['"'] = '%22', ['\r'] = '%0D', ['\n'] = '%0A' }) .. '"'
end

local function part_head(part, boundary)
    local head = { '--', boundary, '\r\nContent-Disposition: form-data; name=', quoted(part.name) }
    if part.filename then head[#head + 1] = '; filename=' .. quoted(part.filename) end
    local kind = part.type or (part.filename and 'application/octet-stream')
    if kind then
        if find(kind, '[%c]') then c.misuse 'multipart: a character in a type that is not allowed' end
        head[#head + 1] = '\r\nContent-Type: ' .. kind
    end
    head[#head + 1] = '\r\n\r\n'
    return concat(head)
end

-- A list of parts, or { name = value }.
local function parts_of(given)
    if given[1] then return given end
    local parts = {}
    for name, value in pairs(given) do
        parts[#parts + 1] = type(value) == 'table' and value.body ~= nil and
            { name = name, body = value.body, filename = value.filename, type = value.type,
                length = value.length } or { name = name, body = value }
    end
    return parts
end

-- The pieces of strings and sources in turn.
local function chain(items)
    local i = 1
    return function()
        while items[i] do
            local item = items[i]
            if type(item) == 'string' then
                i = i + 1
                return item
            end
            local piece, message, code = item()
            if piece or code or message then return piece, message, code end
            i = i + 1
        end
        return nil
    end
end

-- content, source, length, type
local function multipart(given)
    local boundary = boundary_of()
    local items, total, streamed = {}, 0, false
    for _, part in ipairs(parts_of(given)) do
        local content, source, length = content_of(part.body, part.length)
        if part.name == nil or not (content or source) then
            c.misuse 'multipart: each part has a name, and a body that is a string, a function or has `read`'
        end
        local head = part_head(part, boundary)
        items[#items + 1] = head
        items[#items + 1] = content or source
        items[#items + 1] = '\r\n'
        length = content and #content or length
        total = total and length and total + #head + length + 2
        streamed = streamed or source ~= nil
    end
    items[#items + 1] = '--' .. boundary .. '--\r\n'
    local kind = 'multipart/form-data; boundary=' .. boundary
    if not streamed then return concat(items), nil, nil, kind end
    return nil, chain(items), total and total + #items[#items], kind
end

local function json_of(value)
    local ok, cjson = pcall(require, 'cjson')
    if not ok then c.misuse "option 'json': lua-cjson is not installed" end
    return cjson.encode(value), nil, nil, 'application/json'
end

local BODIES = { 'body', 'form', 'json', 'multipart' }

-- The body that the options name: content, source, length, type. The caller's line in an error: that of
-- request.
function c.request_body(opts)
    local first
    for i = 1, 4 do
        local name = BODIES[i]
        if opts[name] ~= nil and first then
            c.misuse(("options '%s' and '%s': one body expected"):format(first, name))
        end
        if opts[name] ~= nil then first = name end
    end
    if not first then return nil end
    if opts.json ~= nil then return json_of(opts.json) end
    if opts.form ~= nil then
        return c.encode_form(opts.form), nil, nil, 'application/x-www-form-urlencoded'
    end
    if opts.multipart ~= nil then return multipart(opts.multipart) end
    local content, source, length = content_of(opts.body, opts.length)
    if not (content or source) then
        c.misuse "option 'body': a string, a function or an object with `read` expected"
    end
    return content, source, length
end

-- To send a file once more it is wound back; other sources cannot be. False: not possible.
function c.rewind(opts, at)
    return at ~= nil and io_type(opts.body) == 'file' and opts.body:seek('set', at) == at
end

function c.position(opts)
    return io_type(opts.body) == 'file' and opts.body:seek() or nil
end
