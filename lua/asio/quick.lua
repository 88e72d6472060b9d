-- SPDX-License-Identifier: MIT
-- Short cuts of connections' methods for compiled code, see src/stream/quick.c: what is buffered is read, and
-- a small string is written, without a function of the C API, which would end a trace. Anything else goes
-- on to the method as conn.lua defines it. Without FFI or JIT there are no short cuts, nor if a sandbox
-- has put something else in their place.

local core = ...
local conn, quick, quick_failed, finish = core.conn, core.quick, core.quick_failed, core.finish

local has_ffi, ffi = pcall(require, 'ffi')
local has_jit, jit = pcall(require, 'jit')
if not (has_ffi and has_jit and type(ffi) == 'table' and type(jit) == 'table') then return end
if not (ffi.cast and ffi.string and jit.status and jit.status()) then return end

local error, getmetatable, type, select, to_string = error, getmetatable, type, select, ffi.string
local metatable = quick.metatable
local buffer = ffi.cast('const char *', quick.buffer)
local quick_read = ffi.cast('int (*)(void *, double)', quick.read)
local quick_read_line = ffi.cast('int (*)(void *)', quick.read_line)
local quick_take = ffi.cast('int (*)(void *, int)', quick.take)
local quick_write = ffi.cast('int (*)(void *, const char *, double)', quick.write)
local quick_write_two =
    ffi.cast('int (*)(void *, const char *, double, const char *, double)', quick.write_two)
local write_one = core.write_one
local read, read_line, lines, write = conn.read, conn.read_line, conn.lines, conn.write

local function failed(self)
    return finish(self, quick_failed(self))
end

function conn.read(self, size)
    if type(self) == 'userdata' and getmetatable(self) == metatable and type(size) == 'number' then
        local n = quick_read(self, size)
        if n >= 0 then
            local data = to_string(buffer, n)
            if quick_take(self, n) == 0 then return data end
            return failed(self)
        end
    end
    return read(self, size)
end

function conn.read_line(self, max)
    if max == nil and type(self) == 'userdata' and getmetatable(self) == metatable then
        local n = quick_read_line(self)
        if n >= 0 then
            local line = to_string(buffer, n)
            if quick_take(self, n) == 0 then return line end
            return failed(self)
        end
    end
    return read_line(self, max)
end

function conn.lines(self, max)
    local following = lines(self, max)
    if max ~= nil then return following end
    return function()
        local n = quick_read_line(self)
        if n >= 0 then
            local line = to_string(buffer, n)
            if quick_take(self, n) == 0 then return line end
            local _, message, code = failed(self)
            error(('%s (%s)'):format(message, code), 2)
        end
        return following()
    end
end

-- A function without `...`, which takes fewer slots of the stack: see core.write_one.
local function write_alone(self, data)
    if type(data) == 'string' and type(self) == 'userdata' and getmetatable(self) == metatable and
        quick_write(self, data, #data) == 1 then
        return true
    end
    return write_one(self, data)
end

-- One string, or two: a line and its end for instance.
function conn.write(self, data, ...)
    local count = select('#', ...)
    if count == 0 then return write_alone(self, data) end
    if count == 1 and type(data) == 'string' and type(self) == 'userdata' and
        getmetatable(self) == metatable then
        local more = ...
        if type(more) == 'string' and quick_write_two(self, data, #data, more, #more) == 1 then
            return true
        end
    end
    return write(self, data, ...)
end
