-- SPDX-License-Identifier: MIT
-- The waiting methods of channels.

local core = ...
local OK, finish = core.OK, core.finish
local channel = core.channel
local c_send, c_receive = core.send, core.receive

--- Hands a value to the first waiting receiver, or to the buffer while there is room. Waits otherwise.
---@param value any but nil
---@param timeout? number seconds
---@return true? ok
---@return string? message
---@return string? code `EBADF` (closed), `ETIMEDOUT`: the value was then not sent
function channel.send(self, value, timeout)
    local token, ok, message, code = c_send(self, value, timeout)
    if token == OK then return true end
    return finish(self, token, ok, message, code)
end

--- Takes the next value. Waits for one.
---@param timeout? number seconds
---@return any value
---@return string? message
---@return string? code `EBADF` (closed, and everything received), `ETIMEDOUT`
function channel.recv(self, timeout)
    local token, value, message, code = c_receive(self, timeout)
    if token == OK then return value end
    return finish(self, token, value, message, code)
end
local recv = channel.recv

--- For loops: `for value in channel:iter() do`, until the channel is closed. Waits.
---@return fun(): any
function channel.iter(self)
    return function() return (recv(self)) end
end
