-- SPDX-License-Identifier: MIT
-- Groups: light threads that end together. The first error cancels the others; when all have ended, the wait
-- for the group raises it.

local core = ...
local asio, group = core.asio, core.group
local new_group, c_wait, c_end, enter = core.new_group, core.group_wait, core.group_end, core.group_enter
local leave, trace, set_trace, is_interrupt = core.leave, core.trace, core.set_trace, core.is_interrupt
local outcome, finish = core.outcome, core.finish
local cancel = group.cancel
local error, pcall, type, xpcall = error, pcall, type, xpcall

-- Until no child is left: true, or a failure of the wait itself. Raises when the group waits for this light
-- thread, unless that is the one that has to wait (owned, cleaning). Interrupts do not end it when cleaning.
local function until_empty(self, owned, cleaning)
    local done, message, code
    repeat
        done, message, code = finish(self, c_wait(self, owned, cleaning))
    until done ~= false
    return done, message, code
end

-- The first child that failed: kept for later waits.
local failures = setmetatable({}, { __mode = 'k' })

local function first_failure(self)
    local child = c_end(self) or failures[self]
    failures[self] = child
    return child
end

-- Raises its error, with the traceback it had there.
local function raise_failure(self)
    local child = first_failure(self)
    if child then
        local _, err = outcome(child)
        set_trace(err, child:traceback())
        error(err, 0)
    end
end

local function report(child)
    local _, err = outcome(child)
    core.report(('light thread %s failed: %s\n%s'):format(
        child:name(), tostring(err), child:traceback() or ''))
end

-- Cancels the rest and waits for it. Not asio.shield, which may run out of memory.
local function clean_up(self, owned)
    cancel(self)
    until_empty(self, owned, true)
end

-- A circle that this wait closes is looked for even when it is owned: the others are then cancelled.
local function wait_for(self, owned)
    local ok, done, message, code = pcall(until_empty, self, owned)
    if ok and not done then return nil, message, code end
    if not ok then
        if not owned and not is_interrupt(done) then error(done, 0) end
        clean_up(self, owned)
    end
    raise_failure(self)
    if not ok then error(done, 0) end
    return true
end

--- Waits until every light thread of the group has ended, and raises the error of the first that
--- failed, which has cancelled the others. If this wait is interrupted, all are cancelled and
--- waited for before the interrupt goes on. Raises where the group waits for this light thread: a
--- child of the group, or of a group that such a child waits for.
---@return true? ok
---@return string? message
---@return string? code `ECANCELED`: `asio.stop()` while the main chunk waits
function group.wait(self)
    return wait_for(self, false)
end

-- The function has ended, in any way: no light thread of the group outlives it.
local function left(self, id, ok, ...)
    local own = leave(id, (...))
    if ok then
        local done, message, code = wait_for(self, true)
        if done then return ... end
        clean_up(self, true) -- asio.stop() while the main chunk waited
        return nil, message, code
    end
    clean_up(self, true)
    if own or is_interrupt((...)) then
        raise_failure(self)
    else
        local child = first_failure(self)
        if child then report(child) end -- both have failed: one can be raised
    end
    error((...), 0)
end

--- A group of light threads: `g:spawn(fn, ...)`, `g:wait()`, `g:cancel()`. With a function, runs it
--- here with the group as its argument and does not return before every light thread of the group has
--- ended. If one fails, the others and the function are cancelled, and its error is raised.
---@param fn? fun(g: table): any
---@return any ... the group; or the function's results
function asio.group(fn)
    local g = new_group()
    if fn == nil then return g end
    if type(fn) ~= 'function' then
        error(("bad argument #1 to 'group' (function expected, got %s)"):format(type(fn)), 2)
    end
    return left(g, enter(g), xpcall(fn, trace, g))
end
