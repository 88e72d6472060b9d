-- SPDX-License-Identifier: MIT
-- asio.timeout and asio.shield: a function runs inside a scope. Each scope has an interrupt object of its
-- own, so that asio.timeout recognises the end of its own time.

local core = ...
local asio = core.asio
local enter, enter_shield, leave, trace = core.enter, core.enter_shield, core.leave, core.trace
local error, xpcall = error, xpcall

local function timed(id, ok, ...)
    if ok then
        leave(id)
        return ...
    end
    if leave(id, (...)) then return nil, 'operation timed out', 'ETIMEDOUT' end
    error((...), 0)
end

--- Runs a function here under a deadline. When it has passed, the waits of the function raise an interrupt,
--- which ends the function. If code swallows it with pcall, the next wait raises again. If the function
--- returns normally, its results are returned. May be nested: an outer deadline ends the inner ones.
---@param seconds? number nil or inf: none; 0: the loop looks once for what is there
---@param fn function runs in this light thread
---@param ... any arguments of fn
---@return any ... results of fn; or nil, message, "ETIMEDOUT"
function asio.timeout(seconds, fn, ...)
    return timed(enter(seconds, fn, ...), xpcall(fn, trace, ...))
end

local function shielded(id, ok, ...)
    leave(id)
    if ok then return ... end
    error((...), 0)
end

--- Runs a function here, for example to clean up, that interrupts from outside do not reach: a cancel and
--- outer deadlines wait until it is done, at most for so many seconds.
---@param seconds? number nil or inf: no limit
---@param fn function runs in this light thread
---@param ... any arguments of fn
---@return any ... results of fn
function asio.shield(seconds, fn, ...)
    return shielded(enter_shield(seconds, fn, ...), xpcall(fn, trace, ...))
end
