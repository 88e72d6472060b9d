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
if not (ffi.cast and ffi.typeof and ffi.string and jit.status and jit.status()) then return end

local getmetatable, next, type = getmetatable, next, type
local cast, to_string, chars = ffi.cast, ffi.string, ffi.typeof 'const char *'
local conn_meta, meta = core.quick.metatable, c.head_meta
local methods = meta.__index
local get = methods.get
local quick_get = cast('double (*)(const void *, const char *, double)', c.head_quick_get)
local state = cast('void *', c.quick_state)
local quick_respond = cast('int (*)(void *, void *, double, double, const char *, double, const char *, '
    .. 'double, const char *, double, const char *, double, const char *, double)', c.quick_respond)

function methods.get(self, name)
    if type(name) == 'string' and type(self) == 'userdata' and getmetatable(self) == meta then
        local found = quick_get(self, name, #name)
        if found >= 0 then
            local n = found % 65536
            return to_string(cast(chars, self) + (found - n) / 65536, n)
        end
        if found == -1 then return nil end
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
