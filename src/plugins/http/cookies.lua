-- SPDX-License-Identifier: MIT
--
-- Cookies of a server (RFC 6265, and the draft that follows it: SameSite, prefixes of names, Partitioned).
-- What a request brings is read leniently, what a response sets is checked: a browser would drop it without a
-- word.

local _, c = ...
local concat, floor, ipairs, pairs, tostring, type = table.concat, math.floor, ipairs, pairs, tostring, type
local find, format, gmatch, lower, match, sub =
    string.find, string.format, string.gmatch, string.lower, string.match, string.sub

c.request = c.request or {}
c.response = c.response or {}

local NAME = "^[%w!#$%%&'*+.^_`|~-]+$"            -- a token
local VALUE = '^[!#-+%-./0-9:<-Z%[%]^_`a-z{|}~]*$' -- no spaces, quotes, commas, semicolons, backslashes
local ATTRIBUTE = '^[ -:<-~]*$'                   -- no control characters, no semicolons

--- The cookies of the request: names and values. Of a name that comes twice the first one counts, which is
--- the one of the longer path.
function c.request.cookies(self)
    local cookies = {}
    for _, header in ipairs(self.headers:all 'cookie') do
        for pair in gmatch(header, '[^;]+') do
            local name, value = match(pair, '^%s*([^=]-)%s*=%s*(.-)%s*$')
            if name and find(name, NAME) and cookies[name] == nil then
                cookies[name] = match(value, '^"(.*)"$') or value
            end
        end
    end
    return cookies
end

-- Setting ----------------------------------------------------------------------------------------

local KINDS = {
    domain = 'string', path = 'string', max_age = 'number', expires = 'number', secure = 'boolean',
    http_only = 'boolean', same_site = 'string', partitioned = 'boolean',
}
local SAME_SITE = { strict = 'Strict', lax = 'Lax', none = 'None' }

local function bad(text) c.bad(3, 'set_cookie', text) end

local function check_options(opts)
    for name, value in pairs(opts) do
        local kind = KINDS[name]
        if not kind then c.unknown_option(3, 'set_cookie', name, KINDS) end
        if type(value) ~= kind and value ~= false then
            bad(("option '%s': %s expected, got %s"):format(name, kind, type(value)))
        end
        if type(value) == 'string' and (#value > 1024 or not find(value, ATTRIBUTE)) then
            bad(("option '%s': a character that is not allowed, or too long"):format(name))
        end
    end
end

local function check_rules(name, opts, path, same_site)
    local prefix = match(lower(name), '^__host%-') or match(lower(name), '^__secure%-')
    if prefix and not opts.secure then bad(("'%s': a cookie with this prefix is secure"):format(name)) end
    if prefix == '__host-' and (path ~= '/' or opts.domain) then
        bad(("'%s': a cookie with this prefix has the path '/' and no domain"):format(name))
    end
    if same_site == 'None' and not opts.secure then bad "same_site = 'none' goes with secure = true only" end
    if opts.partitioned and not opts.secure then bad 'partitioned goes with secure = true only' end
    if path and sub(path, 1, 1) ~= '/' then bad "option 'path': a path begins with '/'" end
    local age = opts.max_age
    if age and age ~= floor(age) then bad "option 'max_age': a whole number of seconds expected" end
end

local function cookie_text(name, value, opts)
    local path = opts.path
    if path == nil then path = '/' end
    local same_site = opts.same_site
    if same_site == nil then same_site = 'lax' end
    if same_site and not SAME_SITE[lower(same_site)] then
        bad "option 'same_site': 'strict', 'lax' or 'none' expected"
    end
    same_site = same_site and SAME_SITE[lower(same_site)]
    check_rules(name, opts, path, same_site)
    local list = { name .. '=' .. value }
    local function add(text) list[#list + 1] = text end
    if opts.domain then add('Domain=' .. opts.domain) end
    if path then add('Path=' .. path) end
    if opts.max_age then add(format('Max-Age=%.0f', opts.max_age)) end
    if opts.expires then add('Expires=' .. c.http_date(opts.expires)) end
    if opts.secure then add 'Secure' end
    if opts.http_only ~= false then add 'HttpOnly' end
    if same_site then add('SameSite=' .. same_site) end
    if opts.partitioned then add 'Partitioned' end
    return concat(list, '; ')
end

local function append_header(headers, text)
    for key, value in pairs(headers) do
        if type(key) == 'string' and lower(key) == 'set-cookie' then
            if type(value) ~= 'table' then value = { value } end
            value[#value + 1] = text
            headers[key] = value
            return
        end
    end
    headers['Set-Cookie'] = { text }
end

--- Sets a cookie with the head, which must not have been sent. A value has no spaces, quotes, commas,
--- semicolons and backslashes: encode others. opts: domain; path ('/'); max_age, seconds; expires, seconds
--- since 1970; secure; http_only (true); same_site ('lax'; 'strict', 'none'); partitioned. `false` leaves one
--- out.
function c.response.set_cookie(self, name, value, opts)
    if type(name) ~= 'string' or not find(name, NAME) then c.bad(1, 'set_cookie', 'no name of a cookie') end
    if type(value) == 'number' then value = tostring(value) end
    if type(value) ~= 'string' then c.bad(2, 'set_cookie', 'string expected, got ' .. type(value)) end
    if not find(value, VALUE) then c.bad(2, 'set_cookie', 'a character that a cookie cannot have') end
    if #name + #value > 4096 then c.bad(2, 'set_cookie', 'a cookie has at most 4096 bytes') end
    if opts ~= nil and type(opts) ~= 'table' then bad('table expected, got ' .. type(opts)) end
    opts = opts or {}
    check_options(opts)
    if self.sent then c.misuse 'set_cookie: the head of this response has been sent' end
    append_header(self.headers, cookie_text(name, value, opts))
    return self
end

--- Has the browser forget a cookie. opts: domain and path as it was set with, and what its prefix asks for.
function c.response.clear_cookie(self, name, opts)
    local own = { max_age = 0, expires = 0 }
    for key, value in pairs(opts or {}) do own[key] = value end
    own.max_age, own.expires = 0, 0
    return self:set_cookie(name, '', own)
end
