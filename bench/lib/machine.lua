-- What the benchmarks run on and with: where the programs are, and the versions of everything that
-- has a part in the figures.
-- SPDX-License-Identifier: MIT
local ffi = require 'ffi'
local proc = require 'proc'

ffi.cdef 'const char *uv_version_string(void);'

local M = {}

M.luajit = os.getenv 'LUAJIT' or 'luajit'

function M.exists(path)
    local file = path and io.open(path, 'rb')
    if file then file:close() end
    return file ~= nil
end

local function read_all(path)
    local file = io.open(path, 'rb')
    if not file then return '' end
    local text = file:read '*a'
    file:close()
    return text
end

M.read_all = read_all

-- The first line a command prints, nil when it fails or is not there.
function M.first_line(...)
    local text, status = proc.run({ ... }, { quiet = true, limit = 20 })
    if status ~= 0 then return nil end
    return text:match '[^\n]+'
end

-- Sets where everything is, from the directory that bench/ is in.
function M.locate(root)
    M.root = root
    M.launcher = root .. '/test/luajit'
    M.build = os.getenv 'ASIO_BUILD'
    for _, name in ipairs { 'release', 'debug' } do
        local candidate = root .. '/build/' .. name
        if not M.build and M.exists(candidate .. '/asio.so') then M.build = candidate end
    end
    M.scratch = root .. '/build/bench'
end

-- Whether any C source of the benchmarks has changed since a program was built.
local function is_stale(program)
    return M.first_line('find', M.root .. '/bench', '-name', '*.[ch]', '-newer', program) ~= nil
end

-- A program of bench/: the one that the build made, else compiled here and now, with the libraries named.
function M.program(name, ...)
    local built = M.build and M.build .. '/bench/' .. name
    if built and M.exists(built) and not is_stale(built) then return built end
    local source = M.root .. '/bench/' .. name .. '.c'
    if not M.exists(source) then return nil end
    proc.run { 'mkdir', '-p', M.scratch }
    local binary = M.scratch .. '/' .. name
    local _, status = proc.run({ os.getenv 'CC' or 'cc', '-std=c11', '-O2', '-o', binary, source, ... })
    return status == 0 and binary or nil
end

function M.go_program(name)
    if not M.first_line('go', 'version') then return nil end
    proc.run { 'mkdir', '-p', M.scratch }
    local binary = M.scratch .. '/' .. name
    local source = M.root .. '/bench/servers/' .. name .. '.go'
    local _, status = proc.run({ 'go', 'build', '-o', binary, source },
        { env = { GO111MODULE = 'off' }, limit = 300 })
    return status == 0 and binary or nil
end

-- Whether a Lua module loads; with our own the launcher finds it.
function M.loads(interpreter, module)
    local _, status = proc.run({ interpreter, '-e', 'require "' .. module .. '"' },
        { quiet = true, limit = 20 })
    return status == 0
end

local function libuv_version()
    local ok, uv = pcall(ffi.load, 'libuv.so.1')
    return ok and ffi.string(uv.uv_version_string()) or nil
end

local function package_version(package)
    return M.first_line('dpkg-query', '-W', '-f', '${Version}', package)
end

-- Pairs of a title and what there is.
function M.description()
    local cpuinfo = read_all '/proc/cpuinfo'
    local model = cpuinfo:match 'model name%s*:%s*([^\n]+)' or cpuinfo:match 'Model%s*:%s*([^\n]+)'
    local memory = tonumber(read_all('/proc/meminfo'):match 'MemTotal:%s*(%d+)')
    local kernel = read_all('/proc/sys/kernel/osrelease'):match '%S+'
    local os_name = read_all('/etc/os-release'):match 'PRETTY_NAME="([^"]+)"'
    return {
        { 'date', os.date '!%Y-%m-%d' },
        { 'CPU', model and string.format('%s, %d usable', model, #proc.cpus()) },
        { 'memory', memory and string.format('%.1f GB', memory / 1024 / 1024) },
        { 'system', os_name and string.format('%s, Linux %s', os_name, kernel or '?') },
        { 'LuaJIT', M.first_line(M.launcher, '-v') or M.first_line(M.luajit, '-v') },
        { 'libuv', libuv_version() },
        { 'luv', package_version 'lua-luv' },
        { 'cqueues', package_version 'lua-cqueues' },
        { 'copas', package_version 'lua-copas' },
        { 'LuaSocket', package_version 'lua-socket' },
        { 'Node', M.first_line('node', '--version') },
        { 'Go', M.first_line('go', 'version') },
        { 'OpenSSL', M.first_line('openssl', 'version') },
        { 'OpenSSL of Node', M.first_line('node', '-p', 'process.versions.openssl') },
        { 'LuaSec', package_version 'lua-sec' },
        { 'nginx', package_version 'nginx' },
        { 'HAProxy', package_version 'haproxy' },
        { 'socat', package_version 'socat' },
        { 'Redis', package_version 'redis-tools' },
        { 'load average at the start', read_all('/proc/loadavg'):match '^(%S+)' },
    }
end

return M
