-- SPDX-License-Identifier: MIT
-- The waiting methods of semaphores, mutexes and events.

local core = ...
local finish, trace, reserve = core.finish, core.trace, core.reserve
local error, type, xpcall = error, type, xpcall
local semaphore, mutex, event = core.semaphore, core.mutex, core.event
local c_acquire, c_lock, c_wait = core.acquire, core.lock, core.wait_event

--- Takes one; waits while none is free. First come, first served.
---@param timeout? number seconds
---@return true? ok
---@return string? message
---@return string? code `ETIMEDOUT`
function semaphore.acquire(self, timeout)
    return finish(self, c_acquire(self, timeout))
end

--- Locks; waits while another light thread holds it. First come, first served. Raises if this light
--- thread holds it already.
---@param timeout? number seconds
---@return true? ok
---@return string? message
---@return string? code `ETIMEDOUT`
function mutex.lock(self, timeout)
    return finish(self, c_lock(self, timeout))
end

--- Waits until the event is set.
---@param timeout? number seconds
---@return true? ok
---@return string? message
---@return string? code `ETIMEDOUT`
function event.wait(self, timeout)
    return finish(self, c_wait(self, timeout))
end

local function done_with(self, give_back, ok, ...)
    give_back(self)
    if ok then return ... end
    error((...), 0)
end

local function make_with(take, give_back)
    return function(self, fn, ...)
        if type(fn) ~= 'function' then
            error(("bad argument #1 to 'with' (function expected, got %s)"):format(type(fn)), 2)
        end
        reserve(...) -- what is taken is given back whatever happens
        local taken, message, code = finish(self, take(self, nil, 'with'))
        if not taken then return nil, message, code end -- asio.stop() while the main chunk waits
        return done_with(self, give_back, xpcall(fn, trace, ...))
    end
end

--- Locks the mutex, runs a function, and unlocks, also after an error. Waits for the mutex.
---@param fn function
---@param ... any arguments of fn
---@return any ... results of fn
mutex.with = make_with(c_lock, mutex.unlock)

--- Acquires, runs a function, and releases, also after an error. Waits to acquire.
---@param fn function
---@param ... any arguments of fn
---@return any ... results of fn
semaphore.with = make_with(c_acquire, semaphore.release)
