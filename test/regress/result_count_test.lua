-- LuaJIT for ARM and MIPS gave a wait's arguments back behind its results: too many values, and from a
-- `print(conn:read(1))` on an idle line up to "operation timed out" twice.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

local function count(...) return select('#', ...) end

function T.test_failures()
  local a, b = t.pair()
  local near, far = raw.pair()
  local ch, e, s, m = asio.channel(), asio.event(), asio.semaphore(1), asio.mutex()
  a:set_timeout(0.001)
  s:acquire()
  local other = asio.spawn(function() m:with(asio.sleep, 60) end)
  lu.assertEquals({
    count(a:read(1)), count(a:read_some()), count(a:read_until('x', 5)), count(e:wait(0.001)),
    count(ch:recv(0.001)), count(ch:send('x', 0.001)), count(s:acquire(0.001)), count(m:lock(0.001)),
    count(asio.select { ch, e, timeout = 0.001 }), count(other:join(0.001)),
    count(asio.timeout(0.001, a.read, a, 5)), count(asio.wait_fd(near.fd, 'r', 0.001)),
  }, { 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3 })
  other:cancel()
  other:join()
  b:close()
  near:close()
  far:close()
end

function T.test_successes()
  local a, b = t.pair()
  local ch, e = asio.channel(), asio.event()
  local function later(fn, ...)
    local arguments = { ... }
    asio.spawn(function()
      asio.yield()
      fn(unpack(arguments))
    end)
  end
  later(b.write, b, 'x')
  lu.assertEquals(count(a:read(1)), 1)
  later(b.write, b, 'a line\n')
  lu.assertEquals(count(a:read_line(100)), 1)
  later(ch.send, ch, 'x')
  lu.assertEquals(count(ch:recv(5)), 1)
  later(e.set, e)
  lu.assertEquals(count(e:wait(5)), 1)
  later(ch.send, ch, 'x')
  lu.assertEquals({ asio.select { ch, timeout = 5 } }, { 1, 'x' })
  lu.assertEquals(count(asio.spawn(function() asio.yield() return 1, nil, nil end):join(5)), 4)
  lu.assertEquals(count(asio.timeout(5, function() asio.sleep(0.001) return nil, 2 end)), 2)
  lu.assertEquals({ asio.sleep(0.001) }, { true })
  lu.assertEquals({ asio.yield() }, { true })
  a:close()
end

return T
