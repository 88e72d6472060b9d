-- Where a sandbox had put a table of its own in place of the FFI or of jit, asio could not be loaded.
-- SPDX-License-Identifier: MIT

local t = require 'support'

local T = {}

local function replaced(name)
  t.child(function()
    -- LuaJIT of 2022 crashes at its end when the table of the FFI was collected.
    local kept = package.loaded[arg[1]]
    package.loaded[arg[1]] = {}
    local asio = require 'asio'
    local a, b = asio.socketpair()
    asio.run(function()
      for i = 1, 100 do
        a:write(('line %d\n'):format(i))
        assert(b:read_line() == 'line ' .. i)
      end
    end)
    package.loaded[arg[1]] = kept
  end, { args = { name } })
end

function T.test_the_ffi()
  replaced 'ffi'
end

function T.test_jit()
  replaced 'jit'
end

return T
