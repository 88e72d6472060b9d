-- SPDX-License-Identifier: MIT
-- Short cuts for compiled code, see head.c and output.c: a value of a header, and an answer of few headers
-- and a small body, without a function of the C API, which would end a trace (measured: a header 140 ns, 50
-- by the short cut). Anything else goes on to the function of the C API. Without FFI or JIT there are none,
-- nor if a sandbox has put something else in their place.

local core, c = ...

-- c.quick_send(conn, status, headers or nil, body or nil, flags) -> true; false: nothing has been done.
function c.quick_send() return false end

local has_ffi, ffi = pcall(require, 'ffi')
local has_jit, jit = pcall(require, 'jit')
if not (has_ffi and has_jit and type(ffi) == 'table' and type(jit) == 'table') then return end
if not (ffi.cast and ffi.new and ffi.string and jit.status and jit.status()) then return end

local getmetatable, next, type, to_string = getmetatable, next, type, ffi.string
local conn_meta, meta = core.quick.metatable, c.head_meta
local methods = meta.__index
local get = methods.get
local found = ffi.new 'const char *[1]'
local quick_get = ffi.cast('int (*)(const void *, const char *, double, const char **)', c.head_quick_get)
local state = ffi.cast('void *', c.quick_state)
local quick_respond = ffi.cast('int (*)(void *, void *, double, double, const char *, double, const char *, '
    .. 'double, const char *, double, const char *, double, const char *, double)', c.quick_respond)

function methods.get(self, name)
    if type(name) == 'string' and type(self) == 'userdata' and getmetatable(self) == meta then
        local n = quick_get(self, name, #name, found)
        if n >= 0 then return to_string(found[0], n) end
        if n == -1 then return nil end
    end
    return get(self, name)
end

-- Without a loop, which would end a trace that begins outside of it.
function c.quick_send(conn, status, headers, body, flags)
    local name, value, other, its_value = '', '', '', ''
    if headers then
        name, value = next(headers)
        if type(name) ~= 'string' or name == '' or type(value) ~= 'string' then return false end
        other, its_value = next(headers, name)
        if other == nil then
            other, its_value = '', ''
        elseif type(other) ~= 'string' or other == '' or type(its_value) ~= 'string' or
            next(headers, other) ~= nil then
            return false
        end
    end
    if type(conn) ~= 'userdata' or getmetatable(conn) ~= conn_meta then return false end
    body = body or ''
    return quick_respond(state, conn, status, flags, name, #name, value, #value, other, #other, its_value,
        #its_value, body, #body) == 1
end
