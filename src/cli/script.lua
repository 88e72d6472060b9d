-- SPDX-License-Identifier: MIT
-- Runs a script as a light thread, and the loop. The script may call asio.run by itself, as one for luajit
-- does: only the main chunk can run the loop, so the light thread waits while the main chunk does it for it.

local cli, chunk = ...
local asio = require 'asio'
local native_run, native_run_once, native_stop = asio.run, asio.run_once, asio.stop

local script   -- the light thread
local failure  -- of the script: { error = , message = }
local order    -- what the script wants from the main chunk
local current  -- the order that is carried out; the script may have given it up
local stopped  -- the script has, and not only a run of its own

local function pack(...) return { n = select('#', ...), ... } end

-- A failed call as { error = , message = }; the message has the traceback down to the script.
local function describe(err)
    local text = err
    local meta = type(err) ~= 'string' and getmetatable(err)
    if type(meta) == 'table' and meta.__tostring then text = tostring(err) end
    if type(text) ~= 'string' and type(text) ~= 'number' then
        text = ('(error object is a %s value)'):format(type(err))
    end
    local traceback = debug.traceback(text, 2)
    return { error = err, message = traceback:match "^(.*)\n\t%[C%]: in function 'xpcall'" or traceback }
end

-- Orders -----------------------------------------------------------------------------------------

-- Called by the script's light thread: has the main chunk call fn(...), and waits for that.
local function ask(fn, ...)
    local asked = { fn = fn, arguments = pack(...), done = asio.event() }
    order = asked
    native_stop() -- the loop that runs now; the main chunk looks for orders then
    local ok, err = pcall(asked.done.wait, asked.done)
    if not ok then -- an interrupt: a deadline around the call, or cancelled
        if order == asked then order = nil end
        if current == asked then current = nil end
        native_stop()
        error(err, 0)
    end
    local results = asked.results
    if not results[1] then error(results[2], 0) end
    return unpack(results, 2, results.n)
end

local function carry_out()
    local asked = order
    order, current = nil, asked
    asked.results = pack(pcall(asked.fn, unpack(asked.arguments, 1, asked.arguments.n)))
    current = nil
    asked.done:set()
end

local function stop()
    if not current then stopped = true end
    native_stop()
end

-- What asio.run does; the script's light thread waits for it, and must not count as one that waits in vain.
local function run_loop(options, fn, ...)
    local results
    if fn then
        asio.spawn(function(...)
            results = pack(xpcall(fn, describe, ...))
            if not results[1] then native_stop() end
        end, ...)
    end
    local message, code
    if not (results and not results[1]) then
        message, code = select(2, native_run { deadlock = 'return' })
    end
    if results and not results[1] then
        local failed = results[2]
        error(type(failed.error) == 'string' and failed.message or failed.error, 0)
    end
    if code and asio.stats().threads > 1 then
        if options.deadlock == 'return' then return nil, message, code end
        error(message, 0)
    end
    if results then return unpack(results, 2, results.n) end
end

local function fits(options)
    for key, value in pairs(options) do
        if key ~= 'deadlock' or (value ~= 'return' and value ~= 'raise') then return false end
    end
    return true
end

-- A call that is wrong goes to the original, which says why.
local function run(...)
    local options, fn = {}, ...
    local rest = 1
    if type(fn) == 'table' then
        options, fn = ...
        rest = 2
    end
    if asio.current() ~= script or (fn ~= nil and type(fn) ~= 'function') or not fits(options) then
        return native_run(...)
    end
    return ask(run_loop, options, select(rest, ...))
end

local function run_once(...)
    if asio.current() ~= script then return native_run_once(...) end
    return ask(native_run_once, ...)
end

-- The loop ---------------------------------------------------------------------------------------

local function body(...)
    script = asio.current()
    local ok, result = xpcall(chunk, describe, ...)
    if ok or result.error == asio.cancelled then return end
    failure = result
    native_stop()
end

-- One run of the loop. Returns the exit status, or nil: there is an order.
local function turn()
    local ok, result, message, code = pcall(native_run, { deadlock = 'return' })
    if not ok then
        if result == 'interrupted!' then return -1 end
        cli.complain(tostring(result))
        return 1
    end
    if order or failure then return nil end
    if code then
        cli.complain(message)
        return 1
    end
    return 0
end

asio.run, asio.run_once, asio.stop = run, run_once, stop
asio.spawn(body, select(3, ...))
while true do
    local status
    if failure then
        if failure.error == 'interrupted!' then return -1 end
        cli.complain(failure.message)
        return 1
    end
    if stopped then return 0 end
    if order then carry_out() else status = turn() end
    if status then return status end
end
