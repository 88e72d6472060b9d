-- The measurements over the network: each starts servers on one CPU and the load on another, takes
-- the figures that the load prints, and writes a table and its bounds.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local report = require 'report'
local runs = require 'runs'
local servers = require 'servers'

local M = {}

local LINE = 32 -- bytes, the newline among them

local run_load, measure, rounds_of = runs.load, runs.server, runs.rounds

-- One figure of one server: a value a round, none when it does not take part.
local function figure_of(results, key, figure)
    return results[key] and results[key][figure] or {}
end

local function median(results, key, figure)
    return report.median(report.present(figure_of(results, key, figure), results.rounds))
end

-- One figure against the same figure of another server, by default of the yardstick.
local function ratio(results, key, figure, base)
    return report.ratio(figure_of(results, key, figure), figure_of(results, base or 'epoll', figure))
end

-- A median in thousands: nanoseconds as microseconds.
local function thousands(format, value)
    return report.number(format, value and value / 1000)
end

local function percent(value)
    return report.number('%.0f%%', value and value * 100)
end

local function seconds_of(ctx)
    return '--seconds', ctx.seconds, '--warmup', ctx.warmup
end

-- Ping-pong ----------------------------------------------------------------------------------

-- Where other programs take CPU time away, both sides wait and messages/s say nothing.
local function warn_if_disturbed(ctx, results)
    local server, load = median(results, 'epoll', 'server_cpu'), median(results, 'epoll', 'load_cpu')
    if ctx.server_cpu and server and load and math.max(server, load) < 0.9 then
        report.print('\nOther programs were running: with the yardstick neither side had its CPU to itself. '
            .. 'Do not trust the messages/s; CPU per message suffers less.')
    end
end

local function pingpong(ctx, title, size, inflight, alike, list)
    list = list or ctx.servers
    report.heading(title .. ', 100 connections')
    local results = rounds_of(list, title, ctx.rounds, function(server)
        local figures = measure(ctx, server, server.lines and LINE or size, ctx.seconds + 60,
            '--connections', 100, '--inflight', inflight, '--alike', alike and 1 or 0,
            '--lines', server.lines and 1 or 0, seconds_of(ctx))
        if figures then
            figures.summary = string.format('%.0f messages/s, %.0f ns CPU each', figures.messages_per_s,
                figures.cpu_ns_per_message)
        end
        return figures
    end)
    local rows = {}
    for _, server in ipairs(list) do
        local function of(figure) return median(results, server.key, figure) end
        rows[#rows + 1] = {
            server.title,
            report.count(of 'messages_per_s'),
            report.number('%.2f', ratio(results, server.key, 'messages_per_s')),
            thousands('%.2f', of 'cpu_ns_per_message'),
            report.number('%.2f', ratio(results, server.key, 'cpu_ns_per_message')),
            report.count(of 'p50_us'),
            report.count(of 'p99_us'),
            percent(of 'server_cpu'),
            percent(of 'load_cpu'),
        }
    end
    report.table({ 'server', 'messages/s', 'x yardstick', 'CPU us per message', 'x yardstick', 'p50 us',
        'p99 us', 'server CPU', 'load CPU' }, rows)
    warn_if_disturbed(ctx, results)
    return results
end

function M.pingpong(ctx)
    local figure = 'cpu_ns_per_message'
    local results = pingpong(ctx, 'Ping-pong: 64 bytes, 1 in flight', 64, 1)
    report.limit('ping-pong, CPU per message against the yardstick', ratio(results, 'asio_read', figure),
        1.04, '%.2f x')
    for _, server in ipairs(ctx.servers) do
        if not server.ours and server.key ~= 'epoll' then
            local value = ratio(results, 'asio_read', figure, server.key)
            report.bound('ping-pong, CPU per message against ' .. server.title, 'below 1.00 x',
                report.number('%.2f x', value), value and value < 1)
        end
    end
end

