-- What a value is after its way through a shared channel. Both ends are in this Lua state, but for one
-- case: the bytes are the same.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'
local ffi = require 'ffi'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

local random = math.random

-- What arrives when the values are sent as one message.
local function carry(...)
  local ch = asio.shared.channel(1)
  assert(ch:send({ n = select('#', ...), ... }))
  local got = ch:recv()
  return unpack(got, 1, got.n)
end

-- The same shape: equal values, and where one side has the same table twice the other has it twice.
local function same(a, b, there, back)
  if type(a) ~= 'table' or type(b) ~= 'table' then
    return type(a) == type(b) and (a == b and (a ~= 0 or 1 / a == 1 / b) or a ~= a and b ~= b)
  end
  there, back = there or {}, back or {}
  if there[a] or back[b] then return there[a] == b and back[b] == a end
  there[a], back[b] = b, a
  for key, value in pairs(a) do
    if not same(value, rawget(b, key), there, back) then return false end
  end
  for key in pairs(b) do
    if rawget(a, key) == nil then return false end
  end
  return true
end

local function assert_carried(value)
  local got = carry(value)
  lu.assertTrue(same(value, got))
  return got
end

-- A file module of this test, as `require` would have it.
local function with_module(name, module, body)
  package.loaded[name] = module
  local ok, err = xpcall(body, debug.traceback)
  package.loaded[name] = nil
  if not ok then error(err, 0) end
end

-- Plain values ----------------------------------------------------------------------------------

function T.test_scalars()
  local ch = asio.shared.channel(1)
  local negative_zero = -tonumber '0'
  for _, value in ipairs { true, false, 0, negative_zero, 1, -1, 0.1, 2 ^ 53, 1e308, 5e-324, 1 / 0, -1 / 0,
    0 / 0, '', 'a', 'zero\0inside', ('x'):rep(255), ('x'):rep(256), ('x'):rep(100000) } do
    ch:send(value)
    lu.assertTrue(same(ch:recv(), value), tostring(value):sub(1, 20))
    assert_carried(value)
  end
end

function T.test_nil_between_others()
  lu.assertEquals({ n = select('#', carry(nil, 1, nil)), carry(nil, 1, nil) }, { n = 3, nil, 1, nil })
end

function T.test_tables()
  for _, value in ipairs { {}, { 1, 2, 3 }, { 1, 'abc', x = true }, { [0] = 'zero', 'one' },
    { 1, nil, 3, nil, 5 }, { [2 ^ 40] = 1, [-1] = 2, [0.5] = 3, [1 / 0] = 4 },
    { [true] = false, [false] = true }, { { { { {} } } } },
    { a = { b = { c = { 'd' } } } } } do
    assert_carried(value)
  end
end

function T.test_a_long_table()
  local value = {}
  for i = 1, 10000 do value[i] = { i, 'text ' .. i, x = i % 3 == 0 } end
  assert_carried(value)
end

function T.test_a_table_is_a_copy()
  local value = { list = { 1 } }
  local got = carry(value)
  value.list[1] = 2
  lu.assertEquals(got, { list = { 1 } })
end

function T.test_cycles_and_tables_that_are_there_twice()
  local value, inner = { 1 }, {}
  value.self, value.list, value.inner, value[inner] = value, { value, inner, inner }, inner, 'key'
  local got = carry(value)
  lu.assertIs(got.self, got)
  lu.assertIs(got.list[1], got)
  lu.assertIs(got.list[2], got.inner)
  lu.assertIs(got.list[3], got.inner)
  lu.assertEquals(got[got.inner], 'key')
  lu.assertNil(got[inner])
end

function T.test_many_tables_that_are_there_twice()
  local value = {}
  for i = 1, 300 do value[i] = { i } end
  for i = 1, 300 do value[300 + i] = value[301 - i] end
  assert_carried(value)
end

function T.test_a_table_that_two_values_have()
  local shared = {}
  local a, b = carry({ shared }, { shared })
  lu.assertIs(a[1], b[1])
