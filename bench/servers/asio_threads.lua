-- Echo server of ours in several threads, which may compute before it answers:
--     asio_threads.lua SIZE THREADS [STEPS]
--     asio_threads.lua calibrate MICROSECONDS      says how many steps take so long
local asio = require 'asio'

local function compute(steps)
    local sum = 0
    for i = 1, steps do sum = (sum * 31 + i) % 65521 end
    return sum
end

if arg[1] == 'calibrate' then
    local steps, best = 100000, math.huge
    for _ = 1, 50 do
        local began = asio.now()
        compute(steps)
        best = math.min(best, asio.now() - began)
    end
    print('steps=' .. math.floor(steps * tonumber(arg[2]) / 1e6 / best + 0.5))
    return
end

local size, steps = tonumber(arg[1]), tonumber(arg[3]) or 0

local server = assert(asio.server('127.0.0.1', 0, function(con)
    while true do
        local data = con:read(size)
        if not data then break end
        if steps > 0 then compute(steps) end
        con:write(data)
    end
    con:close()
end, { threads = tonumber(arg[2]) }))

local _, port = server:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
