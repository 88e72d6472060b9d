-- What a warm server of ours asks of the system's memory: page faults, counted by the load, and the calls
-- that give memory back and take it again, counted by strace.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'
local servers = require 'servers'

local M = {}

local LIMIT = 1  -- per 1,000
local WARM = 1.5 -- seconds: until loops are compiled and Lua's heap has its size
local MEMORY_CALLS = 'brk,mmap,munmap,mremap,madvise'

-- A name, the server, its argument, what the load is told.
local CASES = {
    { 'ping-pong, 64 bytes', 'asio_read', 64, '--size', 64 },
    { 'read(64), 16 in flight, alike', 'asio_read', 64, '--size', 64, '--inflight', 16, '--alike', 1 },
    { 'read(64), 16 in flight, different', 'asio_read', 64, '--size', 64, '--inflight', 16 },
    { 'read_some(), 16 in flight', 'asio_some', 64, '--size', 64, '--inflight', 16 },
    { 'read_line(), 16 in flight', 'asio_lines', 'read_line', '--size', 32, '--inflight', 16, '--lines', 1 },
    { '1,000 bytes, 4 in flight', 'asio_read', 1000, '--size', 1000, '--inflight', 4 },
    { '5,000 bytes', 'asio_read', 5000, '--size', 5000 },
    { '12,000 bytes', 'asio_read', 12000, '--size', 12000 },
    { '16 KB', 'asio_read', 16384, '--size', 16384 },
    { '60,000 bytes, in parts', 'asio_read', 60000, '--size', 60000, '--inflight', 2 },
    { 'connections used once', 'asio_churn', 64, '--size', 64, '--mode', 'churn' },
}

-- The load of one window; a churn warms up by itself.
local function start_load(ctx, case, process, seconds)
    local churn = case[2] == 'asio_churn'
    local argv = { ctx.load, '--port', process.port, '--pid', process.pid, unpack(case, 4) }
    local more = churn and { '--count', 20000 }
        or { '--connections', 100, '--seconds', seconds, '--warmup', WARM }
    for _, word in ipairs(more) do argv[#argv + 1] = word end
    return proc.start(argv, { cpu = churn and ctx.server_cpu or ctx.load_cpu })
end

-- Per 1,000 messages or connections.
local function page_faults(ctx, case, process)
    local figures = runs.parse((start_load(ctx, case, process, ctx.seconds):finish(ctx.seconds + 60)))
    local count = figures.messages or figures.count
    return count and figures.faults * 1000 / count
end

-- Sums up the table that strace -c writes: the calls of memory per 1,000 reads.
local function memory_calls_in(text)
    local reads, others = 0, 0
    for line in text:gmatch '[^\n]+' do
        local count, name = line:match '^%s*[%d.]+%s+[%d.]+%s+%d+%s+(%d+)%s.-(%a+)%s*$'
        if name == 'read' then
            reads = tonumber(count)
        elseif count and name ~= 'total' then
            others = others + tonumber(count)
        end
    end
    return reads > 0 and others * 1000 / reads or nil
end

-- The tracer comes when the load is under way, and goes before it ends.
local function memory_calls(ctx, case, process)
    if not machine.first_line('strace', '--version') then return nil end
    local path = os.tmpname()
    local load = start_load(ctx, case, process, 2 * ctx.seconds + 1)
    proc.sleep(WARM + 0.5)
    proc.run({ 'timeout', '-s', 'INT', tostring(ctx.seconds), 'strace', '-f', '-c', '-e',
        'trace=read,' .. MEMORY_CALLS, '-o', path, '-p', process.pid },
        { quiet = true, limit = ctx.seconds + 10 })
    load:stop()
    local text = machine.read_all(path)
    os.remove(path)
    return memory_calls_in(text)
end

local function measure(ctx, case)
    local argv = { machine.launcher, machine.root .. '/bench/servers/' .. case[2] .. '.lua', case[3] }
    local process, reason = servers.start(argv, ctx.server_cpu)
    if not process then return report.note('%s: %s', case[1], reason) end
    local faults, calls = page_faults(ctx, case, process), memory_calls(ctx, case, process)
    if faults and faults > LIMIT then -- on a busy machine it may not have been warm yet
        faults = page_faults(ctx, case, process) or faults
    end
    process:stop()
    local text = report.number('%.3f', faults)
    report.note('steady: %s: %s faults, %s calls', case[1], text, report.number('%.3f', calls))
    return faults, calls
end

function M.steady(ctx)
    report.heading 'Memory of warm servers'
    local rows, most_calls = {}, nil
    for _, case in ipairs(ctx.ours and CASES or {}) do
        local faults, calls = measure(ctx, case)
        rows[#rows + 1] = { case[1], report.number('%.3f', faults), report.number('%.3f', calls) }
        most_calls = calls and math.max(most_calls or 0, calls) or most_calls
        report.limit('page faults per 1,000 messages, ' .. case[1], faults, LIMIT, '%.3f')
    end
    report.table({ 'what', 'page faults per 1,000 messages', 'calls of memory per 1,000 reads' }, rows)
    report.limit('calls of brk, mmap, munmap, mremap, madvise per 1,000 reads, the worst case', most_calls,
        LIMIT, '%.3f')
end

return M
