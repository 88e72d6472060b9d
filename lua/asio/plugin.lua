-- SPDX-License-Identifier: MIT
-- Shared objects beside asio.so, each loaded when it is first needed: asio/ares.so, asio/tls.so,
-- asio/http.so.

local core = ...
local c_open, c_obstacle = core.plugin_open, core.plugin_obstacle
local package, tostring = package, tostring

-- The one beside asio.so belongs to it; one that was linked into the program comes first. Returns what its
-- luaopen function returns; nil; or nil, message, code if it cannot be loaded now.
function core.find_plugin(name)
    if not package then return nil end
    local dir, extension = (core.plugin_beside() or ''):match '^(.*[/\\])[^/\\]*(%.[^./\\]+)$'
    local symbol = 'luaopen_asio_' .. name
    local open, said = package.preload['asio.' .. name], ''
    if dir and not open then open, said = package.loadlib(dir .. 'asio/' .. name .. extension, symbol) end
    if not open then
        local path, tried = package.searchpath('asio.' .. name, package.cpath)
        said = tostring(said) .. tostring(tried)
        if path then open, said = package.loadlib(path, symbol) end
    end
    if open then return open() end
    return c_obstacle(tostring(said))
end

local opened = {}

-- The functions of a plugin, which is loaded at the first call; or nil, message, code.
function core.plugin(name, library)
    local found, said, code = opened[name]
    if found then return found end
    found, said, code = core.find_plugin(name)
    if found then found, said, code = c_open(core, found) end
    opened[name] = found
    if found or code then return found, said, code end
    return nil, ('asio/%s.so cannot be loaded: it needs %s'):format(name, library), 'ENOTSUP'
end
