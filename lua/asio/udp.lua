-- SPDX-License-Identifier: MIT
-- The waiting functions of datagram sockets, each over a C function. A host that is a name is resolved
-- first; its first address of the socket's family is used, because UDP does not tell whether one is reached.

local core = ...
local udp = core.udp
local OK, FAIL = core.OK, core.FAIL
local c_recv, c_send, c_flush, c_connect = core.udp_recv, core.udp_send, core.udp_flush, core.udp_connect
local c_traits = core.udp_traits
local asio, finish = core.asio, core.finish
local now, huge = asio.now, math.huge

-- When a call that starts now has to be done, by the socket's time-out.
local function deadline_of(self)
    local _, seconds = c_traits(self)
    return seconds and now() + seconds or huge
end

local function left(deadline)
    local seconds = deadline - now()
    return seconds > 0 and seconds or 0
end

-- The address to use: the first of the socket's family; without one the first.
local function address_of(self, host, deadline)
    local addresses, message, code = asio.resolve(host, { timeout = left(deadline) })
    if not addresses then return nil, message, code end
    local family = c_traits(self)
    for i = 1, #addresses do
        if addresses[i].family == family then return addresses[i].address end
    end
    return addresses[1].address
end

--- Takes the next datagram, whole. Waits until there is one.
--- One that is longer than `max` is lost: `nil, message, "EMSGSIZE", ip, port`.
---@param max? integer bytes that it may have
---@param timeout? number seconds for this call, instead of what `set_timeout` says
---@return string? data may be empty
---@return string ip of the sender; or the message
---@return integer|string port or the code: `ETIMEDOUT`, `EMSGSIZE`, `EBADF` (closed), `ECANCELED` (closed
--- meanwhile), `EBUSY` (another light thread waits), connected: `ECONNREFUSED`, ...
function udp.recv(self, max, timeout)
    local token, data, ip, port, from, from_port
    if max == nil and timeout == nil then
        token, data, ip, port = c_recv(self)
    else
        token, data, ip, port, from, from_port = c_recv(self, max, timeout)
    end
    if token == OK then return data, ip, port end
    if token == FAIL and from then return nil, ip, port, from, from_port end
    return finish(self, token, data, ip, port)
end

local function sent(self, token, ok, message, code, unsent)
    if token == FAIL and unsent then return nil, message, code, unsent end
    return finish(self, token, ok, message, code)
end

-- The name and the queue have one deadline together.
local function send_to_name(self, data, host, port)
    local deadline = deadline_of(self)
    local address, message, code = address_of(self, host, deadline)
    if not address then return nil, message, code end
    local token, ok, unsent
    token, ok, message, code, unsent = c_send(self, data, address, port, left(deadline))
    if token == OK then return true end
    return sent(self, token, ok, message, code, unsent)
end

--- Queues a datagram to be sent when the light thread next waits or ends. Waits for a name to be resolved,
--- and while more than `send_queue` bytes are queued. An error may be that of an earlier datagram:
--- the one of this call was then not queued.
---@param data string at most 65,507 bytes, by IPv6 65,527; may be empty
---@param host? string address, or name: its first address of the socket's family; a raw address, then without
--- a port; nothing on a connected socket
---@param port? integer|string
---@return true? ok
---@return string? message
---@return string? code `EMSGSIZE`, `EDESTADDRREQ` (no address), `EISCONN` (connected, and an address),
--- `EAFNOSUPPORT` (IPv6 to a socket of IPv4), `ENETUNREACH`, `EACCES` (no broadcasting), `ENODEV` (no such
--- interface), `EBADF` (closed), connected: `ECONNREFUSED`, ...
---@return integer? unsent after `ETIMEDOUT`: datagrams that are still queued and will be sent
function udp.send(self, data, host, port)
    local token, ok, message, code, unsent
    if host == nil and port == nil then
        token, ok, message, code, unsent = c_send(self, data)
    else
        token, ok, message, code, unsent = c_send(self, data, host, port)
    end
    if token == OK then return true end
    if token == FAIL and ok == false then
        return send_to_name(self, data, host, port)
    end
    return sent(self, token, ok, message, code, unsent)
end

--- Waits until the kernel has taken everything that was sent.
---@return true? ok
---@return string? message
---@return string? code as for `send`: of a datagram that could not be sent
---@return integer? unsent as for `send`
function udp.flush(self)
    return finish(self, c_flush(self))
end

-- Waits first until all datagrams with an address of their own are sent.
local function connect(self, host, port)
    local deadline
    while true do
        local token, ok, message, code = c_connect(self, host, port)
        if token == OK then return true end
        deadline = deadline or deadline_of(self)
        if token == FAIL and ok == false then
            host, message, code = address_of(self, host, deadline)
            if not host then return nil, message, code end
        elseif code == 'EBUSY' then
            ok, message, code = finish(self, c_flush(self, left(deadline)))
            if not ok then return nil, message, code end
        else
            return finish(self, token, ok, message, code)
        end
    end
end

--- Fixes the peer: `send` then needs no address, and only datagrams of the peer are received. Waits for a
--- name to be resolved, and until everything that was sent before has left.
---@param host string address or name; a raw address, then without a port
---@param port? integer|string
---@return true? ok
---@return string? message
---@return string? code
udp.connect = connect
