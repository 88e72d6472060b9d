-- Lua states that run short of memory in requests and answers (test/oom/http.lua).
--
-- test: 20 s
-- test: needs http
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'
local oom = require 'oom'

local T = {}

T.test_short_of_memory_at_every_point = t.main(t.slow(120, function()
  can.need 'module_file' -- the program of the test loads it
  local text, code = oom('http', 'asio.http')
  lu.assertEquals(code, 0, text)
  local failed, ended = text:match '(%d+) states ended with an error, (%d+) in order'
  lu.assertTrue((tonumber(failed) or 0) > 50 and tonumber(ended) > 100, text)
end))

return T
