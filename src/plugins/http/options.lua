-- SPDX-License-Identifier: MIT
-- Names of options that are none raise, and the error names the nearest one: as src/core/options.c, for the
-- tables that the Lua files of HTTP read.

local _, c = ...
local pairs, tostring, type = pairs, tostring, type
local byte, min = string.byte, math.min

local LONGEST = 24

-- What other libraries call options of a request.
local ELSEWHERE = {
    params = 'query', data = 'body', content = 'body', files = 'multipart', cookies = 'jar',
    proxies = 'proxy', allow_redirects = 'redirects', max_redirects = 'redirects', follow = 'redirects',
    verify = 'tls', ssl_verify = 'tls', ca = 'tls',
}

-- How many letters have to be added, dropped or changed to make b of a.
local function distance(a, b)
    local row = {}
    for i = 0, #b do row[i] = i end
    for line = 1, #a do
        local before = row[0] -- up and left
        row[0] = line
        for i = 1, #b do
            local changed = before + (byte(a, line) == byte(b, i) and 0 or 1)
            before = row[i]
            row[i] = min(changed, row[i] + 1, row[i - 1] + 1)
        end
    end
    return row[#b]
end

local function nearest(name, known)
    if known[ELSEWHERE[name]] ~= nil then return ELSEWHERE[name] end
    local best, found = 4, nil -- with so many the name is another word
    for other in pairs(known) do
        local n = #other <= LONGEST and distance(name, other) or best
        if n < best and n * 2 <= #other then best, found = n, other end
    end
    return found
end

-- Raises: `known` has the options as its keys. `prefix` goes before the name in the error.
function c.unknown_option(arg, fname, name, known, prefix)
    prefix = prefix or ''
    local text = ("unknown option '%s%s'"):format(prefix, tostring(name))
    local other = type(name) == 'string' and #name <= LONGEST and nearest(name, known)
    if other then text = ("%s; did you mean '%s%s'?"):format(text, prefix, other) end
    return c.bad(arg, fname, text)
end
