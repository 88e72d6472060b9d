-- SPDX-License-Identifier: MIT
-- asio.select: waits for several objects at once.

local core = ...
local asio = core.asio
local finish, outcome = core.finish, core.outcome
local error, next, tostring, type = error, next, tostring, type
local c_select, is_thread = core.select, core.is_thread

local function selected(objects, index, ...)
    local object = index and objects[index]
    if object and is_thread(object) then return index, outcome(object) end
    return index, ...
end

--- Waits until one of several channels, light threads, events and semaphores is ready. If several are, takes
--- the first of the list. Nothing is taken from the others.
---@param list table the objects; `timeout` in it: seconds
---@return integer? index of the one that is ready
---@return any ... what its `recv`, `join`, `wait` or `acquire` returns; after a time-out nil, message,
--- "ETIMEDOUT"
function asio.select(list)
    local objects, timeout = list, nil
    if type(list) == 'table' then
        objects, timeout = {}, list.timeout -- copied: the list may be changed while this waits
        for i = 1, #list do objects[i] = list[i] end
        -- By next: a finalizer may call this, and LuaJIT hangs there in a compiled loop over pairs whose end
        -- it has not seen before.
        local name = next(list)
        while name ~= nil do
            if type(name) ~= 'number' and name ~= 'timeout' then
                error(("bad argument #1 to 'select' (unknown option '%s')"):format(tostring(name)), 2)
            end
            name = next(list, name)
        end
    end
    return selected(objects, finish(objects, c_select(objects, timeout)))
end
