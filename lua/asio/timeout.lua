-- SPDX-License-Identifier: MIT
-- asio.timeout and asio.shield: a function runs inside a scope. A scope's interrupt is an object of
-- its own, so that only the one whose it is takes it for the end of its time.

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

--- Runs a function here under a deadline: when it has passed, the function's waits raise an
--- interrupt, which ends it. Code that swallows that with pcall is told again at its next wait; if
--- the function returns all the same, its results stand. May be nested: an outer deadline ends
--- the inner ones.
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

--- Runs a function here, cleaning up for instance, that is not interrupted from outside: cancelling
--- and outer deadlines wait until it is done, for at most so long.
---@param seconds? number nil or inf: as long as it takes
---@param fn function runs in this light thread
---@param ... any arguments of fn
---@return any ... results of fn
function asio.shield(seconds, fn, ...)
    return shielded(enter_shield(seconds, fn, ...), xpcall(fn, trace, ...))
end
