-- LuaJIT hangs in a finalizer in a compiled loop over pairs whose end it has not seen: select had such a
-- loop.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

function T.test_select_in_a_finalizer()
  local out = t.quiet_child(function()
    local lib = require 'asio'
    local list = {}
    for i = 1, 200 do list[i] = lib.event() end
    list[200]:set()
    -- Compiled, and left by the error before its end.
    list.no_such = true
    for _ = 1, 2 do assert(not pcall(lib.select, list)) end
    list.no_such = nil
    local found
    getmetatable(newproxy(true)).__gc = function() found = lib.select(list) end
    collectgarbage()
    assert(found == 200)
    io.write 'done'
  end, { seconds = 5 })
  lu.assertEquals(out, 'done')
end

return T
