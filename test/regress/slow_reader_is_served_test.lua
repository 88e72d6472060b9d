-- A peer that reads steadily, but slowly, was cut off when `linger` had passed since the close.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

function T.test_progress_keeps_a_closing_connection()
  local conn, peer = t.raw_peer({ linger = 0.4 }, { buffers = 16384 })
  local data = ('s'):rep(16 * 2 ^ 20)
  conn:set_timeout(nil, 0)
  conn:write(data)
  conn:close()
  local began, size, piece = asio.now(), 0, #data / 20
  local over
  while not over do -- 1.6 s in all
    local target = size + piece
    while size < target do
      local part = peer:recv(65536, 0)
      if part == '' or part == false then over = part == '' and 'end' or 'reset' break end
      if part then size = size + #part else asio.sleep(0.001) end
    end
    if not over then asio.sleep(0.08) end
  end
  peer:close()
  lu.assertEquals({ over, size }, { 'end', #data })
  lu.assertTrue(asio.now() - began > 1)
end


return T
