-- SPDX-License-Identifier: MIT
-- Dicts that all Lua states of the process share. Most methods are in dict.c.

local core, c = ...
local dict = core.shared_dict
local new_dict, read, write = c.new_dict, c.dict_read, c.dict_write
local get, keys = dict.get, dict.keys
local format, pairs, tostring, type = string.format, pairs, tostring, type

local OPTIONS = { max_bytes = true, evict = true }

-- Returns max_bytes (0: no limit), and whether to evict.
local function check(opts, arg)
    if type(opts) ~= 'table' then c.bad(arg, 'dict', 'table expected, got ' .. type(opts)) end
    for name in pairs(opts) do
        if not OPTIONS[name] then c.bad(arg, 'dict', format("unknown option '%s'", tostring(name))) end
    end
    local max, evict = opts.max_bytes, opts.evict
    if max ~= nil and not (type(max) == 'number' and max >= 1 and max < 2 ^ 53) then
        c.bad(arg, 'dict', "option 'max_bytes': number, at least 1, expected")
    end
    if evict ~= nil and evict ~= 'lru' and evict ~= 'none' then
        c.bad(arg, 'dict', "option 'evict': 'lru' or 'none' expected")
    end
    return max or 0, evict ~= 'none'
end

--- Makes a dict; or finds the one of that name, which lives as long as the process.
---@param name? string
---@param opts? table `max_bytes`; `evict`: `"lru"`, what was used the longest time ago goes, or `"none"`
---@return table? dict
---@return string? message
---@return string? code `EEXIST`: there is one of this name, with other options; `ENOMEM`
function c.dict(name, opts)
    local arg = 2
    if type(name) == 'table' and opts == nil then name, opts, arg = nil, name, 1 end
    local kind = type(name) -- a null pointer of ffi is equal to nil
    if kind ~= 'nil' and kind ~= 'string' then c.bad(1, 'dict', 'string expected, got ' .. kind) end
    if name and name:find('\0', 1, true) then c.bad(1, 'dict', 'a name has no zero bytes') end
    return new_dict(name, check(opts or {}, arg))
end

--- Replaces the value by what a function makes of it, as one step: if another state has changed the value
--- meanwhile, the function is called again. No lock is held while it runs; if it raises, nothing has changed.
---@param key string|number
---@param fn fun(value: any): any gets nil if the key is absent; nil deletes it. Should not wait
---@param ttl? number seconds; nil: as it was
---@return any value the new one
---@return string? message
---@return string? code `EINVAL`: a list; `ENOMEM`
function dict.update(self, key, fn, ttl)
    if type(fn) ~= 'function' then c.bad(2, 'update', 'function expected, got ' .. type(fn)) end
    while true do
        local version, old, code = read(self, key)
        if not version then return nil, old, code end
        local new = fn(old)
        local ok, message, why = write(self, key, new, ttl, version)
        if ok then return new end
        if ok == nil then return nil, message, why end
    end
end

--- For loops: `for key, value in dict:iter() do`. The keys are those of now; values are looked up on the way,
--- and what is absent by then, or a list, is left out.
---@return fun(): string|number|nil, any
function dict.iter(self)
    local list, i = keys(self), 0
    return function()
        while true do
            i = i + 1
            local key = list[i]
            if key == nil then return nil end
            local value = get(self, key)
            if value ~= nil then return key, value end
        end
    end
end