end

function T.test_metatables_stay_behind_and_are_not_asked()
  local asked = 0
  local function ask() asked = asked + 1 end
  local value = setmetatable({ x = 1 }, { __index = ask, __newindex = ask, __len = ask, __metatable = false })
  local got = carry(value)
  lu.assertNil(debug.getmetatable(got))
  lu.assertEquals(got, { x = 1 })
  lu.assertEquals(asked, 0)
end

function T.test_integers_of_64_bits()
  for _, value in ipairs { 0LL, -1LL, 1LL, 0x7fffffffffffffffLL, 0x8000000000000000LL, 0ULL,
    0xffffffffffffffffULL, 0x0123456789abcdefULL } do
    local got = carry(value)
    lu.assertEquals(tostring(got), tostring(value))
    lu.assertIs(ffi.typeof(got), ffi.typeof(value))
  end
  local integers = ffi.new('int64_t[2]', { 5, 6 })
  lu.assertEquals(tostring(carry(ffi.cast('int64_t &', integers + 1))), '6LL')
  lu.assertEquals(tostring(carry({ id = 7ULL }).id), '7ULL')
end

-- Values of all kinds at random; a table that was made before comes again now and then.
local function any_value(depth, made)
  local kind = random(10)
  if kind <= 3 and depth < 6 then
    local value = {}
    made[#made + 1] = value
    for _ = 1, random(0, 6) do value[#value + 1] = any_value(depth + 1, made) or 0 end
    for _ = 1, random(0, 4) do value['key' .. random(9)] = any_value(depth + 1, made) end
    if random(5) == 1 then value[random() * 1000] = any_value(depth + 1, made) end
    if random(9) == 1 then value[random(-3, 20)] = any_value(depth + 1, made) end
    return value
  elseif kind == 4 and #made > 0 then
    return made[random(#made)]
  elseif kind == 5 then
    return random(2) == 1
  elseif kind == 6 then
    return string.char(random(0, 255), random(0, 255), random(0, 255))
  elseif kind == 7 then
    return ('long'):rep(random(0, 300))
  elseif kind == 8 then
    return random(-1000, 1000)
  elseif kind == 9 then
    return (random() - 0.5) * 10 ^ random(-300, 300)
  end
  return nil
end

T.test_values_at_random = t.slow(60, function()
  local seed = os.time()
  math.randomseed(seed)
  for i = 1, t.long and 20000 or t.stress and 200 or 1000 do
    local value = any_value(0, {})
    if t.stress then collectgarbage() end
    lu.assertTrue(same(value, (carry(value))), ('seed %d, value %d'):format(seed, i))
  end
end)

-- Functions -------------------------------------------------------------------------------------

function T.test_a_function_without_upvalues()
  local got = carry(function(a, ...) return a * 2, select('#', ...) end)
  lu.assertEquals({ got(4, nil, nil) }, { 8, 2 })
end

function T.test_upvalues_are_copies()
  local count, list = 5, { 'a' }
  local function next_count()
    count = count + 1
    list[#list + 1] = count
    return count, #list
  end
  local got = carry(next_count)
  lu.assertEquals({ got() }, { 6, 2 })
  lu.assertEquals({ got() }, { 7, 3 })
  lu.assertEquals({ count, #list }, { 5, 1 })
end

function T.test_functions_share_their_upvalues()
  local count = 0
  local function add() count = count + 1 end
  local function get() return count end
  local got_add, got_get, objects = carry(add, get, { get = get })
  got_add()
  got_add()
  lu.assertEquals({ got_get(), get() }, { 2, 0 })
  lu.assertIs(objects.get, got_get)
end

function T.test_functions_that_call_themselves_and_one_another()
  local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
  lu.assertEquals(carry(fib)(15), 610)
  local odd
  local function even(n) return n == 0 or odd(n - 1) end
  function odd(n) return n ~= 0 and even(n - 1) end
  lu.assertEquals({ carry(even)(10), carry(odd)(10) }, { true, false })
end

function T.test_a_function_within_a_table_that_is_its_upvalue()
  local object = { n = 1 }
  function object.add() object.n = object.n + 1 end
  local got = carry(object)
  got.add()
  lu.assertEquals({ object.n, got.n }, { 1, 2 })
end

function T.test_functions_made_by_a_function()
  local function counter(n)
    return function() n = n + 1 return n end
  end
  local a, b = carry(counter(10), counter(20))
  lu.assertEquals({ a(), b(), a(), b() }, { 11, 21, 12, 22 })
  lu.assertEquals(carry(counter)(30)(), 31)
end

function T.test_environments()
  lu.assertIs(getfenv(carry(function() end)), _G)
  local private = { x = 1 }
  local function set() x = x + 1 end -- luacheck: ignore
  local function get() return x end -- luacheck: ignore
  local got_set, got_get = carry(setfenv(set, private), setfenv(get, private))
  got_set()
  lu.assertEquals({ got_get(), private.x }, { 2, 1 })
end

function T.test_a_function_keeps_its_lines()
  local function fail() error 'here' end
  local ok, err = pcall(carry(fail))
  lu.assertFalse(ok)
  lu.assertStrContains(err, ('pack_test.lua:%d: here'):format(debug.getinfo(fail, 'S').linedefined))
end

T.test_many_functions = t.slow(60, function()
  local functions, sum = {}, 0
  for i = 1, 200 do
    local before = functions[i - 1] and i % 50 ~= 0 and functions[i - 1]
    functions[i] = function(n)
      sum = sum + n
      return before and i % 7 == 0 and before(n) or sum
    end
  end
  local got = carry(functions)
  for i = 1, 200, 13 do lu.assertEquals(got[i](i), functions[i](i)) end
end)

-- What each state has from its modules -------------------------------------------------------------

function T.test_functions_in_c_and_libraries_go_by_name()
  for _, value in ipairs { print, pairs, string.format, math.deg, table.remove, io.stdout, io.write, string,
    _G, asio, asio.spawn, asio.shared, asio.shared.channel, lu, t.suite, package.loaded, jit, ffi.C } do
    lu.assertIs(carry(value), value)
    lu.assertIs(carry({ value })[1], value)
  end
end

function T.test_upvalues_that_are_modules()
  local format, channel = string.format, asio.shared.channel
  local got = carry(function(n)
    local ch = channel(n)
    ch:send(format('%d of %s', n, type(asio.now())))
    return ch:recv(), asio
  end)
  lu.assertEquals({ got(3) }, { '3 of number', asio })
end

function T.test_in_another_state()
  local format, channel, integer, shared_list = string.format, asio.shared.channel, 5LL, {}
  local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
  local back = channel(1)
  shared_list.list = shared_list
  local worker = assert(asio.worker(function(ch, list, get)
    local own = channel(1)
    own:send(format('%s %d', tostring(integer), fib(10)))
    ch:send { own:recv(), own, list.list == list, get() == list, asio.shared.channel == channel,
      back == ch, fib }
    return list
  end, back, shared_list, function() return shared_list end))
  local got = back:recv(10)
  lu.assertEquals({ got[1], unpack(got, 3, 6) }, { '5LL 55', true, true, true, true })
  got[2]:send 'made there'
  lu.assertEquals(got[2]:recv(), 'made there')
  lu.assertEquals(got[7](12), 144)
  local ok, list = worker:join()
  lu.assertTrue(ok)
  lu.assertIs(list.list, list)
end

function T.test_a_module_that_came_later()
  carry(print)
  local module = { thing = newproxy(), class = setmetatable({}, {}), space = { deep = newproxy() } }
  function module.helper() return module end
  function module.space.f() return module end
  with_module('pack_test.module', module, function()
    lu.assertIs(carry(module.helper), module.helper)
    lu.assertIs(carry({ module })[1], module)
    lu.assertIs(carry(module.class), module.class)
    lu.assertIs(carry(module.thing), module.thing)
    lu.assertIs(carry(module.space), module.space)
    lu.assertIs(carry(module.space.deep), module.space.deep)
    module.later = newproxy()
    local got = carry({ module.later, module })
    lu.assertIs(got[1], module.later)
    lu.assertIs(got[2], module)
  end)
end

function T.test_tables_of_data_in_a_module_go_by_value()
  with_module('pack_test.module', { data = { 1 } }, function()
    local data = package.loaded['pack_test.module'].data
    local got = carry(data)
    lu.assertEquals(got, data)
    lu.assertNotIs(got, data)
  end)
end

function T.test_functions_that_a_script_adds_go_by_value()
  local added = function(s) return s .. '!' end
  rawset(string, 'pack_test', added)
  local got = carry(added)
  rawset(string, 'pack_test', nil)
  lu.assertNotIs(got, added)
  lu.assertEquals(got 'x', 'x!')
  _G.pack_test_global = function() return 1 end
  got = carry(_G.pack_test_global)
  lu.assertNotIs(got, _G.pack_test_global)
  _G.pack_test_global = nil
  lu.assertEquals(got(), 1)
end

-- The channel offers such a message once more, then it lets it go.
function T.test_what_the_other_state_does_not_have()
  local ch = asio.shared.channel(3)
  local module = { thing = newproxy() }
  with_module('pack_test.module', module, function()
    ch:send { module.thing }
    ch:send(module)
    module.thing = nil
    t.raises({ 'pack_test.module.thing', 'by name' }, ch.recv, ch)
  end)
  ch:send 'goes on'
  local errors = 0
  local ok, value
  repeat
    ok, value = pcall(ch.recv, ch, 1)
    if not ok then
      lu.assertStrContains(value, "module 'pack_test.module' not found")
      errors = errors + 1
    end
  until ok
  lu.assertEquals(value, 'goes on')
  lu.assertTrue(errors <= 4)
end

-- Things that states share ----------------------------------------------------------------------

function T.test_shared_things()
  local ch = asio.shared.channel(1)
  lu.assertEquals(carry(ch), ch)
  local a, b = carry({ ch }, function() return ch end)
  lu.assertEquals(a[1], ch)
  lu.assertEquals(b(), ch)
  a[1]:send 'through the other handle'
  lu.assertEquals(ch:recv(), 'through the other handle')
end

function T.test_a_channel_in_a_channel_of_its_own()
  local ch = asio.shared.channel(2)
  ch:send(ch)
  ch:send({ ch, { ch } })
  lu.assertEquals(ch:recv(), ch)
  lu.assertEquals(ch:recv()[2][1], ch)
end

-- What cannot be carried ------------------------------------------------------------------------

local function refused(text, value)
  local ch = asio.shared.channel(1)
  t.raises(text, ch.send, ch, value)
  local ok, _, code = ch:send('goes on', 0)
  lu.assertEquals({ ok, code }, { true }, 'the channel is as before')
end

function T.test_the_error_blames_the_caller()
  local ch = asio.shared.channel(1)
  t.bad_argument(1, 'send', function()
    ch:send(coroutine.create(print))
  end)
end

function T.test_values_that_are_refused()
  refused("bad argument #1 to 'send' (a coroutine cannot go to another Lua state)", coroutine.create(print))
  refused("bad argument #1 to 'send' (a userdata cannot go to another Lua state)", newproxy())
  refused("bad argument #1 to 'send' (a userdata cannot go to another Lua state)", asio.channel())
  refused("bad argument #1 to 'send' (a C function cannot go to another Lua state)", coroutine.wrap(print))
  refused("bad argument #1 to 'send' (a cdata value cannot go to another Lua state)", ffi.new 'int[2]')
  refused("bad argument #1 to 'send' (a cdata value cannot go to another Lua state)", ffi.new 'int32_t')
end

function T.test_the_error_says_where()
  local co, x = coroutine.create(print), {}
  refused("(field 'x' of a table: a coroutine cannot", { x = co })
  refused("(field 3 of a table: a coroutine cannot", { 1, 2, co })
  refused("(field 2.5 of a table: a coroutine cannot", { [2.5] = co })
  refused("(a field of a table: a coroutine cannot", { [x] = co })
  refused("(a key of a table: a coroutine cannot", { [co] = 1 })
  refused("(field 2 of field 'list' of a table: a coroutine cannot", { list = { 1, co } })
  refused("(upvalue 'co' of a function: a coroutine cannot", function() return co end)
  refused("(field 'out' of upvalue 'x' of field 'f' of a table: a coroutine cannot",
    { f = function() x.out = co return x end, (function() x.out = co end)() })
  local alone = setfenv(function() end, { co = co })
  refused("(field 'co' of the environment of a function: a coroutine cannot", alone)
end

function T.test_values_that_are_nested_too_deeply()
  local value = {}
  local inner = value
  for _ = 1, 150 do
    inner.next = {}
    inner = inner.next
  end
  assert_carried(value)
  for _ = 1, 100 do
    inner.next = {}
    inner = inner.next
  end
  refused("field 'next' of ...: nested too deeply)", value)
end

function T.test_nothing_of_a_refused_message_remains()
  local kept = setmetatable({}, { __mode = 'k' })
  for i = 1, 20 do
    local value = { ('x'):rep(100000), asio.shared.channel(1), i, coroutine.create(print) }
    kept[value] = true
    t.raises('a coroutine', carry, value)
  end
  t.collect()
  lu.assertNil(next(kept))
end

-- Finalizers ------------------------------------------------------------------------------------

T.test_finalizers_send_while_values_are_packed = t.slow(60, function()
  local before = { collectgarbage('setpause', 0), collectgarbage('setstepmul', 10000) }
  local ch, sent, wrong = asio.shared.channel(1), 0, 0
  local function leave_something()
    getmetatable(newproxy(true)).__gc = function()
      local value = { sent, { sent } }
      value.self = value
      if ch:send(value, 0) then
        sent = sent + 1
        local got = ch:recv(0)
        if got.self ~= got or got[1] ~= got[2][1] then wrong = wrong + 1 end
      end
    end
  end
  for round = 1, t.count(4000) do
    leave_something()
    local list, n = {}, 0
    for i = 1, 30 do list[i] = { i, tostring(i), list } end
    local got, add, get = carry(list, function() n = n + 1 return list end, function() return n end)
    if add() ~= got or get() ~= 1 or #got ~= 30 or got[30][3] ~= got then wrong = wrong + round end
  end
  collectgarbage('setpause', before[1])
  collectgarbage('setstepmul', before[2])
  lu.assertEquals(wrong, 0)
  lu.assertTrue(sent > 0)
end)

-- Connections -----------------------------------------------------------------------------------

function T.test_a_connection_is_moved()
  can.need 'unix_sockets'
  local a, b = t.pair()
  local ch = asio.shared.channel(1)
  lu.assertTrue(ch:send({ conn = a, again = a }))
  t.failure('EBADF', a:write 'x')
  local got = ch:recv()
  lu.assertIs(got.conn, got.again)
  got.conn:write 'moved'
  lu.assertEquals(b:read(5), 'moved')
  got.conn:close()
  b:close()
end

function T.test_connections_are_moved_all_or_none()
  can.need 'unix_sockets'
  local a, b = t.pair()
  local c, d = t.pair()
  local ch = asio.shared.channel(1)
  d:close()
  c:close()
  t.failure('EBADF', ch:send({ a, c }))
  a:write 'still here'
  lu.assertEquals(b:read(10), 'still here')
  a:close()
  b:close()
end

function T.test_a_connection_in_a_message_that_is_not_received()
  can.need 'unix_sockets'
  local a, b = t.pair()
  do
    local ch = asio.shared.channel(1)
    ch:send(a)
  end
  t.collect()
  lu.assertNil((b:read(1)))
  b:close()
end

return T
