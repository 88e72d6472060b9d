-- What light threads, timers and waits cost inside one process: micro.lua WHAT [COUNT] [ROUNDS]
--     spawn       spawn + finish of a light thread that does nothing, and the same with plain
--                 coroutines, in turn: one line a round
--     sleepers    so many light threads asleep at once: memory of each
--     coroutines  so many plain coroutines suspended at once: what LuaJIT alone takes
--     timers      so many random deadlines: light threads that sleep, and the order they wake in
--     require     how long require 'asio' takes
-- One line a round of each of these, after one that warms up:
--     timeout     asio.timeout around functions that do not wait, one call after another
--     after       so many timers of asio.after set at once, then stopped
--     channel     so many values from one light thread to another
--     cancel      so many light threads that wait, cancelled: until the last one has ended
--     overhead    asio.coroutine beside coroutine, groups, locks
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

-- What Lua's heap holds, without garbage.
local function lua_bytes()
    collectgarbage()
    collectgarbage()
    return collectgarbage 'count' * 1024
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

-- Nanoseconds of CPU for each of so many runs. Where nothing waits that is the time it takes, less what
-- other programs took. The loop is in `body`, so that LuaJIT compiles each one, or not, by itself.
local function cpu_ns(count, body)
    collectgarbage()
    collectgarbage()
    local began = os.clock()
    body(count)
    return (os.clock() - began) / count * 1e9
end

