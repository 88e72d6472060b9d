-- What light threads and timers cost inside one process: micro.lua WHAT [COUNT] [ROUNDS]
--     spawn       spawn + finish of a light thread that does nothing, and the same with plain
--                 coroutines, in turn: one line a round
--     sleepers    so many light threads asleep at once: memory of each
--     coroutines  so many plain coroutines suspended at once: what LuaJIT alone takes
--     timers      so many random deadlines: light threads that sleep, and the order they wake in
--     require     how long require 'asio' takes
-- Prints lines of key=value; bench/run starts it.
-- SPDX-License-Identifier: MIT
local ffi = require 'ffi'

ffi.cdef [[
struct micro_timespec { long seconds, nanoseconds; };
int clock_gettime(int clock, struct micro_timespec *time);
]]

local CLOCK_MONOTONIC = 1
local time = ffi.new 'struct micro_timespec'

local function now()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, time)
    return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

-- Resident memory in bytes.
local function rss()
    local file = io.open '/proc/self/smaps_rollup' or assert(io.open '/proc/self/status')
    local text = file:read '*a'
    file:close()
    return (text:match 'Rss:%s*(%d+)' or text:match 'VmRSS:%s*(%d+)') * 1024
end

local function print_line(format, ...)
    print(string.format(format, ...))
    io.stdout:flush()
end

local function nothing() end

-- Nanoseconds for each of so many runs of a function that starts and finishes `nothing`.
local function each_ns(count, start)
    collectgarbage()
    collectgarbage()
    local began = now()
    for _ = 1, count do start() end
    return (now() - began) / count * 1e9
end

local function plain()
    coroutine.resume(coroutine.create(nothing))
end

local what = {}

function what.spawn(count, rounds)
    local asio = require 'asio'
    local spawn = asio.spawn
    local function light() spawn(nothing) end
    asio.run(function()
        for round = 0, rounds do
            local light_ns = each_ns(count, light)
            local plain_ns = each_ns(count, plain)
            if round > 0 then -- the first one warms up
                print_line('spawn_ns=%.1f coroutine_ns=%.1f', light_ns, plain_ns)
            end
        end
    end)
end

function what.sleepers(count)
    local asio = require 'asio'
    local function sleeper() asio.sleep(3600) end
    asio.spawn(sleeper)
    asio.run_once(0)
    collectgarbage()
    local before, began = rss(), now()
    for _ = 1, count do asio.spawn(sleeper) end
    asio.run_once(0)
    local took, after = now() - began, rss()
    collectgarbage()
    collectgarbage()
    print_line('sleepers=%d bytes_each=%.0f bytes_each_collected=%.0f spawn_ns=%.0f', count,
        (after - before) / count, (rss() - before) / count, took / count * 1e9)
    os.exit(0) -- taking a million light threads down is not measured here
end

function what.coroutines(count)
    local list = {}
    for i = 1, count do list[i] = false end
    local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
    local function sleeper() yield() end
    collectgarbage()
    local before = rss()
    for i = 1, count do
        list[i] = create(sleeper)
        resume(list[i])
    end
    print_line('coroutines=%d bytes_each=%.0f', count, (rss() - before) / count)
    os.exit(0)
end

-- Deadlines lie between LEAD and LEAD + SPREAD seconds after the start: none is due before all are
-- set, so that setting and firing are measured apart.
local LEAD, SPREAD = 6, 4

function what.timers(count)
    local asio = require 'asio'
    math.randomseed(42)
    -- A sleeper may be held up between reading the clock here and the library reading it: how long
    -- at most is known afterwards, and only what that cannot explain counts as out of order.
    local fired, latest, disorder, held_up = 0, 0, 0, {}
    local began = now()
    local function sleeper(deadline, i)
        asio.sleep(deadline - (now() - began))
        fired = fired + 1
        disorder = math.max(disorder, latest - (deadline + held_up[i]))
        latest = math.max(latest, deadline)
    end
    for i = 1, count do held_up[i] = 0 end
    collectgarbage()
    began = now()
    for i = 1, count do
        local start = now()
        asio.spawn(sleeper, LEAD + math.random() * SPREAD, i)
        held_up[i] = now() - start
    end
    local set_ns = (now() - began) / count * 1e9
    asio.run_once(0)
    local cpu = os.clock()
    asio.run()
    print_line('timers=%d fired=%d set_ns=%.0f fire_ns=%.0f disorder_us=%.1f late_ms=%.1f', count, fired,
        set_ns, (os.clock() - cpu) / count * 1e9, disorder * 1e6, (now() - began - latest) * 1e3)
end

function what.require()
    local began = now()
    require 'asio'
    print_line('require_ms=%.3f', (now() - began) * 1e3)
end

local run = what[arg[1]]
if not run then
    io.stderr:write 'usage: micro.lua spawn|sleepers|coroutines|timers|require [COUNT] [ROUNDS]\n'
    os.exit(2)
end
run(tonumber(arg[2]) or 1000000, tonumber(arg[3]) or 5)
