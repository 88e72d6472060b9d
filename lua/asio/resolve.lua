-- SPDX-License-Identifier: MIT
-- asio.resolve, and the choice of the resolver at the first look-up: c-ares if asio/ares.so is there (beside
-- asio.so, or anywhere on package.cpath), else the system's getaddrinfo.

local core = ...
local asio, FAIL = core.asio, core.FAIL
local c_resolve, c_use, c_obstacle, finish = core.resolve, core.names_use, core.names_obstacle, core.finish
local error, pcall, package, require, tostring = error, pcall, package, require, tostring
local getenv = os and os.getenv

local chosen -- 'ares', 'getaddrinfo', or false: the one that ASIO_RESOLVER names is not there
local missing = 'asio/ares.so (c-ares) is not there'

-- The one beside asio.so belongs to it; one that was linked into the program comes first. Returns the
-- backend, or nil and the reason.
local function load_ares()
    if not package then return nil, '' end
    local dir, extension = (core.names_beside() or ''):match '^(.*[/\\])[^/\\]*(%.[^./\\]+)$'
    local open, said
    if dir then open, said = package.loadlib(dir .. 'asio/ares' .. extension, 'luaopen_asio_ares') end
    if open and not package.preload['asio.ares'] then return open() end
    local ok, backend = pcall(require, 'asio.ares')
    if ok then return backend end
    if backend == 'not enough memory' then error(backend, 0) end
    return nil, tostring(said) .. tostring(backend)
end

-- The name of the resolver; nil: ASIO_RESOLVER asks for one that is not there; nil, message, code: one that
-- may be there could not be loaded for want of descriptors or memory.
local function choose()
    local wanted = getenv and getenv 'ASIO_RESOLVER'
    if wanted ~= 'getaddrinfo' then
        local backend, said = load_ares()
        local name, message, code
        if backend then
            name, message, code = c_use(backend)
        else
            name, message, code = c_obstacle(said)
        end
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
