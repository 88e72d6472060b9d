-- SPDX-License-Identifier: MIT
-- What light threads talk with: the waiting methods of channel, semaphore, mutex and event, and
-- asio.select.

local core = ...
local asio = core.asio
local finish, trace, outcome, reserve = core.finish, core.trace, core.outcome, core.reserve
local error, type, xpcall = error, type, xpcall
local OK = core.OK

-- Channel ---------------------------------------------------------------------------------------

local channel = core.channel
local c_send, c_receive = core.send, core.receive

--- Gives a value to the first who receives, or to the buffer while there is room. Waits otherwise.
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

-- Semaphore, mutex, event -----------------------------------------------------------------------

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
        local taken, message, code = take(self)
        if not taken then return nil, message, code end -- asio.stop() while the main chunk waits
        return done_with(self, give_back, xpcall(fn, trace, ...))
    end
end

--- Runs a function while holding the mutex, which is unlocked afterwards, errors or not. Waits for
--- the mutex.
---@param fn function
---@param ... any arguments of fn
---@return any ... results of fn
mutex.with = make_with(mutex.lock, mutex.unlock)

--- Runs a function while holding one of the semaphore. Waits for it.
---@param fn function
---@param ... any arguments of fn
---@return any ... results of fn
semaphore.with = make_with(semaphore.acquire, semaphore.release)

-- Select ----------------------------------------------------------------------------------------

local c_select, is_thread = core.select, core.is_thread

local function selected(objects, index, ...)
    local object = index and objects[index]
    if object and is_thread(object) then return index, outcome(object) end
    return index, ...
end

--- Waits for the first of several channels, light threads, events and semaphores that is ready, in
--- the order of the list if more than one is; takes from that one alone.
---@param list table the objects; `timeout` in it: seconds
---@return integer? index of the one that is ready
---@return any ... what its `recv`, `join`, `wait` or `acquire` returns; after a time-out nil, message,
--- "ETIMEDOUT"
function asio.select(list)
    local objects, timeout = list, nil
    if type(list) == 'table' then
        objects, timeout = {}, list.timeout -- copied: the list may be changed while this waits
        for i = 1, #list do objects[i] = list[i] end
    end
    return selected(objects, finish(nil, c_select(objects, timeout)))
end
