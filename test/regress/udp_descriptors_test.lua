-- Datagram sockets without descriptors: the code says so, and the same socket works afterwards.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local t = require 'support'
local can = require 'can'

local T = {}

function T.test_every_call_that_opens()
  can.need 'descriptors'
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local function fails(what, ok, message, code)
      assert(ok == nil and code == 'EMFILE', ('%s: %s %s'):format(what, tostring(message), tostring(code)))
    end
    asio.run(function()
      local server = assert(asio.udp('127.0.0.1', 0))
      local _, port = server:address()
      local before = raw.count_fds()
      local calls = {
        send = function(s) return s:send('x', '127.0.0.1', port) end,
        recv = function(s) return s:recv(nil, 0) end,
        connect = function(s) return s:connect('127.0.0.1', port) end,
        address = function(s) return s:address() end,
        fd = function(s) return s:fd() end,
        join = function(s) return s:join('224.0.0.251', '127.0.0.1') end,
        set_ttl = function(s) return s:set_ttl(3) end,
        set_broadcast = function(s) return s:set_broadcast(true) end,
      }
      for name, call in pairs(calls) do
        local s = assert(asio.udp { broadcast = true, recv_buffer = 65536 })
        raw.limit_fds(0)
        for _ = 1, 3 do
          fails(name, call(s))
          fails('udp', asio.udp('127.0.0.1', 0, { reuseport = true }))
          fails('udp', asio.udp('::1', 0))
        end
        fails('join', s:join('224.0.0.251', 'lo'))
        fails('join', s:join('ff02::fb', 'fe80::1%lo'))
        fails('join', s:join('ff02::fb', 'lo'))
        fails('udp', asio.udp('fe80::1%lo', 0))
        fails('send', s:send('x', 'fe80::1%lo', 9))
        fails('connect', asio.connect('fe80::1%lo', 9))
        raw.unlimit_fds()
        local ok, message, code = call(s)
        assert(ok or code == 'ETIMEDOUT', message)
        s:close()
        asio.yield()
        asio.yield()
        assert(raw.count_fds() == before, name .. ' left one open')
      end
      assert(server:recv(nil, 5) == 'x')
    end)
  end)
end

return T
