-- A standard stream over something that cannot be polled (/dev/null) closed the descriptor with which
-- that had been tried: by then another's, and libuv aborted.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'
local can = require 'can'

local T = {}

function T.test_close_takes_no_other_descriptor()
  can.need 'descriptors'
  local out = t.quiet_child(function()
    local lib, bare = require 'asio', require 'raw'
    local stdin = lib.stdin -- over /dev/null
    local files = {}
    for i = 1, 10 do files[i] = bare.file '/dev/null' end
    stdin:close()
    for i = 1, 10 do assert(bare.is_open(files[i]), files[i]) end
    io.write 'done'
  end)
  lu.assertEquals(out, 'done')
end

return T
