-- Dicts that all Lua states share: what each operation does. Several states at once: dict_states_test.lua.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

assert(asio.shared.dict()) -- the state's mailbox stays, with its descriptor

local function count(...) return select('#', ...), ... end

-- Waits for a clock, not for an event: an expiry is nothing else.
local function wait_until_gone(d, key)
  t.wait_until(function() return d:get(key) == nil end, 'expired')
end

-- Keys and values ---------------------------------------------------------------------------------

function T.test_values_of_every_kind()
  local d = asio.shared.dict()
  local function through(value)
    lu.assertEquals({ count(d:set('key', value)) }, { 1, true })
    return d:get 'key'
  end
  for _, value in ipairs { true, false, 0, -1.5, 1e300, 1 / 0, '', 'text', 'a\0b' } do
    lu.assertEquals(through(value), value)
  end
  local nan = through(0 / 0)
  lu.assertTrue(nan ~= nan)
  for _, n in ipairs { 1, 511, 512, 513, 5000, 300000 } do
    local text = ('0123456789'):rep(n / 10 + 1):sub(1, n)
    lu.assertTrue(through(text) == text, n)
  end
  local original = { 1, 'two', { three = 3 } }
  local copy = through(original)
  lu.assertEquals(copy, original)
  lu.assertFalse(rawequal(copy, original))
  lu.assertEquals(through(function() return 7 end)(), 7)
  lu.assertTrue(through(2LL ^ 60) == 2LL ^ 60)
end

