-- asio.timeout and asio.group inside coroutines of the user's own, which take their scopes along when
-- they yield: to whoever resumes them, or to the grave.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local co = asio.coroutine
local T = {}

local function never() asio.event():wait() end

-- A generator that yields inside of a scope, and waits whenever it is resumed.
local function inside_scope(seconds, wait)
  return co.create(function()
    return asio.timeout(seconds, function()
      for i = 1, 100 do
        co.yield(i)
        wait()
      end
    end)
  end)
end

function T.test_a_scope_that_is_left_by_yielding_interrupts_nobody_else()
  local c = inside_scope(0.002, asio.yield)
  lu.assertEquals({ co.resume(c) }, { true, 1 })
  asio.sleep(0.01) -- its time passes meanwhile
  local ok, _, _, code = co.resume(c)
  lu.assertEquals({ ok, code }, { true, 'ETIMEDOUT' })
  asio.yield()
  lu.assertEquals(co.status(c), 'dead')
end

function T.test_a_scope_goes_along_to_another_light_thread()
  local c = inside_scope(0.01, never)
  co.resume(c)
  local other = asio.spawn(function()
    local results = { co.resume(c) }
    asio.sleep(0.001)
    return unpack(results, 1, 4)
  end)
  local ok, resumed, _, _, code = other:join(5)
  lu.assertEquals({ ok, resumed, code }, { true, true, 'ETIMEDOUT' })
end

function T.test_scopes_of_several_generators_interleaved()
  local slow, quick = inside_scope(60, asio.yield), inside_scope(0.3, asio.yield)
  t.failure('ETIMEDOUT', asio.timeout(0.6, function()
    for i = 1, 3 do
      lu.assertEquals({ co.resume(slow) }, { true, i })
      lu.assertEquals({ co.resume(quick) }, { true, i })
    end
    asio.sleep(0.31)
    local _, _, _, code = co.resume(quick)
    lu.assertEquals(code, 'ETIMEDOUT')
    lu.assertEquals({ co.resume(slow) }, { true, 4 })
    asio.sleep(60)
  end))
  lu.assertEquals({ co.resume(slow) }, { true, 5 })
  lu.assertEquals({ co.resume(slow) }, { true, 6 })
end

function T.test_a_group_whose_function_yields_to_its_resumer()
  local c = co.wrap(function()
    asio.group(function(g)
      g:spawn(function()
        asio.sleep(0.001)
        error 'of the child'
      end)
      co.yield 'suspended'
      asio.yield()
      lu.fail 'not told'
    end)
  end)
  lu.assertEquals(c(), 'suspended')
  asio.sleep(0.005)
  t.raises('of the child', c)
  asio.yield()
end

function T.test_one_resumed_by_hand_out_of_its_scope()
  local c = inside_scope(0.002, function() pcall(asio.yield) end)
  co.resume(c)
  lu.assertEquals({ coroutine.resume(c) }, { true, 2 })
  asio.sleep(0.005)
  lu.assertEquals({ coroutine.resume(c) }, { true, 3 })
  asio.yield()
end

function T.test_dropped_ones_take_no_memory()
  local function drop()
    for i = 1, 3 do co.resume(inside_scope(i % 2 == 0 and 60 or 0.0001, asio.yield)) end
    local grouped = co.create(function()
      asio.group(function() co.yield() end)
    end)
    co.resume(grouped)
  end
  local function round(n)
    for i = 1, n do
      drop()
      if i % 50 == 0 then
        collectgarbage()
        asio.yield()
      end
    end
    t.collect()
  end
  round(500)
  local resident, lua = raw.status 'VmRSS', collectgarbage 'count'
  round(t.count(100000))
  lu.assertTrue(collectgarbage 'count' - lua < 512, 'memory of Lua is kept')
  local kept = raw.status 'VmRSS' - resident
  lu.assertTrue(t.sanitized or kept < 8 * 1024, kept .. ' KiB kept')
end

T.test_from_the_main_chunk_to_a_light_thread_and_back = t.main(function()
  local c = inside_scope(0.002, asio.yield)
  co.resume(c)
  asio.sleep(0.01)
  local ok, _, _, code = asio.run(co.resume, c)
  lu.assertEquals({ ok, code }, { true, 'ETIMEDOUT' })
  c = inside_scope(0.002, asio.yield)
  asio.run(co.resume, c)
  asio.sleep(0.01)
  ok, _, _, code = co.resume(c)
  lu.assertEquals({ ok, code }, { true, 'ETIMEDOUT' })
  asio.sleep(0.001)
end)

function T.test_left_behind_when_its_light_thread_dies()
  -- A stray yield ends the light thread while a coroutine in it is inside a scope.
  local c
  local thread = asio.spawn(asio.timeout, 0.001, function()
    c = inside_scope(0.002, asio.yield)
    co.resume(c)
    coroutine.yield 'stray'
  end)
  lu.assertFalse((thread:join()))
  asio.sleep(0.005)
  local ok, _, _, code = co.resume(c)
  lu.assertEquals({ ok, code }, { true, 'ETIMEDOUT' })
  asio.yield()
end

function T.test_a_light_thread_that_dies_while_a_coroutine_in_it_runs()
  -- Resumed by hand, the coroutine yields past asio: the record of ours does not know.
  local c = co.create(function()
    asio.timeout(0.001, function()
      coroutine.wrap(function() coroutine.yield 'of its own' end)()
      asio.yield()
      co.yield()
      asio.sleep(60)
    end)
    return 'end'
  end)
  local thread = asio.spawn(co.resume, c)
  lu.assertEquals({ thread:join() }, { true, true })
  asio.sleep(0.005)
  lu.assertEquals({ co.resume(c) }, { true, 'end' })
  asio.yield()
end

return T
