-- SPDX-License-Identifier: MIT
-- Shared objects beside asio.so, each loaded when it is first needed: asio/ares.so, asio/tls.so.

local core = ...
local c_open, c_obstacle = core.plugin_open, core.plugin_obstacle
local error, package, pcall, require, tostring = error, package, pcall, require, tostring

-- The one beside asio.so belongs to it; one that was linked into the program comes first. Returns what its
-- luaopen function returns; nil; or nil, message, code if it cannot be loaded now.
function core.find_plugin(name)
    if not package then return nil end
    local dir, extension = (core.plugin_beside() or ''):match '^(.*[/\\])[^/\\]*(%.[^./\\]+)$'
    local open, said
    if dir then open, said = package.loadlib(dir .. 'asio/' .. name .. extension, 'luaopen_asio_' .. name) end
    if open and not package.preload['asio.' .. name] then return open() end
    local ok, found = pcall(require, 'asio.' .. name)
    if ok then return found end
    if found == 'not enough memory' then error(found, 0) end
    return c_obstacle(tostring(said) .. tostring(found))
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
