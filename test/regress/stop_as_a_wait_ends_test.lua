-- asio.stop in the turn in which a wait of the main chunk ended was forgotten. asio.connect by name, which is
-- several waits, then went on, up to the kernel's limit of two minutes when the address did not answer.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

T.test_it_ends_the_next_wait = t.main(function()
  local a, b = t.pair()
  local told = asio.event()
  asio.spawn(function()
    asio.sleep(0.001)
    told:set()
    asio.stop()
  end)
  lu.assertTrue(told:wait())
  t.failure('ECANCELED', a:read(1))
  b:write 'and that one alone'
  lu.assertEquals(a:read(18), 'and that one alone')
end)

T.test_a_run_begins_afresh = t.main(function()
  local told, ran = asio.event(), false
  asio.spawn(function()
    asio.sleep(0.001)
    told:set()
    asio.stop()
  end)
  lu.assertTrue(told:wait())
  asio.spawn(function()
    asio.sleep(0.001)
    ran = true
  end)
  asio.run()
  lu.assertTrue(ran)
end)

return T
