-- What several Lua states in one process cost: states.lua WHAT [COUNT] [ROUNDS] [PATH]
--     channel   so many numbers over a shared channel from one state to another; to and fro, one at a time
--     dict      so many get and set of 100 bytes by two states at once; with PATH, a Unix socket of Redis,
--               the same by two states that ask Redis, a tenth as many
--     offload   so many calls of a function that does nothing
--     state     so many states started and joined, one after another; then so many at once: memory of each
-- One line a round, after one that warms up: key=value; bench/run starts it. Times are of the clock, not of
-- the processor: several states work at once.
-- SPDX-License-Identifier: MIT
local asio = require 'asio'

local what = {}

local function seconds(fn)
    local began = asio.now()
    fn()
    return asio.now() - began
end

local function over_channel(count)
    local channel = asio.shared.channel(1024)
    local reader = asio.worker(function()
        local n = 0
        for _ in channel:iter() do n = n + 1 end
        return n
    end)
    return count / seconds(function()
        for i = 1, count do channel:send(i) end
        channel:close()
        assert(select(2, reader:join()) == count)
    end)
end

local function to_and_fro(count)
    local there, back = asio.shared.channel(), asio.shared.channel()
    local echo = asio.worker(function()
        for value in there:iter() do back:send(value) end
    end)
    there:send(0)
    back:recv()
    local took = seconds(function()
        for i = 1, count do
            there:send(i)
            back:recv()
        end
    end)
    there:close()
    echo:join()
    return took / count / 2 * 1e6
end

function what.channel(count)
    return { { 'messages_per_s', over_channel(count) }, { 'one_way_us', to_and_fro(math.ceil(count / 50)) } }
end

-- Two states that do fn(count) at the same time: operations a second of both.
local function two_states(count, fn, ...)
    local began = asio.now()
    local a, b = asio.worker(fn, count / 2, ...), asio.worker(fn, count / 2, ...)
    assert(a:join())
    assert(b:join())
    return count / (asio.now() - began)
end

local function use_dict(count, dict)
    local keys, value = {}, ('v'):rep(100)
    for i = 1, 1000 do keys[i] = 'key:' .. i end
    for i = 1, count / 2 do
        local key = keys[i % 1000 + 1]
        dict:set(key, value)
        assert(dict:get(key))
    end
end

local function use_redis(count, path)
    local redis = assert(require 'asio'.connect('unix:' .. path))
    local value = ('v'):rep(100)
    for i = 1, count / 2 do
        local key = 'key:' .. i % 1000 + 1
        redis:write(('*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$100\r\n%s\r\n'):format(#key, key, value))
        assert(redis:read_line() == '+OK')
        redis:write(('*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n'):format(#key, key))
        assert(redis:read_line() == '$100')
        assert(redis:read_line() == value)
    end
end

function what.dict(count, path)
    local figures = { { 'dict_per_s', two_states(count, use_dict, asio.shared.dict()) } }
    if path then figures[2] = { 'redis_per_s', two_states(count / 10, use_redis, path) } end
    return figures
end

local function nothing() end

function what.offload(count)
    asio.offload(nothing) -- the first one starts a state
    return { { 'round_trip_us',
        seconds(function() for _ = 1, count do asio.offload(nothing) end end) / count * 1e6 } }
end

local function rss()
    local file = assert(io.open '/proc/self/smaps_rollup')
    local text = file:read '*a'
    file:close()
    return tonumber(text:match 'Rss:%s*(%d+)') * 1024
end

function what.state(count)
    local took = seconds(function() for _ = 1, count do assert(asio.worker(nothing):join()) end end)
    collectgarbage()
    local before, started, wait = rss(), asio.shared.channel(count), asio.shared.channel()
    for _ = 1, count do
        asio.worker(function()
            started:send(true)
            wait:recv()
        end)
    end
    for _ = 1, count do started:recv() end
    local bytes = (rss() - before) / count
    wait:close()
    return { { 'start_ms', took / count * 1e3 }, { 'bytes_each', bytes } }
end

local run = what[arg[1]]
if not run then
    io.stderr:write 'usage: states.lua channel|dict|offload|state [COUNT] [ROUNDS] [PATH]\n'
    os.exit(2)
end
asio.run(function()
    for i = 0, tonumber(arg[3]) or 5 do
        local words = {}
        for _, figure in ipairs(run(tonumber(arg[2]) or 100000, arg[4])) do
            words[#words + 1] = ('%s=%.3f'):format(figure[1], figure[2])
        end
        if i > 0 then
            print(table.concat(words, ' '))
            io.stdout:flush()
        end
    end
end)
