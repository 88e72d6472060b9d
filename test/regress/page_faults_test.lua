-- Many connections that each write 1 KB in one turn: the segments are used again by the next turn. They were
-- given back to the system and taken again, at the cost of some thousand page faults in the turns below.
--
-- SPDX-License-Identifier: MIT

local t = require 'support'
local can = require 'can'

local T = {}

function T.test_writes_of_a_turn_cost_no_page_faults()
  can.need 'proc'
  if t.sanitized then return end -- the sanitizer keeps freed memory apart
  t.child(function()
    local asio = require 'asio'
    local count, size, text = 200, 1000, ('x'):rep(1000)
    local function faults()
      local file = io.open '/proc/self/stat'
      if not file then return 0 end
      local line = file:read '*l'
      file:close()
      return tonumber(line:match '%) %S+ %S+ %S+ %S+ %S+ %S+ %S+ (%d+)')
    end
    asio.run(function()
      local far = {}
      for i = 1, count do
        local near
        near, far[i] = asio.socketpair()
        asio.spawn(function(conn)
          while true do
            local data = conn:read(size)
            if not data then break end
            conn:write(data)
          end
        end, near)
      end
      local function turns(n)
        for _ = 1, n do
          for i = 1, count do far[i]:write(text) end
          for i = 1, count do assert(far[i]:read(size) == text) end
        end
      end
      turns(100)
      local before = faults()
      turns(100)
      local found = faults() - before
      assert(found < 100, found .. ' page faults')
      for i = 1, count do far[i]:close() end
    end)
  end)
end

return T
