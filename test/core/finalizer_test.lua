-- Finalizers of the script's own that come at the worst moment: LuaJIT may run them whenever
-- something is allocated, in the middle of whatever the library is doing.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/ffi 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'

local T = {}

-- Once broken -----------------------------------------------------------------------------------

-- A mutex that nobody holds any more goes while its owner's death is reported.
function T.test_a_mutex_is_collected_while_the_death_of_its_owner_is_told()
  t.child(function()
    local asio = require 'asio'
    collectgarbage('setpause', 100)
    collectgarbage('setstepmul', 200)
    asio.on_error(function() end)
    local inside = false
    local function finalizer()
      if not inside then return end
      inside = false
      collectgarbage()
      collectgarbage()
      for _ = 1, 50 do newproxy() end -- takes the place of what has gone
    end
    asio.run(function()
      for _ = 1, 10 do
        for _ = 1, 3000 do getmetatable(newproxy(true)).__gc = finalizer end
        for k = 1, 3000 do
          asio.spawn(function()
            asio.mutex():lock()
            inside = true
          end)
          inside = false
          if k % 100 == 0 then asio.yield() end
        end
      end
    end)
  end, { seconds = 60 })
end

-- The main chunk's results are made while those who wait for a descriptor are served: one of
-- them is cancelled meanwhile.
function T.test_one_who_waits_for_a_descriptor_is_cancelled_while_another_is_served()
  t.child(function()
    local asio = require 'asio'
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 10000)
    local near, far = require('raw').pair()
    for i = 1, 2000 do
      local thread
      asio.spawn(function()
        asio.yield()
        thread = asio.spawn(asio.wait_fd, near.fd, 'r')
        local garbage
        for _ = 1, i % 23 do garbage = {} end
        local dying = newproxy(true)
        getmetatable(dying).__gc = function() return garbage and thread:cancel() end
        far:send 'x'
      end)
      assert(asio.wait_fd(near.fd, 'r'))
      near:recv(1)
      thread:join()
    end
  end, { seconds = 60 })
end

-- Closing a server wakes the main chunk, whose results are made meanwhile: closed once more, it
-- counted twice, and run never ended.
function T.test_a_server_is_closed_while_it_is_being_closed()
  t.quiet_child(function()
    local asio = require 'asio'
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 10000)
    for i = 1, 300 do
      local server = assert(asio.server('127.0.0.1', 0))
      asio.spawn(function()
        asio.yield()
        for _ = 1, i % 23 do newproxy() end
        getmetatable(newproxy(true)).__gc = function() server:close() end
        server:close()
      end)
      local _, _, code = server:accept()
      assert(code == 'ECANCELED' or code == 'EBADF', code)
    end
    asio.run()
    assert(asio.run_once(0) == false)
  end, { seconds = 8 })
end

-- What finalizers may do ------------------------------------------------------------------------

-- Two reads at once after all: the outer one makes its string, and the inner one takes all there is.
function T.test_what_is_being_read_is_read_by_a_finalizer()
  t.child(function()
    local asio = require 'asio'
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 1000000)
    local a, b = asio.socketpair()
    local numbers = {}
    for i = 1, 375 do numbers[i] = ('%08d'):format(i) end -- each is a string to be made
    local sent = table.concat(numbers)
    for _ = 1, 50 do
      local inner, text, left
      b:write(sent)
      assert(a:peek(3000))
      getmetatable(newproxy(true)).__gc = function()
        inner = a:pending() > 0 and assert(a:read_some()) or ''
        left = a:pending()
      end
      local outer = 0
      repeat
        text = a:read(8)
        if text then outer = outer + #text end
      until inner or not text or outer == 3000
      collectgarbage()
      assert(outer + #inner == 3000 and left == 0 and a:pending() == 0)
      assert(inner == sent:sub(outer + 1))
    end
  end)
end

function T.test_a_connection_is_closed_while_it_tells_its_name()
  can.need 'unix_sockets'
  t.child(function()
    local asio = require 'asio'
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 1000000)
    local server = assert(asio.server('unix:@', nil, { handles = true }))
    local a = assert(asio.connect(server:address(), { handles = true }))
    local b = assert(server:accept())
    for _ = 1, 100 do
      local near, far = asio.socketpair() -- neither end has a name
      assert(a:send_handle(near))
      local text
      local conn = assert(b:recv_handle())
      getmetatable(newproxy(true)).__gc = function() conn:close() end
      repeat
        text = tostring(conn)
        newproxy() -- the same text again is nothing that the collector would run for
      until text:find 'closed'
      far:close()
    end
  end)
end