function T.test_keys_are_strings_and_numbers()
  local d = asio.shared.dict()
  local keys = { 1, '1', '', -1, 0.5, 2 ^ 60, 1 / 0, 'a\0b', 'a', ('k'):rep(1000), ('x'):rep(8) }
  for i, key in ipairs(keys) do lu.assertTrue(d:set(key, i)) end
  for i, key in ipairs(keys) do lu.assertEquals(d:get(key), i) end
  lu.assertEquals(d:count(), #keys)
  d:set(0, 'zero')
  lu.assertEquals(d:get(-0), 'zero')
  for _, key in ipairs(keys) do lu.assertTrue(d:delete(key)) end
  lu.assertEquals(d:keys(), { 0 })
end

function T.test_absent()
  local d = asio.shared.dict()
  lu.assertEquals({ count(d:get 'no') }, { 1, nil })
  lu.assertFalse(d:delete 'no')
  lu.assertNil(d:ttl 'no')
  t.failure('ENOENT', d:expire('no', 1))
  t.failure('ENOENT', d:incr 'no')
  t.failure('ENOENT', d:replace('no', 1))
  lu.assertNil(d:lpop 'no')
  lu.assertNil(d:rpop 'no')
  lu.assertEquals(d:llen 'no', 0)
  lu.assertEquals(d:keys(), {})
  lu.assertEquals(d:count(), 0)
  lu.assertEquals(d:bytes(), 0)
end

function T.test_add_replace_and_delete()
  local d = asio.shared.dict()
  lu.assertTrue(d:add('key', 1))
  t.failure('EEXIST', d:add('key', 2))
  lu.assertEquals(d:get 'key', 1)
  lu.assertTrue(d:replace('key', 3))
  lu.assertEquals(d:get 'key', 3)
  lu.assertTrue(d:delete 'key')
  lu.assertTrue(d:add('key', false))
  t.failure('EEXIST', d:add('key', 2))
  lu.assertTrue(d:set('key', nil))
  lu.assertNil(d:get 'key')
  lu.assertEquals(d:bytes(), 0)
end

function T.test_numbers_are_counted()
  local d = asio.shared.dict()
  lu.assertEquals(d:incr('n', 2, 10), 12)
  lu.assertEquals(d:incr('n', 2, 10), 14)
  lu.assertEquals(d:incr 'n', 15)
  lu.assertEquals(d:incr('n', -0.5), 14.5)
  lu.assertEquals(d:get 'n', 14.5)
  d:set('n', 'text')
  t.failure('EINVAL', d:incr('n', 1, 0))
end

function T.test_update()
  local d = asio.shared.dict()
  lu.assertEquals(d:update('n', function(old)
    lu.assertNil(old)
    return { 1 }
  end), { 1 })
  lu.assertEquals(d:update('n', function(old)
    old[2] = 2
    return old
  end), { 1, 2 })
  lu.assertEquals(d:get 'n', { 1, 2 })
  t.raises('on purpose', d.update, d, 'n', function() error 'on purpose' end)
  lu.assertEquals(d:get 'n', { 1, 2 })
  lu.assertEquals(d:update('n', function() return false end), false)
  lu.assertEquals({ count(d:update('n', function() end)) }, { 1, nil })
  lu.assertEquals(d:count(), 0)
  lu.assertNil(d:update('n', function() end))
  lu.assertEquals(d:count(), 0)
end

function T.test_update_begins_again_after_a_change()
  local d, calls = asio.shared.dict(), {}
  for _, change in ipairs { function() d:set('n', 5) end, function() d:delete 'n' end,
    function() d:incr('n', 1, 10) end } do
    calls = {}
    local new = d:update('n', function(old)
      calls[#calls + 1] = old or 'none'
      if #calls == 1 then change() end
      return (old or 0) + 100
    end)
    lu.assertEquals(#calls, 2)
    lu.assertEquals(d:get 'n', new)
  end
  lu.assertEquals(calls, { 100, 110 + 1 - 11 + 1 })
  lu.assertEquals(d:get 'n', 201)
end

-- Time ----------------------------------------------------------------------------------------------

function T.test_time_to_live()
  local d = asio.shared.dict()
  d:set('ever', 1)
  d:set('long', 1, 100)
  d:set('gone', 1, 0)
  lu.assertEquals(d:ttl 'ever', math.huge)
  lu.assertTrue(d:ttl 'long' > 90 and d:ttl 'long' <= 100)
  lu.assertNil(d:get 'gone')
  lu.assertNil(d:ttl 'gone')
  lu.assertEquals(d:count(), 2)
  lu.assertTrue(d:add('gone', 2))
  lu.assertTrue(d:expire('long'))
  lu.assertEquals(d:ttl 'long', math.huge)
  lu.assertTrue(d:expire('ever', 50))
  lu.assertTrue(d:ttl 'ever' <= 50)
  d:set('ever', 2)
  lu.assertEquals(d:ttl 'ever', math.huge, 'a new value has its own time')
  d:set('ever', 2, math.huge)
  lu.assertEquals(d:ttl 'ever', math.huge)
end

function T.test_changes_that_keep_the_time()
  local d = asio.shared.dict()
  d:set('n', 1, 100)
  d:incr('n', 1, 0, 5)
  lu.assertTrue(d:ttl 'n' > 50)
  d:update('n', function(n) return n + 1 end)
  lu.assertTrue(d:ttl 'n' > 50)
  d:update('n', function(n) return n + 1 end, 5)
  lu.assertTrue(d:ttl 'n' <= 5)
  d:incr('new', 1, 0, 100)
  lu.assertTrue(d:ttl 'new' <= 100)
  d:rpush('list', 1)
  d:expire('list', 100)
  d:rpush('list', 2)
  lu.assertTrue(d:ttl 'list' <= 100)
end

function T.test_entries_expire()
  local d = asio.shared.dict()
  for i = 1, 1000 do d:set(i, 'value', 0.02 + i % 10 / 500) end
  d:set('stays', 1, 0.02)
  d:expire('stays', 1000)
  d:set('kept', 1, 0.02)
  d:set('kept', 1)
  for i = 1, 1000 do wait_until_gone(d, i) end
  lu.assertEquals(d:count(), 2)
  lu.assertEquals(d:get 'stays', 1)
  lu.assertEquals(d:get 'kept', 1)
  d:clear()
  lu.assertEquals(d:bytes(), 0)
end

function T.test_what_has_expired_is_freed_by_changes()
  local d = asio.shared.dict()
  for i = 1, 2000 do d:set(i, ('x'):rep(500), 0.01) end
  wait_until_gone(d, 2000)
  for i = 1, 2000 do d:set('k' .. i, true) end
  lu.assertTrue(d:bytes() < 600000)
end

-- Lists ---------------------------------------------------------------------------------------------

function T.test_lists()
  local d = asio.shared.dict()
  lu.assertEquals(d:rpush('q', 2), 1)
  lu.assertEquals(d:rpush('q', ('three'):rep(200)), 2)
  lu.assertEquals(d:lpush('q', 'one'), 3)
  lu.assertEquals(d:lpush('q', { 0 }), 4)
  lu.assertEquals(d:llen 'q', 4)
  lu.assertEquals(d:rpop 'q', ('three'):rep(200))
  lu.assertEquals(d:lpop 'q', { 0 })
  lu.assertEquals(d:lpop 'q', 'one')
  lu.assertEquals(d:rpop 'q', 2)
  lu.assertEquals({ count(d:rpop 'q') }, { 1, nil })
  lu.assertEquals(d:llen 'q', 0)
  lu.assertEquals(d:count(), 0)
  lu.assertEquals(d:bytes(), 0)
end

function T.test_a_list_is_no_value()
  local d = asio.shared.dict()
  d:rpush('q', 1)
  t.failure('EINVAL', d:get 'q')
  t.failure('EINVAL', d:incr('q', 1, 0))
  t.failure('EINVAL', d:update('q', function() return 1 end))
  t.failure('EEXIST', d:add('q', 1))
  local list = {}
  for key in d:iter() do list[#list + 1] = key end
  lu.assertEquals(list, {})
  lu.assertEquals(d:keys(), { 'q' })
  d:set('q', 'value')
  for _, name in ipairs { 'lpush', 'rpush', 'lpop', 'rpop', 'llen' } do
    t.failure('EINVAL', d[name](d, 'q', 1))
  end
  d:rpush('other', {})
  d:rpush('other', ('x'):rep(1000))
  d:delete 'other'
  d:delete 'q'
  lu.assertEquals(d:bytes(), 0)
end

-- All of it -----------------------------------------------------------------------------------------

function T.test_keys_and_iter()
  local d, seen = asio.shared.dict(), {}
  for i = 1, 500 do d:set(i % 2 == 0 and i or 'k' .. i, i) end
  lu.assertEquals(#d:keys(), 500)
  lu.assertEquals(#d:keys(7), 7)
  lu.assertEquals(#d:keys(0), 0)
  lu.assertEquals(#d:keys(math.huge), 500)
  for key, value in d:iter() do
    lu.assertNil(seen[key])
    seen[key] = value
    d:delete(key == 'k1' and 2 or 'k1')
  end
  lu.assertTrue(seen.k1 ~= nil or seen[2] ~= nil)
  seen.k1, seen[2] = 1, 2
  for i = 3, 500 do lu.assertEquals(seen[i % 2 == 0 and i or 'k' .. i], i) end
end

function T.test_every_byte_is_counted()
  local d = asio.shared.dict()
  lu.assertEquals(d:bytes(), 0)
  d:set('key', ('x'):rep(100))
  local one = d:bytes()
  lu.assertTrue(one > 103 and one < 400)
  d:set('key', ('x'):rep(1100))
  lu.assertEquals(d:bytes(), one + 1000)
  d:set('key', true)
  lu.assertTrue(d:bytes() < one - 99)
  d:delete 'key'
  lu.assertEquals(d:bytes(), 0)
  for i = 1, 5000 do d:set(i, { i, 'text' }, i % 3 == 0 and 100 or nil) end
  for i = 1, 5000 do d:rpush('list', i) end
  lu.assertTrue(d:bytes() > 5000 * 100)
  for _, key in ipairs(d:keys()) do d:delete(key) end
  lu.assertEquals(d:bytes(), 0)
  for i = 1, 5000 do d:set(i, 'text') end
  d:clear()
  lu.assertEquals(d:bytes(), 0)
  lu.assertEquals(d:count(), 0)
end

-- Shortage ------------------------------------------------------------------------------------------

function T.test_what_was_not_used_longest_goes()
  local d = asio.shared.dict { max_bytes = 20000 }
  for i = 1, 100 do
    lu.assertTrue(d:set(i, ('x'):rep(1000)))
    lu.assertTrue(d:bytes() <= 20000)
    d:get(1)
  end
  local kept = d:count()
  lu.assertTrue(kept >= 10 and kept < 20)
  lu.assertIsString(d:get(1))
  for i = 2, 100 do lu.assertEquals(d:get(i) ~= nil, i > 101 - kept, i) end
end

function T.test_what_has_expired_goes_first()
  for _, evict in ipairs { 'lru', 'none' } do
    local d = asio.shared.dict { max_bytes = 20000, evict = evict }
    lu.assertTrue(d:set('first', 1))
    for i = 1, 5 do lu.assertTrue(d:set('short' .. i, ('x'):rep(2000), 0.01)) end
    t.wait_until(function() return d:ttl 'short5' == nil end, 'expired')
    for i = 1, 7 do lu.assertTrue(d:set(i, ('x'):rep(2000))) end
    lu.assertEquals(d:count(), 8)
  end
end

function T.test_without_eviction_it_is_full()
  local d = asio.shared.dict { max_bytes = 20000, evict = 'none' }
  local n = 0
  while d:set(n + 1, ('x'):rep(1000)) do n = n + 1 end
  lu.assertTrue(n >= 10 and n < 20)
  t.failure('ENOMEM', d:set(n + 1, ('x'):rep(1000)))
  t.failure('ENOMEM', d:add(n + 1, ('x'):rep(1000)))
  t.failure('ENOMEM', d:rpush('list', ('x'):rep(1000)))
  t.failure('ENOMEM', d:set(1, ('y'):rep(3000)))
  lu.assertEquals(d:count(), n)
  for i = 1, n do lu.assertEquals(d:get(i), ('x'):rep(1000)) end
  lu.assertTrue(d:set(1, ('y'):rep(1000)), 'in the place of the old one')
  lu.assertTrue(d:delete(2))
  lu.assertTrue(d:set(2, ('x'):rep(1000)), 'another key may need a larger table')
end

function T.test_what_can_never_fit_evicts_nothing()
  local d = asio.shared.dict { max_bytes = 10000 }
  d:set('small', 1)
  d:rpush('list', ('x'):rep(3000))
  t.failure('ENOMEM', d:set('big', ('x'):rep(10000)))
  t.failure('ENOMEM', d:set('small', ('x'):rep(10000)))
  t.failure('ENOMEM', d:rpush('list', ('x'):rep(8000)))
  t.failure('ENOMEM', d:update('small', function() return ('x'):rep(10000) end))
  lu.assertEquals(d:get 'small', 1)
  lu.assertEquals(d:llen 'list', 1)
  t.failure('ENOMEM', asio.shared.dict({ max_bytes = 10 }):set(1, 1))
end

-- Against a table ---------------------------------------------------------------------------------

local function same_list(d, key, list)
  lu.assertEquals(d:llen(key), #list)
  local copy = {}
  for i = 1, #list do copy[i] = d:lpop(key) end
  lu.assertEquals(copy, list)
  for i = 1, #list do d:rpush(key, list[i]) end
end

local function random_value(random)
  local kind = random(5)
  if kind == 1 then return random(1000) end
  if kind == 2 then return random(2) == 1 end
  if kind == 3 then return { random(10), 'x' } end
  return ('v'):rep(random(kind == 4 and 100 or 1500))
end

-- Operations on a dict and on the table that it should be like. `model[key]`: { value } or { list = {...} }
local operations = {
  function(d, model, key, random)
    local value = random_value(random)
    lu.assertTrue(d:set(key, value))
    model[key] = { value }
  end,
  function(d, model, key, random)
    local value, had = random_value(random), model[key]
    lu.assertEquals(d:add(key, value), not had and true or nil)
    model[key] = had or { value }
  end,
  function(d, model, key, random)
    local value, had = random_value(random), model[key]
    lu.assertEquals(d:replace(key, value, 1000), had and true or nil)
    if had then model[key] = { value } end
  end,
  function(d, model, key)
    lu.assertEquals(d:delete(key), model[key] ~= nil)
    model[key] = nil
  end,
  function(d, model, key, random)
    if random(3) == 1 and d:expire(key, 0) then model[key] = nil end
    if random(3) == 1 then d:expire(key, random(2) == 1 and 1000 or nil) end
  end,
  function(d, model, key)
    local had = model[key]
    local n = d:incr(key, 1, 10)
    if had and type(had[1]) ~= 'number' then return lu.assertNil(n) end
    model[key] = { (had and had[1] or 10) + 1 }
    lu.assertEquals(n, model[key][1])
  end,
  function(d, model, key, random)
    local had, value = model[key], random_value(random)
    local front = random(2) == 1
    local n = d[front and 'lpush' or 'rpush'](d, key, value)
    if had and not had.list then return lu.assertNil(n) end
    had = had or { list = {} }
    model[key] = had
    table.insert(had.list, front and 1 or #had.list + 1, value)
    lu.assertEquals(n, #had.list)
  end,
  function(d, model, key, random)
    local had = model[key]
    local front = random(2) == 1
    local value = d[front and 'lpop' or 'rpop'](d, key)
    if not had or not had.list then return lu.assertNil(value) end
    lu.assertEquals(value, table.remove(had.list, front and 1 or #had.list))
    if #had.list == 0 then model[key] = nil end
  end,
}

T.test_like_a_table = t.slow(60, function()
  local seed = os.time()
  math.randomseed(seed)
  local d, model = asio.shared.dict(), {}
  for step = 1, t.count(200000) do
    local key = math.random(300)
    if key % 2 == 0 then key = 'key' .. key end
    operations[math.random(#operations)](d, model, key, math.random)
    local had = model[key]
    if had and not had.list then lu.assertEquals(d:get(key), had[1], 'seed ' .. seed) end
    if step % 1000 == 0 then
      local n = 0
      for each, value in pairs(model) do
        n = n + 1
        if value.list then same_list(d, each, value.list) end
      end
      lu.assertEquals(d:count(), n, 'seed ' .. seed)
      lu.assertEquals(#d:keys(), n)
    end
  end
  for key in pairs(model) do lu.assertTrue(d:delete(key)) end
  lu.assertEquals(d:bytes(), 0)
end)

-- Names ---------------------------------------------------------------------------------------------

function T.test_a_name_is_one_dict()
  local d = assert(asio.shared.dict 'dict_test 1')
  d:set('key', 1)
  lu.assertTrue(rawequal(asio.shared.dict 'dict_test 1', d))
  lu.assertFalse(rawequal(asio.shared.dict 'dict_test 2', d))
  d = nil -- luacheck: ignore 311
  t.collect()
  d = asio.shared.dict 'dict_test 1'
  lu.assertEquals(d:get 'key', 1)
  d:clear()
  t.failure('EEXIST', asio.shared.dict('dict_test 1', { max_bytes = 1000 }))
  lu.assertTrue(asio.shared.dict('dict_test 3', { max_bytes = 1000 }):set(1, 1))
  lu.assertEquals(asio.shared.dict('dict_test 3', { max_bytes = 1000, evict = 'lru' }):get(1), 1)
  t.failure('EEXIST', asio.shared.dict('dict_test 3', { max_bytes = 1000, evict = 'none' }))
  t.failure('EEXIST', asio.shared.dict 'dict_test 3')
  lu.assertEquals(asio.shared.dict():count(), 0)
end

-- Mistakes ------------------------------------------------------------------------------------------

function T.test_mistakes_raise()
  local d = asio.shared.dict()
  local function bad(text, name, ...)
    t.raises('dict_test.lua', function(...) return (d[name](d, ...)) end, ...)
    t.raises(text, d[name], d, ...)
  end
  for _, name in ipairs { 'get', 'set', 'add', 'replace', 'incr', 'delete', 'expire', 'ttl', 'lpush', 'rpop',
    'llen' } do
    bad(("bad argument #1 to '%s' (string or number expected, got table)"):format(name), name, {}, 1)
    bad('got no value', name)
    bad('NaN', name, 0 / 0, 1)
    t.raises('not a shared dict', d[name], {}, 1)
    t.raises('not a shared dict', d[name], asio.shared.channel(), 1)
    t.raises('not a shared dict', d[name])
  end
  bad("bad argument #2 to 'add' (a value expected, got nil)", 'add', 'k')
  bad("bad argument #2 to 'rpush'", 'rpush', 'k', nil)
  bad("bad argument #3 to 'set' (number of seconds expected, got string)", 'set', 'k', 1, '1')
  bad("bad argument #3 to 'set' (seconds must not be negative or NaN)", 'set', 'k', 1, -1)
  bad("bad argument #2 to 'expire'", 'expire', 'k', 0 / 0)
  bad("bad argument #2 to 'incr' (number expected, got string)", 'incr', 'k', 'x')
  bad("bad argument #3 to 'incr'", 'incr', 'k', 1, {})
  bad("bad argument #2 to 'update' (function expected, got nil)", 'update', 'k')
  bad("bad argument #2 to 'set'", 'set', 'k', coroutine.create(print))
  bad("bad argument #2 to 'set'", 'set', 'k', { asio.shared.channel() })
  bad("bad argument #2 to 'set'", 'set', 'k', d)
  bad('update: the new value', 'update', 'k', function() return coroutine.create(print) end)
  lu.assertEquals(d:bytes(), 0)
end

function T.test_options_are_checked()
  t.raises("bad argument #1 to 'dict' (string expected, got number)", asio.shared.dict, 1)
  t.raises("bad argument #2 to 'dict' (table expected, got number)", asio.shared.dict, 'name', 1)
  t.raises("bad argument #1 to 'dict' (unknown option 'max')", asio.shared.dict, { max = 1 })
  t.raises("bad argument #2 to 'dict' (unknown option 'max')", asio.shared.dict, 'name', { max = 1 })
  t.raises("option 'max_bytes'", asio.shared.dict, { max_bytes = 0 })
  t.raises("option 'max_bytes'", asio.shared.dict, { max_bytes = '1m' })
  t.raises("option 'evict'", asio.shared.dict, { evict = 'ttl' })
end

return T
