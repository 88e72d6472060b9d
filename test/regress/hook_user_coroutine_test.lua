-- A debug hook that ran on a light thread's own stack just after a coroutine in it had begun to wait made the
-- library forget that coroutine: the light thread went on while it was parked, and crashed when it was woken.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

function T.test_a_wait_that_a_hook_sees_begin()
  local out = t.quiet_child(function()
    local lib = require 'asio'
    jit.off()
    local ch, done = lib.channel(), 0
    local function ask() pcall(ch.recv, ch) end -- where it cannot wait
    lib.run(function()
      for _ = 1, 20 do
        lib.spawn(function()
          local co = lib.coroutine.create(function()
            for _ = 1, 5 do lib.sleep(1e-4) end
            return 'end'
          end)
          local ok, result = lib.coroutine.resume(co)
          assert(ok and result == 'end', result)
          done = done + 1
        end)
      end
      debug.sethook(ask, 'crl')
      lib.sleep(0.05)
      debug.sethook()
    end)
    assert(done == 20, done)
    io.write 'done'
  end, { seconds = 20 })
  lu.assertEquals(out, 'done')
end

return T
