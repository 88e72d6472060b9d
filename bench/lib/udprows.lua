-- The measurement of datagrams: a yardstick in C and our server in turn, each with the load of
-- udp_load.c, once with batches for both to take, once with clients that send one at a time.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'
local servers = require 'servers'

local M = {}

local LIMIT = 1.2 -- times the yardstick's CPU

local function commands(ctx)
    local echo = assert(machine.program 'udp_echo', 'bench/udp_echo.c did not build')
    local list = { { key = 'udp_echo', title = 'recvmmsg and sendmmsg, C', argv = { echo } } }
    if ctx.ours then
        list[2] = { key = 'asio_udp', title = '**LuaAsio**',
            argv = { machine.launcher, machine.root .. '/bench/servers/asio_udp.lua' } }
    end
    return list
end

local function measure(ctx, server, clients, inflight)
    local process, reason = servers.start(server.argv, ctx.server_cpu)
    if not process then return report.note('%s: %s', server.key, reason) end
    local text, status = proc.run({ ctx.udp_load, '--port', process.port, '--pid', process.pid, '--size', 64,
        '--connections', clients, '--inflight', inflight, '--seconds', ctx.seconds, '--warmup', ctx.warmup },
        { cpu = ctx.load_cpu, limit = ctx.seconds + 60 })
    process:stop()
    if status ~= 0 then return report.note('%s: the load failed: %s', server.key, tostring(status)) end
    local figures = runs.parse(text)
    figures.summary = report.count(figures.cpu_ns_per_message) .. ' ns CPU each'
    return figures
end

local function compare(ctx, list, clients, inflight)
    local results = runs.rounds(list, ('udp, %d clients'):format(clients), ctx.rounds, function(server)
        return measure(ctx, server, clients, inflight)
    end)
    local base, rows, ratio = results.udp_echo, {}, nil
    for _, server in ipairs(list) do
        local mine = results[server.key]
        local function of(figure)
            return report.median(report.present(mine[figure] or {}, ctx.rounds))
        end
        ratio = report.ratio(mine.cpu_ns_per_message or {}, base.cpu_ns_per_message or {})
        rows[#rows + 1] = {
            server.title,
            report.count(of 'messages_per_s'),
            report.number('%.2f', of 'cpu_ns_per_message' and of 'cpu_ns_per_message' / 1000),
            report.number('%.2f', ratio),
            report.count(of 'p50_us'),
            report.count(of 'p99_us'),
            report.count(of 'lost'),
            report.number('%.0f%%', of 'server_cpu' and of 'server_cpu' * 100),
            report.number('%.0f%%', of 'load_cpu' and of 'load_cpu' * 100),
        }
    end
    report.table({ 'server', 'datagrams/s', 'CPU us per datagram', 'x yardstick', 'p50 us', 'p99 us',
        'sent again', 'server CPU', 'load CPU' }, rows)
    return list[2] and ratio
end

function M.udp(ctx)
    ctx.udp_load = assert(machine.program 'udp_load', 'bench/udp_load.c did not build')
    local list = commands(ctx)
    for _, case in ipairs { { 8, 16 }, { 100, 1 } } do
        local what = string.format('%d clients with %d in flight', case[1], case[2])
        report.heading('UDP echo: 64 bytes, ' .. what)
        report.limit('UDP echo, ' .. what .. ', CPU per datagram against the yardstick',
            compare(ctx, list, case[1], case[2]), LIMIT, '%.2f x')
    end
end

return M
