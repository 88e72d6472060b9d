-- SPDX-License-Identifier: MIT
--
-- Public suffixes: the domains below which names are for anyone to register, such as co.uk. The list is
-- libpsl's, where that is installed and this Lua has the FFI; it is loaded when the first cookie for a domain
-- comes.

local _, c = ...
local ipairs, pcall, require = ipairs, pcall, require

local FILES = { 'libpsl.so.5', 'libpsl.5.dylib', 'psl' }

-- By names of our own: the script may have declared libpsl's.
local DECLARATIONS = 'void *asio_psl_latest(const char *file) __asm__("psl_latest");' ..
    'void asio_psl_free(void *list) __asm__("psl_free");' ..
    'int asio_psl_is_public_suffix(const void *list, const char *domain) __asm__("psl_is_public_suffix");'

-- The list of the system or of the library, the newer one. It is freed when this state ends: before the
-- library is unloaded, as LuaJIT finalizes its own objects first.
local function load_list()
    local ffi = require 'ffi'
    ffi.cdef(DECLARATIONS)
    for _, file in ipairs(FILES) do
        local loaded, library = pcall(ffi.load, file)
        if loaded then
            local list = library.asio_psl_latest(nil)
            if list == nil then return nil end
            list = ffi.gc(list, library.asio_psl_free)
            return function(domain) return library.asio_psl_is_public_suffix(list, domain) ~= 0 end
        end
    end
end

local look_up, tried

-- Whether a domain, in small letters, is one; nil: there is no list.
function c.is_public_suffix(domain)
    if not tried then
        tried = true
        local ok, found = pcall(load_list)
        look_up = ok and found
    end
    if not look_up then return nil end
    return look_up(domain)
end
