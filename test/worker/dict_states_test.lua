-- Dicts that several Lua states use at once; forks; shortage of memory.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

assert(asio.shared.dict()) -- the state's mailbox stays, with its descriptor

-- Several states ------------------------------------------------------------------------------------

T.test_two_states_count = t.slow(60, function()
  local d, n = asio.shared.dict(), t.count(2000000)
  local function work(dict, times)
    for i = 1, times do
      dict:incr('n', 1, 0)
      dict:rpush('list', i)
    end
    for _ = 1, times / 10 do dict:update('m', function(m) return (m or 0) + 1 end) end
  end
  local workers = {}
  for i = 1, 2 do workers[i] = assert(asio.worker(work, d, n)) end
  for i = 1, 2 do lu.assertTrue(workers[i]:join()) end
  lu.assertEquals(d:get 'n', 2 * n)
  lu.assertEquals(d:get 'm', 2 * math.ceil((n - 9) / 10))
  lu.assertEquals(d:llen 'list', 2 * n)
end)

T.test_each_item_of_a_list_is_taken_once = t.slow(60, function()
  local d, n = asio.shared.dict(), t.count(200000)
  for i = 1, n do d:rpush('list', i % 3 == 0 and i or i % 3 == 1 and tostring(i) or { i }) end
  local function work(dict)
    local sum, number = 0, 0
    while true do
      local item = dict:lpop 'list'
      if item == nil then return sum, number end
      sum = sum + tonumber(type(item) == 'table' and item[1] or item)
      number = number + 1
    end
  end
  local workers, sum, number = {}, 0, 0
  for i = 1, 2 do workers[i] = assert(asio.worker(work, d)) end
  for i = 1, 2 do
    local ok, its_sum, its_number = workers[i]:join()
    lu.assertTrue(ok)
    sum, number = sum + its_sum, number + its_number
  end
  lu.assertEquals(number, n)
  lu.assertEquals(sum, n * (n + 1) / 2)
end)

T.test_states_that_evict_at_once = t.slow(60, function()
  local d = asio.shared.dict { max_bytes = 50000 }
  local function work(dict, seed, times)
    math.randomseed(seed)
    for i = 1, times do
      local key = math.random(500)
      if i % 3 == 0 then
        dict:get(key)
      elseif i % 7 == 0 then
        dict:rpush('list' .. key, ('x'):rep(math.random(100)))
      else
        dict:set(key, ('x'):rep(math.random(2000)), i % 5 == 0 and 0.001 or nil)
      end
      if dict:bytes() > 50000 then error 'too many bytes' end
    end
  end
  local workers = {}
  for i = 1, 3 do workers[i] = assert(asio.worker(work, d, i, t.count(200000))) end
  for i = 1, 3 do
    local ok, err = workers[i]:join()
    lu.assertTrue(ok, err)
  end
  lu.assertTrue(d:bytes() <= 50000)
  d:clear()
  lu.assertEquals(d:bytes(), 0)
end)

function T.test_it_outlives_the_state_that_made_it()
  local worker = assert(asio.worker(function()
    local dict = require('asio').shared.dict()
    dict:set('key', ('value'):rep(500))
    require('asio').shared.dict('dict_test of a worker'):set('key', 'value')
    local ch = require('asio').shared.channel(1)
    ch:send { dict = dict }
    return ch
  end))
  local ok, ch = worker:join()
  lu.assertTrue(ok)
  t.collect()
  local d = ch:recv().dict
  lu.assertEquals(d:get 'key', ('value'):rep(500))
  local named = asio.shared.dict 'dict_test of a worker'
  lu.assertEquals(named:get 'key', 'value')
  named:clear()
end

-- The end ---------------------------------------------------------------------------------------------

function T.test_a_fork_is_refused()
  t.child(function()
    local d = require('asio').shared.dict()
    d:set('key', 1)
    require('forks').fork(function()
      for _, call in ipairs { function() return (d:get 'key') end, require('asio').shared.dict } do
        local ok, err = pcall(call)
        assert(not ok and tostring(err):find('is a fork', 1, true), err)
      end
    end)
    assert(d:get 'key' == 1)
  end)
end

T.test_short_of_memory_at_every_point = t.slow(120, function()
  local text, code = require 'oom' 'dict'
  lu.assertEquals(code, 0, text)
  local failed = tonumber(text:match '(%d+) states ended with an error')
  lu.assertTrue((failed or 0) > 200, text)
end)

return T