function T.test_a_connection_is_closed_while_another_is_received_over_it()
  can.need 'unix_sockets'
  t.child(function()
    local asio = require 'asio'
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 1000000)
    local server = assert(asio.server('unix:@', nil, { handles = true }))
    for _ = 1, 50 do
      local a = assert(asio.connect(server:address(), { handles = true }))
      local b, fars, code = assert(server:accept()), {}, nil
      for i = 1, 5 do
        local near, far = asio.socketpair()
        assert(a:send_handle(near))
        fars[i] = far
      end
      assert(#fars == 5 and a:write 'x')
      assert(b:read(1) == 'x') -- they are there
      getmetatable(newproxy(true)).__gc = function() b:close() end
      for _ = 1, 5 do code = code or select(3, b:recv_handle()) end
      assert(code == 'ECANCELED' or code == 'EBADF')
      a:close()
    end
  end)
end

function T.test_a_connection_is_accepted_while_it_is_being_accepted()
  local out = t.quiet_child(function()
    local asio = require 'asio'
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 1000000)
    local server = assert(asio.server('127.0.0.1', 0))
    for _ = 1, 30 do
      local client, inner = assert(asio.connect(server:address())), nil
      asio.sleep(0) -- it is offered
      getmetatable(newproxy(true)).__gc = function()
        local taken, accepted = pcall(server.accept, server, 0)
        inner = taken and accepted or nil
      end
      local conn = server:accept(0)
      collectgarbage()
      assert((conn or inner) and not (conn and inner))
      client:close()
    end
    io.write 'done'
  end)
  lu.assertEquals(out, 'done')
end

-- Runs fn in a finalizer, at once.
local function in_finalizer(fn, ...)
  local arguments, results = { ... }, nil
  getmetatable(newproxy(true)).__gc = function() results = { pcall(fn, unpack(arguments)) } end
  t.collect()
  return unpack(results, 1, 4)
end

function T.test_waking_everybody_from_a_finalizer()
  local ch, e, s, m = asio.channel(), asio.event(), asio.semaphore(0), asio.mutex()
  local threads = {}
  m:lock()
  for i, wait in ipairs {
    function() return ch:recv() end,
    function() return e:wait() end,
    function() return s:acquire() end,
    function() return asio.select { asio.channel(), s } end,
    function() return pcall(asio.sleep, 60) end,
    function() return (m:with(function() return 'locked' end)) end,
  } do
    threads[i] = asio.spawn(wait)
  end
  lu.assertTrue(in_finalizer(function()
    ch:send 'from a finalizer'
    e:set()
    s:release(2)
    threads[5]:cancel()
    m:unlock()
  end))
  lu.assertEquals({ threads[1]:join() }, { true, 'from a finalizer' })
  lu.assertEquals({ threads[2]:join() }, { true, true })
  lu.assertEquals({ threads[3]:join() }, { true, true })
  lu.assertEquals({ threads[4]:join() }, { true, 2, true })
  lu.assertEquals({ threads[5]:join() }, { true, false, asio.cancelled })
  lu.assertEquals({ threads[6]:join() }, { true, 'locked' })
end

