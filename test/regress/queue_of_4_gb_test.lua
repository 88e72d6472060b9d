-- One write of many large strings, which are queued without a copy: where a size has 32 bits, the bytes in
-- the queue were counted modulo 4 GB. A queue that cannot be counted is an error there.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local ffi = require 'ffi'
local t = require 'support'

local T = {}

function T.test_one_string_many_times()
  local a, b = t.pair()
  local text, list = ('x'):rep(32 * 1024 * 1024), {}
  for i = 1, 129 do list[i] = text end
  a:set_timeout(0.01)
  if ffi.sizeof 'size_t' == 4 then
    t.failure('ENOBUFS', a:write(list))
    t.failure('ENOBUFS', a:write 'more')
  else
    local unsent = t.failure('ETIMEDOUT', a:write(list))
    lu.assertTrue(unsent > 128 * #text and unsent < 129 * #text, unsent)
  end
  a:abort()
  b:abort()
end

return T
