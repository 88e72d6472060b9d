-- The measurements of HTTP: our server, nginx, nginx with content_by_lua, Node and Go in turn, with the load
-- of wrk: CPU time of the server's process per request. Our client against libcurl.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'
local runs = require 'runs'
local servers = require 'servers'

local M = {}

local CONNECTIONS = 100
local IDLE = 2000
local FILE_BYTES = 1048576

local PLAIN = [[
location /hello { return 200 "hello, world\n"; }
location /file { alias %s; }
]]

local WITH_LUA = [[
location = /hello { content_by_lua_block {
  local var = ngx.var
  local host, agent, accept = var.http_host, var.http_user_agent, var.http_accept
  local encoding, cookie = var.http_accept_encoding, var.http_cookie
  if not (host and agent and accept and encoding and cookie) then return ngx.exit(400) end
  ngx.header.content_length = 13
  ngx.print 'hello, world\n'
} }
location ~ ^/users/([^/]+)/posts/([^/]+)$ { client_body_buffer_size 16k; content_by_lua_block {
  ngx.req.read_body()
  local body, user, post = ngx.req.get_body_data(), ngx.var[1], ngx.var[2]
  if not (body and user and post) then return ngx.exit(400) end
  ngx.header.content_length = #body
  ngx.print(body)
} }
]]

-- Where the module of Lua is: in the system, or below ASIO_NGINX_LUA, where its packages have been unpacked;
-- nil where it is not.
local function lua_root()
    for _, root in ipairs { os.getenv 'ASIO_NGINX_LUA' or '', '' } do
        if machine.exists(root .. '/usr/lib/nginx/modules/ngx_http_lua_module.so') then return root end
    end
end

local OPTIONS = 'sendfile on; tcp_nopush on; default_type text/plain;'

local function nginx_with_lua()
    local root = lua_root()
    if not root then return nil end
    local modules = ('load_module %s/usr/lib/nginx/modules/%%s_module.so;\n'):format(root)
    local options = ('%s lua_package_path "%s/usr/share/lua/5.1/?.lua;;";'):format(OPTIONS, root)
    local library_path = root ~= '' and root .. '/usr/lib/' .. (machine.first_line('gcc', '-print-multiarch')
        or 'x86_64-linux-gnu') or ''
    return servers.nginx('nginx_lua', { options = options, server = WITH_LUA, library_path = library_path,
        modules = modules:format 'ndk_http' .. modules:format 'ngx_http_lua' })
end