function M.pipelined(ctx)
    -- Lua interns strings: one that exists already is found, a new one is made and collected. So
    -- messages that are all alike are the best case of read(n), messages that differ the worst.
    for _, case in ipairs { { 'all messages alike', true, 0.85 }, { 'every message different', false, 0.72 } } do
        local results = pingpong(ctx, 'Pipelined: 64 bytes, 16 in flight, ' .. case[1], 64, 16, case[2])
        report.limit('16 in flight, ' .. case[1] .. ', messages/s against the yardstick',
            ratio(results, 'asio_read', 'messages_per_s'), case[3], '%.2f x', 'least')
        local figure = 'cpu_ns_per_message'
        report.limit('16 in flight, ' .. case[1] .. ', read_some, CPU per message against the yardstick',
            ratio(results, 'asio_some', figure), 1.10, '%.2f x')
        report.limit('16 in flight, ' .. case[1] .. ', read_some, CPU per message against luv',
            ratio(results, 'asio_some', figure, 'luv'), 1.00, '%.2f x')
    end
end

-- The yardstick echoes messages of 64 bytes meanwhile, with no thought of what is in them.
function M.lines(ctx)
    for _, case in ipairs { { 'all lines alike', true }, { 'every line different', false } } do
        local results = pingpong(ctx, 'Lines: 32 bytes, answered one by one, 16 in flight, ' .. case[1],
            64, 16, case[2], ctx.line_servers)
        report.limit('lines/s of read_line against messages/s of the yardstick, ' .. case[1],
            ratio(results, 'asio_read_line', 'messages_per_s'), 0.72, '%.2f x', 'least')
    end
end

function M.large(ctx)
    local results = pingpong(ctx, 'Large messages: 16 KB, 1 in flight', 16384, 1)
    report.limit('16 KB messages, CPU per message against the yardstick',
        ratio(results, 'asio_read', 'cpu_ns_per_message'), 1.12, '%.2f x')
end

-- Idle connections ---------------------------------------------------------------------------

-- One server in one round: memory with a fresh server, then the busy ones with another fresh one.
local function idle_round(ctx, server)
    local idle = math.min(ctx.idle, server.most or ctx.idle)
    local memory = measure(ctx, server, 64, 120, '--mode', 'idle', '--idle', idle, '--seconds', 0)
    local busy = measure(ctx, server, 64, 3 * ctx.seconds + 120, '--mode', 'among', '--idle', idle,
        '--connections', 100, seconds_of(ctx))
    if not (memory and busy) then return nil end
    local alone = (busy.alone_cpu_ns + busy.again_cpu_ns) / 2
    return {
        idle = idle,
        opened = memory.bytes_opened,
        used = memory.bytes_used,
        alone = alone,
        among = busy.among_cpu_ns,
        summary = string.format('%d idle, %.0f and %.0f bytes each, busy ones x %.2f', idle,
            memory.bytes_opened, memory.bytes_used, busy.among_cpu_ns / alone),
    }
end

local function among_to_alone(results, key)
    return report.ratio(figure_of(results, key, 'among'), figure_of(results, key, 'alone'))
end

function M.idle(ctx)
    local title = string.format('Idle connections: %d, and 100 busy ones among them', ctx.idle)
    report.heading(title)
    local results = rounds_of(ctx.servers, 'idle', math.min(ctx.rounds, 3), function(server)
        return idle_round(ctx, server)
    end)
    local rows = {}
    for _, server in ipairs(ctx.servers) do
        local function of(figure) return median(results, server.key, figure) end
        rows[#rows + 1] = {
            server.title,
            report.count(of 'idle'),
            report.count(of 'opened'),
            report.number('%.1f', ratio(results, server.key, 'opened')),
            report.count(of 'used'),
            thousands('%.2f', of 'alone'),
            thousands('%.2f', of 'among'),
            report.number('%.2f', among_to_alone(results, server.key)),
        }
    end
    report.table({ 'server', 'idle', 'bytes each', 'x yardstick', 'bytes each, after one message',
        'busy alone: CPU us per message', 'busy among idle', 'x alone' }, rows)
    report.limit('memory of an idle connection, a light thread parked in read, bytes',
        median(results, 'asio_read', 'opened'), 1536, '%.0f')
    report.limit('the same after its first message, bytes', median(results, 'asio_read', 'used'), 1500, '%.0f')
    report.limit('100 busy among the idle, CPU per message against 100 alone',
        among_to_alone(results, 'asio_read'), 1.3, '%.2f x')
end

-- The server of ours that the rows below measure, nil when it does not take part.
local function ours(ctx)
    for _, server in ipairs(ctx.servers) do
        if server.key == 'asio_read' then return server end
    end
