-- timeout, shield and with refused functions of more than 3,800 arguments.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'

local M = {}

local function count(...) return select('#', ...) end

function M.test_as_many_as_lua_can_pass()
  local list = {}
  for i = 1, 7800 do list[i] = i end
  for _, n in ipairs { 900, 1100, 3000, 3900, 5000, 7000, 7800 } do
    lu.assertEquals(asio.timeout(1, count, unpack(list, 1, n)), n)
    lu.assertEquals(asio.shield(1, count, unpack(list, 1, n)), n)
    lu.assertEquals(asio.semaphore(1):with(count, unpack(list, 1, n)), n)
  end
end

return M
