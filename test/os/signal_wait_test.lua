-- asio.signal: waiting for signals of the process. What Ctrl-C and SIGPIPE do by themselves is in
-- signal_test.lua.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local SIGNAL, NAME, OTHER, OTHER_NAME = raw.signal, raw.signal_name, raw.other_signal, raw.other_signal_name
local T = {}

function T.test_wait()
  local s = assert(asio.signal(NAME))
  lu.assertStrContains(tostring(s), NAME)
  t.failure('ETIMEDOUT', s:wait(0))
  t.failure('ETIMEDOUT', s:wait(0.002))
  local waiter = asio.spawn(function() return select('#', s:wait()) end)
  lu.assertEquals(waiter:status(), 'waiting')
  raw.kill(SIGNAL)
  lu.assertEquals({ waiter:join(5) }, { true, 1 })
  s:close()
  lu.assertStrContains(tostring(s), 'closed')
end

function T.test_one_that_came_while_nobody_waited_is_kept()
  local s = assert(asio.signal(NAME))
  raw.kill(SIGNAL)
  asio.sleep(0.005)
  raw.kill(SIGNAL)
  asio.sleep(0.005)
  lu.assertTrue(s:wait(0))
  lu.assertTrue(s:wait(0))
  t.failure('ETIMEDOUT', s:wait(0))
  s:close()
end

function T.test_a_time_out_of_nothing_sees_what_the_loop_has_not_yet_seen()
  local s = assert(asio.signal(NAME))
  raw.kill(SIGNAL)
  lu.assertTrue(s:wait(0))
  raw.kill(SIGNAL)
  lu.assertTrue(asio.timeout(0, s.wait, s))
  s:close()
end

function T.test_first_come_first_served_and_one_for_each()
  local s, order, waiters = assert(asio.signal(OTHER_NAME)), {}, {}
  for i = 1, 3 do
    waiters[i] = asio.spawn(function()
      s:wait()
      order[#order + 1] = i
    end)
  end
  for i = 1, 3 do
    raw.kill(OTHER)
    waiters[i]:join(5)
    lu.assertEquals(#order, i)
  end
  lu.assertEquals(order, { 1, 2, 3 })
  s:close()
end

function T.test_several_watch_the_same_and_each_gets_it()
  local all, waiters = {}, {}
  for i = 1, 3 do
    all[i] = assert(asio.signal(NAME))
    waiters[i] = asio.spawn(all[i].wait, all[i])
  end
  local other = assert(asio.signal(OTHER_NAME))
  raw.kill(SIGNAL)
  for i = 1, 3 do lu.assertEquals({ waiters[i]:join(5) }, { true, true }) end
  t.failure('ETIMEDOUT', other:wait(0))
  all[1]:close()
  raw.kill(SIGNAL)
  lu.assertTrue(all[2]:wait(5))
  lu.assertTrue(all[3]:wait(5))
  t.failure('EBADF', all[1]:wait())
  for i = 2, 3 do all[i]:close() end
  other:close()
end

function T.test_close_while_somebody_waits()
  local s, waiters = assert(asio.signal(NAME)), {}
  for i = 1, 3 do waiters[i] = asio.spawn(s.wait, s, i == 2 and 60 or nil) end
  s:close()
  for i = 1, 3 do t.failure('ECANCELED', select(2, waiters[i]:join(5))) end
  t.failure('EBADF', s:wait())
  t.failure('EBADF', s:wait(0))
  s:close()
end

function T.test_closed_by_the_one_it_wakes()
  local s = assert(asio.signal(NAME))
  local waiter = asio.spawn(function()
    s:wait()
    s:close()
    s = nil
    t.collect()
    return 'closed'
  end)
  raw.kill(SIGNAL)
  lu.assertEquals({ waiter:join(5) }, { true, 'closed' })
end

function T.test_iter()
  local s, n = assert(asio.signal(NAME)), 0
  local loop = asio.spawn(function()
    for ok in s:iter() do
      lu.assertTrue(ok)
      n = n + 1
      if n < 3 then raw.kill(SIGNAL) else s:close() end
    end
    return 'left the loop'
  end)
  raw.kill(SIGNAL)
  lu.assertEquals({ loop:join(5) }, { true, 'left the loop' })
  lu.assertEquals(n, 3)
end

function T.test_what_it_did_before_is_restored()
  for _, disposition in ipairs { 'ignore', 'own' } do
    raw.disposition(SIGNAL, disposition)
    local first, second = assert(asio.signal(NAME)), assert(asio.signal(NAME))
    raw.kill(SIGNAL)
    lu.assertTrue(first:wait(5))
    first:close()
    raw.kill(SIGNAL)
    lu.assertTrue(second:wait(5)) -- watched still
    second:close()
    lu.assertEquals(raw.disposition(SIGNAL, disposition), disposition)
    assert(asio.signal(NAME))
    t.collect() -- closes it
    lu.assertEquals(raw.disposition(SIGNAL, 'default'), disposition)
  end
  asio.signal(NAME):close()
  lu.assertEquals(raw.disposition(SIGNAL, 'default'), 'default')
end

function T.test_one_that_is_waited_for_is_not_collected()
  local waiter = asio.spawn(function() return assert(asio.signal(NAME)):wait(5) end)
  t.collect()
  raw.kill(SIGNAL)
  lu.assertEquals({ waiter:join(5) }, { true, true })
end

-- Of the terminal or console, at its end; on Windows the process ends soon after.
function T.test_hangup()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local s = assert(asio.signal 'SIGHUP')
    raw.kill(raw.SIGHUP)
    assert(s:wait(5))
  end)
end

-- Known everywhere, so that a script can ask for it everywhere.
function T.test_a_signal_that_this_system_does_not_have()
  for _, name in ipairs(raw.windows and { 'SIGTERM', 'SIGUSR1', 'SIGCHLD', 'SIGPIPE' } or { 'SIGBREAK' }) do
    t.failure('ENOTSUP', asio.signal(name))
  end
end

function T.test_bad_arguments()
  for _, wrong in ipairs { 'SIGNOTHING', 'SIGKILL', 'SIGSEGV', 'sigint', 'INT', '', 2, {}, true } do
    t.bad_argument(1, 'signal', function() asio.signal(wrong) end)
  end
  t.bad_argument(1, 'signal', function() asio.signal() end)
  local s = assert(asio.signal 'SIGHUP')
  for _, wrong in ipairs { -1, 0 / 0, 'soon', {} } do
    t.bad_argument(1, 'wait', function() s:wait(wrong) end)
  end
  t.raises('not a signal', s.wait, {})
  t.raises('not a signal', s.close, asio.event())
  s:close()
end

T.test_in_the_main_chunk = t.main(function()
  local s = assert(asio.signal(NAME))
  asio.after(0.002, function() raw.kill(SIGNAL) end)
  lu.assertTrue(s:wait())
  t.failure('ETIMEDOUT', s:wait(0.001))
  t.failure('ETIMEDOUT', asio.timeout(0.001, s.wait, s))
  asio.run() -- an open one alone does not keep it going
  asio.spawn(s.wait, s) -- somebody who waits does
  asio.after(0.002, function() raw.kill(SIGNAL) end)
  asio.run()
  s:close()
end)

-- Ctrl-C ----------------------------------------------------------------------------------------

function T.test_sigint_that_is_watched_does_not_interrupt()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local s = assert(asio.signal 'SIGINT')
    asio.run(function()
      for _ = 1, 3 do
        raw.kill(raw.SIGINT)
        assert(s:wait(5))
      end
      raw.kill(raw.SIGINT)
      asio.sleep(0.01)
    end)
    assert(s:wait(0)) -- kept; in the main chunk
    raw.kill(raw.SIGINT)
    asio.sleep(0.01) -- not interrupted either
    s:close()
    local ok, err = pcall(asio.run, function()
      raw.kill(raw.SIGINT)
      asio.sleep(60)
    end)
    assert(not ok and tostring(err):find('interrupted!', 1, true), err)
  end)