function T.test_what_waits_not_works_in_a_finalizer()
  local ch = asio.channel(2)
  local ok, err = in_finalizer(function()
    assert(ch:send(1, 0) and ch:recv(0) == 1)
    assert(select(3, ch:recv(0)) == 'ETIMEDOUT')
    local m = asio.mutex()
    assert(m:with(function() return 'with' end) == 'with')
    assert(asio.timeout(1, function() return 'timeout' end) == 'timeout')
    assert(asio.shield(1, function() return 'shield' end) == 'shield')
    assert(asio.coroutine.wrap(function() return 'coroutine' end)() == 'coroutine')
    assert(#asio.threads() > 0 and asio.stats().threads > 0)
    asio.after(60, print):stop()
    asio.signal('SIGINT'):close()
    local e = asio.event()
    e:set()
    assert(asio.select { e } == 1)
  end)
  lu.assertTrue(ok, err)
end

function T.test_what_waits_is_refused_in_a_finalizer()
  local ch, m = asio.channel(), asio.mutex()
  local holder = asio.spawn(function() m:with(asio.sleep, 0.02) end)
  for name, wait in pairs {
    sleep = function() asio.sleep(0.001) end,
    yield = function() asio.yield() end,
    recv = function() ch:recv() end,
    lock = function() m:lock() end,
    with = function() m:with(print) end,
    select = function() asio.select { ch } end,
    timeout = function() asio.timeout(0.001, asio.sleep, 60) end,
    nested = function() asio.coroutine.wrap(asio.sleep)(0.001) end,
    group = function() asio.group(function(g) g:spawn(asio.sleep, 0.001) end) end,
    wait_fd = function() asio.wait_fd(0, 'r') end,
    signal = function() asio.signal('SIGINT'):wait() end,
    accept = function() asio.server('127.0.0.1', 0):accept() end,
    run = function() asio.run() end,
  } do
    local ok, err = in_finalizer(wait)
    lu.assertFalse(ok, name)
    lu.assertIsString(err, name)
  end
  holder:join()
  asio.yield()
  t.stderr() -- of the group
end

function T.test_a_finalizer_that_raises_costs_nobody_his_results()
  local ch = asio.channel()
  for _ = 1, 20 do
    local receiver = asio.spawn(function() return ch:recv(), asio.timeout(0, asio.sleep, 60) end)
    getmetatable(newproxy(true)).__gc = function() error 'expected' end
    ch:send 'item'
    pcall(t.collect)
    lu.assertEquals({ receiver:join() }, { true, 'item', nil, 'operation timed out', 'ETIMEDOUT' })
  end
  t.stderr()
end

-- Everything at random ----------------------------------------------------------------------------

-- Light threads and the main chunk do things to a few shared objects, and finalizers do, too, whenever
-- the collector comes, which it does all the time and a little at a time.
local function frenzy(seed, main)
  local asio, raw = require 'asio', require 'raw'
  math.randomseed(tonumber(seed))
  local random = math.random
  local ch, narrow, e, s, m = asio.channel(3), asio.channel(), asio.event(), asio.semaphore(1), asio.mutex()
  local near, far = raw.pair()
  local signal, threads, group = assert(asio.signal(raw.signal_name)), {}, asio.group()
  local over -- lua_close follows: see "Known limits" in docs/decisions.md
  asio.on_error(function() end)
  collectgarbage('setpause', random(50, 120))
  collectgarbage('setstepmul', random(100, 400))

  local function some_thread() return threads[random(#threads)] end
  local quick = { -- what waits for nothing
    function() ch:send(1, 0) end,
    function() narrow:send(1, 0) end,
    function() ch:recv(0) end,
    function() e:set() end,
    function() e:clear() end,
    function() s:release() end,
    function() s:acquire(0) end,
    function() if random(30) == 1 then narrow:close() narrow = asio.channel() end end,
    function() far:send 'x' end,
    function() some_thread():cancel() end,
    function() if m:lock(0) and random(2) == 1 then m:unlock() end end,
    function() group:spawn(asio.sleep, 0.001) end,
    function()
      if random(10) == 1 then
        group = asio.group()
      else
        group:cancel()
      end
    end,
    function() asio.after(0.001, function() e:set() end) end,
    function() asio.threads() end,
    function() some_thread():status() end,
    function() if random(10) == 1 then signal:close() signal = asio.signal(raw.signal_name) end end,
    function() if random(20) == 1 and not over then collectgarbage() end end,
  }
  local slow = {
    function() ch:recv(0.001) end,
    function() ch:send(2, 0.001) end,
    function() narrow:recv(0.0005) end,
    function() asio.timeout(0.0005, narrow.send, narrow, 3) end,
    function() asio.select { ch, narrow, e, s, some_thread() ~= asio.current() and some_thread(),
      timeout = 0.0005 } end,
    function() e:wait(0.001) end,
    function() s:acquire(0.001) end,
    function() m:lock(0.001) if random(3) > 1 then pcall(m.unlock, m) end end,
    function() if far:send 'x' == 1 and asio.wait_fd(near.fd, 'r', 0.001) then near:recv(1) end end,
    function() asio.wait_fd(near.fd, random(2) == 1 and 'r' or 'rw', 0.0005) end,
    function() signal:wait(0.0005) end,
    function() some_thread():join(0.0005) end,
    function() asio.timeout(0.001, group.wait, group) group = asio.group() end,
    function() asio.group(function(g) g:spawn(asio.yield) g:spawn(asio.sleep, 0.0003) end) end,
    function() asio.coroutine.wrap(function() asio.coroutine.wrap(asio.yield)() end)() end,
    function() asio.shield(0.0005, asio.sleep, 0.0002) end,
    function() asio.yield() end,
  }
  local function finalizer() pcall(quick[random(#quick)]) end
  local function work()
    for _ = 1, 40 do
      for _ = 1, random(4) do getmetatable(newproxy(true)).__gc = finalizer end
      pcall(quick[random(#quick)])
      pcall(slow[random(#slow)])
    end
  end
  for i = 1, 8 do threads[i] = asio.spawn(work) end
  local function keep_busy(rounds)
    for _ = 1, rounds do
      local i = random(8)
      if threads[i]:status() == 'done' or threads[i]:status() == 'failed' then
        threads[i] = asio.spawn(work)
      end
      for _ = 1, 3 do getmetatable(newproxy(true)).__gc = finalizer end
      pcall(slow[random(#slow)])
    end
  end
  if main == 'main' then keep_busy(600) else asio.run(keep_busy, 600) end
  asio.after(0.05, asio.stop)
  pcall(asio.run)
  over = true
end

-- Its upvalues have to be none: see support.child.
local function frenzies(main)
  local rounds = t.long and 200 or t.stress and 2 or 6
  local first = t.long and os.time() % 1000000 or 1
  for seed = first, first + rounds - 1 do
    local ok, err = pcall(t.child, frenzy, { args = { seed, main }, seconds = 60 })
    if not ok then lu.fail(('seed %d: %s'):format(seed, tostring(err))) end
  end
end

T.test_a_frenzy_of_light_threads_and_finalizers = t.slow(600, function() frenzies 'threads' end)
T.test_a_frenzy_of_the_main_chunk_and_finalizers = t.slow(600, function() frenzies 'main' end)

return T
