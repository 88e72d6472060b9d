-- SPDX-License-Identifier: MIT
-- asio.resolve, and the choice of who looks names up: c-ares if asio/ares.so is there (beside asio.so, or
-- anywhere on package.cpath), else the system's getaddrinfo. It is made at the first look-up.

local core = ...
local asio = core.asio
local c_resolve, c_use, finish = core.resolve, core.names_use, core.finish
local error, pcall, package, require = error, pcall, package, require
local getenv = os and os.getenv

local chosen -- 'ares', 'getaddrinfo', or false: the one that was asked for is not there
local missing = 'asio/ares.so (c-ares) is not there'

-- The one beside asio.so belongs to it; one that was linked into the program comes first.
local function load_ares()
    if not package then return nil end
    local dir, extension = (core.names_beside() or ''):match '^(.*[/\\])[^/\\]*(%.[^./\\]+)$'
    local open = dir and package.loadlib(dir .. 'asio/ares' .. extension, 'luaopen_asio_ares')
    if open and not package.preload['asio.ares'] then return open() end
    local ok, backend = pcall(require, 'asio.ares')
    if not ok and backend == 'not enough memory' then error(backend, 0) end
    return ok and backend
end

local function choose()
    local wanted = getenv and getenv 'ASIO_RESOLVER'
    local backend = wanted ~= 'getaddrinfo' and load_ares()
    local name = backend and c_use(backend)
    if not name and wanted ~= 'ares' then name = c_use() end
    return name or false
end

-- Who looks up; false: nobody.
function core.resolver()
    if chosen == nil then chosen = choose() end
    return chosen
end

local function explained(list, message, code)
    if code == 'ENOTSUP' then message = missing end
    return list, message, code
end

--- Looks a name up. Waits.
---@param host string a name; an address stands for itself; for PTR an address, or a name as it is
---@param opts? {type?: string, servers?: string[], timeout?: number, cache?: boolean} type: `A`, `AAAA`,
--- `SRV`, `MX`, `TXT`, `PTR` (default: the addresses of both families); servers: whom to ask instead of
--- the system's name servers, `ip`, `ip:port` or `[ip]:port`; timeout: seconds; cache: false asks anew
---@return table[]? records {address, family = `inet`|`inet6`}, {target, port, priority, weight}, {exchange,
--- priority}, {text} or {name}; with ttl in seconds where it is known
---@return string? message
---@return string? code `EAI_NONAME` (no such name), `EAI_NODATA` (it has no such record), `EAI_AGAIN` (no
--- name server has answered), `EAI_FAIL` (the answer makes no sense), `ETIMEDOUT`, `ENOTSUP` (needs c-ares)
function asio.resolve(host, opts)
    if core.resolver() == false then return nil, missing, 'ENOTSUP' end
    return explained(finish(nil, c_resolve(host, opts)))
end
