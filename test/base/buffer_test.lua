-- The byte queues and the store of blocks under them, beside a model: test/fuzz/buffer_fuzz.c.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

T.test_queues_beside_a_model = t.slow(60, function()
  local rounds = t.long and 3000000 or t.sanitized and 30000 or 150000
  for seed = 1, 3 do
    local file = io.popen(('timeout 60 %s/test/buffer_fuzz %d %d; echo $?'):format(
      os.getenv 'ASIO_BUILD', rounds, seed))
    local said = file:read '*a'
    file:close()
    lu.assertEquals(said, ('%d rounds\n0\n'):format(rounds), 'seed ' .. seed)
  end
end)

return T
