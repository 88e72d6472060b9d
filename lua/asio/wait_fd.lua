-- SPDX-License-Identifier: MIT
-- asio.wait_fd: descriptors of other C libraries.

local core = ...
local asio = core.asio
local finish = core.finish
local c_wait_fd = core.wait_fd

--- Waits until a descriptor of another C library is ready: a socket, a pipe. It must not be closed meanwhile.
--- Not for connections of asio, which have methods.
---@param fd integer
---@param events string `r` to read, `w` to write, `rw` for either
---@param timeout? number seconds
---@return string? ready `r`, `w` or `rw`
---@return string? message
---@return string? code `ETIMEDOUT`, `EPERM` (a regular file: always ready), `EEXIST` (asio's own)
function asio.wait_fd(fd, events, timeout)
    return finish(nil, c_wait_fd(fd, events, timeout))
end
