-- An address with an interface that is not there is the same failure for resolve, connect and datagrams:
-- resolve said that there is no such name.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local t = require 'support'

local T = {}

function T.test_an_interface_that_is_not_there()
  t.failure('ENODEV', asio.resolve 'fe80::1%nosuch')
  t.failure('ENODEV', asio.resolve('fe80::1%nosuch', { type = 'A' }))
  t.failure('ENODEV', asio.resolve('fe80::1%nosuch', { type = 'PTR' }))
  t.failure('ENODEV', asio.connect('fe80::1%nosuch', 9))
  t.failure('ENODEV', asio.udp('fe80::1%nosuch', 9))
  local sock = assert(asio.udp())
  t.failure('ENODEV', sock:send('x', 'fe80::1%nosuch', 9))
  t.failure('ENODEV', sock:connect('fe80::1%nosuch', 9))
end

return T
