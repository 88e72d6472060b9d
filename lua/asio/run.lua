-- SPDX-License-Identifier: MIT
-- asio.run: raises the error of its function, and deadlocks.

local core = ...
local asio = core.asio
local finish, outcome, c_run = core.finish, core.outcome, core.run
local error, next, tostring, type = error, next, tostring, type

-- A string carries where it was raised: run raises it far from there.
local function raise_outcome(main, ok, ...)
    if ok then return ... end
    local err, traceback = (...), main:traceback()
    if type(err) == 'string' and traceback then err = err .. '\n' .. traceback end
    error(err, 0)
end

local function ran(options, main, message, code)
    if code == 'EDEADLK' then
        if options and options.deadlock == 'return' then return nil, message, code end
        error(message, 0)
    end
    if main then return raise_outcome(main, outcome(main)) end
end

-- Raises for the caller of run.
local function check_options(options)
    local name = next(options) -- see select.lua
    while name ~= nil do
        if name ~= 'deadlock' then
            error(("bad argument #1 to 'run' (unknown option '%s')"):format(tostring(name)), 3)
        end
        name = next(options, name)
    end
    local value = options.deadlock
    if value ~= nil and value ~= 'return' and value ~= 'raise' then
        error("bad argument #1 to 'run' (option 'deadlock': 'return' or 'raise' expected)", 3)
    end
end

--- Runs the loop until nothing is left to wait for, `asio.stop()` is called, or Ctrl-C (which
--- raises "interrupted!"). With a function, runs that first, as a light thread: its error
--- ends the run at once and is raised here (a string with the light thread's traceback behind it),
--- its results are returned at the end.
--- If light threads wait and nothing can wake them, that is a deadlock: raises an error that says what each
--- waits for, and where; `asio.run({ deadlock = 'return' }, fn, ...)` returns it instead.
---@param fn? function|{deadlock?: "raise"|"return"} options may come first
---@param ... any arguments of fn
---@return any ... results of fn; or nil, message, "EDEADLK"
function asio.run(fn, ...)
    if type(fn) == 'table' then
        check_options(fn)
        return ran(fn, finish(nil, c_run(...)))
    end
    return ran(nil, finish(nil, c_run(fn, ...)))
end
