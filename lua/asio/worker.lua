-- SPDX-License-Identifier: MIT
-- All cores: what is here loads asio/worker.so (src/plugins/worker) when it is first needed, and calls it.

local core = ...
local asio = core.asio
local server, watchdog = asio.server, asio.watchdog

local function from(name)
    return function(...)
        local plugin, message, code = core.plugin('worker', 'to be installed')
        if not plugin then return nil, message, code end
        return plugin[name](...)
    end
end

asio.worker, asio.offload, asio.offload_pool = from 'worker', from 'offload', from 'offload_pool'
asio.shared = { channel = from 'channel', dict = from 'dict' }

local threaded = from 'server'
function asio.server(...)
    local opts = core.server_options(...)
    if opts and opts.threads then return threaded(server, ...) end
    return server(...)
end

function asio.watchdog(seconds)
    local ok, message, code = watchdog(seconds)
    core.watchdog_seconds = ok and seconds
    return ok, message, code
end
