-- The measurements of TLS: a yardstick in C on OpenSSL, our server and the peers in turn, each with the load
-- of tls_load.c. All use one certificate with a P-256 key; the load offers one cipher and one group.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'
local servers = require 'servers'

local M = {}

local LIBRARIES = { '-lssl', '-lcrypto' }
local AT_ONCE = 16 -- connections that the load opens at a time
local IDLE = 2000

local NGINX = [[
ssl_protocols TLSv1.3;
ssl_certificate %s;
ssl_certificate_key %s;
location /small { return 200 "%s"; }
location /bulk { alias %s; }
]]

-- The certificate of this run; nil without openssl.
local function certificate()
    proc.run { 'mkdir', '-p', machine.scratch }
    local cert, key = machine.scratch .. '/tls.crt', machine.scratch .. '/tls.key'
    local _, status = proc.run({ 'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
        'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', cert, '-days', 30,
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1' }, { quiet = true })
    if status == 0 then return cert, key end
end

local function nginx(bulk, cert, key)
    return servers.nginx('nginx', { listen = 'ssl', server = NGINX:format(cert, key, ('x'):rep(64), bulk) })
end

-- key; command(mode, bytes): argv, and the port of a server that prints none; http: answers requests, and has
-- the named modes alone; most: connections it can hold.
local function candidates(bulk, cert, key)
    local here = machine.root .. '/bench/servers/'
    local yard = machine.program('tls_yard', unpack(LIBRARIES))
    local go = machine.go_program 'go_tls'
    local ours = machine.build and machine.exists(machine.build .. '/asio/tls.so')
    local luasec = machine.loads(machine.luajit, 'ssl') and machine.loads(machine.luajit, 'copas')
    local _, has_nginx = proc.run({ 'nginx', '-v' }, { quiet = true })
    local function says(...)
        local words = { ... }
        return words[#words] and function(mode, bytes)
            local argv = { unpack(words) }
            if mode == 'idle' and words[1] ~= yard then mode = 'echo' end
            for _, word in ipairs { mode, cert, key, bytes } do argv[#argv + 1] = word end
            return argv
        end
    end
    return {
        { key = 'tls_yard', title = 'epoll and OpenSSL, C', command = says(yard) },
        { key = 'asio_tls', title = '**LuaAsio**', command = ours
            and says(machine.launcher, here .. 'asio_tls.lua') },
        { key = 'nginx', title = 'nginx', http = { send = true, handshake = true, idle = true },
            command = has_nginx == 0 and nginx(bulk, cert, key) },
        { key = 'node', title = 'Node', command = machine.first_line('node', '--version')
            and says('node', here .. 'node_tls.js') },
        { key = 'go', title = 'Go', command = says(go) },
        { key = 'luasec', title = 'LuaSec, copas', most = 900, -- select() ends at file descriptor 1023
            command = luasec and says(machine.luajit, here .. 'luasec_tls.lua') },
    }
end

-- The servers of a row, the load, and a file for nginx to send; nil, with a note, where the row cannot be.
local function prepare(ctx, row)
    local load = machine.program('tls_load', unpack(LIBRARIES))
    local cert, key = certificate()
    if not load or not cert then
        return report.note('%s: left out, OpenSSL or its headers are not installed', row)
    end
    local all = { load = load, bulk = machine.scratch .. '/bulk' }
    for _, server in ipairs(candidates(all.bulk, cert, key)) do
        if server.key == 'tls_yard' or servers.wanted(server.key, ctx.only) then
            if server.command then
                all[#all + 1] = server
            else
                report.note('%s: left out, it is not installed or not built', server.key)
            end
        end
    end
    return all
end

-- Those of the servers that have a mode.
local function having(all, mode)
    local list = {}
    for _, server in ipairs(all) do
        if not server.http or server.http[mode] then list[#list + 1] = server end
    end
    return list
end

-- Starts a server, runs the load once, stops the server; `summary` is the figure to tell.
local function measure(ctx, all, server, mode, bytes, summary, ...)
    local argv, port = server.command(mode, bytes and ('%.0f'):format(bytes))
    local process, reason = servers.start(argv, ctx.server_cpu, port)
    if not process then return report.note('%s: %s', server.key, reason) end
    local text, status = proc.run({ all.load, '--port', process.port, '--pid', process.pid,
        '--http', server.http and 1 or 0, ... }, { cpu = ctx.load_cpu, limit = 180 })
    process:stop()
    if status ~= 0 then return report.note('%s: the load failed: %s', server.key, tostring(status)) end
    local figures = runs.parse(text)
    figures.summary = ('%s %s'):format(summary, figures[summary])
    return figures
end

local print_table, against, SERVER_CPU = runs.print, runs.against 'asio_tls', runs.SERVER_CPU
local LOAD_CPU = { 'load CPU', 'load_cpu', '%.0f%%', 0.01 }

-- One long stream ---------------------------------------------------------------------------------

-- A hole in a file in memory: reading it touches one page again and again, as the others send one buffer.
local function with_file(all, bytes, run)
    local path = machine.first_line('mktemp', '/dev/shm/asio-bench.XXXXXX') or all.bulk .. '.data'
    proc.run { 'truncate', '-s', ('%.0f'):format(bytes), path }
    proc.run { 'ln', '-sfn', path, all.bulk }
    local ok, reason = pcall(run)
    os.remove(path)
    os.remove(all.bulk)
    if not ok then error(reason, 0) end
end

local function stream(ctx, all, mode, load_mode)
    local list = having(all, mode)
    local results = runs.rounds(list, 'tls, ' .. mode, ctx.rounds, function(server)
        return measure(ctx, all, server, mode, ctx.tls * 1e9, 'cpu_s_per_gb', '--mode', load_mode,
            '--gb', ctx.tls)
    end)
    print_table(list, results, {
        { 'CPU s per GB', 'cpu_s_per_gb', '%.3f' },
        { 'x yardstick', 'cpu_s_per_gb', '%.2f', base = 'tls_yard' },
        { 'GB/s', 'gb_per_s', '%.2f' }, SERVER_CPU, LOAD_CPU,
    })
    local what = 'TLS, ' .. (mode == 'send' and 'sending' or 'receiving') .. ', CPU per GB against '
    report.limit(what .. 'the yardstick', against(results, 'cpu_s_per_gb', 'tls_yard'), 1.05, '%.2f')
    if mode == 'send' then
        report.limit(what .. 'nginx', against(results, 'cpu_s_per_gb', 'nginx'), 0.90, '%.2f')
    end
end

function M.tls_stream(ctx)
    local all = prepare(ctx, 'tls_stream')
    if not all then return end
    report.heading(('TLS: the server sends %g GB over one connection'):format(ctx.tls))
    with_file(all, ctx.tls * 1e9, function() stream(ctx, all, 'send', 'receive') end)
    report.heading(('TLS: the server receives %g GB over one connection'):format(ctx.tls))
    stream(ctx, all, 'receive', 'send')
end

-- Messages ----------------------------------------------------------------------------------------

function M.tls_pingpong(ctx)
    local all = prepare(ctx, 'tls_pingpong')
    if not all then return end
    report.heading 'TLS: ping-pong, 64 bytes, 1 in flight, 100 connections'
    local list = having(all, 'echo')
    local results = runs.rounds(list, 'tls_pingpong', ctx.rounds, function(server)
        return measure(ctx, all, server, 'echo', nil, 'cpu_ns_per_message', '--connections', 100,
            '--seconds', ctx.seconds, '--warmup', ctx.warmup)
    end)
    print_table(list, results, {
        { 'messages/s', 'messages_per_s' },
        { 'x yardstick', 'messages_per_s', '%.2f', base = 'tls_yard' },
        { 'CPU us per message', 'cpu_ns_per_message', '%.2f', 1000 },
        { 'x yardstick', 'cpu_ns_per_message', '%.2f', base = 'tls_yard' },
        { 'p50 us', 'p50_us' }, { 'p99 us', 'p99_us' }, SERVER_CPU, LOAD_CPU,
    })
    report.limit('TLS, ping-pong, CPU per message against the yardstick',
        against(results, 'cpu_ns_per_message', 'tls_yard'), 1.10, '%.2f')
    for _, server in ipairs(list) do
        if server.key ~= 'tls_yard' and server.key ~= 'asio_tls' then
            local value = against(results, 'cpu_ns_per_message', server.key)
            report.bound('TLS, ping-pong, CPU per message against ' .. server.title, 'below 1.00 x',
                report.number('%.2f', value), value and value < 1)
        end
    end
end

-- Handshakes --------------------------------------------------------------------------------------

function M.tls_handshake(ctx)
    local all = prepare(ctx, 'tls_handshake')
    if not all then return end
    local list = having(all, 'handshake')
    for i, what in ipairs { 'new sessions', 'resumed sessions' } do
        report.heading('TLS: a handshake and a message of 64 bytes, ' .. what)
        local results = runs.rounds(list, 'tls_handshake, ' .. what, ctx.rounds, function(server)
            return measure(ctx, all, server, 'echo', nil, 'cpu_ns_per_connection', '--mode', 'handshake',
                '--resume', i - 1, '--connections', AT_ONCE, '--count', ctx.handshakes)
        end)
        print_table(list, results, {
            { 'connections/s', 'connections_per_s' },
            { 'CPU us per connection', 'cpu_ns_per_connection', '%.1f', 1000 },
            { 'x nginx', 'cpu_ns_per_connection', '%.2f', base = 'nginx' },
            { 'x yardstick', 'cpu_ns_per_connection', '%.2f', base = 'tls_yard' }, SERVER_CPU, LOAD_CPU,
        })
        report.limit('TLS, a handshake and a message, ' .. what .. ', CPU against nginx',
            against(results, 'cpu_ns_per_connection', 'nginx'), 1.05, '%.2f')
    end
end

-- Idle connections --------------------------------------------------------------------------------

function M.tls_idle(ctx)
    local all = prepare(ctx, 'tls_idle')
    if not all then return end
    report.heading(('TLS: %s idle connections, after a message over each'):format(report.count(IDLE)))
    local list = having(all, 'idle')
    local results = runs.rounds(list, 'tls_idle', math.min(ctx.rounds, 3), function(server)
        return measure(ctx, all, server, 'idle', nil, 'bytes_used', '--mode', 'idle', '--idle',
            math.min(IDLE, server.most or IDLE))
    end)
    print_table(list, results, {
        { 'idle', 'idle' }, { 'bytes each', 'bytes_used' },
        { 'x yardstick', 'bytes_used', '%.2f', base = 'tls_yard' },
    })
    report.limit('memory of an idle connection over TLS, bytes',
        report.median((results.asio_tls or {}).bytes_used or {}), 16.5 * 1024, '%.0f')
end

return M
