-- SPDX-License-Identifier: MIT
--
-- headers['content-type'] is headers:get 'content-type'. Names of methods (get, all, field, count) are the
-- methods: a field of such a name takes get. The functions are those of head.c, and get that of quick.lua.

local _, c = ...
local type = type
local meta = c.head_meta
local methods, get = meta.__index, meta.__index.get

c.head_get = get

function meta.__index(self, name)
    local method = methods[name]
    if method then return method end
    return type(name) == 'string' and get(self, name) or nil
end
