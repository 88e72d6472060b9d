-- SPDX-License-Identifier: MIT
--
-- Servers with the option `threads`: each thread has connections, settings and counters of its own, in its
-- own Lua state. What is asked of all of them goes through the servers of plugins/worker, to which HTTP is a
-- layer (c.server there).

local core, c, http = ...
local asio = core.asio
local ipairs, pairs, type = ipairs, pairs, type

http.internal = http.internal or {}

-- In a thread: what serves its connections, and what the thread calls. Other states find it by this name.
local function layer(handler, own)
    local settings = c.settings_of(handler, own, 2)
    return c.connections_of(settings), {
        shutdown = function() c.close_idle(settings) end,
        stats = function(counters) counters.http = c.metrics_of(settings) end,
    }
end
http.internal.layer = layer

-- asio.server for a handler that goes to threads, with our own options; raises for what cannot go there.
function c.threaded_server(handler, own, arg)
    if type(handler) ~= 'function' then
        c.bad(arg, 'server', 'a function or a router expected: other tables cannot go to threads')
    end
    return function(first, second, third, fourth)
        local worker, message, code = core.plugin('worker', 'to be installed')
        if not worker then return nil, message, code end
        for name, value in pairs(own) do worker.check_carried(("option '%s'"):format(name), value) end
        local function over(fn) return layer(fn, own) end
        return worker.server(asio.server, first, second, third, fourth, over)
    end
end

local COUNTERS = { 'requests', 'connections', 'active', 'failed', 'refused' }

local function add_to(sum, metrics)
    for _, name in ipairs(COUNTERS) do sum[name] = sum[name] + metrics[name] end
    for status, n in pairs(metrics.responses) do sum.responses[status] = (sum.responses[status] or 0) + n end
end

-- Of all threads, beside a list of those of each: without counters if it has ended or is silent.
function c.metrics_of_threads(listener, timeout)
    local stats = listener:stats(timeout)
    local sum = { responses = {}, silent = stats.silent }
    for _, name in ipairs(COUNTERS) do sum[name] = 0 end
    for i, thread in ipairs(stats) do
        local metrics = {}
        for name, value in pairs(thread.http or metrics) do metrics[name] = value end
        if thread.http then add_to(sum, metrics) end
        metrics.name, metrics.status = thread.name, thread.status
        sum[i] = metrics
    end
    return sum
end
