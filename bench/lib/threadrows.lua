-- Servers in several threads (asio.server with `threads`), two against one. The load runs beside them, on the
-- same processors; nothing is bound to one.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'

local M = {}

local MICROSECONDS = 50 -- of Lua a message
local SIZE = 64

local script = machine.root .. '/bench/servers/asio_threads.lua'

-- The servers: one thread, two threads; with `yardstick`, the same two in C.
local function servers_of(steps, yardstick)
    local list = {}
    local function add(key, title, command)
        for threads = 1, 2 do
            list[#list + 1] = {
                key = key .. threads, title = title:format(threads, threads == 1 and '' or 's'),
                command = function(size) return command(size, threads) end,
            }
        end
    end
    add('threads_', '**LuaAsio**, %d thread%s', function(size, threads)
        return { machine.launcher, script, size, threads, steps }
    end)
    if yardstick then
        add('yardstick_', 'raw epoll, C, %d thread%s', function(_, threads)
            return { machine.program 'epoll_echo', 0, threads }
        end)
    end
    return list
end

local function rounds(ctx, title, list, inflight)
    local free = setmetatable({ server_cpu = false, load_cpu = false }, { __index = ctx })
    return runs.rounds(list, title, ctx.rounds, function(server)
        local figures = runs.server(free, server, SIZE, ctx.seconds + 60, '--connections', 100,
            '--inflight', inflight, '--seconds', ctx.seconds, '--warmup', ctx.warmup)
        if figures then
            figures.summary = ('%.0f messages/s, %.0f ns CPU each'):format(figures.messages_per_s,
                figures.cpu_ns_per_message)
        end
        return figures
    end)
end

-- full: a thread has always something to do
local function print_table(list, results, full)
    local rows = {}
    for i, server in ipairs(list) do
        local function of(figure)
            return report.median(report.present(results[server.key][figure] or {}, results.rounds))
        end
        local cpu, share = of 'cpu_ns_per_message', of 'server_cpu'
        rows[i] = { server.title, report.count(of 'messages_per_s'),
            report.number('%.2f', cpu and cpu / 1000), report.count(of 'p50_us'), report.count(of 'p99_us'),
            report.number('%.0f%%', share and share * 100) }
        -- One thread that computes has its processor to itself, if nothing else runs.
        if i == 1 and full and share and share < 0.95 then
            report.print('\nOther programs were running: one thread did not get a processor to itself. '
                .. 'Do not trust the messages/s.\n')
        end
    end
    report.table({ 'server', 'messages/s', 'CPU us per message', 'p50 us', 'p99 us', 'server CPU' }, rows)
end

local function two_to_one(results, figure, key)
    return report.ratio(results[(key or 'threads_') .. 2][figure] or {},
        results[(key or 'threads_') .. 1][figure] or {})
end

function M.threads_compute(ctx)
    report.heading(('A server in threads: %d us of Lua a message, 100 connections'):format(MICROSECONDS))
    if not ctx.ours then return end
    local text = proc.run { machine.launcher, script, 'calibrate', MICROSECONDS }
    local list = servers_of(runs.parse(text).steps)
    local results = rounds(ctx, 'computing', list, 4)
    print_table(list, results, true)
    report.limit('2 threads that compute, messages/s against 1', two_to_one(results, 'messages_per_s'), 1.85,
        '%.2f x', 'least')
end

-- With one in flight the load is the busiest: two threads have little to do, and find few messages at a
-- time. With 16 they are as busy as one.
function M.threads_echo(ctx)
    for _, inflight in ipairs { 1, 16 } do
        report.heading(('A server in threads: echo of 64 bytes, %d in flight, 100 connections')
            :format(inflight))
        if not ctx.ours then return end
        local list = servers_of(0, true)
        local results = rounds(ctx, 'echo', list, inflight)
        print_table(list, results)
        report.print(('\nIn C, 2 threads against 1: %.2f x\n')
            :format(two_to_one(results, 'cpu_ns_per_message', 'yardstick_') or 0 / 0))
        report.limit(('2 threads that echo, %d in flight, CPU per message against 1'):format(inflight),
            two_to_one(results, 'cpu_ns_per_message'), 1.05, '%.2f x')
    end
end

return M
