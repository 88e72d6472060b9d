-- The servers that are measured, each with the command that starts it. The first is the yardstick.
-- SPDX-License-Identifier: MIT
local machine = require 'machine'
local proc = require 'proc'
local report = require 'report'

local M = {}

local START_SECONDS = 15

-- key: what --only is matched with; command(size): argv, or nil when the peer is not installed;
-- most: connections it can hold; lines: answers lines, takes part in no other row.
local function candidates()
    local here = machine.root .. '/bench/servers/'
    local epoll = machine.program 'epoll_echo'
    local go = machine.go_program 'go_echo'
    local node = machine.first_line('node', '--version')
    local has = {}
    for _, name in ipairs { 'luv', 'cqueues', 'copas' } do has[name] = machine.loads(machine.luajit, name) end
    local ours = machine.build and machine.loads(machine.launcher, 'asio')
    return {
        { key = 'epoll', title = 'raw epoll, C', command = epoll and function() return { epoll } end },
        { key = 'asio_read', title = '**LuaAsio, read(n)**', ours = true, command = ours and function(size)
            return { machine.launcher, here .. 'asio_read.lua', size }
        end },
        { key = 'asio_some', title = 'LuaAsio, read_some()', ours = true, command = ours and function()
            return { machine.launcher, here .. 'asio_some.lua' }
        end },
        { key = 'asio_read_line', title = '**LuaAsio, read_line()**', ours = true, lines = true,
            command = ours and function()
                return { machine.launcher, here .. 'asio_lines.lua', 'read_line' }
            end },
        { key = 'asio_lines', title = 'LuaAsio, for line in lines()', ours = true, lines = true,
            command = ours and function()
                return { machine.launcher, here .. 'asio_lines.lua', 'lines' }
            end },
        { key = 'luv', title = 'luv, callbacks', command = has.luv and function()
            return { machine.luajit, here .. 'luv_echo.lua' }
        end },
        { key = 'cqueues', title = 'cqueues, xread(n)', command = has.cqueues and function(size)
            return { machine.luajit, here .. 'cqueues_echo.lua', size, 'exact' }
        end },
        { key = 'cqueues_some', title = 'cqueues, recv', command = has.cqueues and function(size)
            return { machine.luajit, here .. 'cqueues_echo.lua', size, 'some' }
        end },
        -- select() ends at file descriptor 1023
        { key = 'copas', title = 'copas', most = 900, command = has.copas and function(size)
            return { machine.luajit, here .. 'copas_echo.lua', size }
        end },
        { key = 'node', title = 'Node, callbacks', command = node and function()
            return { 'node', here .. 'node_echo.js' }
        end },
        { key = 'go', title = 'Go, ReadFull', command = go and function(size)
            return { go, size }
        end },
    }
end

function M.wanted(key, only)
    if key == 'epoll' or not only then return true end
    for pattern in only:gmatch '[^|]+' do
        if key:find(pattern) then return true end
    end
    return false
end

-- The servers that take part, those that echo and those that answer lines, both with the yardstick;
-- `only` is one or more Lua patterns separated by "|".
function M.list(only)
    local list, lines = {}, {}
    for _, server in ipairs(candidates()) do
        if M.wanted(server.key, only) then
            if server.command then
                if not server.lines then list[#list + 1] = server end
                if server.lines or server.key == 'epoll' then lines[#lines + 1] = server end
            else
                report.note('%s: left out, it is not installed or not built', server.key)
            end
        end
    end
    assert(list[1] and list[1].key == 'epoll', 'the yardstick is missing: bench/epoll_echo.c did not build')
    return list, lines
end

-- Connecting would be taken for a connection to serve.
local function wait_for_listener(port)
    local deadline = proc.now() + START_SECONDS
    local sought = ('0100007F:%04X 00000000:0000 0A'):format(port)
    repeat
        if machine.read_all('/proc/net/tcp'):find(sought, 1, true) then return port end
        proc.sleep(0.01)
    until proc.now() > deadline
end

-- One process; what it writes by default goes below its prefix.
local NGINX = [[
MODULES
daemon off;
master_process off;
USER
pid nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_timeout 600s;
  keepalive_requests 100000000;
  OPTIONS
  server {
    listen 127.0.0.1:PORT LISTEN backlog=1024;
    SERVER
  }
}
]]

-- A function that returns the command that starts nginx, with a prefix of this name, and its port. `with` is
-- text in its configuration: modules, options (of http), listen, server; and library_path: where its modules
-- find libraries.
function M.nginx(name, with)
    local prefix = machine.scratch .. '/' .. name
    proc.run { 'mkdir', '-p', prefix }
    local user = machine.first_line('id', '-u') == '0' and 'user root;' or ''
    return function()
        local port, path = proc.free_port(), prefix .. '/nginx.conf'
        local file = assert(io.open(path, 'w'))
        file:write((NGINX:gsub('%f[%w]%u%u%u%u+%f[%W]', {
            MODULES = with.modules or '', USER = user, OPTIONS = with.options or '', PORT = port,
            LISTEN = with.listen or '', SERVER = with.server,
        })))
        file:close()
        local library_path = 'LD_LIBRARY_PATH=' .. (with.library_path or '')
        return { 'env', library_path, 'nginx', '-p', prefix, '-c', path }, port
    end
end

-- Starts a server, which prints its port or, with `port`, has been told it; returns its process, with .port,
-- or nil and the reason.
function M.start(argv, cpu, port)
    local process = proc.start(argv, { cpu = cpu, quiet = port ~= nil })
    process.port = port and wait_for_listener(port)
        or not port and tonumber(process:wait_for('port', START_SECONDS)) or nil
    if process.port then return process end
    process:stop()
    return nil, argv[#argv] .. (port and ' does not listen' or ' did not say which port it listens on')
end

return M
