-- SPDX-License-Identifier: MIT
-- Reading up to something: a delimiter, the end of a line, the end of the stream. What fails has taken
-- nothing.

local core = ...
local conn = core.conn
local OK, unusual = core.OK, core.unusual
local c_read_until, c_read_line, c_read_all = core.read_until, core.read_line, core.read_all
local c_check_lines, c_peek = core.check_lines, core.peek
local error = error

--- Reads up to a delimiter and returns what comes before it; the delimiter is taken too. Waits until it
--- is there.
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

--- Reads a line, which ends in LF or CRLF, and returns it without that. Waits until it is there. The last
--- line may lack its end: at the end of file what is left is a line.
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

local function no_line(_, message, code)
    if code == 'EOF' then return nil end
    error(('%s (%s)'):format(message, code), 2)
end

--- For loops: `for line in conn:lines() do`, line by line as `read_line`, to the end. Anything but the end
--- raises: "operation timed out (ETIMEDOUT)". Waits.
---@param max? integer at most so many bytes a line (1 MiB); `math.huge`: no limit
---@return fun(): string?
function conn.lines(self, max)
    c_check_lines(self, max)
    return function()
        local token, line, message, code = c_read_line(self, max)
        if token == OK then return line end
        return no_line(unusual(self, token, line, message, code))
    end
end
