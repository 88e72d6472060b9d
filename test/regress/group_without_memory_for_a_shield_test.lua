-- asio.group(fn) left its light threads running if asio.shield ran out of memory in its clean-up.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'

local T = {}

-- What is left of a light thread when the group has been left, and how.
local function leave(how)
  local shield, ended = asio.shield, false
  local function child()
    pcall(asio.sleep, 60)
    shield(nil, asio.sleep, 0.01)
    ended = true
  end
  asio.shield = function() error 'not enough memory' end
  local ok, err = pcall(how, child)
  asio.shield = shield
  return ended, ok, tostring(err)
end

function T.test_the_function_fails()
  local ended, ok, err = leave(function(child)
    asio.group(function(g)
      g:spawn(child)
      error 'of the function'
    end)
  end)
  lu.assertEquals({ ended, ok, err:match 'of the function$' }, { true, false, 'of the function' })
end

function T.test_the_wait_is_interrupted()
  for _, owned in ipairs { true, false } do
    local ended, ok = leave(function(child)
      asio.timeout(0.005, function()
        if owned then return asio.group(function(g) g:spawn(child) end) end
        local g = asio.group()
        g:spawn(child)
        g:wait()
      end)
    end)
    lu.assertEquals({ ended, ok }, { true, true })
  end
end

-- What came meanwhile is raised by the next wait.
function T.test_a_cancel_while_it_cleans_up_is_not_lost()
  local seen
  local thread = asio.spawn(function()
    local ended = leave(function(child)
      asio.group(function(g)
        g:spawn(child)
        error 'of the function'
      end)
    end)
    local ok, err = pcall(asio.sleep, 60)
    seen = { ended, ok, err }
  end)
  asio.yield()
  thread:cancel()
  thread:join()
  lu.assertEquals(seen, { true, false, asio.cancelled })
end

return T
