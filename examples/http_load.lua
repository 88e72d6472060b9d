-- A load tester: asks for a URL over and over, over many connections, and tells how fast the answers came.
--     luajit http_load.lua URL [CONNECTIONS [SECONDS]]      10 connections, 5 seconds
-- `luajit http_load.lua http://127.0.0.1:8080/ 50 10` prints, for instance:
--     151233 requests in 10.0 s: 15123 a second, 21.4 MB of bodies
--     status 200: 151233
--     milliseconds: 50% 3.1, 90% 3.9, 99% 5.2, longest 11.8
-- Use it on servers of yours. Ctrl-C ends it early.
local asio = require 'asio'
local http = require 'asio.http'

local url, connections, seconds = arg[1], tonumber(arg[2] or 10), tonumber(arg[3] or 5)
if not url or not connections or connections < 1 or not seconds then
    io.stderr:write 'usage: http_load.lua URL [CONNECTIONS [SECONDS]]\n'
    os.exit(2, true)
end

local pool = http.pool { per_host = connections, total = connections }
local options = { pool = pool, redirects = false, max = math.huge, proxy = false }
local statuses, failures, times, bytes = {}, {}, {}, 0

local function count(counters, key)
    counters[key] = (counters[key] or 0) + 1
end

-- One connection's share: the next request follows the answer.
local function ask(deadline)
    while asio.now() < deadline do
        local began = asio.now()
        local response, message, code = http.get(url, options)
        if response then
            count(statuses, response.status)
            times[#times + 1] = asio.now() - began
            bytes = bytes + #response.body
        else
            count(failures, message)
            if code == 'EINVAL' then return end -- no URL
            asio.sleep(0.01) -- a server that refuses is not asked a million times
        end
    end
end

local function print_counts(what, counters)
    local keys = {}
    for key in pairs(counters) do keys[#keys + 1] = key end
    table.sort(keys)
    for _, key in ipairs(keys) do print(('%s %s: %d'):format(what, key, counters[key])) end
end

local function percentile(share)
    return 1000 * times[math.max(1, math.ceil(share * #times))]
end

local function print_results(took)
    print(('%d requests in %.1f s: %.0f a second, %.1f MB of bodies'):format(
        #times, took, #times / took, bytes / 1e6))
    print_counts('status', statuses)
    print_counts('failed', failures)
    if #times == 0 then return end
    table.sort(times)
    print(('milliseconds: 50%% %.1f, 90%% %.1f, 99%% %.1f, longest %.1f'):format(
        percentile(0.5), percentile(0.9), percentile(0.99), percentile(1)))
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    local began = asio.now()
    local work = asio.spawn(asio.group, function(g)
        for _ = 1, connections do g:spawn(ask, began + seconds) end
    end)
    local watch = asio.spawn(function()
        interrupt:wait()
        work:cancel()
    end)
    local ok, err = work:join()
    watch:cancel()
    pool:close()
    print_results(asio.now() - began)
    if not ok and err ~= asio.cancelled then io.stderr:write(tostring(err), '\n') end
end)
os.exit(next(failures) and 1 or 0, true)
