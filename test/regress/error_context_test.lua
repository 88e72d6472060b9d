-- An error in protected work of the library was told as "error in a finalizer", wherever it came from.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local t = require 'support'

local T = {}

function T.test_an_error_value_that_cannot_be_printed()
  local result = t.child(function()
    local asio = require 'asio'
    asio.run(function()
      asio.spawn(function()
        error(setmetatable({}, { __tostring = function() error 'no words for it' end }))
      end)
    end)
  end)
  lu.assertStrContains(result.err, 'error while reporting an error: ')
  lu.assertStrContains(result.err, 'no words for it')
  lu.assertNotStrContains(result.err, 'finalizer')
end

return T
