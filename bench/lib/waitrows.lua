-- The measurements of waits and of what ends them: deadlines, channels, cancelling, and what coroutines,
-- groups and locks cost that never wait.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local report = require 'report'
local runs = require 'runs'
local servers = require 'servers'

local M = {}

local column = runs.column

-- The rounds of one part of micro.lua, if ours takes part.
local function micro(ctx, what, count, rounds)
    return ctx.ours and runs.micro(ctx, machine.launcher, what, count, rounds or ctx.rounds)
end

local function median(lines, key)
    return report.median(column(lines, key))
end

-- Time-outs of connections ---------------------------------------------------------------------

-- What they cost is a hundredth of what a message costs, and two windows of one server differ by several:
-- only many short windows with and without, in turn in one process, tell it.
local PAIRS = 8       -- in a round, which has a server process of its own
local WARMUP = 0.1    -- seconds
local SHORTEST = 0.25 -- seconds measured

local function window(ctx, process, port)
    local seconds = math.max(ctx.seconds / PAIRS, SHORTEST)
    local figures, reason = runs.load(ctx, { port = port, pid = process.pid }, seconds + 60, ctx.load_cpu,
        '--size', 64, '--connections', 100, '--inflight', 1, '--seconds', seconds, '--warmup', WARMUP)
    if not figures then report.note('asio_timeout: %s', reason) end
    return figures and figures.cpu_ns_per_message
end

-- Adds a pair of figures for each pair of windows of one server process.
local function timed_round(ctx, pairs_of)
    local argv = { machine.launcher, machine.root .. '/bench/servers/asio_timeout.lua', 64, 30 }
    local process, reason = servers.start(argv, ctx.server_cpu)
    if not process then return report.note('asio_timeout: %s', reason) end
    local plain_port, timed_port = process.port, process:wait_for('timed', 1)
    for _ = 1, PAIRS do
        local i = pairs_of.count + 1
        local timed_first = i % 2 == 0 -- what drifts weighs on both alike
        local early = timed_first and window(ctx, process, timed_port)
        pairs_of.plain[i] = window(ctx, process, plain_port)
        pairs_of.timed[i] = early or window(ctx, process, timed_port)
        pairs_of.count = i
    end
    process:stop()
end

local function connections(ctx)
    local pairs_of = { count = 0, plain = {}, timed = {} }
    for round = 1, ctx.ours and ctx.rounds or 0 do
        timed_round(ctx, pairs_of)
        report.note('timeouts, round %d of %d', round, ctx.rounds)
    end
    local function us(key)
        local value = report.median(report.present(pairs_of[key], pairs_of.count))
        return report.number('%.2f', value and value / 1000)
    end
    local ratio = report.ratio(pairs_of.timed, pairs_of.plain)
    if ratio then
        report.table({ 'ping-pong, 64 bytes, 100 connections', 'CPU us per message', 'x without' }, {
            { 'without time-out', us 'plain', '1.000' },
            { 'conn:set_timeout(30)', us 'timed', report.number('%.3f', ratio) },
        })
    end
    report.limit('set_timeout: CPU per message against without', ratio, 1.03, '%.3f x')
end

-- Deadlines ------------------------------------------------------------------------------------

-- A list of the figures of each round, as micro.lua gives them.
local function heaps(ctx)
    local lines = {}
    for round = 1, ctx.rounds do lines[round] = runs.heap(ctx) end
    return lines
end

local function alone(heap)
    report.print ''
    report.table({ 'the heap alone, in C, 1,000,000 at once', 'set, ns each', 'removed, ns each' }, {
        { 'one time-out for all', report.count(median(heap, 'same_set_ns')),
            report.count(median(heap, 'same_remove_ns')) },
        { 'random deadlines', report.count(median(heap, 'insert_ns')),
            report.count(median(heap, 'remove_ns')) },
    })
    local same, random = median(heap, 'same_both_ns'), median(heap, 'random_both_ns')
    report.limit('1,000,000 deadlines at once, the heap alone: set and removed, ns each (the larger)',
        same and random and math.max(same, random), 300, '%.0f')
end

