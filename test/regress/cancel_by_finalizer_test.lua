-- A finalizer that cancelled the running light thread between its look at interrupts and its wait was not
-- heard: the light thread waited on. asio.select makes a record in between. Which
-- round meets that place is chance: it ends behind three of them.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'

local M = {}

-- Finalizers that are due: each step of the collector runs some, and each allocation of size is a step.
local function heap_up(finalizer)
  for _ = 1, 2000 do getmetatable(newproxy(true)).__gc = finalizer end
end

function M.test_select()
  local hits, channels = 0, {}
  for i = 1, 30 do channels[i] = asio.channel() end
  local compiled = jit.status()
  jit.off()
  for _ = 1, 2000 do
    local me, hit
    local thread = asio.spawn(function()
      heap_up(function()
        local by = debug.getinfo(2, 'S')
        if me and not hit and by and by.what == 'C' then
          hit = true
          me:cancel()
        end
      end)
      me = asio.current()
      asio.select(channels)
    end)
    me = nil
    if not hit then thread:cancel() end
    hits = hits + (hit and 1 or 0)
    lu.assertEquals({ thread:join(5) }, { false, asio.cancelled })
    if hits == 3 then break end
  end
  if compiled then jit.on() end
  lu.assertTrue(hits > 0)
end

return M
