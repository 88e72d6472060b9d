-- The measurements inside one process: light threads, timers, the time to load, the size.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'

local M = {}

local micro, column = runs.micro, runs.column

local REQUIRE_RUNS = 20

function M.spawn(ctx)
    report.heading 'Light threads that do nothing'
    local lines = ctx.ours and micro(ctx, machine.launcher, 'spawn', ctx.spawns, ctx.rounds)
    local light, plain = column(lines, 'spawn_ns'), column(lines, 'coroutine_ns')
    if lines then
        report.table({ 'what', 'ns each' }, {
            { 'spawn a light thread that finishes at once', report.count(report.median(light)) },
            { 'plain LuaJIT: coroutine.create and resume to the end', report.count(report.median(plain)) },
        })
    end
    report.limit('spawn + finish against coroutine.create + resume', report.ratio(light, plain), 1.5,
        '%.2f x')
end

function M.sleepers(ctx)
    report.heading '1,000,000 light threads asleep at once'
    local lines = ctx.ours and micro(ctx, machine.launcher, 'sleepers', 1000000)
    local bare = micro(ctx, machine.luajit, 'coroutines', 1000000)
    local each = lines and lines[1].bytes_each
    if lines then
        report.table({ 'what', 'bytes each', 'after a full collection' }, {
            { 'light thread asleep', report.count(each), report.count(lines[1].bytes_each_collected) },
            { 'plain LuaJIT: suspended coroutine', report.count(bare and bare[1].bytes_each), '-' },
        })
    end
    report.limit('1,000,000 light threads asleep, bytes each', each, 1536, '%.0f')
end

function M.timers(ctx)
    report.heading '1,000,000 random deadlines'
    local heap = runs.heap(ctx)
    local lines = ctx.ours and micro(ctx, machine.launcher, 'timers', 1000000)
    local sleeping = lines and lines[1] or {}
    report.table({ 'what', 'set, ns each', 'fired, ns of CPU each' }, {
        { 'the heap alone, in C', report.count(heap.insert_ns), report.count(heap.fire_ns) },
        { 'spawn a light thread that sleeps; wake and finish it', report.count(sleeping.set_ns),
            report.count(sleeping.fire_ns) },
    })
    report.limit('timers: insert, ns each', heap.insert_ns, 1000, '%.0f')
    report.limit('timers: fire, ns each', heap.fire_ns, 1000, '%.0f')
    report.bound('timers: fired before an earlier one', 'exactly 0', report.number('%d', heap.disorder),
        heap.disorder and heap.disorder == 0)
    local late = sleeping.timers and sleeping.timers - sleeping.fired
    report.bound('timers: sleepers that never woke', 'exactly 0', report.number('%d', late),
        late and late == 0)
    -- Sleepers compute their seconds from a clock of their own, a little before asio reads its.
    report.limit('timers: woken before an earlier deadline, by us', sleeping.disorder_us, 1000, '%.0f')
end

-- Milliseconds from the start of a process to the end of its output.
local function process_ms(ctx, code)
    local began = proc.now()
    local process = proc.start({ machine.launcher, '-e', code }, { cpu = ctx.server_cpu })
    while process:fill(began + 10) do end
    local took = (proc.now() - began) * 1000
    process:reap(5)
    return took
end

function M.require(ctx)
    report.heading "require 'asio'"
    local inside, whole, empty = {}, {}, {}
    for run = 1, ctx.ours and REQUIRE_RUNS or 0 do
        empty[run] = process_ms(ctx, '')
        whole[run] = process_ms(ctx, "require 'asio'")
        local lines = micro(ctx, machine.launcher, 'require')
        inside[run] = lines and lines[1].require_ms
    end
    local before, after = report.median(empty), report.median(whole)
    local difference = before and after - before
    report.table({ 'what', 'ms' }, {
        { 'measured inside the process', report.number('%.2f', report.median(inside)) },
        { 'process that requires it, less an empty one', report.number('%.2f', difference) },
        { 'an empty process, started by test/luajit', report.number('%.2f', before) },
    })
    local worse = difference and math.max(difference, report.median(inside) or 0)
    report.limit("require 'asio', ms (the larger of the two)", worse, 5, '%.2f')
end

-- libc is several files on some systems; the rest is what the C compiler itself needs.
local function is_libc(name)
    for _, pattern in ipairs { '^libc%.', '^libm%.', '^libpthread%.', '^libdl%.', '^librt%.', '^ld%-' } do
        if name:find(pattern) then return true end
    end
    return false
end

-- Bytes of a module without what only debuggers use.
local function stripped_size(module)
    if not machine.exists(module) then return nil end
    proc.run { 'mkdir', '-p', machine.scratch }
    local stripped = machine.scratch .. '/asio.stripped'
    local _, status = proc.run { 'strip', '-o', stripped, module }
    local size = status == 0 and #machine.read_all(stripped) or nil
    os.remove(stripped)
    return size
end

-- The build for devices is made by ./build.sh bench.
function M.size()
    report.heading 'asio.so'
    local module = machine.build and machine.build .. '/asio.so'
    local links, others, whole, small = {}, {}, nil, nil
    if module and machine.exists(module) then
        whole = stripped_size(module)
        small = stripped_size(machine.build .. '/../device/asio.so')
        local dynamic = proc.run({ 'readelf', '-d', module }, { env = { LC_ALL = 'C' } })
        for name in dynamic:gmatch 'NEEDED.-%[(.-)%]' do
            links[#links + 1] = name
            if not is_libc(name) and not name:find '^libuv%.' then others[#others + 1] = name end
        end
        report.table({ 'stripped, bytes', 'built for devices', 'links' },
            { { report.count(whole), small and report.count(small) or '-',
                table.concat(links, ', ') } })
    end
    report.limit('asio.so stripped, bytes', whole, 225200, '%.0f')
    report.limit('asio.so stripped, built for devices, bytes', small, 200 * 1024, '%.0f')
    report.bound('asio.so links', 'libuv and libc only', #links > 0 and table.concat(links, ', ') or '-',
        #links > 0 and #others == 0)
end

return M
