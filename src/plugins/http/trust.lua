-- SPDX-License-Identifier: MIT
--
-- Proxies whose headers are believed: the option `trust` of servers, networks as text, and what `Forwarded`
-- (RFC 7239) or `X-Forwarded-For` then say of the client. The lists are read from their end: what an address
-- that is trusted has added is believed, and the first one that is not trusted is the client.

local _, c, _http = ... -- luacheck: ignore _http
local byte, find, gmatch, gsub, lower = string.byte, string.find, string.gmatch, string.gsub, string.lower
local match, sub, concat, floor = string.match, string.sub, table.concat, math.floor
local ipairs, tonumber, type = ipairs, tonumber, type

-- Addresses --------------------------------------------------------------------------------------

local function v4_bytes(text, bytes)
    local a, b, d, e = match(text, '^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$')
    if not a then return nil end
    for _, part in ipairs { a, b, d, e } do
        local n = tonumber(part)
        if n > 255 then return nil end
        bytes[#bytes + 1] = n
    end
    return bytes
end

-- Groups of one side of `::`, behind those in `bytes`.
local function v6_groups(text, bytes)
    if text == '' then return bytes end
    local rest = text .. ':'
    for group in gmatch(rest, '([^:]*):') do
        if find(group, '.', 1, true) then
            if not v4_bytes(group, bytes) then return nil end
        else
            if not match(group, '^%x%x?%x?%x?$') then return nil end
            local n = tonumber(group, 16)
            bytes[#bytes + 1], bytes[#bytes + 2] = floor(n / 256), n % 256
        end
    end
    return bytes
end

local function v6_bytes(text)
    text = gsub(text, '%%.*$', '')
    local front, back = match(text, '^(.-)::(.*)$')
    if not front then
        local bytes = v6_groups(text, {})
        return bytes and #bytes == 16 and bytes or nil
    end
    local head, tail = v6_groups(front, {}), v6_groups(back, {})
    if not head or not tail or #head + #tail > 14 then return nil end
    for _ = 1, 16 - #head - #tail do head[#head + 1] = 0 end
    for _, b in ipairs(tail) do head[#head + 1] = b end
    return head
end

-- 16 bytes: IPv4 is mapped into IPv6. nil: it is no address.
local function bytes_of(text)
    if find(text, ':', 1, true) then return v6_bytes(text) end
    return v4_bytes(text, { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255 })
end

-- Networks ---------------------------------------------------------------------------------------

local function network_of(text)
    if text == 'unix' then return { unix = true } end
    local address, prefix = match(text, '^([^/]+)/(%d%d?%d?)$')
    local bytes = bytes_of(address or text)
    if not bytes then return nil end
    local is_v4 = not find(text, ':', 1, true)
    prefix = tonumber(prefix) or (is_v4 and 32 or 128)
    if prefix > (is_v4 and 32 or 128) then return nil end
    return { bytes = bytes, prefix = is_v4 and prefix + 96 or prefix }
end

-- What the option says, as networks; raises for what is none.
function c.trust_of(value, arg)
    local list = {}
    if type(value) == 'table' then value = concat(value, ',') end
    if type(value) ~= 'string' then c.bad(arg, 'server', "option 'trust': networks as text expected") end
    for text in gmatch(value, '[^%s,]+') do
        local network = network_of(text)
        if not network then c.bad(arg, 'server', ("option 'trust': '%s' is no network"):format(text)) end
        list[#list + 1] = network
    end
    return list
end

local function inside(bytes, network)
    local prefix = network.prefix
    for i, b in ipairs(network.bytes) do
        if prefix <= 0 then return true end
        local unit = prefix >= 8 and 1 or 2 ^ (8 - prefix)
        if floor(bytes[i] / unit) ~= floor(b / unit) then return false end
        prefix = prefix - 8
    end
    return true
end

local function trusts(list, address)
    local bytes = sub(address, 1, 5) ~= 'unix:' and bytes_of(address) or nil
    for _, network in ipairs(list) do
        if network.unix then
            if sub(address, 1, 5) == 'unix:' then return true end
        elseif bytes and inside(bytes, network) then
            return true
        end
    end
    return false
end

-- Headers ----------------------------------------------------------------------------------------

-- '192.0.2.1', '192.0.2.1:80', '[2001:db8::1]:80', '2001:db8::1' -> address, port; nil: something else.
local function node_of(text)
    local address, port = match(text, '^%[([%x:.]+)%]:?(%d*)$')
    if not address then address, port = match(text, '^([%d.]+):?(%d*)$') end
    if not address then address, port = text, '' end
    if not bytes_of(address) then return nil end
    return address, tonumber(port)
end

local function split_quoted(text, separator)
    local list, from, quoted = {}, 1, false
    for i = 1, #text do
        local b = byte(text, i)
        if b == 34 then
            quoted = not quoted
        elseif b == separator and not quoted then
            list[#list + 1] = sub(text, from, i - 1)
            from = i + 1
        end
    end
    list[#list + 1] = sub(text, from)
    return list
end

-- The `for` of each element.
local function of_forwarded(values)
    local nodes = {}
    for _, element in ipairs(split_quoted(concat(values, ','), 44)) do
        local node
        for _, pair in ipairs(split_quoted(element, 59)) do
            local name, value = match(pair, '^%s*([^=%s]+)=(.-)%s*$')
            if name and lower(name) == 'for' then node = gsub(value, '^"(.*)"$', '%1') end
        end
        nodes[#nodes + 1] = node or 'unknown'
    end
    return nodes
end

local function of_list(values)
    local nodes = {}
    for node in gmatch(concat(values, ','), '[^,%s]+') do nodes[#nodes + 1] = node end
    return nodes
end

-- The client as the trusted proxies have it; the connection's own peer if that is none of them.
function c.forwarded_peer(list, headers, address, port)
    local values = headers:all 'forwarded'
    local nodes
    if #values > 0 then
        nodes = of_forwarded(values)
    else
        nodes = of_list(headers:all 'x-forwarded-for')
    end
    for i = #nodes, 1, -1 do
        if not trusts(list, address) then break end
        local next_address, next_port = node_of(nodes[i])
        if not next_address then break end
        address, port = next_address, next_port
    end
    return address, port
end
