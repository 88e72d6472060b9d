-- The short cuts of read, read_line, lines and write for what is buffered: that they return what the methods
-- behind them do, whatever comes between their steps.
--
-- test: over TLS
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- Bytes of which no two stretches of eight are alike.
local function numbered(n)
  local parts = {}
  for i = 1, math.ceil(n / 8) do parts[i] = ('%08d'):format(i) end
  return table.concat(parts):sub(1, n)
end

function T.test_every_size()
  local a, b = t.pair()
  for n = 1, 1100, t.stress and 31 or 1 do
    local sent = numbered(n)
    b:write(sent, sent)
    lu.assertEquals(a:peek(2 * n), sent .. sent)
    lu.assertEquals(a:read(n), sent)
    lu.assertEquals(a:read(n), sent)
    lu.assertEquals(a:pending(), 0)
  end
end

function T.test_lines_of_every_length()
  local a, b = t.pair()
  for n = 0, 1100, t.stress and 31 or 1 do
    local line = numbered(n)
    b:write(line, '\n', line, '\r\n')
    a:peek(2 * n + 3)
    lu.assertEquals(a:read_line(), line)
    lu.assertEquals(a:read_line(), line)
    lu.assertEquals(a:pending(), 0)
  end
end

function T.test_writes_of_one_and_two_strings_keep_their_order()
  local a, b = t.pair()
  local parts = {}
  for i = 1, 400 do
    local one, two = numbered(i % 97), numbered(i % 13)
    if i % 3 == 0 then
      assert(a:write(one))
      two = ''
    elseif i % 3 == 1 then
      assert(a:write(one, two))
    else
      assert(a:write(one, i, two))
      one = one .. i
    end
    parts[i] = one .. two
    if i % 50 == 0 then asio.yield() end
  end
  local sent = table.concat(parts)
  lu.assertEquals(b:read(#sent), sent)
end

function T.test_what_is_no_size_raises()
  local a, b = t.pair()
  b:write 'abcdef'
  a:peek(6)
  for _, size in ipairs { 1.5, 0 / 0, -1, math.huge, 2 ^ 60 } do
    lu.assertErrorMsgContains("bad argument #1 to 'read'", a.read, a, size)
  end
  lu.assertEquals(a:read(0), '')
  lu.assertEquals(a:read('2'), 'ab')
  lu.assertEquals(a:read(4), 'cdef')
end

function T.test_self_is_something_else()
  local a, b = t.pair()
  local metatable = getmetatable(a)
  local forged = debug.setmetatable(newproxy(), metatable)
  for _, self in ipairs { forged, newproxy(), {}, setmetatable({}, metatable), 'a', 1, io.stdout, true } do
    lu.assertErrorMsgContains("calling 'read' on something that is not a connection", a.read, self, 1)
    lu.assertErrorMsgContains('not a connection', a.read_line, self)
    lu.assertErrorMsgContains('not a connection', a.lines, self)
    lu.assertErrorMsgContains('not a connection', a.write, self, 'x')
  end
  debug.setmetatable(forged, nil)
  b:close()
end

function T.test_a_second_reader_is_refused()
  local a, b = t.pair()
  b:write 'some\nof it'
  a:peek(10)
  local reader = asio.spawn(a.read, a, 12)
  for _, call in ipairs { { a.read, 4 }, { a.read_line }, { a.read, 10 } } do
    lu.assertEquals(select(3, call[1](a, call[2])), 'EBUSY')
  end
  lu.assertErrorMsgContains('EBUSY', a:lines())
  b:write ' !'
  lu.assertEquals({ reader:join() }, { true, 'some\nof it !' })
end

function T.test_closed()
  local a, b = t.pair()
  b:write 'buffered\nbytes\n'
  a:peek(15)
  local following = a:lines()
  lu.assertEquals(following(), 'buffered')
  a:close()
  lu.assertEquals(select(3, a:read(1)), 'EBADF')
  lu.assertEquals(select(3, a:read_line()), 'EBADF')
  lu.assertErrorMsgContains('EBADF', following)
  lu.assertEquals(select(3, a:write 'x'), 'EBADF')
end

function T.test_writing_after_shutdown()
  local a, b = t.pair()
  assert(a:write 'queued')
  assert(a:shutdown())
  lu.assertEquals(select(3, a:write 'more'), 'EPIPE')
  lu.assertEquals(b:read_all(), 'queued')
end

function T.test_relayed()
  local a, b = t.pair()
  local c, d = t.pair()
  local relay = asio.spawn(asio.relay, b, c)
  assert(a:write 'through')
  lu.assertEquals(d:read(7), 'through')
  lu.assertEquals(select(3, b:read(1)), 'EBUSY')
  lu.assertEquals(select(3, b:write 'x'), 'EBUSY')
  a:close()
  d:close()
  relay:join()
end

-- A cancel or a deadline is noticed by code that always finds its bytes there.
function T.test_interrupts_come_first()
  local a, b = t.pair()
  b:write(numbered(60000))
  a:peek(60000)
  local count = 0
  local reader = asio.spawn(function()
    asio.yield()
    while true do
      a:read(8)
      count = count + 1
      if count == 20 then asio.current():cancel() end
    end
  end)
  local done, why = reader:join()
  lu.assertFalse(done)
  lu.assertIs(why, asio.cancelled)
  lu.assertEquals(count, 20)
  lu.assertEquals(select(3, asio.timeout(0, function()
    while true do a:read(8) end
  end)), 'ETIMEDOUT')
end

-- A hook runs between any two steps of what is not compiled: it reads, or closes.
T.test_hooks_between_the_steps = t.slow(30, function()
  t.child(function()
    local asio = require 'asio'
    jit.off()
    jit.flush()
    math.randomseed(7)
    local parts = {}
    for i = 1, 500 do parts[i] = ('%07d\n'):format(i) end
    local sent = table.concat(parts)
    for round = 1, os.getenv 'ASIO_GC' == 'stress' and 10 or 60 do
      local a, b = asio.socketpair()
      local got = {}
      asio.run(function()
        b:write(sent)
        b:shutdown()
        a:peek(#sent)
        local inside = false
        debug.sethook(function()
          if inside or math.random(40) > 1 then return end
          inside = true
          if round % 10 == 0 and #got > 300 then
            a:close()
          else -- where it would have to wait it raises
            local ok, data = pcall(round % 2 == 0 and a.read or a.read_line, a, round % 2 == 0 and 8 or nil)
            if ok and data then got[#got + 1] = data:sub(1, 7) end
          end
          inside = false
        end, '', 1)
        for i = 1, 400 do
          local data, _, code = (i % 2 == 0 and a.read or a.read_line)(a, i % 2 == 0 and 8 or nil)
          if data then
            inside = true
            got[#got + 1] = data:sub(1, 7)
            inside = false
          elseif code ~= 'EBUSY' then
            assert(code == 'ECANCELED' or code == 'EBADF' or code == 'EOF', code)
            break
          end
          if a:pending() == 0 then break end
        end
        debug.sethook()
        local seen = {}
        for _, line in ipairs(got) do
          assert(not seen[line] and tonumber(line) <= 500, 'read twice: ' .. line)
          seen[line] = true
        end
        if round % 10 ~= 0 then assert(#got + a:pending() / 8 == 500, 'bytes are lost') end
      end)
      a:close()
      b:close()
    end
  end)
end)

-- A light thread's stack is small until a call needs more, and then twice as large for good.
function T.test_stacks_do_not_grow_by_reading_and_writing()
  t.child(function()
    local asio = require 'asio'
    local count, far = 200, {}
    local function heap()
      collectgarbage()
      collectgarbage()
      return collectgarbage 'count' * 1024
    end
    asio.run(function()
      for i = 1, count do
        local near
        near, far[i] = asio.socketpair()
        asio.spawn(function(con)
          while true do
            local data = con:read(64)
            if not data then break end
            con:write(data)
          end
          con:close()
        end, near)
      end
      local before = heap()
      for _ = 1, 3 do
        for i = 1, count do far[i]:write(('x'):rep(64)) end
        for i = 1, count do far[i]:read(64) end
      end
      jit.flush() -- compiled code is not what is measured
      local grown = (heap() - before) / count
      assert(grown < 150, ('%.0f bytes each'):format(grown))
      for i = 1, count do far[i]:close() end
    end)
  end)
end

local function echo_without(what)
  t.child(function()
    if arg[1] == 'ffi' then
      package.preload.ffi = function() error 'there is none' end
    else
      jit.off()
    end
    local asio = require 'asio'
    local a, b = asio.socketpair()
    asio.run(function()
      asio.spawn(function()
        for line in a:lines() do a:write(line, '\n') end
        a:close()
      end)
      for i = 1, 300 do
        b:write(('line %d\n'):format(i))
        if i % 10 == 0 then
          for j = i - 9, i do assert(b:read_line() == 'line ' .. j) end
        end
      end
      b:shutdown()
      assert(b:read_all() == '')
    end)
  end, { args = { what } })
end

function T.test_without_ffi()
  echo_without 'ffi'
end

function T.test_without_the_jit()
  echo_without 'jit'
end

return T