-- Runs `round` inside asio.run, once to warm up and then so many times; prints the figures it returns.
local function in_rounds(rounds, round)
    require('asio').run(function()
        for i = 0, rounds do
            local words = {}
            for _, figure in ipairs(round()) do
                words[#words + 1] = string.format('%s=%.1f', figure[1], figure[2])
            end
            if i > 0 then print_line('%s', table.concat(words, ' ')) end
        end
    end)
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
local LEAD, SPREAD = 15, 4

function what.timers(count)
    local asio = require 'asio'
    math.randomseed(42)
    -- A sleeper may be held up between reading the clock here and the library reading it: how long
    -- at most is known afterwards, and only what that cannot explain counts as out of order.
    local fired, latest, disorder, held_up = 0, 0, 0, {}
    local began = now()
    local function sleeper(deadline, i)
        asio.sleep(math.max(0, deadline - (now() - began)))
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
    local took = now() - began
    if took > LEAD then error(('setting them took %.1f s: the machine is too busy'):format(took)) end
    local set_ns = took / count * 1e9
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

-- Waits ----------------------------------------------------------------------------------------

function what.timeout(count, rounds)
    local timeout = require('asio').timeout
    local function sum(a, b) return a + b end
    in_rounds(rounds, function()
        return {
            { 'around_ns', cpu_ns(count, function(n) for i = 1, n do timeout(10, sum, i, 1) end end) },
            { 'deadline_ns', cpu_ns(count, function(n) for _ = 1, n do timeout(3600, nothing) end end) },
        }
    end)
end

function what.after(count, rounds)
    local after = require('asio').after
    local timers = {}
    for i = 1, count do timers[i] = false end
    in_rounds(rounds, function()
        local before = lua_bytes()
        local set = cpu_ns(count, function(n) for i = 1, n do timers[i] = after(3600, nothing) end end)
        local bytes = (lua_bytes() - before) / count
        local stop = cpu_ns(count, function(n) for i = 1, n do timers[i]:stop() end end)
        for i = 1, count do timers[i] = false end
        return { { 'set_ns', set }, { 'stop_ns', stop }, { 'bytes_each', bytes } }
    end)
end

-- One sends, one receives.
local function stream(asio, capacity, count)
    local channel = asio.channel(capacity)
    local sender = asio.spawn(function() for i = 1, count do channel:send(i) end end)
    local receiver = asio.spawn(function() for _ = 1, count do channel:recv() end end)
    sender:join()
    receiver:join()
end

-- Each answers the other.
local function ping_pong(asio, count)
    local there, back = asio.channel(), asio.channel()
    local one = asio.spawn(function()
        for i = 1, count / 2 do
            there:send(i)
            back:recv()
        end
    end)
    local other = asio.spawn(function() for _ = 1, count / 2 do back:send(there:recv()) end end)
    one:join()
    other:join()
end

function what.channel(count, rounds)
    local asio = require 'asio'
    in_rounds(rounds, function()
        return {
            { 'rendezvous_ns', cpu_ns(count, function(n) stream(asio, 0, n) end) },
            { 'buffered_ns', cpu_ns(count, function(n) stream(asio, 100, n) end) },
            { 'pingpong_ns', cpu_ns(count, function(n) ping_pong(asio, n) end) },
        }
    end)
end

-- All wait before the clock starts, and all have ended when it stops.
local function cancel_ms(asio, count, wait)
    local threads = {}
    for i = 1, count do threads[i] = asio.spawn(wait) end
    local others = asio.stats().threads - count
    return cpu_ns(1, function()
        for i = 1, count do threads[i]:cancel() end
        while asio.stats().threads > others do asio.yield() end
    end) / 1e6
end

local function cancel_group_ms(asio, count, waits)
    local group = asio.group()
    for i = 1, count do group:spawn(waits[i % #waits + 1]) end
    return cpu_ns(1, function()
        group:cancel()
        group:wait()
    end) / 1e6
end

-- What LuaJIT takes for its part in that: so many plain coroutines, each ended by an error.
local function raise_ms(count)
    local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
    local coroutines = {}
    local function fail()
        yield()
        error(coroutines, 0)
    end
    for i = 1, count do
        coroutines[i] = create(fail)
        resume(coroutines[i])
    end
    return cpu_ns(1, function() for i = 1, count do resume(coroutines[i]) end end) / 1e6
end

function what.cancel(count, rounds)
    local asio = require 'asio'
    local function sleep() asio.sleep(3600) end
    in_rounds(rounds, function()
        local channel = asio.channel()
        local function receive() channel:recv() end
        return {
            { 'receive_ms', cancel_ms(asio, count, receive) },
            { 'sleep_ms', cancel_ms(asio, count, sleep) },
            { 'group_ms', cancel_group_ms(asio, count, { receive, sleep }) },
            { 'raise_ms', raise_ms(count) },
        }
    end)
end

-- A coroutine that yields for ever, resumed from outside.
local function resume_ns(count, lib)
    local resume, yield = lib.resume, lib.yield
    local co = lib.create(function() while true do yield() end end)
    return cpu_ns(count, function(n) for _ = 1, n do resume(co) end end)
end

-- A group of ten each time.
local function group_ns(count, asio, child)
    local function ten(group) for _ = 1, 10 do group:spawn(child) end end
    return cpu_ns(count / 10, function(n) for _ = 1, n do asio.group(ten) end end)
end

function what.overhead(count, rounds)
    local asio = require 'asio'
    local mutex, semaphore, event = asio.mutex(), asio.semaphore(1), asio.event()
    local spawn, join = asio.spawn, asio.spawn(nothing).join
    local function lock(n) for _ = 1, n do mutex:lock() mutex:unlock() end end
    local function acquire(n) for _ = 1, n do semaphore:acquire() semaphore:release() end end
    local function set(n) for _ = 1, n do event:set() event:wait() event:clear() end end
    local function spawn_join(n) for _ = 1, n do join(spawn(nothing)) end end
    in_rounds(rounds, function()
        return {
            { 'raw_coroutine_ns', resume_ns(count, coroutine) },
            { 'coroutine_ns', resume_ns(count, asio.coroutine) },
            { 'spawn_join_ns', cpu_ns(count, spawn_join) },
            { 'group_ns', group_ns(count, asio, nothing) },
            { 'waiting_group_ns', group_ns(count, asio, asio.yield) },
            { 'mutex_ns', cpu_ns(count, lock) },
            { 'semaphore_ns', cpu_ns(count, acquire) },
            { 'event_ns', cpu_ns(count, set) },
        }
    end)
end

local run = what[arg[1]]
if not run then
    local names = {}
    for name in pairs(what) do names[#names + 1] = name end
    table.sort(names)
    io.stderr:write('usage: micro.lua ', table.concat(names, '|'), ' [COUNT] [ROUNDS]\n')
    os.exit(2)
end
run(tonumber(arg[2]) or 1000000, tonumber(arg[3]) or 5)
