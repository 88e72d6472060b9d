-- SPDX-License-Identifier: MIT
-- The waiting methods of channels between Lua states: those of the channels of one state.

local core, c = ...
local OK, finish = core.OK, core.finish
local channel = core.shared_channel
local c_send, c_receive = c.send, c.receive

channel.close = c.close_channel

--- Hands a copy of a value to a light thread that waits in any state, or to the buffer while there is room.
--- Waits otherwise. A connection moves: this state has it no more.
---@param value any but nil
---@param timeout? number seconds
---@return true? ok
---@return string? message
---@return string? code `EBADF` (closed), `ETIMEDOUT`: it was then not sent; `EBUSY`: a connection in use
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
