-- SPDX-License-Identifier: MIT
-- asio.coroutine: coroutines of the script through which waits pass to the light thread at the base. A wait
-- yields to the resumer, as any yield does. The resumer sees that it is a wait (core.passes) and yields
-- further, with the values, which keeps them alive. The results come back the same way.

local core = ...
local asio = core.asio
local enter, leave, passes = core.coroutine_enter, core.coroutine_leave, core.passes
local active, at_base = core.coroutine_active, core.at_base
local error, next, type = error, next, type

local raw = {}
for _, name in ipairs { 'create', 'resume', 'yield', 'status', 'running', 'isyieldable' } do
    raw[name] = coroutine[name]
end
local raw_resume, raw_yield = raw.resume, raw.yield

local M = {}

---@class asio.coroutine
asio.coroutine = M

local function came_back(record, co, ok, ...)
    if ok and passes(record) then
        return came_back(record, co, raw_resume(co, raw_yield(...)))
    end
    leave(record)
    return ok, ...
end

--- Starts or continues a coroutine. Waits inside it pass through.
---@param co thread
---@param ... any
---@return boolean ok
---@return any ... what it yielded or returned; or the error
function M.resume(co, ...)
    local record = enter(co)
    if not record then return false, 'cannot resume a coroutine that runs or waits' end
    return came_back(record, co, raw_resume(co, ...))
end
local resume = M.resume

--- Makes a coroutine. A coroutine of Lua's own `coroutine.create` works as well.
M.create = raw.create

local function unwrap(co, ok, ...)
    if ok then return ... end
    local err = ...
    if core.at_base() then core.set_trace(err, debug.traceback(co)) end
    error(err, 0)
end

--- Makes a coroutine and returns a function that resumes it, and raises its errors.
---@param fn function
---@return function
function M.wrap(fn)
    if type(fn) ~= 'function' then
        error(("bad argument #1 to 'wrap' (function expected, got %s)"):format(type(fn)), 2)
    end
    local co = raw.create(fn)
    return function(...) return unwrap(co, resume(co, ...)) end
end

--- Gives values to the resume of this coroutine, and waits for the next resume.
---@param ... any
---@return any ...
function M.yield(...)
    if at_base() then
        error('coroutine.yield called by a light thread: nothing would resume it; '
            .. 'use asio.yield() to let others run', 2)
    end
    return raw_yield(...)
end

--- `suspended`, `running`, `normal` (also while it waits for something) or `dead`.
---@param co thread
---@return string
function M.status(co)
    local status = raw.status(co)
    return status == 'suspended' and active(co) and 'normal' or status
end

--- The running coroutine (a light thread is one, too), nil in the main chunk.
---@return thread?
function M.running()
    at_base(true)
    return raw.running()
end

--- Whether `yield` would work here.
---@return boolean
function M.isyieldable()
    return not at_base() and raw.isyieldable()
end

--- Replaces Lua's own functions by these, for the whole Lua state: then waits pass through coroutines of
--- other libraries too. A library that has copied the functions before still uses the old ones.
function M.install()
    local name, fn = next(M) -- see select.lua
    while name ~= nil do
        if name ~= 'install' then coroutine[name] = fn end -- luacheck: ignore 122
        name, fn = next(M, name)
    end
end

