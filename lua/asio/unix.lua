-- SPDX-License-Identifier: MIT
-- Unix sockets: connecting, which has to be tried again while the server's backlog is full, and passing
-- connections to other processes.

local core = ...
local asio, conn = core.asio, core.conn
local finish, connect_pipe, c_flush = core.finish, core.connect_pipe, core.flush
local c_send_handle, c_recv_handle = core.send_handle, core.recv_handle
local now, sleep = asio.now, asio.sleep
local min, max, type = math.min, math.max, type

local FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.1 -- seconds

--- For asio.connect: `name` begins with 'unix:'. The system says EAGAIN when the backlog is full, and has no
--- event for its having room again. The arguments are checked by the first try.
function core.connect_unix(name, opts)
    local timeout = type(opts) == 'table' and opts.timeout or nil
    local conn_or_nil, message, code = finish(nil, connect_pipe(name, timeout, opts))
    local deadline, pause = now() + (timeout or math.huge), FIRST_PAUSE
    while code == 'EAGAIN' do
        local left = deadline - now()
        if left <= 0 then return nil, 'operation timed out', 'ETIMEDOUT' end
        sleep(min(pause, left))
        pause = min(pause * 2, LONGEST_PAUSE)
        left = max(deadline - now(), 0)
        conn_or_nil, message, code = finish(nil, connect_pipe(name, left, opts))
    end
    return conn_or_nil, message, code
end

--- Passes a connection to the process at the other end of this one, which receives it with `recv_handle`;
--- here it is closed then. Both ends of this one have been made with the option `handles = true`. Waits
--- until what was written before is sent, and the system takes it. After a failure the connection to be
--- passed is as before.
---@param passed table a connection over TCP or a Unix socket in which nothing is buffered
---@return true? ok
---@return string? message
---@return string? code `EBUSY`: bytes are buffered in it, or somebody waits on it; `EBADF`, `EPIPE`, ...
function conn.send_handle(self, passed)
    local since = now()
    while true do
        local done, message, code = finish(self, c_send_handle(self, passed, since))
        if done ~= false then return done, message, code end
        done, message, code = finish(self, c_flush(self))
        if not done then return nil, message, code end
    end
end

--- Receives a connection that the process at the other end has passed. Waits for one.
---@return table? conn
---@return string? message
---@return string? code `EOF`, `ETIMEDOUT`; `ENOTSUP`: what came is not a connection, and was closed;
--- `EMFILE`: this process had no descriptor left for one; `ENOBUFS`: too many unread bytes are in front of
--- it; `EBUSY`: somebody else waits for one
function conn.recv_handle(self)
    return finish(self, c_recv_handle(self))
end
