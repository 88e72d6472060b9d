-- SPDX-License-Identifier: MIT
-- The waiting methods of servers.

local core = ...
local server = core.server
local finish = core.finish
local c_accept, c_shutdown, cancel_handlers = core.accept, core.shutdown_server, core.cancel_handlers

--- Waits for the next connection of a server that was made without a handler.
---@param timeout? number seconds
---@return table? conn
---@return string? message
---@return string? code `ETIMEDOUT`, `EBADF` (closed), `ECANCELED` (closed meanwhile)
function server.accept(self, timeout)
    return finish(self, c_accept(self, timeout))
end

--- Stops accepting and waits for the running handlers. After the time-out it cancels them and waits again. A
--- handler that calls this itself is neither waited for nor cancelled.
---@param timeout? number seconds
---@return true? ok every handler has ended by itself
---@return string? message
---@return string? code `ETIMEDOUT`: every handler has ended, some of them by being cancelled;
--- `ECANCELED`: `close` was called meanwhile, some may be running
function server.shutdown(self, timeout)
    local done, message, code = finish(self, c_shutdown(self, timeout))
    if code ~= 'ETIMEDOUT' then return done, message, code end
    cancel_handlers(self)
    local ended, why, its_code = finish(self, c_shutdown(self))
    if not ended then return nil, why, its_code end
    return nil, message, code
end