end

function T.test_closing_the_last_watch_of_sigint_inside_run()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local one, two = assert(asio.signal 'SIGINT'), assert(asio.signal 'SIGINT')
    local steps = 0
    local ok, err = pcall(asio.run, function()
      one:close()
      raw.kill(raw.SIGINT)
      assert(two:wait(5))
      steps = 1
      two:close()
      raw.kill(raw.SIGINT)
      asio.sleep(60)
      steps = 2
    end)
    assert(not ok and tostring(err):find('interrupted!', 1, true), err)
    assert(steps == 1)
  end)
end

function T.test_the_hosts_handler_of_sigint_survives_watching_and_running()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    for _, order in ipairs { 'watch inside run', 'run inside watch', 'across' } do
      raw.disposition(raw.SIGINT, 'own')
      local s
      if order == 'run inside watch' then s = assert(asio.signal 'SIGINT') end
      asio.run(function()
        if not s then s = assert(asio.signal 'SIGINT') end
        asio.sleep(0.001)
        if order == 'watch inside run' then s:close() end
      end)
      s:close()
      local now = raw.disposition(raw.SIGINT, 'default')
      assert(now == 'own', order .. ': ' .. now)
    end
  end)
end

function T.test_an_orderly_end_on_sigterm()
  local result = t.child(function()
    local asio, raw = require 'asio', require 'raw'
    local server = assert(asio.server('127.0.0.1', 0, function() end))
    asio.run(function()
      local signal = asio.signal 'SIGTERM'
      os.execute(('(sleep 0.1; kill -TERM %d) &'):format(raw.pid()))
      assert(signal:wait())
      server:close()
    end)
    io.write 'ended in order'
  end)
  lu.assertEquals(result.out, 'ended in order')
end

function T.test_the_state_closes_while_they_are_open()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local held = {}
    for _, name in ipairs { 'SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGCHLD', 'SIGWINCH' } do
      local s = asio.signal(name)
      assert(s or raw.windows)
      if s then
        asio.spawn(s.wait, s)
        asio.spawn(s.wait, s, 60)
        held[#held + 1] = s
        held[#held + 1] = assert(asio.signal(name))
      end
    end
    asio.run_once(0)
    raw.kill(raw.signal)
    package.loaded.held = held
  end)
end

return T
