-- What several Lua states in one process cost: channels and dicts between them, offloading, a state itself.
-- They use all processors, so nothing here is bound to one.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'

local M = {}

-- The medians of what states.lua prints, by key; an empty table if it fails.
local function states(ctx, ...)
    local script = machine.root .. '/bench/states.lua'
    local text, status = proc.run({ machine.launcher, script, ... }, { limit = 300 })
    if status ~= 0 then
        report.note('states.lua %s failed: %s', (...), tostring(status))
        return {}
    end
    local values, medians = {}, {}
    for line in text:gmatch '[^\n]+' do
        for key, value in pairs(runs.parse(line)) do
            values[key] = values[key] or {}
            table.insert(values[key], value)
        end
    end
    for key, list in pairs(values) do medians[key] = report.median(list) end
    return ctx.ours and medians or {}
end

function M.states_channel(ctx)
    report.heading 'A shared channel between two Lua states'
    local m = states(ctx, 'channel', 1000000, ctx.rounds)
    report.table({ 'what', 'figure' }, {
        { 'numbers a second, capacity 1024', report.count(m.messages_per_s) },
        { 'one way, one at a time, us', report.number('%.1f', m.one_way_us) },
    })
    report.limit('shared channel, messages a second', m.messages_per_s, 1500000, '%.0f', 'least')
    report.limit('shared channel, one way, us', m.one_way_us, 15, '%.1f')
end

-- A Redis of its own on a Unix socket; nil where there is none.
local function redis()
    local _, status = proc.run({ 'redis-server', '--version' }, { quiet = true })
    if status ~= 0 then return nil end
    local path = machine.scratch .. '/redis.sock'
    local process = proc.start { 'redis-server', '--port', '0', '--unixsocket', path, '--save', '',
        '--appendonly', 'no', '--daemonize', 'no' }
    for _ = 1, 100 do
        local _, answered = proc.run({ 'redis-cli', '-s', path, 'ping' }, { quiet = true })
        if answered == 0 then return process, path end
        proc.sleep(0.05)
    end
    process:stop()
    return nil
end

function M.states_dict(ctx)
    report.heading 'A shared dict: get and set of 100 bytes by two Lua states at once'
    local process, path = redis()
    local m = states(ctx, 'dict', 2000000, ctx.rounds, path)
    if process then process:stop() end
    local times = m.dict_per_s and m.redis_per_s and m.dict_per_s / m.redis_per_s
    report.table({ 'what', 'operations a second' }, {
        { 'asio.shared.dict', report.count(m.dict_per_s) },
        { 'Redis on a Unix socket, one at a time', report.count(m.redis_per_s) },
    })
    report.limit('shared dict, operations a second', m.dict_per_s, 2000000, '%.0f', 'least')
    report.limit('shared dict, operations against Redis on a Unix socket', times, 10, '%.0f x', 'least')
end

function M.states_offload(ctx)
    report.heading 'asio.offload of a function that does nothing'
    local m = states(ctx, 'offload', 20000, ctx.rounds)
    report.limit('offload, there and back, us', m.round_trip_us, 25, '%.1f')
end

function M.states_state(ctx)
    report.heading 'A Lua state on a thread'
    local m = states(ctx, 'state', 100, ctx.rounds)
    report.limit('a state: started, and joined, ms', m.start_ms, 3, '%.2f')
    report.limit('a state: memory, KB', m.bytes_each and m.bytes_each / 1024, 600, '%.0f')
end

return M
