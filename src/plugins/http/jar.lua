-- SPDX-License-Identifier: MIT
-- Cookies that the client keeps (RFC 6265, 5). A jar belongs to the script,
-- which passes it to the requests that share it.

local _, c, http = ...
local concat, sort = table.concat, table.sort
local find, gmatch, gsub, lower, match, sub =
    string.find, string.gmatch, string.gsub, string.lower, string.match, string.sub
local ipairs, pairs, setmetatable, time, tonumber, type =
    ipairs, pairs, setmetatable, os.time, tonumber, type

local PER_DOMAIN, ALL, SIZE = 180, 3000, 4096

local Jar = {}
Jar.__index = Jar
Jar.__name = 'asio.http.jar'

-- Dates (5.1.1): lenient, unlike those of other headers --------------------------------------------

local MONTHS = { jan = 'Jan', feb = 'Feb', mar = 'Mar', apr = 'Apr', may = 'May', jun = 'Jun', jul = 'Jul',
    aug = 'Aug', sep = 'Sep', oct = 'Oct', nov = 'Nov', dec = 'Dec' }

local function cookie_date(text)
    local clock, day, month, year
    for token in gmatch(text, '[%w:]+') do
        if not clock and find(token, '^%d%d?:%d%d?:%d%d?') then
            clock = token
        elseif not day and find(token, '^%d%d?$') then
            day = tonumber(token)
        elseif not month and MONTHS[lower(sub(token, 1, 3))] then
            month = MONTHS[lower(sub(token, 1, 3))]
        elseif not year and find(token, '^%d%d%d?%d?$') then
            year = tonumber(token)
        end
    end
    if not (clock and day and month and year) then return nil end
    if year < 70 then year = year + 2000 elseif year < 100 then year = year + 1900 end
    local h, m, s = match(clock, '^(%d+):(%d+):(%d+)')
    return c.parse_date(('Thu, %02d %s %04d %02d:%02d:%02d GMT'):format(day, month, year, h, m, s))
end

-- Matching ---------------------------------------------------------------------------------------

local function is_address(host) return find(host, ':', 1, true) or find(host, '^%d+%.%d+%.%d+%.%d+$') end

