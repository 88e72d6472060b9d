-- The number of an interface behind a '%': where a long has 32 bits, one of 33 bits and more was taken for
-- 4294967295, and the connection failed with what the system says of that.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local t = require 'support'

local T = {}

function T.test_too_large_a_number()
  for _, number in ipairs { '2147483648', '4294967295', '4294967296', '4294967297', '99999999999',
    '99999999999999999999999' } do
    t.failure('ENODEV', asio.connect('fe80::1%' .. number, 1))
  end
end

return T
