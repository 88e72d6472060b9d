-- `send` and `connect` by a name have one deadline: looking the name up and waiting for room in the queue
-- took the whole time-out each.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local t = require 'support'

local T = {}

-- The kernel has no room, ever.
local function run(child)
  local calls = 'sendmmsg,sendmsg,sendto'
  local wrap = t.strace(('-o /dev/null -e trace=%s -e inject=%s:error=ENOBUFS'):format(calls, calls))
  t.quiet_child(child, { wrap = wrap, env = t.ignore_leaks })
end

function T.test_send()
  run(function()
    local asio = require 'asio'
    asio.run(function()
      local sock = assert(asio.udp('127.0.0.1', 0, { send_queue = 1 }))
      sock:set_timeout(nil, 1)
      asio.resolve = function()
        asio.sleep(0.8)
        return { { address = '127.0.0.1', family = 'inet' } }
      end
      local started = asio.now()
      local ok, _, code, unsent = sock:send('x', 'some.name', 9)
      local took = asio.now() - started
      assert(ok == nil and code == 'ETIMEDOUT' and unsent == 1, code)
      assert(took >= 0.99 and took < 1.5, took)
      os.exit(0)
    end)
  end)
end

function T.test_connect()
  run(function()
    local asio = require 'asio'
    asio.run(function()
      local sock = assert(asio.udp('127.0.0.1', 0))
      assert(sock:send('x', '127.0.0.1', 9))
      sock:set_timeout(nil, 1)
      asio.resolve = function()
        asio.sleep(0.8)
        return { { address = '127.0.0.1', family = 'inet' } }
      end
      local started = asio.now()
      local ok, _, code = sock:connect('some.name', 9)
      local took = asio.now() - started
      assert(ok == nil and code == 'ETIMEDOUT', code)
      assert(took >= 0.99 and took < 1.5, took)
      os.exit(0)
    end)
  end)
end

return T
