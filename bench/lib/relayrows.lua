-- The measurements of relays, ours, a loop of splice in C, HAProxy and socat in turn: one long stream
-- (relay_load.c), and many connections of small messages (load.c, with epoll_echo behind the relay).
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'
local servers = require 'servers'

local M = {}

local START_SECONDS = 10 -- of the server behind the relay
local STREAM_LIMIT, MESSAGES_LIMIT = 1.3, 0.9 -- times the C loop's CPU; times HAProxy's messages

-- Relays from one port to another.
local HAPROXY = [[
global
  nbthread 1
  maxconn 5000
defaults
  mode tcp
  %s
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen relay
  bind 127.0.0.1:%d backlog 4096
  server target 127.0.0.1:%d
]]

local function haproxy(option)
    return function(port, target)
        local path = ('%s/haproxy.%d.cfg'):format(machine.scratch, port)
        local file = assert(io.open(path, 'w'))
        file:write(HAPROXY:format(option, port, target))
        file:close()
        return { 'haproxy', '-db', '-q', '-f', path }, function() os.remove(path) end
    end
end

-- key; command(port, target): argv and what removes its traces. Those that are told no port print theirs.
local function relays(ctx, many)
    local loop = machine.program 'splice_relay'
    local list = {
        not many and { key = 'splice', title = 'splice, C', says = true,
            command = loop and function(_, target) return { loop, target } end },
        { key = 'asio', title = '**LuaAsio**', says = true, command = ctx.ours and function(_, target)
            return { machine.launcher, machine.root .. '/bench/servers/asio_relay.lua', target }
        end },
    }
    if machine.first_line('haproxy', '-v') then
        list[#list + 1] = { key = 'haproxy', title = 'HAProxy', command = haproxy '' }
        if not many then
            list[#list + 1] = { key = 'haproxy_splice', title = 'HAProxy, option splice-auto',
                command = haproxy 'option splice-auto' }
        end
    else
        report.note 'haproxy: left out, it is not installed'
    end
    if many then return list end
    if machine.first_line('socat', '-V') then
        for _, size in ipairs { 8192, 65536 } do
            local key, title = 'socat_' .. size, 'socat -b ' .. size
            list[#list + 1] = { key = key, title = title, command = function(port, target)
                return { 'socat', '-b', size, ('TCP-LISTEN:%d,bind=127.0.0.1'):format(port),
                    'TCP:127.0.0.1:' .. target }
            end }
        end
    else
        report.note 'socat: left out, it is not installed'
    end
    return list
end

local function start(ctx, relay, target)
    local port = not relay.says and proc.free_port() or nil
    local argv, clean = relay.command(port, target)
    local process, reason = servers.start(argv, ctx.server_cpu, port)
    if clean then clean() end
    if process then return process end
    return report.note('%s: %s', relay.key, reason)
end

-- Runs a load, `argv`, against a relay to `target`; its figures, or nil.
local function measure(ctx, relay, target, limit, argv)
    local process = start(ctx, relay, target)
    if not process then return nil end
    for _, word in ipairs { '--port', process.port, '--pid', process.pid } do argv[#argv + 1] = word end
    local text, status = proc.run(argv, { cpu = ctx.load_cpu, limit = limit })
    process:stop()
    if status ~= 0 then return report.note('%s: the load failed: %s', relay.key, tostring(status)) end
    local figures = runs.parse(text)
    figures.summary = figures.cpu_s_per_gb or figures.messages_per_s
    return figures
end

local function median(ctx, mine, figure)
    return report.median(report.present(mine[figure] or {}, ctx.rounds))
end

local function ratio(results, figure, key, base)
    local mine, theirs = results[key], results[base]
    return mine and theirs and report.ratio(mine[figure] or {}, theirs[figure] or {})
end

-- Those that are there.
local function present(candidates)
    local list = {}
    for _, relay in ipairs(candidates) do
        if relay and relay.command then list[#list + 1] = relay end
    end
    return list
end

-- One long stream ---------------------------------------------------------------------------------

-- The best that a peer has to offer, by CPU: its key.
local function best(ctx, results, pattern)
    local key, least
    for name, mine in pairs(results) do
        local cpu = name:find(pattern) and median(ctx, mine, 'cpu_s_per_gb')
        if cpu and (not least or cpu < least) then key, least = name, cpu end
    end
    return key
end

function M.relay(ctx)
    local load = assert(machine.program 'relay_load', 'bench/relay_load.c did not build')
    local bytes = ctx.relay * 1e9
    local list = present(relays(ctx))
    local results = runs.rounds(list, 'relay', ctx.rounds, function(relay)
        local target = proc.free_port()
        return measure(ctx, relay, target, 60 + 10 * ctx.relay,
            { load, '--target', target, '--bytes', ('%.0f'):format(bytes) })
    end)
    report.heading(('Relay: one stream of %g GB'):format(ctx.relay))
    local rows = {}
    for _, relay in ipairs(list) do
        local mine = results[relay.key]
        rows[#rows + 1] = {
            relay.title,
            report.number('%.3f', median(ctx, mine, 'cpu_s_per_gb')),
            report.number('%.2f', ratio(results, 'cpu_s_per_gb', relay.key, 'splice')),
            report.number('%.2f', median(ctx, mine, 'gb_per_s')),
            report.number('%.0f%%', (median(ctx, mine, 'relay_cpu') or 0) * 100),
        }
    end
    report.table({ 'relay', 'CPU s per GB', 'x splice in C', 'GB/s', 'relay CPU' }, rows)
    if not ctx.ours then return end
    report.limit('Relay, CPU per GB against a loop of splice in C',
        ratio(results, 'cpu_s_per_gb', 'asio', 'splice'), STREAM_LIMIT, '%.2f x')
    for _, peer in ipairs { 'haproxy', 'socat' } do
        local key = best(ctx, results, '^' .. peer)
        report.limit(('Relay, CPU per GB against %s'):format(key or peer),
            key and ratio(results, 'cpu_s_per_gb', 'asio', key), 1, '%.2f x')
    end
end

-- Many connections of small messages ----------------------------------------------------------------

function M.relay_pingpong(ctx)
    local echo = assert(machine.program 'epoll_echo', 'bench/epoll_echo.c did not build')
    local list = present(relays(ctx, true))
    local results = runs.rounds(list, 'relay_pingpong', ctx.rounds, function(relay)
        local server = proc.start({ echo }, { cpu = ctx.load_cpu })
        local target = server:wait_for('port', START_SECONDS)
        local figures = target and measure(ctx, relay, target, ctx.seconds + 60, { ctx.load,
            '--connections', 1000, '--size', 64, '--seconds', ctx.seconds, '--warmup', ctx.warmup })
        server:stop()
        return figures
    end)
    report.heading 'Relay: 1,000 connections of ping-pong, 64 bytes'
    local rows = {}
    for _, relay in ipairs(list) do
        local mine = results[relay.key]
        rows[#rows + 1] = {
            relay.title,
            report.count(median(ctx, mine, 'messages_per_s')),
            report.number('%.2f', ratio(results, 'messages_per_s', relay.key, 'haproxy')),
            report.number('%.2f', (median(ctx, mine, 'cpu_ns_per_message') or 0) / 1000),
            report.count(median(ctx, mine, 'p50_us')),
            report.count(median(ctx, mine, 'p99_us')),
            report.number('%.0f%%', (median(ctx, mine, 'server_cpu') or 0) * 100),
        }
    end
    report.table({ 'relay', 'messages/s', 'x HAProxy', 'CPU us per message', 'p50 us', 'p99 us',
        'relay CPU' }, rows)
    report.limit('Relay, messages/s against HAProxy', ratio(results, 'messages_per_s', 'asio', 'haproxy'),
        MESSAGES_LIMIT, '%.2f x', 'least')
end

return M
