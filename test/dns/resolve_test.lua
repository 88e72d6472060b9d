-- Names are looked up beside the loop: slow or dead name servers hold nobody else up.
--
-- A network of the test's own has a name server that takes every question and never answers.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

local function run(child, options)
  options = options or {}
  local wrap, clean = t.slow_names(options.gives_up_after or 1)
  options.wrap = wrap
  local ok, result = pcall(t.quiet_child, child, options)
  clean()
  if not ok then error(result, 0) end
  return result
end

function T.test_the_loop_goes_on_while_a_name_is_looked_up()
  lu.assertEquals(run(function()
    local asio, raw = require 'asio', require 'raw'
    local blackhole = raw.udp('127.0.0.1', 53)
    asio.run(function()
      local looking = asio.spawn(function()
        local started = asio.now()
        local conn, _, code = asio.connect('slow.example', 80)
        assert(conn == nil)
        assert(code:find '^EAI_', code)
        return asio.now() - started
      end)
      local worst = 0
      while looking:status() == 'waiting' do
        local before = asio.now()
        asio.sleep(0.005)
        worst = math.max(worst, asio.now() - before)
      end
      local ok, took = looking:join()
      assert(ok, took)
      assert(took > 0.5, 'the name server answered')
      assert(worst < 0.3, worst)
      io.write 'fine'
    end)
    blackhole:close()
  end), 'fine')
end

function T.test_the_time_out_of_connect_covers_the_name()
  lu.assertEquals(run(function()
    local asio, raw = require 'asio', require 'raw'
    local blackhole = raw.udp('127.0.0.1', 53)
    asio.run(function()
      local started = asio.now()
      local _, _, code = asio.connect('slow.example', 80, { timeout = 0.1 })
      assert(code == 'ETIMEDOUT', code)
      assert(asio.now() - started < 0.6)
    end)
    io.write 'fine'
    blackhole:close()
  end), 'fine')
end

function T.test_slow_names_do_not_hold_up_fast_ones()
  lu.assertEquals(run(function()
    local asio, raw = require 'asio', require 'raw'
    local blackhole = raw.udp('127.0.0.1', 53)
    asio.run(function()
      local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:write 'x' end))
      local _, port = server:address()
      -- More than libuv's own pool would look up at a time.
      for i = 1, 6 do asio.spawn(asio.connect, 'slow' .. i .. '.example', 80) end
      local started = asio.now()
      local conn = assert(asio.connect('localhost', port))
      assert(conn:read(1) == 'x')
      assert(asio.now() - started < 0.5, asio.now() - started)
      io.write 'fine'
      os.exit(0, true)
    end)
    blackhole:close()
  end, { env = t.ignore_leaks }), 'fine')
end

function T.test_a_script_can_end_while_a_name_is_looked_up()
  local started = os.time()
  lu.assertEquals(run(function()
    local asio, raw = require 'asio', require 'raw'
    package.loaded.blackhole = raw.udp('127.0.0.1', 53) -- for as long as the process lives
    for i = 1, 3 do asio.spawn(asio.connect, 'slow' .. i .. '.example', 80) end
    asio.run_once(0)
    io.write 'fine'
  end, { gives_up_after = 8, env = t.ignore_leaks }), 'fine')
  lu.assertTrue(os.time() - started <= 4, 'the end waited for the name server')
end

function T.test_every_address_of_a_name_is_tried()
  lu.assertEquals(run(function()
    local asio = require 'asio'
    asio.run(function()
      local server = assert(asio.server('127.0.0.2', 0, function(conn) conn:write 'second' end))
      local _, port = server:address()
      local conn = assert(asio.connect('twice', port, { timeout = 5 }))
      io.write(conn:read(6))
      server:close()
      -- And when none answers, the failure is one of theirs.
      local none, _, code = asio.connect('twice', 1)
      assert(none == nil)
      assert(code == 'ECONNREFUSED', code)
    end)
  end), 'second')
end

function T.test_a_name_that_does_not_exist()
  local out = run(function()
    local asio = require 'asio'
    -- Nobody listens on the name server's port.
    local conn, message, code = asio.connect('nowhere.example', 80)
    assert(conn == nil)
    assert(type(message) == 'string')
    io.write(code)
  end)
  lu.assertStrMatches(out, 'EAI_%u+')
end

return T