-- 5.1.3
local function domain_matches(host, domain)
    if host == domain then return true end
    return sub(host, -#domain - 1) == '.' .. domain and not is_address(host)
end

-- 5.1.4
local function path_matches(path, of)
    if path == of then return true end
    return sub(path, 1, #of) == of and (sub(of, -1) == '/' or sub(path, #of + 1, #of + 1) == '/')
end

local function path_of(url) return match(url.target, '^[^?]*') end
local function default_path(url) return match(path_of(url), '^(/.*)/') or '/' end

local function is_over(cookie, at) return cookie.expires ~= nil and cookie.expires <= at end

-- Storing ----------------------------------------------------------------------------------------

-- The attributes of Set-Cookie; of each the last counts.
local function attributes(text)
    local found = {}
    for part in gmatch(text, '[^;]+') do
        local name, value = match(part, '^%s*([^=]-)%s*=%s*(.-)%s*$')
        found[lower(name or match(part, '^%s*(.-)%s*$'))] = value or ''
    end
    return found
end

local function expiry(given, at)
    local seconds = tonumber(match(given['max-age'] or '', '^%-?%d+$'))
    if seconds then return seconds <= 0 and 0 or at + seconds end
    return given.expires and cookie_date(given.expires) or nil
end

-- Whether there may be cookies for all that is below a domain (5.3, 5). Without a list of public suffixes it
-- needs a dot, so that `com` has none.
local function may_be_wide(domain)
    return find(domain, '.', 2, true) and not is_address(domain) and not c.is_public_suffix(domain)
end

local function is_secure(url) return url.scheme == 'https' end

-- The prefixes of names, as browsers hold them.
local function breaks_prefix(cookie)
    local name = lower(cookie.name)
    if find(name, '^__host%-') then return not (cookie.secure and cookie.host_only and cookie.path == '/') end
    return find(name, '^__secure%-') and not cookie.secure
end

-- A cookie as Set-Cookie describes it; nil: it is refused.
local function parse(url, header, at)
    local pair, rest = match(header, '^([^;]*);?(.*)$')
    local name, value = match(pair, '^%s*([^=]-)%s*=%s*(.-)%s*$')
    if not name or name == '' or #name + #value > SIZE or find(pair, '[%c]') then return nil end
    local given = attributes(rest)
    local domain = gsub(lower(given.domain or ''), '^%.', '')
    local wide = domain_matches(url.host, domain) and may_be_wide(domain)
    local host_only = domain == '' or domain == url.host and not wide
    if not host_only and not wide then return nil end
    local cookie = {
        name = name, value = value, domain = host_only and url.host or domain, host_only = host_only,
        path = sub(given.path or '', 1, 1) == '/' and given.path or default_path(url),
        secure = given.secure ~= nil, http_only = given.httponly ~= nil, expires = expiry(given, at),
    }
    if (cookie.secure and not is_secure(url)) or breaks_prefix(cookie) then return nil end
    return cookie
end

local function remove_oldest(jar, domain)
    local oldest, its_key
    for key, cookie in pairs(jar.cookies) do
        if (not domain or cookie.domain == domain) and (not oldest or cookie.order < oldest.order) then
            oldest, its_key = cookie, key
        end
    end
    jar:_remove(its_key)
end

function Jar:_remove(key)
    local domain = self.cookies[key].domain
    self.cookies[key] = nil
    self.count = self.count - 1
    self.domains[domain] = self.domains[domain] > 1 and self.domains[domain] - 1 or nil
end

local function store(jar, url, header, at)
    local cookie = parse(url, header, at)
    if not cookie then return end
    local key = concat({ cookie.domain, cookie.path, cookie.name }, '\n')
    local old = jar.cookies[key]
    if old and old.secure and not is_secure(url) then return end
    if old then jar:_remove(key) end
    if is_over(cookie, at) then return end
    if (jar.domains[cookie.domain] or 0) >= PER_DOMAIN then remove_oldest(jar, cookie.domain) end
    if jar.count >= ALL then remove_oldest(jar) end
    jar.order = jar.order + 1
    cookie.order = old and old.order or jar.order -- its time of creation is kept (5.3, 11)
    jar.cookies[key] = cookie
    jar.count, jar.domains[cookie.domain] = jar.count + 1, (jar.domains[cookie.domain] or 0) + 1
end

-- For the client: the Set-Cookie headers of a response from a parsed URL.
function c.store_cookies(jar, url, headers)
    local at = time()
    for _, header in ipairs(headers) do store(jar, url, header, at) end
end

local function by_path(a, b)
    if #a.path ~= #b.path then return #a.path > #b.path end
    return a.order < b.order
end

-- For the client: what the request to a parsed URL has in Cookie; nil: nothing.
function c.cookies_for(jar, url)
    if jar.count == 0 then return nil end
    local at, path, found = time(), path_of(url), {}
    for key, cookie in pairs(jar.cookies) do
        if is_over(cookie, at) then
            jar:_remove(key)
        elseif (cookie.host_only and url.host == cookie.domain or
            not cookie.host_only and domain_matches(url.host, cookie.domain)) and
            path_matches(path, cookie.path) and (not cookie.secure or is_secure(url)) then
            found[#found + 1] = cookie
        end
    end
    sort(found, by_path)
    for i, cookie in ipairs(found) do found[i] = cookie.name .. '=' .. cookie.value end
    return found[1] and concat(found, '; ') or nil
end

-- For scripts ------------------------------------------------------------------------------------

local function url_of(text, fname)
    if type(text) ~= 'string' then c.bad(1, fname, 'string expected, got ' .. type(text)) end
    local url, message = c.parse_url(text)
    if not url then c.bad(1, fname, message) end
    return url
end

--- Sets a cookie as if a response from the URL had brought this Set-Cookie header.
function Jar:set(url, header)
    c.check_self(self, Jar, 'set', 'jar')
    if type(header) ~= 'string' then c.bad(2, 'set', 'string expected, got ' .. type(header)) end
    c.store_cookies(self, url_of(url, 'set'), { header })
end

--- What a request to the URL has in its Cookie header; nil: none.
function Jar:get(url)
    c.check_self(self, Jar, 'get', 'jar')
    return c.cookies_for(self, url_of(url, 'get'))
end

--- Removes all cookies, or those of a domain.
function Jar:clear(domain)
    c.check_self(self, Jar, 'clear', 'jar')
    for key, cookie in pairs(self.cookies) do
        if not domain or cookie.domain == domain then self:_remove(key) end
    end
end

--- All cookies, copies, in the order of their creation: name, value, domain, path, secure, expires (seconds
--- since 1970, or nil) and so on, to be kept in a file for instance.
function Jar:all()
    c.check_self(self, Jar, 'all', 'jar')
    local list = {}
    for _, cookie in pairs(self.cookies) do
        local copy = {}
        for name, value in pairs(cookie) do copy[name] = value end
        list[#list + 1] = copy
    end
    sort(list, function(a, b) return a.order < b.order end)
    return list
end

--- An empty jar for the option `jar` of requests.
function http.jar()
    return setmetatable({ cookies = {}, domains = {}, count = 0, order = 0 }, Jar)
end

c.Jar = Jar