function M.timeouts(ctx)
    report.heading 'Deadlines that never come'
    connections(ctx)
    local calls, after = micro(ctx, 'timeout', 1000000), micro(ctx, 'after', 1000000)
    local around, deadline = median(calls, 'around_ns'), median(calls, 'deadline_ns')
    if calls and after then
        report.print ''
        report.table({ '1,000,000 of them', 'ns of CPU each' }, {
            { 'asio.timeout(10, fn) around a function that adds two numbers', report.count(around) },
            { 'asio.timeout(3600, nothing)', report.count(deadline) },
            { 'asio.after(3600, fn), all at once', report.count(median(after, 'set_ns')) },
            { 'timer:stop() of each', report.count(median(after, 'stop_ns')) },
        })
        report.print('\nA timer of asio.after takes %s bytes of Lua memory.',
            report.count(median(after, 'bytes_each')))
    end
    report.limit('asio.timeout(10, fn) around a function that does not wait, ns', around, 500, '%.0f')
    report.limit('1,000,000 x asio.timeout(3600, nothing), ns each', deadline, 300, '%.0f')
    alone(heaps(ctx))
end

-- Channels -------------------------------------------------------------------------------------

function M.channel(ctx)
    report.heading 'Channels: 1,000,000 values from one light thread to another'
    local lines = micro(ctx, 'channel', 1000000)
    local direct, buffered = median(lines, 'rendezvous_ns'), median(lines, 'buffered_ns')
    if lines then
        report.table({ 'what', 'ns of CPU a value' }, {
            { 'one sends, one receives: capacity 0', report.count(direct) },
            { 'one sends, one receives: capacity 100', report.count(buffered) },
            { 'to and fro over two channels of capacity 0', report.count(median(lines, 'pingpong_ns')) },
        })
    end
    report.limit('a value over a channel of capacity 0, send and receive, ns', direct, 500, '%.0f')
    report.limit('a value over a channel of capacity 100, send and receive, ns', buffered, 500, '%.0f')
end

-- Cancelling -----------------------------------------------------------------------------------

function M.cancel(ctx)
    report.heading '100,000 light threads that wait, cancelled'
    local lines = micro(ctx, 'cancel', 100000)
    local receive, sleep = median(lines, 'receive_ms'), median(lines, 'sleep_ms')
    if lines then
        report.table({ 'what', 'ms of CPU until all have ended' }, {
            { 'waiting in channel:recv(), one channel for all', report.count(receive) },
            { 'waiting in asio.sleep(3600)', report.count(sleep) },
            { 'half of them in each, as a group: group:cancel(), group:wait()',
                report.count(median(lines, 'group_ms')) },
            { 'plain LuaJIT: as many coroutines, each ended by an error',
                report.count(median(lines, 'raise_ms')) },
        })
    end
    local worst = receive and sleep and math.max(receive, sleep) / 1000
    report.limit('100,000 light threads cancelled and ended, s (the larger)', worst, 0.2, '%.3f')
end

-- What is only told ----------------------------------------------------------------------------

function M.overhead(ctx)
    report.heading 'What needs no waiting'
    local lines = micro(ctx, 'overhead', ctx.spawns)
    if not lines then return end
    local function row(what, key) return { what, report.count(median(lines, key)) } end
    report.table({ 'what', 'ns of CPU each' }, {
        row('coroutine.resume and yield, as LuaJIT has them', 'raw_coroutine_ns'),
        row('asio.coroutine.resume and yield', 'coroutine_ns'),
        row('asio.spawn and join of a light thread that ends at once', 'spawn_join_ns'),
        row('asio.group with 10 of them', 'group_ns'),
        row('asio.group with 10 that yield once', 'waiting_group_ns'),
        row('mutex: lock, unlock', 'mutex_ns'),
        row('semaphore: acquire, release', 'semaphore_ns'),
        row('event: set, wait, clear', 'event_ns'),
    })
    report.print('\nasio.coroutine against coroutine: %.2f x.',
        report.ratio(column(lines, 'coroutine_ns'), column(lines, 'raw_coroutine_ns')))
end

return M
