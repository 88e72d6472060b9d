-- asio.run and asio.select accepted options that do not exist: { deadlok = 'return' }, { event, timout = 1 }.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local t = require 'support'

local T = {}

T.test_run = t.main(function()
  t.raises({ "'run'", "unknown option 'deadlok'" }, asio.run, { deadlok = 'return' })
  t.raises({ "'run'", "unknown option '1'" }, asio.run, { 'deadlock' })
  t.raises({ "'run'", "option 'deadlock'" }, asio.run, { deadlock = true })
  t.bad_argument(1, 'run', function() asio.run({ x = 1 }) end)
  asio.run {}
  asio.run({ deadlock = 'raise' })
end)

function T.test_select()
  local event = asio.event()
  event:set()
  t.raises({ "'select'", "unknown option 'timout'" }, asio.select, { event, timout = 1 })
  t.bad_argument(1, 'select', function() asio.select({ event, [true] = 1 }) end)
  assert(asio.select { event, timeout = 1 } == 1)
end

return T
