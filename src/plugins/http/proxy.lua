-- SPDX-License-Identifier: MIT
-- Which proxy a request goes through: the option, else the environment.
-- HTTP_PROXY in capitals is not looked at: in a CGI program it is a header of the request.

local _, c = ...
local getenv = os.getenv
local find, format, gmatch, lower, match, sub =
    string.find, string.format, string.gmatch, string.lower, string.match, string.sub

local function environment(name, capitals)
    local value = getenv(name)
    if not value and capitals then value = getenv(capitals) end
    return value ~= '' and value or nil
end

-- Read once: a process does not change its own.
local known
local function settings()
    if known then return known end
    local all = environment('all_proxy', 'ALL_PROXY')
    known = {
        http = environment 'http_proxy' or all,
        https = environment('https_proxy', 'HTTPS_PROXY') or all,
        no = environment('no_proxy', 'NO_PROXY'),
    }
    return known
end

-- no_proxy: a list of names, each with all below it, with a port or without; "*" is every host.
function c.without_proxy(list, host, port)
    for entry in gmatch(lower(list), '[^%s,]+') do
        if entry == '*' then return true end
        local name, its_port = match(entry, '^%[(.-)%]:?(%d*)$')
        if not name then name, its_port = match(entry, '^([^:]*):?(%d*)$') end
        name, its_port = name or entry, its_port or ''
        name = find(name, '^%*?%.') and match(name, '^%*?%.(.*)$') or name
        local same = host == name or sub(host, -#name - 1) == '.' .. name
        if name ~= '' and same and (its_port == '' or its_port == tostring(port)) then return true end
    end
    return false
end

-- The credentials of a URL or a pair as the value of a header (RFC 7617); nil: there are none.
function c.basic(user, password)
    if not user then return nil end
    return 'Basic ' .. c.base64(format('%s:%s', user, password or ''))
end

local function from_environment(url)
    local all = settings()
    local text = all[url.scheme]
    if not text or (all.no and c.without_proxy(all.no, url.host, url.port)) then return nil end
    return find(text, '://', 1, true) and text or 'http://' .. text
end

-- The URL of the proxy, parsed; nil: none; nil, message, code.
function c.proxy_of(url, option)
    if option == false or url.unix then return nil end
    local text = option or from_environment(url)
    if not text then return nil end
    local proxy, message, code = c.parse_url(text)
    if not proxy then return nil, 'proxy: ' .. message, code end
    return proxy
end
