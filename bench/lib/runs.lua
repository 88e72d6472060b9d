-- One measurement at a time: the load against a server, a part of micro.lua, the heap of deadlines.
-- Each returns the figures that the program printed as key=value, nil when it failed.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local servers = require 'servers'

local M = {}

-- The figures that a program has printed: key=value.
function M.parse(text)
    local result = {}
    for key, value in text:gmatch '([%w_]+)=(%S+)' do result[key] = tonumber(value) or value end
    return result
end

local parse = M.parse

-- results[server.key][figure][round], for every server in turn, round after round. `one` returns the
-- figures of a round, among them a `summary`.
function M.rounds(list, title, rounds, one)
    local results = { rounds = rounds }
    for _, server in ipairs(list) do results[server.key] = {} end
    for round = 1, rounds do
        for _, server in ipairs(list) do
            local figures = one(server) or {}
            report.note('%s, round %d of %d: %s: %s', title, round, rounds, server.key,
                figures.summary or 'nothing')
            local mine = results[server.key]
            for name, value in pairs(figures) do
                mine[name] = mine[name] or {}
                mine[name][round] = value
            end
        end
    end
    return results
end

-- Prints the results of rounds: a row for each server, of columns { title, figure, format, divisor }; medians.
-- With base = KEY: ratios of the figure to that server's.
function M.print(list, results, columns)
    local titles, rows = { 'server' }, {}
    for _, column in ipairs(columns) do titles[#titles + 1] = column[1] end
    for i, server in ipairs(list) do
        rows[i] = { server.title }
        local mine = results[server.key]
        for _, column in ipairs(columns) do
            local values, value = mine[column[2]] or {}
            if column.base then
                value = report.ratio(values, (results[column.base] or {})[column[2]] or {})
            else
                value = report.median(report.present(values, results.rounds))
            end
            value = value and value / (column[4] or 1)
            table.insert(rows[i], column[3] and report.number(column[3], value) or report.count(value))
        end
    end
    report.table(titles, rows)
end

-- A function of a figure and another server's key: the ratio of our figure to that server's.
function M.against(ours)
    return function(results, figure, base)
        return report.ratio((results[ours] or {})[figure] or {}, (results[base] or {})[figure] or {})
    end
end

-- A column of M.print.
M.SERVER_CPU = { 'server CPU', 'server_cpu', '%.0f%%', 0.01 }

-- Runs the load against a running server; returns its figures, or nil and what went wrong.
function M.load(ctx, process, limit, cpu, ...)
    local argv = { ctx.load, '--port', process.port, '--pid', process.pid, ... }
    local text, status = proc.run(argv, { cpu = cpu, limit = limit })
    if status ~= 0 then return nil, 'the load failed: ' .. tostring(status) end
    return parse(text)
end

-- Starts one server, runs the load once, stops the server.
function M.server(ctx, server, size, limit, ...)
    local process, reason = servers.start(server.command(size), ctx.server_cpu)
    local result
    if process then
        result, reason = M.load(ctx, process, limit, ctx.load_cpu, '--size', size, ...)
        process:stop()
    end
    if not result then report.note('%s: %s', server.key, reason) end
    return result
end

-- Runs micro.lua; returns a list of its lines as tables of figures.
function M.micro(ctx, interpreter, what, ...)
    local script = machine.root .. '/bench/micro.lua'
    local text, status = proc.run({ interpreter, script, what, ... }, { cpu = ctx.server_cpu, limit = 300 })
    if status ~= 0 then
        report.note('micro.lua %s failed: %s', what, status)
        return nil
    end
    local lines = {}
    for line in text:gmatch '[^\n]+' do lines[#lines + 1] = parse(line) end
    return lines[1] and lines
end

-- One figure of such lines: a value a round.
function M.column(lines, key)
    local values = {}
    for round, line in ipairs(lines or {}) do values[round] = line[key] end
    return values
end

-- The heap of deadlines by itself, in C: the program is there when it has been built. Gives an
-- empty table when it is not.
function M.heap(ctx)
    local program = machine.build and machine.build .. '/bench/timers'
    if not machine.exists(program) then
        report.note 'timers: no program for the heap alone'
        return {}
    end
    local text, status = proc.run({ program }, { cpu = ctx.server_cpu, limit = 120 })
    if status ~= 0 then
        report.note('timers failed: %s', status)
        return {}
    end
    return parse(text)
end

return M
