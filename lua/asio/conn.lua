-- SPDX-License-Identifier: MIT
-- The waiting methods of connections. A read that fails has taken nothing.

local core = ...
local asio, conn = core.asio, core.conn
local OK, FAIL, finish, unusual = core.OK, core.FAIL, core.finish, core.unusual
local c_read, c_read_some, c_read_until = core.read, core.read_some, core.read_until
local c_read_line, c_read_all, c_peek = core.read_line, core.read_all, core.peek
local c_check_lines = core.check_lines
local c_write, c_flush = core.write, core.flush
local c_send_handle, c_recv_handle = core.send_handle, core.recv_handle
local error, now = error, asio.now

-- Reading ---------------------------------------------------------------------------------------

--- Reads exactly `size` bytes. Waits until they are there.
--- At the end of file before that many: `nil, "end of file", "EOF"`, and nothing is consumed.
---@param size integer bytes; 0 gives "" at once
---@return string? data
---@return string? message
---@return string? code `EOF`, `ETIMEDOUT`, `EBADF` (closed), `ECANCELED` (closed meanwhile), `EBUSY`
--- (another light thread reads), ...
function conn.read(self, size)
    local token, data, message, code = c_read(self, size)
    if token == OK then return data end
    return unusual(self, token, data, message, code)
end

--- Reads what is there, at least one byte. Waits for the first.
---@param max? integer at most so many bytes
---@return string? data
---@return string? message
---@return string? code as for `read`
function conn.read_some(self, max)
    local token, data, message, code = c_read_some(self, max)
    if token == OK then return data end
    return unusual(self, token, data, message, code)
end

--- Reads up to a delimiter and returns the bytes before it; the delimiter is taken too. Waits until it is
--- there.
---@param delim string one byte or more
---@param max? integer at most so many bytes before it (1 MiB); `math.huge`: no limit
---@return string? data
---@return string? message
---@return string? code `EMSGSIZE` (more than max; nothing is taken), `EOF` (before the delimiter), or as
--- for `read`
function conn.read_until(self, delim, max)
    local token, data, message, code = c_read_until(self, delim, max)
    if token == OK then return data end
    return unusual(self, token, data, message, code)
end

--- Reads a line, which ends in LF or CRLF, and returns it without its end. Waits until it is there. The
--- last line may lack its end: at the end of file the rest is a line.
---@param max? integer at most so many bytes (1 MiB); `math.huge`: no limit
---@return string? line
---@return string? message
---@return string? code `EMSGSIZE` (more than max; nothing is taken), or as for `read`
function conn.read_line(self, max)
    local token, line, message, code = c_read_line(self, max)
    if token == OK then return line end
    return unusual(self, token, line, message, code)
end

--- Reads to the end of the stream, "" at the end. Waits for it.
---@param max? integer at most so many bytes (1 MiB); `math.huge`: no limit
---@return string? data
---@return string? message
---@return string? code `EMSGSIZE` (more than max; nothing is taken), or as for `read`
function conn.read_all(self, max)
    local token, data, message, code = c_read_all(self, max)
    if token == OK then return data end
    return unusual(self, token, data, message, code)
end

--- Returns the next bytes without taking them. Waits until they are there.
---@param size integer bytes; 0 gives "" at once
---@return string? data
---@return string? message
---@return string? code as for `read`
function conn.peek(self, size)
    local token, data, message, code = c_peek(self, size)
    if token == OK then return data end
    return unusual(self, token, data, message, code)
end

-- There is a line after all if the light thread was resumed by hand before.
local function line_or_end(line, message, code)
    if line or code == 'EOF' then return line end
    error(('%s (%s)'):format(message, code), 2)
end

--- For loops: `for line in conn:lines() do`, line by line as `read_line`, to the end. Any other failure
--- raises: "operation timed out (ETIMEDOUT)". Waits.
---@param max? integer at most so many bytes a line (1 MiB); `math.huge`: no limit
---@return fun(): string?
function conn.lines(self, max)
    c_check_lines(self, max)
    return function()
        local token, line, message, code = c_read_line(self, max)
        if token == OK then return line end
        return line_or_end(unusual(self, token, line, message, code))
    end
end

-- Writing ---------------------------------------------------------------------------------------

--- Queues data to be sent when the light thread next waits or ends. Waits only while more than
--- 64 KB are queued. The first error stays and is returned by every later write and flush.
---@param ... string|number|table strings, numbers, (nested) lists of them, string.buffer objects
---@return true? ok
---@return string? message
---@return string? code
---@return integer? unsent after `ETIMEDOUT`: bytes that are still queued and will be sent, do not resend
function conn.write(self, ...)
    local token, ok, message, code, unsent = c_write(self, ...)
    if token == OK then return true end
    if token == FAIL and unsent then return nil, message, code, unsent end
    return unusual(self, token, ok, message, code)
end

-- The same for one value, for quick.lua: a function without `...` takes fewer slots of the coroutine's stack,
-- which then need not grow (a third of what an idle connection takes).
function core.write_one(self, data)
    local token, ok, message, code, unsent = c_write(self, data)
    if token == OK then return true end
    if token == FAIL and unsent then return nil, message, code, unsent end
    return unusual(self, token, ok, message, code)
end

--- Waits until the kernel has taken everything that was written.
---@return true? ok
---@return string? message
---@return string? code
---@return integer? unsent as for `write`
function conn.flush(self)
    return finish(self, c_flush(self))
end

-- Passing connections to other processes --------------------------------------------------------

--- Passes a connection to the process at the other end of this one, which receives it with `recv_handle`.
--- It is then closed in this process. Both ends of this connection must have the option `handles = true`.
--- Waits until everything that was written before is sent and the kernel takes the descriptor. After a
--- failure the passed connection is unchanged.
---@param passed table a connection over TCP or a Unix socket in which nothing is buffered
---@return true? ok
---@return string? message
---@return string? code `EBUSY`: it has buffered bytes, or a light thread waits on it; `EBADF`, `EPIPE`, ...
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
---@return string? code `EOF`, `ETIMEDOUT`; `ENOTSUP`: the descriptor is no connection, and was closed;
--- `EMFILE`: this process had no descriptor left for one; `ENOBUFS`: too many unread bytes are in front of
--- it; `EBUSY`: another light thread waits for one
function conn.recv_handle(self)
    return finish(self, c_recv_handle(self))
end
