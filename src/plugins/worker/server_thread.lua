-- SPDX-License-Identifier: MIT
-- A thread of a server with the option `threads`, in its own Lua state: it listens beside the others, or gets
-- connections in messages; and it answers what the state asks that has made the server (server.lua).

local core, c = ...
local asio = core.asio
local asio_current, asio_event, asio_spawn, asio_stats = asio.current, asio.event, asio.spawn, asio.stats
local asio_now, cancelled = asio.now, asio.cancelled
local collectgarbage, max, next, pairs, pcall = collectgarbage, math.max, next, pairs, pcall
local tostring, unpack, xpcall = tostring, unpack, xpcall
local traceback = debug and debug.traceback
local orders = c.orders

local handler, options -- of the server; nil: this state is no thread of a server
local layer = {}        -- what a protocol over the connections hears: see c.server
local server           -- listens beside the others; nil: connections come in messages
local counter          -- of connections; nil: their number has no limit
local held             -- this state goes on although nothing in it does
local accepts = 0

local function let_go()
    if held then c.release() end
    held = false
end

-- A handler that stops the loop means that of the state that has made the server.
function c.stop()
    c.report(c.id, 'stop_asked')
end

-- Connections in messages ------------------------------------------------------------------------

local running, count = {}, 0 -- light threads that run the handler
local drains = {}            -- light threads that wait for these

local function end_drains(closed)
    for drain in pairs(drains) do
        drain.closed = closed
        drain.event:set()
    end
    drains = {}
end

-- true; or as the time-out of an event.
local function drain_for(timeout)
    if count == 0 then return true end
    local drain = { event = asio_event() }
    drains[drain] = true
    local over, message, code = drain.event:wait(timeout)
    drains[drain] = nil
    if drain.closed then return nil, 'canceled', 'ECANCELED' end
    return over, message, code
end

-- As server:shutdown.
local function drain_handlers(timeout)
    local over, message, code = drain_for(timeout)
    if code ~= 'ETIMEDOUT' then return over, message, code end
    local threads = {}
    for thread in pairs(running) do threads[#threads + 1] = thread end
    for i = 1, #threads do threads[i]:cancel() end
    local ended, why, its_code = drain_for()
    if not ended then return nil, why, its_code end
    return nil, message, code
end

-- A client waits for room. Connections that the script has dropped make room when they are collected, for a
-- hundredth of the time at most. The state that sends them hears how many have gone, and how many there was
-- no memory to receive: it has sent so many.
local collect_at, lost = 0, 0
function orders.server_make_room(sent)
    lost = max(lost, sent - accepts)
    local began = asio_now()
    if began >= collect_at then
        collectgarbage()
        collect_at = asio_now() + 100 * (asio_now() - began)
    end
    c.report(c.id, 'server_all_gone', c.gone(counter) + lost)
end

local function with_traceback(err)
    if err == cancelled then return err end
    return tostring(err) .. (traceback and traceback('', 2) or '')
end

-- The light thread of a connection: what servers do in C.
local function serve(conn)
    local thread = asio_current()
    running[thread] = true
    count = count + 1
    local ok, err = xpcall(handler, with_traceback, conn)
    running[thread] = nil
    count = count - 1
    if not ok then
        conn:abort()
        if err ~= cancelled then core.report(err) end
    end
    if count == 0 and next(drains) then end_drains(false) end
end

function orders.server_conn(conn)
    accepts = accepts + 1
    if counter then c.count(counter, conn) end
    asio_spawn(serve, conn)
end

-- The handler with what the option `tls` adds. This state's `options` are as the server's name here.
local function secure_handler()
    if not options.tls then return true end
    local plugin, message, code = core.plugin('tls', "OpenSSL's libssl")
    if not plugin then return nil, message, code end
    return plugin.server(function(_, secured)
        handler = secured
        return options
    end, options, 3, nil, handler, options)
end

-- Orders -----------------------------------------------------------------------------------------

-- What this state was told, or what it has told, is lost where memory runs out: the other asks again.
local ready
local function report_ready(...)
    ready = { ... }
    c.report(c.id, 'server_ready', server ~= nil, ...)
end

function orders.server_ask_ready()
    if ready then report_ready(unpack(ready, 1, 3)) end
end

-- After `init`. The state goes on when this returns.
function c.bodies.server_thread(fn, opts, in_messages, over)
    handler, options = fn, opts
    if over then handler, layer = over(fn) end
    c.hold()
    held = true
    local ok, message, code = true, nil, nil
    if in_messages then ok, message, code = secure_handler() end
    if ok and in_messages and opts.max_connections then
        counter, message, code = c.new_counter(c.id)
        ok = counter
    end
    report_ready(ok and true, message, code)
end

local function counted(conn)
    accepts = accepts + 1
    return handler(conn)
end

function orders.server_listen(ip, port)
    if server then return orders.server_ask_ready() end
    local ran, made, message, code = pcall(asio.server, ip, port, counted, options)
    if not ran then made, message, code = nil, tostring(made), 'EINVAL' end
    if not made then return report_ready(nil, message, code) end
    server = made
    let_go()
    report_ready(true, server:address())
end

function orders.server_close()
    if server then server:close() end
    end_drains(true)
    let_go()
end

local function answer(serial, ...)
    c.report(c.id, 'server_answer', serial, ...)
end

local function counters()
    local stats = asio_stats()
    local all = {
        accepts = accepts, connections = stats.connections, bytes_in = stats.bytes_in,
        bytes_out = stats.bytes_out, longest_turn = stats.longest_turn,
    }
    if layer.stats then layer.stats(all) end
    return all
end

-- This state may end behind the answer, which has its last counters therefore.
local function answer_shutdown(serial, ok, message, code)
    answer(serial, ok, message, code, counters())
end

function orders.server_shutdown(serial, timeout)
    asio_spawn(function()
        if layer.shutdown then layer.shutdown() end
        if server then return answer_shutdown(serial, server:shutdown(timeout)) end
        let_go()
        answer_shutdown(serial, drain_handlers(timeout))
    end)
end

function orders.server_stats(serial)
    answer(serial, counters())
end

function orders.server_set_tls(serial, opts)
    local ran, ok, message, code
    if server then
        ran, ok, message, code = pcall(server.set_tls, server, opts)
    else
        ran, ok, message, code = pcall(core.plugin('tls').set_tls, options, opts)
    end
    if not ran then ok, message, code = nil, tostring(ok), 'EINVAL' end
    answer(serial, ok, message, code)
end
