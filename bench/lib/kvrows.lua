-- The key-value server among the examples (examples/redis_server.lua) against redis-server, with the load of
-- redis-benchmark: CPU time of the server's process, so that a load that is too slow does not matter.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'
local servers = require 'servers'

local M = {}

local KEYS = 1000
local LIMIT = 120 -- seconds that a load may take

-- spread: the server and the load have all processors together.
local function candidates(ctx)
    local example = machine.root .. '/examples/redis_server.lua'
    local list = { { key = 'redis', title = 'redis-server', command = function(port)
        return { 'redis-server', '--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no' }
    end } }
    for threads = 1, ctx.ours and math.min(2, #proc.cpus()) or 0 do
        list[#list + 1] = {
            key = 'kv' .. threads, spread = threads > 1,
            title = threads == 1 and '**LuaAsio**, 1 thread' or '**LuaAsio**, 2 threads, on any processor',
            command = function(port) return { machine.launcher, example, '127.0.0.1', port, threads } end,
        }
    end
    return list
end

-- Runs the load; returns requests/s by its own count, and the server's CPU time a request in us.
local function load(ctx, server, process, what, requests, pipeline)
    local before = process:cpu_ns()
    local text, status = proc.run({ 'redis-benchmark', '-p', process.port, '-t', what, '-r', KEYS, '-n',
        ('%.0f'):format(requests), '-P', pipeline, '--csv' },
        { cpu = not server.spread and ctx.load_cpu or nil, limit = LIMIT, quiet = true })
    local after = process:cpu_ns()
    local rate = tonumber(text:match(('"%s","([%%d.]+)"'):format(what:upper())))
    if status ~= 0 or not rate or not after then
        report.note('%s: the load failed: %s', server.key, tostring(status))
        return nil
    end
    return rate, (after - before) / requests / 1000
end

-- One server process: it is filled first, then read and written.
local function measure(ctx, server, requests, pipeline)
    local port = proc.free_port()
    local cpu = not server.spread and ctx.server_cpu or nil
    local process, reason = servers.start(server.command(port), cpu, port)
    if not process then return report.note('%s: %s', server.key, reason) end
    local figures = {}
    if load(ctx, server, process, 'set', requests / 5, 16) then
        for _, what in ipairs { 'get', 'set' } do
            local rate, us = load(ctx, server, process, what, requests, pipeline)
            figures[what .. '_rate'], figures[what .. '_us'] = rate, us
        end
    end
    process:stop()
    figures.summary = ('get %s us, set %s us'):format(
        report.number('%.3f', figures.get_us), report.number('%.3f', figures.set_us))
    return figures
end

local function print_table(list, results)
    local rows = {}
    for i, server in ipairs(list) do
        local mine = results[server.key]
        rows[i] = { server.title }
        for _, what in ipairs { 'get', 'set' } do
            local function median(figure)
                return report.median(report.present(mine[what .. figure] or {}, results.rounds))
            end
            local ratio = report.ratio(mine[what .. '_us'] or {}, results.redis[what .. '_us'] or {})
            table.insert(rows[i], report.number('%.3f', median '_us'))
            table.insert(rows[i], report.number('%.2f', ratio))
            table.insert(rows[i], report.count(median '_rate'))
        end
    end
    report.table({ 'server', 'CPU us per GET', 'x redis-server', 'GET/s', 'CPU us per SET', 'x redis-server',
        'SET/s' }, rows)
end

-- Returns our ratios of GET and SET against redis-server, on one thread.
local function compare(ctx, name, per_second, pipeline)
    local _, status = proc.run({ 'redis-benchmark', '--version' }, { quiet = true })
    local _, server_status = proc.run({ 'redis-server', '--version' }, { quiet = true })
    if status ~= 0 or server_status ~= 0 then
        return report.note('%s: left out, Redis is not installed', name)
    end
    report.heading(('Key-value server: 50 connections, %d keys, %d in flight'):format(KEYS, pipeline))
    local list = candidates(ctx)
    local results = runs.rounds(list, name, ctx.rounds, function(server)
        return measure(ctx, server, per_second * ctx.seconds, pipeline)
    end)
    print_table(list, results)
    local function against(figure)
        return report.ratio((results.kv1 or {})[figure] or {}, results.redis[figure] or {})
    end
    return against 'get_us', against 'set_us'
end

function M.kv_pipelined(ctx)
    local get, set = compare(ctx, 'kv_pipelined', 400000, 16)
    report.limit('key-value server, pipelined GET, CPU against redis-server', get, 1.5, '%.2f')
    report.limit('key-value server, pipelined SET, CPU against redis-server', set, 1.5, '%.2f')
end

function M.kv_pingpong(ctx)
    local get = compare(ctx, 'kv_pingpong', 40000, 1)
    report.limit('key-value server, GET one at a time, CPU against redis-server', get, 1.5, '%.2f')
end

return M
