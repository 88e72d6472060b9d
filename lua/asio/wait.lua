-- SPDX-License-Identifier: MIT
-- How a public waiting function ends. Each is a shim over a C function that returns a token first:
-- a C function cannot raise after it has waited (LuaJIT has no lua_yieldk), so interrupts are
-- raised here; and results without a token come from a coroutine.resume by hand of the light thread's
-- coroutine: then it goes on waiting. Loaded first: the other files use `core.finish` and `core.unusual`.

local core = ...
local OK, FAIL, INTERRUPT = core.OK, core.FAIL, core.INTERRUPT
local yield = coroutine.yield -- also right inside a hook or a finalizer, where C's lua_yield is not
local error = error -- a script that replaces it must not swallow interrupts

local refusal = 'this light thread is waiting: only asio can resume it'

-- `self` stays on the stack, and so alive, while it waits again.
local function unusual(self, token, ...)
    if token == OK or token == FAIL then return ... end
    if token == INTERRUPT then error((...), 0) end
    return unusual(self, yield(nil, refusal, self))
end

local function finish(self, token, ...)
    if token == OK then return ... end
    return unusual(self, token, ...)
end
core.finish, core.unusual = finish, unusual

-- The same for two objects that have to stay alive.
function core.finish_both(a, b, token, ...)
    if token == OK or token == FAIL or token == INTERRUPT then return unusual(nil, token, ...) end
    return core.finish_both(a, b, yield(nil, refusal, a, b))
end
