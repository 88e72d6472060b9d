-- SPDX-License-Identifier: MIT
-- URLs of the schemes http and https (RFC 3986, RFC 9110, 4.2) for the client.
-- A host is an address or a name in ASCII: names of other alphabets are given in their xn-- form.
-- `http://unix:/path/of/socket:/target` is a Unix socket.

local _, c = ...
local find, format, gsub, lower, match, sub =
    string.find, string.format, string.gsub, string.lower, string.match, string.sub
local byte, concat, tonumber = string.byte, table.concat, tonumber

local PORTS = { http = 80, https = 443 }
local KEPT = 256 -- parsed URLs

local function bad(text) return nil, 'URL: ' .. text, 'EINVAL' end

local function to_hex(character) return format('%%%02X', byte(character)) end

-- What comes between authority and fragment; characters that no target may have are escaped.
local function target_of(rest)
    rest = gsub(rest, '#.*', '')
    if find(rest, '[^!#-;=?-Z%[%]_a-z~]') then rest = gsub(rest, '[^!#-;=?-Z%[%]_a-z~]', to_hex) end
    local first = sub(rest, 1, 1)
    return first == '/' and rest or '/' .. rest
end

local function parse_userinfo(url, info)
    local user, password = match(info, '^([^:]*):?(.*)$')
    url.user, url.password = c.unescape(user), c.unescape(password)
    return url.user and url.password
end

-- unix:/path:/target
local function parse_unix(url, rest)
    local path, target = match(rest, '^unix:([^:]+):?(.*)$')
    if not path then return bad 'unix:/path:/target expected' end
    path = c.unescape(path)
    if not path or find(path, '%z') then return bad 'the path of the socket is not one' end
    url.unix, url.target = 'unix:' .. path, target_of(target)
    url.host, url.authority = 'localhost', 'localhost'
    -- A digit in front would be the port of a host named unix.
    url.origin = url.scheme .. '://unix:' .. gsub(c.escape(path, true), '^%d', to_hex)
    url.base = url.origin .. ':'
    return url
end

-- An IPv6 address in brackets, with the zone that RFC 6874 writes as %25zone, or a name or an IPv4 address.
local function parse_host(url, text)
    local literal, port = match(text, '^%[([%x:.]+)%]:?(%d*)$')
    local zone
    if not literal then literal, zone, port = match(text, '^%[([%x:.]+)%%25([%w%-._~]+)%]:?(%d*)$') end
    if literal then
        literal = lower(literal)
        url.host, url.name = literal .. (zone and '%' .. zone or ''), '[' .. literal .. ']'
        url.place = zone and '[' .. literal .. '%25' .. zone .. ']' or url.name
        return find(literal, ':', 1, true) and port
    end
    local host
    host, port = match(text, '^([%w%-._]+):?(%d*)$')
    if host then
        host = lower(host)
        url.host, url.name, url.place = host, host, host
    end
    return port
end

local function parse_authority(url, rest)
    local authority, after = match(rest, '^([^/?#]*)(.*)$')
    if find(authority, '[\\%s"<>^`{|}]') then return bad 'a character that is not allowed' end
    local info, place = match(authority, '^(.*)@([^@]*)$')
    if info and not parse_userinfo(url, info) then return bad 'an escape that is not one' end
    local port = parse_host(url, place or authority)
    if not port then return bad 'a host expected (names of other alphabets in their xn-- form)' end
    url.port = port == '' and PORTS[url.scheme] or tonumber(port)
    if url.port < 1 or url.port > 65535 then return bad 'a port from 1 to 65535 expected' end
    local suffix = url.port == PORTS[url.scheme] and '' or ':' .. url.port
    url.authority, url.base = url.name .. suffix, url.scheme .. '://' .. url.place .. suffix
    url.target = target_of(after)
    url.origin = format('%s://%s:%d', url.scheme, url.host, url.port)
    return url
end

local function parse(text)
    local scheme, rest = match(text, '^(%a[%w+.-]*)://(.*)$')
    scheme = scheme and lower(scheme)
    if not scheme or not PORTS[scheme] then return bad 'http:// or https:// expected' end
    if find(text, '[%z\1-\31\127]') then return bad 'a control character' end
    local url = { scheme = scheme }
    if find(rest, '^unix:%D') or rest == 'unix:' then return parse_unix(url, rest) end
    return parse_authority(url, rest)
end

-- Requests to few places repeat their URLs: those are parsed once. The tables are not changed by any
-- caller.
local parsed, count = {}, 0

-- scheme, user, password, host (to connect to), name (in Host), port, unix, authority (name and port),
-- target, base (what is in front of the target in a text), origin; or nil, message, code.
function c.parse_url(text)
    local known = parsed[text]
    if known then return known end
    local url, message, code = parse(text)
    if not url then return nil, message, code end
    if count == KEPT then parsed, count = {}, 0 end
    parsed[text], count = url, count + 1
    return url
end

-- RFC 3986, 5.2.4
local function without_dots(path)
    local out = {}
    local directory = false
    for segment in path:gmatch '/([^/]*)' do
        directory = segment == '.' or segment == '..'
        if segment == '..' then
            out[#out] = nil
        elseif segment ~= '.' then
            out[#out + 1] = segment
        end
    end
    local text = '/' .. concat(out, '/')
    return directory and #out > 0 and text .. '/' or text
end

-- The URL as text, without userinfo and fragment.
function c.url_text(url) return url.base .. url.target end

-- What a reference means where `url` is the base (RFC 3986, 5.2.2): a text.
function c.resolve_url(url, reference)
    reference = gsub(reference, '#.*', '')
    if find(reference, '^%a[%w+.-]*:') then return reference end
    if sub(reference, 1, 2) == '//' then return url.scheme .. ':' .. reference end
    local path, query = match(url.target, '^([^?]*)(.*)$')
    if reference == '' then return url.base .. path .. query end
    local new_path, new_query = match(reference, '^([^?]*)(.*)$')
    if new_path == '' then return url.base .. path .. new_query end
    if sub(new_path, 1, 1) ~= '/' then new_path = match(path, '^(.*/)') .. new_path end
    return url.base .. without_dots(new_path) .. new_query
end

-- { name = value or list of values } or a text -> the text of a query or of a form
function c.encode_form(fields)
    if type(fields) == 'string' then return fields end
    local names, parts = {}, {}
    for name in pairs(fields) do names[#names + 1] = name end
    table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
    for _, name in ipairs(names) do
        local values = type(fields[name]) == 'table' and fields[name] or { fields[name] }
        for _, value in ipairs(values) do
            parts[#parts + 1] = c.escape(tostring(name)) .. '=' .. c.escape(tostring(value))
        end
    end
    return concat(parts, '&')
end