-- key; modes: all, or those named; command(mode, file): argv, and the port of a server that prints none.
local function candidates(file)
    local here = machine.root .. '/bench/servers/'
    local go = machine.go_program 'go_http'
    local ours = machine.build and machine.exists(machine.build .. '/asio/http.so')
    local _, status = proc.run({ 'nginx', '-v' }, { quiet = true })
    local has_nginx = status == 0
    local function says(...)
        local words = { ... }
        return words[#words] and function(mode)
            local argv = { unpack(words) }
            argv[#argv + 1], argv[#argv + 2] = mode, file
            return argv
        end
    end
    return {
        { key = 'asio_http', title = '**LuaAsio**',
            command = ours and says(machine.launcher, here .. 'asio_http.lua') },
        { key = 'nginx', title = 'nginx, `return 200`', modes = { hello = true, file = true },
            command = has_nginx and servers.nginx('nginx_http',
                { options = OPTIONS, server = PLAIN:format(file) }) },
        { key = 'nginx_lua', title = 'nginx, content_by_lua', modes = { hello = true, echo = true },
            command = has_nginx and nginx_with_lua() },
        { key = 'node', title = 'Node', command = machine.first_line('node', '--version')
            and says('node', here .. 'node_http.js') },
        { key = 'go', title = 'Go', command = says(go) },
    }
end

-- The servers of a row that have a mode; nil, with a note, without wrk.
local function prepare(ctx, row, mode, tool)
    if tool and not machine.first_line('sh', '-c', 'command -v ' .. tool) then
        return report.note('%s: left out, %s is not installed', row, tool)
    end
    proc.run { 'mkdir', '-p', machine.scratch }
    local file = machine.scratch .. '/file.bin'
    proc.run { 'truncate', '-s', FILE_BYTES, file }
    local list = {}
    for _, server in ipairs(candidates(file)) do
        if servers.wanted(server.key, ctx.only) and (not server.modes or server.modes[mode]) then
            if server.command then
                list[#list + 1] = server
            else
                report.note('%s: left out, it is not installed or not built', server.key)
            end
        end
    end
    return list
end

-- One run of wrk; returns what it counted, or nil and why there is no figure.
local function wrk(ctx, process, mode, seconds)
    local duration = ('%.0fs'):format(math.ceil(seconds))
    local text, status = proc.run({ 'wrk', '-t1', '-c', CONNECTIONS, '-d', duration, '-s',
        machine.root .. '/bench/wrk.lua', ('http://127.0.0.1:%d/'):format(process.port), '--', mode },
        { cpu = ctx.load_cpu, limit = 60 + seconds })
    if status ~= 0 then return nil, 'wrk failed: ' .. tostring(status) end
    local bad = text:match 'Socket errors:[^\n]*' or text:match 'Non%-2xx[^\n]*'
    if bad then return nil, bad end
    return tonumber(text:match '(%d+) requests in'), tonumber(text:match 'Requests/sec:%s*([%d.]+)')
end

-- Loads a server that runs, once to warm up; figures with a prefix.
local function load(ctx, process, mode, prefix, figures)
    local requests, rate = wrk(ctx, process, mode, 1)
    if not requests then return nil, rate end
    local cpu, began = process:cpu_ns(), proc.now()
    requests, rate = wrk(ctx, process, mode, ctx.seconds)
    if not requests then return nil, rate end
    local used, took = process:cpu_ns() - cpu, (proc.now() - began) * 1e9
    figures[prefix .. 'us'] = used / requests / 1000
    figures[prefix .. 'rate'], figures[prefix .. 'server_cpu'] = rate, used / took
    figures.summary = (figures.summary or '') .. ('%s%.3f us '):format(prefix, figures[prefix .. 'us'])
    return figures
end

-- Starts a server, loads it with one mode after another, stops it. `loads`: pairs of a mode of the load and a
-- prefix of its figures.
local function measure(ctx, server, mode, loads)
    local argv, port = server.command(mode)
    local process, reason = servers.start(argv, ctx.server_cpu, port)
    if not process then return report.note('%s: %s', server.key, reason) end
    local figures = {}
    for _, pair in ipairs(loads) do
        local ok, why = load(ctx, process, pair[1], pair[2], figures)
        if not ok then
            report.note('%s: %s', server.key, why)
            break
        end
    end
    process:stop()
    return figures
end

local print_table, against, SERVER_CPU = runs.print, runs.against 'asio_http', runs.SERVER_CPU

-- Rows --------------------------------------------------------------------------------------------

function M.http_hello(ctx)
    local list = prepare(ctx, 'http_hello', 'hello', 'wrk')
    if not list then return end
    report.heading 'HTTP: 13 bytes, 5 headers read, 100 connections, 1 request in flight'
    local results = runs.rounds(list, 'http_hello', ctx.rounds, function(server)
        return measure(ctx, server, 'hello', { { 'hello', '' } })
    end)
    print_table(list, results, {
        { 'CPU us per request', 'us', '%.3f' },
        { 'x nginx', 'us', '%.2f', base = 'nginx' },
        { 'x nginx with Lua', 'us', '%.2f', base = 'nginx_lua' },
        { 'requests/s', 'rate' }, SERVER_CPU,
    })
    local bounds = { { 'nginx_lua', 'nginx with content_by_lua', 0.95 }, { 'nginx', 'nginx', 1.02 },
        { 'node', 'Node', 0.55 }, { 'go', 'Go', 0.6 } }
    for _, bound in ipairs(bounds) do
        report.limit('HTTP, hello, CPU per request against ' .. bound[2], against(results, 'us', bound[1]),
            bound[3], '%.2f')
    end
end

function M.http_pipelined(ctx)
    local list = prepare(ctx, 'http_pipelined', 'hello', 'wrk')
    if not list then return end
    report.heading 'HTTP: the same, 16 requests in flight'
    local results = runs.rounds(list, 'http_pipelined', ctx.rounds, function(server)
        return measure(ctx, server, 'hello', { { 'hello', 'one_' }, { 'pipelined', '' } })
    end)
    print_table(list, results, {
        { 'requests/s, 16 in flight', 'rate' }, { 'requests/s, 1 in flight', 'one_rate' },
        { 'CPU us per request', 'us', '%.3f' }, { 'x nginx', 'us', '%.2f', base = 'nginx' }, SERVER_CPU,
    })
    local ours = results.asio_http or {}
    report.limit('HTTP, 16 in flight, requests/s against 1 in flight',
        report.ratio(ours.rate or {}, ours.one_rate or {}), 3, '%.2f', true)
end

function M.http_echo(ctx)
    local list = prepare(ctx, 'http_echo', 'echo', 'wrk')
    if not list then return end
    report.heading 'HTTP: 1 KB posted to a route with 2 parameters, and echoed'
    local hello
    for i, server in ipairs(list) do
        if server.key == 'asio_http' then
            hello = { key = 'hello', title = 'LuaAsio, hello', command = server.command, hello = true }
            table.insert(list, i + 1, hello)
            break
        end
    end
    local results = runs.rounds(list, 'http_echo', ctx.rounds, function(server)
        local mode = server.hello and 'hello' or 'echo'
        return measure(ctx, server, mode, { { mode, '' } })
    end)
    print_table(list, results, {
        { 'CPU us per request', 'us', '%.3f' },
        { 'x hello of LuaAsio', 'us', '%.2f', base = 'hello' },
        { 'x nginx with Lua', 'us', '%.2f', base = 'nginx_lua' },
        { 'requests/s', 'rate' }, SERVER_CPU,
    })
    report.limit('HTTP, 1 KB echoed, CPU per request against hello', against(results, 'us', 'hello'), 1.25,
        '%.2f')
end

function M.http_file(ctx)
    local list = prepare(ctx, 'http_file', 'file', 'wrk')
    if not list then return end
    report.heading 'HTTP: a file of 1 MB'
    local results = runs.rounds(list, 'http_file', ctx.rounds, function(server)
        return measure(ctx, server, 'file', { { 'file', '' } })
    end)
    print_table(list, results, {
        { 'CPU us per request', 'us', '%.1f' }, { 'x nginx', 'us', '%.2f', base = 'nginx' },
        { 'requests/s', 'rate' }, SERVER_CPU,
    })
    report.limit('HTTP, a file of 1 MB, CPU per request against nginx', against(results, 'us', 'nginx'), 1.1,
        '%.2f')
end

-- The figures of bench/http_idle.lua.
local function idle(ctx, server)
    local argv, port = server.command 'hello'
    local process, reason = servers.start(argv, ctx.server_cpu, port)
    if not process then return report.note('%s: %s', server.key, reason) end
    local text, status = proc.run({ machine.launcher, machine.root .. '/bench/http_idle.lua', process.port,
        process.pid, IDLE }, { cpu = ctx.load_cpu, limit = 60 })
    process:stop()
    if status ~= 0 then return report.note('%s: the load failed: %s', server.key, tostring(status)) end
    local figures = runs.parse(text)
    figures.summary = ('%s bytes each'):format(figures.bytes_each)
    return figures
end

function M.http_idle(ctx)
    local list = prepare(ctx, 'http_idle', 'hello')
    if not list then return end
    report.heading(('HTTP: %s idle connections, after a request over each'):format(report.count(IDLE)))
    local results = runs.rounds(list, 'http_idle', math.min(ctx.rounds, 3), function(server)
        return idle(ctx, server)
    end)
    print_table(list, results, { { 'bytes each', 'bytes_each' } })
    report.limit('memory of an idle connection of HTTP, bytes',
        report.median((results.asio_http or {}).bytes_each or {}), 2048, '%.0f')
end

-- Sequential GETs of one client, which prints its figures.
local function client(ctx, client_of, requests)
    local argv, port = client_of.server.command 'hello'
    local server, reason = servers.start(argv, ctx.server_cpu, port)
    if not server then return report.note('%s: %s', client_of.server.key, reason) end
    local words = { unpack(client_of.argv) }
    table.insert(words, ('http://127.0.0.1:%d/hello'):format(server.port))
    table.insert(words, ('%.0f'):format(requests))
    local text, status = proc.run(words, { cpu = ctx.load_cpu, limit = 120 })
    server:stop()
    local us, wall = text:match '([%d.]+) us of CPU, ([%d.]+) us'
    if status ~= 0 or not us then return report.note('%s: %s', client_of.key, tostring(status)) end
    return { us = tonumber(us), wall = tonumber(wall), summary = us .. ' us' }
end

function M.http_client(ctx)
    local curl = machine.program('curl_get', '-lcurl')
    local nginx_server
    for _, server in ipairs(prepare(ctx, 'http_client', 'hello') or {}) do
        if server.key == 'nginx' then nginx_server = server end
    end
    if not curl or not nginx_server then
        return report.note 'http_client: left out, nginx or libcurl with its headers are not there'
    end
    report.heading 'HTTP: sequential GETs over one connection, CPU of the client'
    local here = machine.root .. '/bench/'
    local list = {
        { key = 'asio_http', title = '**LuaAsio**', server = nginx_server,
            argv = { machine.launcher, here .. 'http_get.lua' } },
        { key = 'curl', title = 'libcurl, one easy handle, C', server = nginx_server, argv = { curl } },
    }
    local results = runs.rounds(list, 'http_client', ctx.rounds, function(one)
        return client(ctx, one, 10000 * ctx.seconds)
    end)
    print_table(list, results, {
        { 'CPU us per request', 'us', '%.2f' }, { 'x libcurl', 'us', '%.2f', base = 'curl' },
        { 'us per request', 'wall', '%.1f' },
    })
    local value = against(results, 'us', 'curl')
    report.bound('HTTP, client, CPU per request against libcurl', 'below 1.00 x',
        report.number('%.2f', value), value and value < 1)
end

return M
