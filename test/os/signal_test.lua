-- Ctrl-C, and SIGPIPE whatever its disposition is.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

function T.test_ctrl_c_ends_an_idle_run()
  local result = t.child(function()
    local asio, raw = require 'asio', require 'raw'
    local server = asio.server('127.0.0.1', 0, function() end)
    -- The signal comes from outside, while the process is in the kernel, waiting: never before the run.
    asio.spawn(function()
      asio.yield()
      os.execute(('(sleep 0.1; kill -INT %d) &'):format(raw.pid()))
    end)
    local ok, err = pcall(asio.run)
    assert(not ok)
    assert(tostring(err):find('interrupted!', 1, true), err)
    server:close()
    -- Nothing is broken afterwards.
    io.write(asio.run(function()
      asio.sleep(0.001)
      return 'again'
    end))
  end)
  lu.assertEquals(result.out, 'again')
  lu.assertEquals(result.err, '')
end

function T.test_ctrl_c_ends_the_script_with_a_message()
  local result = t.child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.run(function()
      asio.spawn(asio.sleep, 100)
      asio.sleep(0.01)
      raw.kill(raw.SIGINT)
      asio.sleep(100)
    end)
  end, { code = 1 })
  lu.assertStrContains(result.err, 'interrupted!')
end

function T.test_ctrl_c_in_a_busy_run()
  t.child(function()
    local asio, raw = require 'asio', require 'raw'
    local ok, err = pcall(asio.run, function()
      asio.yield()
      os.execute(('(sleep 0.1; kill -INT %d) &'):format(raw.pid()))
      while true do asio.yield() end
    end)
    assert(not ok)
    assert(tostring(err):find('interrupted!', 1, true), err)
  end)
end

function T.test_ctrl_c_in_a_wait_of_the_main_chunk()
  t.child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.spawn(function()
      asio.yield()
      os.execute(('(sleep 0.1; kill -INT %d) &'):format(raw.pid()))
    end)
    local ok, err = pcall(asio.sleep, 100)
    assert(not ok)
    assert(tostring(err):find('interrupted!', 1, true), err)
  end)
end

function T.test_ctrl_c_twice()
  t.child(function()
    local asio, raw = require 'asio', require 'raw'
    for _ = 1, 2 do
      asio.spawn(function()
        asio.sleep(0.005)
        raw.kill(raw.SIGINT)
      end)
      local ok, err = pcall(asio.run, asio.sleep, 100)
      assert(not ok and tostring(err):find('interrupted!', 1, true), err)
    end
    os.exit(0, true)
  end)
end

function T.test_the_hosts_handler_of_sigint_is_back_after_run()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    raw.disposition(raw.SIGINT, 'own')
    asio.run(asio.sleep, 0.001)
    local now = raw.disposition(raw.SIGINT, 'default')
    assert(now == 'own', now)
  end)
end

-- SIGPIPE -------------------------------------------------------------------------------------

-- What a child does under each disposition: writes on and on to a peer that has gone. The
-- signal would end it with code 141.
local function write_to_the_dead(disposition, when)
  local asio, raw
  if when == 'after' then asio = require 'asio' end
  raw = require 'raw'
  raw.disposition(raw.SIGPIPE, disposition)
  asio = asio or require 'asio'
  local function gone_peer()
    local accepted
    local server = asio.server('127.0.0.1', 0, function(conn) accepted = conn end)
    local peer = raw.connect((select(2, server:address())))
    while not accepted do asio.sleep(0) end
    server:close()
    peer:reset()
    return accepted
  end
  -- Large strings go another way out than small ones.
  for _, size in ipairs { 10, 1000, 2 ^ 20 } do
    asio.run(function()
      local conn, code = gone_peer(), nil
      for _ = 1, 50 do
        local ok
        ok, _, code = conn:write(('x'):rep(size))
        if ok then ok, _, code = conn:flush() end
        assert(ok or code == 'EPIPE' or code == 'ECONNRESET', code)
        asio.yield()
      end
      assert(code, 'no write failed')
      conn:close()
    end)
  end
  -- In the main chunk, where writes go out at once.
  local conn = gone_peer()
  for _ = 1, 10 do conn:write 'more' end
  io.write(raw.disposition(raw.SIGPIPE, 'default'))
end

function T.test_writing_to_a_peer_that_has_gone_under_every_disposition()
  for _, when in ipairs { 'before', 'after' } do
    for _, disposition in ipairs { 'default', 'ignore', 'own' } do
      local found = t.quiet_child(write_to_the_dead, { args = { disposition, when } })
      if disposition == 'own' then
        lu.assertEquals(found, 'own', 'the handler of the host was replaced')
      end
    end
  end
end

return T
