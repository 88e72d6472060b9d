-- An address in brackets was searched for an interface beyond its end, where the last address may have left
-- one.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

function T.test_an_interface_of_the_address_before()
  local sock = assert(asio.udp())
  for _ = 1, 3 do
    t.failure('ENODEV', sock:send('x', '[fe::%x]', 9))
    local _, _, code = sock:send('x', '[::1]', 9)
    lu.assertNotEquals(code, 'ENODEV')
  end
  t.failure_among(t.codes('EAI_NONAME', 'EAI_AGAIN'), sock:send('x', '[' .. ('1'):rep(63) .. ']', 9))
end

return T