end

function M.silence(ctx)
    report.heading 'Silence: 1,000 idle connections over 5 seconds'
    local server = ours(ctx)
    local figures = server and measure(ctx, server, 64, 60, '--mode', 'idle', '--idle', 1000,
        '--seconds', 5)
    if figures then
        report.table({ 'server', 'CPU ns', 'voluntary context switches' },
            { { server.title, report.count(figures.silent_cpu_ns), report.count(figures.silent_switches) } })
    end
    report.limit('idle: CPU ns over 5 s', figures and figures.silent_cpu_ns, 0, '%.0f')
    report.limit('idle: wake-ups over 5 s', figures and figures.silent_switches, 0, '%.0f')
end

-- Connections that come and go ---------------------------------------------------------------

-- The two sides strictly take turns here. On one CPU the figures do not contain what it costs to
-- wake another CPU from its sleep, which on virtual machines is most of the time.
local function churn_rates(ctx)
    local results = rounds_of(ctx.servers, 'churn', ctx.rounds, function(server)
        local process, reason = servers.start(server.command(64), ctx.server_cpu)
        if not process then return report.note('%s: %s', server.key, reason) end
        local figures
        figures, reason = run_load(ctx, process, 120, ctx.server_cpu, '--mode', 'churn',
            '--count', ctx.churn_each)
        process:stop()
        if not figures then return report.note('%s: %s', server.key, reason) end
        figures.summary = string.format('%.0f connections/s', figures.connections_per_s)
        return figures
    end)
    local rows = {}
    for _, server in ipairs(ctx.servers) do
        local function of(figure) return median(results, server.key, figure) end
        rows[#rows + 1] = {
            server.title,
            report.count(of 'connections_per_s'),
            report.number('%.2f', ratio(results, server.key, 'connections_per_s')),
            thousands('%.1f', of 'cpu_ns_per_connection'),
            report.number('%.2f', ratio(results, server.key, 'cpu_ns_per_connection')),
        }
    end
    report.table({ 'server', 'connections/s', 'x yardstick', 'CPU us per connection', 'x yardstick' }, rows)
    report.limit('a connection that is used once, CPU against the yardstick',
        ratio(results, 'asio_read', 'cpu_ns_per_connection'), 1.2, '%.2f x')
end

-- The long run: what does the server keep of a million connections that came and went?
local function churn_long(ctx)
    local argv = { machine.launcher, machine.root .. '/bench/servers/asio_churn.lua', 64 }
    local process, reason = servers.start(argv, ctx.server_cpu)
    if not process then return report.note('asio_churn: %s', reason) end
    local control = process:wait_for('control', 1)
    report.note('churn: %d connections, this takes a while', ctx.churn)
    local figures
    figures, reason = run_load(ctx, process, 60 + ctx.churn / 500, ctx.server_cpu, '--mode', 'churn',
        '--count', ctx.churn, '--control', control)
    process:stop()
    if not figures then report.note('asio_churn: %s', reason) end
    return figures
end

function M.churn(ctx)
    report.heading(string.format('Connections one after another: %s', report.count(ctx.churn_each)))
    churn_rates(ctx)
    local figures = ours(ctx) and churn_long(ctx)
    local what = report.count(ctx.churn) .. ' connections one after another: '
    if figures then
        report.print '\nThe long run, LuaAsio alone, before and after, garbage collected both times:\n'
        report.table({ 'connections', 'connections/s', 'files before', 'after', 'RSS before', 'after',
            'RSS before the last collection', 'Lua heap before', 'after' }, { {
                report.count(figures.count), report.count(figures.connections_per_s),
                report.count(figures.fds_before), report.count(figures.fds_after),
                report.count(figures.rss_before), report.count(figures.rss_after),
                report.count(figures.rss_uncollected),
                report.count(figures.heap_before), report.count(figures.heap_after),
            } })
    end
    local leaked = figures and figures.fds_after - figures.fds_before
    report.bound(what .. 'files left open', 'exactly 0', report.number('%d', leaked), leaked and leaked == 0)
    report.limit(what .. 'RSS growth in bytes', figures and figures.rss_growth, 1048576, '%.0f')
end

return M
