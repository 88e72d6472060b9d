-- SPDX-License-Identifier: MIT
-- asio.resolve, and the choice of the resolver at the first look-up: c-ares if asio/ares.so is there (beside
-- asio.so, or anywhere on package.cpath), else the system's getaddrinfo.

local core = ...
local asio, FAIL = core.asio, core.FAIL
local c_resolve, c_use, finish = core.resolve, core.names_use, core.finish
local getenv = os and os.getenv

local chosen -- 'ares', 'getaddrinfo', or false: the one that ASIO_RESOLVER names is not there
local missing = 'asio/ares.so (c-ares) is not there'

-- The name of the resolver; nil: ASIO_RESOLVER asks for one that is not there; nil, message, code: one that
-- may be there could not be loaded for want of descriptors or memory.
local function choose()
    local wanted = getenv and getenv 'ASIO_RESOLVER'
    if wanted ~= 'getaddrinfo' then
        local name, message, code = core.find_plugin 'ares'
        if name then name, message, code = c_use(name) end
        if name or code or wanted == 'ares' then return name, message, code end
    end
    return c_use()
end

-- The name of the resolver, or nil, message, code. Only what will not change is remembered.
function core.resolver()
    if chosen == nil then
        local name, message, code = choose()
        if code then return nil, message, code end
        chosen = name or false
    end
    if not chosen then return nil, missing, 'ENOTSUP' end
    return chosen
end

local function explained(list, message, code)
    if code == 'ENOTSUP' then message = missing end
    return list, message, code
end

--- Looks a name up. Waits.
---@param host string a name; an address stands for itself; for PTR an address, or a name as it is
---@param opts? {type?: string, servers?: string[], timeout?: number, cache?: boolean} type: `A`, `AAAA`,
--- `SRV`, `MX`, `TXT`, `PTR` (default: the addresses of both families); servers: name servers to ask instead
--- of the system's, `ip`, `ip:port` or `[ip]:port`; timeout: seconds; cache: false asks anew
---@return table[]? records {address, family = `inet`|`inet6`}, {target, port, priority, weight}, {exchange,
--- priority}, {text} or {name}; with ttl in seconds where it is known
---@return string? message
---@return string? code `EAI_NONAME` (no such name), `EAI_NODATA` (it has no such record), `EAI_AGAIN` (no
--- name server has answered), `EAI_FAIL` (the answer is not well formed), `ETIMEDOUT`, `ENODEV` (the address
--- has an interface that is not there), `EMFILE` (out of descriptors), `ENOTSUP` (needs c-ares)
function asio.resolve(host, opts)
    local token, list, message, code = c_resolve(host, opts)
    if token == FAIL and list == false then
        list, message, code = core.resolver()
        if not list then return nil, message, code end
        token, list, message, code = c_resolve(host, opts)
    end
    return explained(finish(nil, token, list, message, code))
end
