-- SPDX-License-Identifier: MIT
-- asio.connect: resolves a name and tries its addresses in turn, under one deadline.

local core = ...
local asio = core.asio
local c_connect, c_resolve, check_port = core.connect, core.resolve, core.check_port
local now = asio.now
local error, ipairs, type = error, ipairs, type

local function remaining(deadline)
    if not deadline then return nil end
    local seconds = deadline - now()
    return seconds > 0 and seconds or 0
end

local function attempt(address, port, deadline, opts)
    return core.finish(nil, c_connect(address, port, remaining(deadline), opts))
end

local function connect_name(host, port, deadline, opts)
    local addresses, message, code = core.finish(nil, c_resolve(host, port, remaining(deadline)))
    if not addresses then return nil, message, code end
    for _, address in ipairs(addresses) do
        local conn
        conn, message, code = attempt(address, nil, deadline, opts)
        if conn or code == 'ETIMEDOUT' and remaining(deadline) == 0 then return conn, message, code end
    end
    return nil, message, code
end

local function check_timeout(timeout)
    if timeout == nil or timeout == math.huge then return nil end
    if type(timeout) ~= 'number' or timeout ~= timeout or timeout < 0 then
        error("bad argument #3 to 'connect' (timeout must be a number of seconds, not negative or NaN)", 3)
    end
    return now() + timeout
end

--- Connects by TCP. Names are resolved without blocking; their addresses are tried in turn. Waits.
---@param host string address or name; or a raw address from `get_original_dst`, then without a port
---@param port? integer|string 1 to 65535
---@param opts? {timeout?: number, linger?: number, nodelay?: boolean} timeout: seconds for everything
--- together; linger: seconds that close may take behind the scenes (30); nodelay: TCP_NODELAY (true)
---@return table? conn
---@return string? message
---@return string? code `ECONNREFUSED`, `ETIMEDOUT`, `EAI_NONAME`, ...
function asio.connect(host, port, opts)
    if type(host) ~= 'string' then
        error(("bad argument #1 to 'connect' (host or address expected, got %s)"):format(type(host)), 2)
    end
    if host:find('unix:', 1, true) == 1 then return core.connect_unix(host, port or opts) end -- unix.lua
    local raw = #host >= 64 and (port == nil or type(port) == 'table')
    if raw then
        port, opts = nil, port or opts
    else
        port = check_port(port, 1, 2, 'connect')
    end
    if opts ~= nil and type(opts) ~= 'table' then
        error(("bad argument #3 to 'connect' (table expected, got %s)"):format(type(opts)), 2)
    end
    local deadline = check_timeout(opts and opts.timeout)
    local conn, message, code = attempt(host, port, deadline, opts)
    if conn or raw or code ~= 'EINVAL' then return conn, message, code end
    return connect_name(host, port, deadline, opts)
end
