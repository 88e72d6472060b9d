-- asio.resolve with c-ares, over a name server of the test's own (nameserver.lua says what its names mean).
--
-- test: 12 s
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local ns = require 'ns'
local raw = require 'raw'
local can = require 'can'
local t = require 'support'

if not ns.has_ares() then
  return { test_names_need_c_ares = function() lu.skip 'asio/ares.so was not built' end }
end

local T = {}

local server = ns.start() -- one for all; ends with this process

local function ask(host, opts)
  opts = opts or {}
  opts.servers = opts.servers or server.servers
  return asio.resolve(host, opts)
end

-- How many questions for exactly this name have come.
local function asked(host)
  return tonumber(ask('count.' .. host, { type = 'TXT', cache = false })[1].text)
end

local function failed(code, host, opts)
  return t.failure(code, ask(host, opts))
end

-- What each type gives ----------------------------------------------------------------------------

function T.test_addresses_of_both_families()
  local list = assert(ask 'x.n2.ttl30.test')
  table.sort(list, function(a, b) return a.address < b.address end)
  lu.assertEquals(list, {
    { address = '127.0.0.1', family = 'inet', ttl = 30 },
    { address = '127.0.0.2', family = 'inet', ttl = 30 },
    { address = '::1', family = 'inet6', ttl = 30 },
    { address = '::2', family = 'inet6', ttl = 30 },
  })
end

function T.test_one_family()
  lu.assertEquals(ask('one.test', { type = 'A' }), { { address = '127.0.0.1', family = 'inet', ttl = 60 } })
  lu.assertEquals(ask('one.test', { type = 'AAAA' }), { { address = '::1', family = 'inet6', ttl = 60 } })
end

function T.test_a_name_with_one_family()
  lu.assertEquals(ask('only.a.test'), { { address = '127.0.0.1', family = 'inet', ttl = 60 } })
  lu.assertEquals(ask('x.aaaa.test'), { { address = '::1', family = 'inet6', ttl = 60 } })
  failed('EAI_NODATA', 'x.a.test', { type = 'AAAA' })
end

-- Each in the order in which to use them.
function T.test_services()
  lu.assertEquals(ask('_sip._tcp.n3.test', { type = 'SRV' }), {
    { target = 'host3.test', port = 8003, priority = 10, weight = 3, ttl = 60 },
    { target = 'host2.test', port = 8002, priority = 20, weight = 2, ttl = 60 },
    { target = 'host1.test', port = 8001, priority = 30, weight = 1, ttl = 60 },
  })
end

function T.test_mail_exchanges()
  lu.assertEquals(ask('x.n2.test', { type = 'MX' }), {
    { exchange = 'mx2.test', priority = 20, ttl = 60 }, { exchange = 'mx1.test', priority = 30, ttl = 60 },
  })
end

function T.test_texts()
  lu.assertEquals(ask('x.n2.test', { type = 'TXT' }), {
    { text = 'text 1', ttl = 60 }, { text = 'text 2', ttl = 60 },
  })
end

function T.test_names_of_addresses()
  lu.assertEquals(ask('127.0.0.9', { type = 'PTR' }), { { name = 'name1.test', ttl = 60 } })
  lu.assertEquals(asked '9.0.0.127.in-addr.arpa', 1)
  lu.assertEquals(ask('2001:db8::567:89ab', { type = 'PTR' }), { { name = 'name1.test', ttl = 60 } })
  lu.assertEquals(asked('b.a.9.8.7.6.5.0.' .. ('0.'):rep(16) .. '8.b.d.0.1.0.0.2.ip6.arpa'), 1)
  lu.assertEquals(ask('x.n2.test', { type = 'PTR' }), {
    { name = 'name1.test', ttl = 60 }, { name = 'name2.test', ttl = 60 },
  })
end

function T.test_an_address_stands_for_itself()
  lu.assertEquals(ask '192.0.2.7', { { address = '192.0.2.7', family = 'inet' } })
  lu.assertEquals(ask('2001:db8:0::1'), { { address = '2001:db8::1', family = 'inet6' } })
  lu.assertEquals(ask('::1', { type = 'AAAA' }), { { address = '::1', family = 'inet6' } })
  failed('EAI_ADDRFAMILY', '::1', { type = 'A' })
  failed('EAI_ADDRFAMILY', '127.0.0.1', { type = 'AAAA' })
end

function T.test_an_alias()
  lu.assertEquals(ask('x.alias.ttl7.test', { type = 'A' }),
    { { address = '127.0.0.1', family = 'inet', ttl = 7 } })
end

function T.test_upper_and_lower_case_are_the_same_name()
  assert(ask('Case.A.Test', { type = 'A' }))
  assert(ask('case.a.TEST', { type = 'A' }))
  lu.assertEquals(asked 'case.a.test', 1)
end

function T.test_a_server_on_ipv6()
  local list, _, code = ask('six.a.test', { type = 'A', servers = { '[::1]:' .. server.port }, timeout = 5 })
  lu.skipIf(code == 'EAI_AGAIN', 'this machine has no IPv6')
  lu.assertEquals(list, { { address = '127.0.0.1', family = 'inet', ttl = 60 } })
end

-- Failures ----------------------------------------------------------------------------------------

function T.test_names_without_what_was_asked_for()
  failed('EAI_NODATA', 'x.none.test')
  failed('EAI_NODATA', 'x.none.test', { type = 'SRV' })
  failed('EAI_NONAME', 'x.missing.test')
  failed('EAI_NONAME', 'x.missing.test', { type = 'TXT' })
  failed('EAI_NODATA', 'x.loop.test')
end

function T.test_a_server_that_refuses()
  for _, word in ipairs { 'servfail', 'refused', 'notimp' } do
    failed('EAI_AGAIN', 'x.' .. word .. '.test')
  end
  failed('EAI_FAIL', 'x.formerr.test')
end

function T.test_nobody_listens_there()
  local listener = raw.udp()
  local port = listener:port()
  listener:close()
  local started = asio.now()
  failed('EAI_AGAIN', 'x.test', { servers = { '127.0.0.1:' .. port } })
  lu.assertTrue(asio.now() - started < 1 * t.patience, 'it waited for an answer')
  -- The next of several is asked.
  lu.assertEquals(#ask('x.a.test', { servers = { '127.0.0.1:' .. port, server.servers[1] } }), 1)
end

function T.test_names_that_are_none()
  for _, name in ipairs { 'no such host', 'a..b', '', '.', '.a', ('x'):rep(64) .. '.test',
    ('x.'):rep(127) .. 'xy', '999.999.999.999', '127.1', 'a.0', 'ü.test', 'a\0b', 'a/b' } do
    failed('EAI_NONAME', name)
  end
  failed('EAI_NONAME', ('x'):rep(300), { type = 'TXT' })
  failed('EAI_NONAME', 'a\nb', { type = 'SRV' })
end

function T.test_bad_arguments()
  t.bad_argument(1, 'resolve', function() asio.resolve() end)
  t.bad_argument(1, 'resolve', function() asio.resolve({}) end)
  t.bad_argument(1, 'resolve', function() asio.resolve(17) end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', 'A') end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', { type = 'CNAME' }) end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', { type = 'a' }) end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', { type = {} }) end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', { timeout = -1 }) end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', { timeout = '1' }) end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', { timeout = 0 / 0 }) end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', { cache = 1 }) end)
  t.bad_argument(2, 'resolve', function() asio.resolve('x.test', { servers = '127.0.0.1' }) end)
  for _, bad in ipairs { '', 'localhost', '1.2.3', '1.2.3.4:', '1.2.3.4:0', '1.2.3.4:65536', '1.2.3.4:x',
    '[::1', '[1.2.3.4]:53', '::1]:53', '[::1]53', '1.2.3.4:53x', 'fe80::1%lo', '1.2.3.4\0', ('1'):rep(100),
    53, {}, false } do
    t.raises("bad argument #2 to 'resolve'", asio.resolve, 'x.test', { servers = { bad } })
    t.raises("bad argument #3 to 'connect'", asio.connect, 'x.test', 80, { servers = { bad } })
  end
  t.raises('1 to 16', asio.resolve, 'x.test', { servers = {} })
  local many = {}
  for i = 1, 17 do many[i] = '127.0.0.1' end
  t.raises('1 to 16', asio.resolve, 'x.test', { servers = many })
end

-- Answers that are no answers ---------------------------------------------------------------------

function T.test_a_truncated_answer_is_asked_for_by_tcp()
  lu.assertEquals(#ask('x.trunc.n3.test', { type = 'A' }), 3)
  lu.assertEquals(asked 'x.trunc.n3.test', 2)
  lu.assertEquals(#ask('big.trunc.big.test', { type = 'TXT' })[1].text, 4000)
end

function T.test_a_truncated_answer_and_no_tcp()
  failed('EAI_AGAIN', 'x.notcp.test')
  failed('EAI_NODATA', 'x.truncall.test')
end

-- c-ares writes to them as if nothing could happen; SIGPIPE would end the process.
function T.test_a_tcp_connection_that_ends_while_it_is_written_to()
  t.quiet_child(function(address)
    local asio = require 'asio'
    asio.run(function()
      asio.resolve('broken.trunc.test', { servers = { address }, type = 'A', timeout = 1 })
    end)
  end, {
    args = { server.servers[1] },
    env = t.ignore_leaks,
    wrap = t.strace '-o /dev/null -e trace=writev -e inject=writev:error=EPIPE:signal=SIGPIPE',
  })
end

function T.test_wrong_answers_are_passed_over()
  lu.assertEquals(ask('x.wrongthen.test', { type = 'A' })[1].address, '127.0.0.1')
end

-- Another id, another question, another address: as good as none.
function T.test_nothing_but_wrong_answers()
  for _, word in ipairs { 'wrongid', 'wrongname', 'wrongaddr', 'silent' } do
    failed('ETIMEDOUT', 'x.' .. word .. '.test', { timeout = 0.05 })
  end
end

function T.test_a_server_that_never_gives_the_right_answer_is_given_up()
  t.quiet_child(function(address)
    local asio = require 'asio'
    asio.run(function()
      for _, word in ipairs { 'wrongid', 'wrongname', 'silent' } do
        asio.spawn(function()
          local started = asio.now()
          local list, _, code = asio.resolve('x.' .. word .. '.test', { servers = { address }, type = 'A' })
          assert(list == nil and code == 'EAI_AGAIN', code)
          assert(asio.now() - started > 0.9)
        end)
      end
    end)
  end, { args = { server.servers[1] }, env = 'RES_OPTIONS="timeout:1 attempts:1"' })
end

function T.test_an_answer_that_comes_too_late()
  failed('ETIMEDOUT', 'late.delay60.a.test', { timeout = 0.02, type = 'A' })
  asio.sleep(0.1)
  lu.assertEquals(ask('late.delay60.a.test', { type = 'A' })[1].address, '127.0.0.1')
end

T.test_mangled_answers = t.slow(60, function()
  local threads, found, codes = {}, 0, {}
  for seed = 1, t.count(20000) do
    threads[seed] = asio.spawn(function()
      local kinds = { 'A', 'AAAA', 'SRV', 'MX', 'TXT', 'PTR' }
      local host = ('x.fuzz%d.%s.n3.soa5.test'):format(seed, seed % 3 == 0 and 'alias' or 'y')
      local list, message, code = ask(host, { type = kinds[seed % 6 + 1], timeout = 0.5 })
      if not list then
        lu.assertIsString(message)
        codes[code] = (codes[code] or 0) + 1
      else
        lu.assertTrue(#list > 0)
        for _, record in ipairs(list) do lu.assertIsTable(record) end
        found = found + 1
      end
    end)
    if seed % 100 == 0 then threads[seed]:join() end
  end
  for _, thread in ipairs(threads) do lu.assertEquals({ thread:join() }, { true }) end
  lu.assertTrue(found > 0)
  lu.assertTrue(codes.EAI_FAIL and codes.EAI_FAIL > 0, 'none was garbage')
end)

T.test_the_parser_of_answers = t.slow(60, function()
  local file = io.popen(('timeout 60 %s/test/dns_fuzz %d; echo $?'):format(
    os.getenv 'ASIO_BUILD', t.long and 20000000 or t.sanitized and 300000 or 1000000))
  local said = file:read '*a'
  file:close()
  lu.assertStrMatches(said, '%d+ parsed, %d+ refused\n0\n', nil, nil, said)
end)

-- Many, once, and not at all ----------------------------------------------------------------------

function T.test_a_thousand_at_once()
  ask 'x.a.test'
  local threads, started = {}, asio.now()
  for i = 1, 1000 do
    threads[i] = asio.spawn(function()
      return ask(('q%d.delay100.a.test'):format(i), { type = 'A' })[1].address
    end)
  end
  for i = 1, 1000 do lu.assertEquals({ threads[i]:join() }, { true, '127.0.0.1' }) end
  local took = asio.now() - started
  lu.assertTrue(took >= 0.1)
  lu.assertTrue(took < 1 * t.patience, took)
end

-- The name server is a light thread, and one more for each answer.
function T.test_a_thousand_at_once_of_a_server_of_ours()
  local sock = assert(asio.udp('127.0.0.1', 0, { recv_buffer = 2 ^ 20 }))
  local function answer(question, ip, port)
    asio.sleep(0.1)
    sock:send(question:sub(1, 2) .. '\129\128\0\1\0\1\0\0\0\0' .. question:sub(13)
      .. '\192\12\0\1\0\1\0\0\0\60\0\4\127\0\0\9', ip, port)
  end
  local serving = asio.spawn(function()
    while true do
      local question, ip, port = sock:recv()
      if not question then break end
      asio.spawn(answer, question, ip, port)
    end
  end)
  local opts = { type = 'A', servers = { '127.0.0.1:' .. select(2, sock:address()) } }
  local threads, started = {}, asio.now()
  for i = 1, 1000 do
    threads[i] = asio.spawn(function()
      return assert(asio.resolve(('q%d.ours.test'):format(i), opts))[1].address
    end)
  end
  for i = 1, 1000 do lu.assertEquals({ threads[i]:join() }, { true, '127.0.0.9' }) end
  local took = asio.now() - started
  lu.assertTrue(took >= 0.1 and took < 1 * t.patience, took)
  sock:close()
  serving:join()
end

-- Questions have numbers of 16 bits: c-ares 1.2x would look for one that is free, for ever.
T.test_more_at_once_than_there_are_numbers = t.slow(60, function()
  lu.skipIf(t.stress or t.sanitized, 'takes too long')
  local silent = raw.udp()
  local servers = { '127.0.0.1:' .. silent:port() }
  local function question(i)
    return asio.resolve(('q%d.test'):format(i), { type = 'A', servers = servers })
  end
  local threads = {}
  for i = 1, 32768 do threads[i] = asio.spawn(question, i) end
  local started = asio.now()
  t.failure('EAI_AGAIN', question(32769))
  lu.assertTrue(asio.now() - started < 0.5, 'it was asked')
  -- Who asks what has been asked already waits, too.
  t.failure('ETIMEDOUT', asio.resolve('q1.test', { type = 'A', servers = servers, timeout = 0.001 }))
  lu.assertEquals(#ask('other.a.test', { type = 'A' }), 1)
  for _, thread in ipairs(threads) do thread:cancel() end
  for _, thread in ipairs(threads) do thread:join() end
  silent:close()
end)

function T.test_who_asks_the_same_waits_for_the_same_answer()
  local threads = {}
  for i = 1, 50 do
    threads[i] = asio.spawn(ask, 'same.delay50.a.test', { type = 'A', cache = i % 2 == 0 })
  end
  for i = 1, 50 do
    local _, list = threads[i]:join()
    lu.assertEquals(#list, 1)
  end
  lu.assertEquals(asked 'same.delay50.a.test', 1)
end

-- Of those who wait for one answer some give up; nobody else is disturbed.
function T.test_some_of_those_who_wait_give_up()
  local threads = {}
  for i = 1, 20 do threads[i] = asio.spawn(ask, 'some.held.test') end
  asio.sleep(0.02)
  for i = 1, 20, 3 do threads[i]:cancel() end
  threads[21] = asio.spawn(ask, 'some.held.test', { timeout = 0.01 })
  lu.assertEquals({ select(4, threads[21]:join()) }, { 'ETIMEDOUT' })
  server:go()
  for i = 1, 20 do
    local ok, list = threads[i]:join()
    lu.assertEquals(ok, i % 3 ~= 1)
    if ok then lu.assertEquals(#list, 2) end
  end
end

-- When the last one gives up, so does c-ares: no socket stays open, nothing is sent again.
function T.test_nobody_waits_any_more()
  local before = raw.count_fds()
  local threads = {}
  for i = 1, 100 do threads[i] = asio.spawn(ask, ('gone%d.silent.test'):format(i)) end
  lu.assertTrue(raw.count_fds() > before)
  for i = 1, 100 do
    threads[i]:cancel()
    threads[i]:join()
  end
  asio.yield()
  lu.assertEquals(raw.count_fds(), before)
end

function T.test_a_look_up_inside_a_scope()
  local _, _, code = asio.timeout(0.02, ask, 'x.silent.test')
  lu.assertEquals(code, 'ETIMEDOUT')
  -- An answer that is there does not outrun what has passed already.
  ask 'x.a.test'
  local reached
  _, _, code = asio.timeout(0, function()
    pcall(asio.sleep, 0.01)
    ask 'x.a.test'
    reached = true
  end)
  lu.assertEquals(code, 'ETIMEDOUT')
  lu.assertNil(reached)
end

function T.test_a_time_out_of_zero()
  failed('ETIMEDOUT', 'zero.delay50.test', { timeout = 0 })
  assert(ask('zero.a.test', { type = 'A' }))
  lu.assertEquals(#ask('zero.a.test', { type = 'A', timeout = 0 }), 1) -- from the cache
end

T.test_the_main_chunk = t.main(function()
  lu.assertEquals(#ask('main.a.delay5.test'), 1)
  failed('ETIMEDOUT', 'main.silent.test', { timeout = 0.02 })
  lu.assertEquals(#ask('main.a.delay5.test'), 1)
end)

function T.test_it_cannot_wait_everywhere()
  t.raises('cannot wait here', table.sort, { 2, 1 }, function() ask 'sort.test' end)
  local co = coroutine.create(function() ask 'coroutine.test' end)
  local ok, err = coroutine.resume(co)
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'cannot wait here')
  local connecting = coroutine.create(function()
    asio.connect('coroutine.test', 80, { servers = server.servers })
  end)
  ok, err = coroutine.resume(connecting)
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'cannot wait here')
end

-- The cache ---------------------------------------------------------------------------------------

function T.test_an_answer_is_kept()
  assert(ask('kept.a.test', { type = 'A' }))
  assert(ask('kept.a.test', { type = 'A' }))
  lu.assertEquals(asked 'kept.a.test', 1)
  assert(ask 'kept.a.test') -- shares what there is of it, and asks for the other family
  lu.assertEquals(asked 'kept.a.test', 2)
end

function T.test_what_is_left_of_its_time()
  assert(ask('left.a.test.ttl9', { type = 'A' }))
  asio.sleep(1.1)
  lu.assertEquals(ask('left.a.test.ttl9', { type = 'A' })[1].ttl, 8)
end

function T.test_an_answer_is_kept_as_long_as_it_says()
  assert(ask('short.ttl1.a.test', { type = 'A' }))
  assert(ask('short.ttl1.a.test', { type = 'A' }))
  lu.assertEquals(asked 'short.ttl1.a.test', 1)
  asio.sleep(1.05)
  assert(ask('short.ttl1.a.test', { type = 'A' }))
  lu.assertEquals(asked 'short.ttl1.a.test', 2)
end

-- An alias that is kept for less ends it.
function T.test_an_answer_that_may_not_be_kept()
  for _ = 1, 3 do lu.assertEquals(ask('never.ttl0.a.test', { type = 'A' })[1].ttl, 0) end
  lu.assertEquals(asked 'never.ttl0.a.test', 3)
end

function T.test_asking_anew()
  assert(ask('anew.a.test', { type = 'A' }))
  assert(ask('anew.a.test', { type = 'A', cache = false }))
  lu.assertEquals(asked 'anew.a.test', 2)
  assert(ask('anew.a.test', { type = 'A' }))
  lu.assertEquals(asked 'anew.a.test', 2)
end

function T.test_clearing()
  assert(ask('clear.a.test', { type = 'A' }))
  asio.resolve_cache_clear()
  assert(ask('clear.a.test', { type = 'A' }))
  lu.assertEquals(asked 'clear.a.test', 2)
  -- What is under way goes on, and is not kept.
  local thread = asio.spawn(ask, 'clear.delay20.a.test', { type = 'A' })
  asio.resolve_cache_clear()
  local _, list = thread:join()
  lu.assertEquals(#list, 1)
  assert(ask('clear.delay20.a.test', { type = 'A' }))
  lu.assertEquals(asked 'clear.delay20.a.test', 2)
end

function T.test_failures_are_kept_briefly()
  for _ = 1, 3 do failed('EAI_NONAME', 'no.missing.test', { type = 'A' }) end
  lu.assertEquals(asked 'no.missing.test', 1)
  for _ = 1, 3 do failed('EAI_NODATA', 'no.none.soa0.test', { type = 'A' }) end
  lu.assertEquals(asked 'no.none.soa0.test', 3)
  for _ = 1, 3 do failed('EAI_NODATA', 'no.none.soa100.test', { type = 'A' }) end
  lu.assertEquals(asked 'no.none.soa100.test', 1)
  asio.sleep(1.05)
  failed('EAI_NODATA', 'no.none.soa100.test', { type = 'A' })
  lu.assertEquals(asked 'no.none.soa100.test', 1)
  failed('EAI_NONAME', 'no.missing.test', { type = 'A' })
  lu.assertEquals(asked 'no.missing.test', 2)
end

function T.test_trouble_is_not_kept()
  for _ = 1, 2 do failed('EAI_AGAIN', 'trouble.servfail.test', { type = 'A' }) end
  lu.assertTrue(asked 'trouble.servfail.test' >= 2)
end

function T.test_the_cache_is_bounded()
  local function all()
    local threads = {}
    for i = 1, 600 do threads[i] = asio.spawn(ask, ('many%d.a.test'):format(i), { type = 'A' }) end
    for i = 1, 600 do lu.assertTrue((threads[i]:join())) end
  end
  asio.resolve_cache_clear()
  ask('first.a.test', { type = 'A' })
  all()
  ask('last.a.test', { type = 'A' })
  for _, name in ipairs { 'first.a.test', 'last.a.test' } do ask(name, { type = 'A' }) end
  lu.assertEquals(asked 'first.a.test', 2)
  lu.assertEquals(asked 'last.a.test', 1)
end

-- Each set has a channel of c-ares' of its own, of a hundred kilobytes: after a crowd only a few are left.
function T.test_many_sets_of_servers_at_once()
  local function set(i) return { server.servers[1], '127.0.0.1:' .. i } end
  local threads = {}
  for i = 1, 40 do
    threads[i] = asio.spawn(ask, 'crowd.delay50.a.test', { type = 'A', servers = set(i) })
  end
  for i = 1, 40 do lu.assertEquals(#select(2, threads[i]:join()), 1) end
  lu.assertEquals(asked 'crowd.delay50.a.test', 40)
  ask('x.a.test', { servers = set(41) })
  for i = 40, 1, -1 do ask('crowd.delay50.a.test', { type = 'A', servers = set(i), timeout = 0 }) end
  asio.sleep(0.1)
  lu.assertTrue(asked 'crowd.delay50.a.test' > 60)
end

function T.test_each_set_of_servers_has_a_cache_of_its_own()
  local others = {}
  for i = 1, 12 do others[i] = ns.start() end
  for _ = 1, 2 do
    for i = 1, 12 do
      lu.assertEquals(ask('own.a.test', { type = 'A', servers = others[i].servers })[1].address, '127.0.0.1')
    end
  end
  for i = 1, 12 do
    local counted = ask('count.own.a.test', { type = 'TXT', cache = false, servers = others[i].servers })
    lu.assertTrue(tonumber(counted[1].text) >= 1)
    others[i]:close()
  end
end

-- The state closes --------------------------------------------------------------------------------

function T.test_the_state_closes_while_it_looks_up()
  for _, how in ipairs { 'end', 'exit' } do
    t.child(function(address, way)
      local asio = require 'asio'
      for i = 1, 10 do
        asio.spawn(asio.resolve, 'x' .. i % 5 .. '.silent.test', { servers = { address } })
        asio.spawn(asio.resolve, 'y' .. i .. '.trunc.delay50.test', { servers = { address }, type = 'A' })
        asio.spawn(asio.connect, 'z.silent6.test', 80, { servers = { address } })
      end
      asio.spawn(asio.resolve, 'a.test', { servers = { address } })
      if way == 'end' then return asio.run_once(0.02) end
      asio.spawn(function() -- from within what is told by c-ares
        asio.resolve('b.delay10.test', { servers = { address } })
        os.exit(3, true)
      end)
      asio.run()
    end, { args = { server.servers[1], how }, code = how == 'end' and 0 or 3 })
  end
end

-- The other resolver ------------------------------------------------------------------------------

function T.test_without_c_ares()
  t.quiet_child(function()
    local asio = require 'asio'
    asio.run(function()
      local list = assert(asio.resolve 'localhost')
      assert(list[1].family and list[1].address and list[1].ttl == nil)
      assert(asio.resolve('localhost', { type = 'A' })[1].address == '127.0.0.1')
      for _, opts in ipairs { { type = 'SRV' }, { type = 'PTR' }, { servers = { '127.0.0.1' } } } do
        local none, message, code = asio.resolve('localhost', opts)
        assert(none == nil and code == 'ENOTSUP' and message:find 'ares', message)
      end
      asio.resolve_cache_clear()
      local started = asio.now()
      local _, _, code = asio.connect('localhost', 1, { timeout = 5 })
      assert(code == 'ECONNREFUSED', code)
      assert(asio.now() - started < 2)
    end)
  end, { env = 'ASIO_RESOLVER=getaddrinfo' })
end

-- asio.so alone, without its neighbour.
function T.test_c_ares_is_not_there()
  can.need 'module_file'
  local dir = os.tmpname()
  os.remove(dir)
  os.execute(('mkdir %s && cp %s/asio.so %s'):format(dir, os.getenv 'ASIO_BUILD', dir))
  for _, wanted in ipairs { 'ares', 'any' } do
    t.quiet_child(function(where, asked_for)
      package.cpath = where .. '/?.so'
      local asio = require 'asio'
      local list, message, code = asio.resolve('localhost')
      if asked_for == 'ares' then
        assert(list == nil and code == 'ENOTSUP' and message:find 'ares', message)
        list, message, code = asio.connect('localhost', 80)
        assert(list == nil and code == 'ENOTSUP' and message:find 'ares', message)
      else
        assert(list, message)
      end
    end, { args = { dir, wanted }, env = 'ASIO_RESOLVER=' .. wanted })
  end
  os.execute('rm -r ' .. dir)
end

-- Found beside asio.so wherever that is, and if not on package.cpath.
function T.test_where_it_is_looked_for()
  can.need 'module_file'
  local dir = os.tmpname()
  os.remove(dir)
  local build = os.getenv 'ASIO_BUILD'
  os.execute(('mkdir -p %s/a %s/b/asio && cp %s/asio.so %s/a && cp %s/asio/ares.so %s/b/asio'):format(
    dir, dir, build, dir, build, dir))
  local function look(cpath)
    t.quiet_child(function(path, address)
      package.cpath = path
      local asio = require 'asio'
      assert(asio.resolve('x.a.test', { servers = { address } }))
    end, { args = { cpath, server.servers[1] }, env = 'ASIO_RESOLVER=ares' })
  end
  look(('%s/a/?.so;%s/b/?.so'):format(dir, dir))
  os.execute(('mv %s/b/asio %s/a'):format(dir, dir))
  t.quiet_child(function(where, address)
    package.cpath = ''
    local asio = package.loadlib(where .. '/a/asio.so', 'luaopen_asio')()
    assert(asio.resolve('x.a.test', { servers = { address } }))
  end, { args = { dir, server.servers[1] }, env = 'ASIO_RESOLVER=ares' })
  os.execute('rm -r ' .. dir)
end

-- asio.so must do without what only names need.
function T.test_what_each_needs()
  can.need 'native'
  can.need 'module_file'
  t.need 'ldd'
  local function needs(file)
    local list = io.popen(('ldd %s/%s'):format(os.getenv 'ASIO_BUILD', file))
    local text = list:read '*a'
    list:close()
    return text
  end
  lu.assertStrContains(needs 'asio.so', 'libuv')
  lu.assertNotStrContains(needs 'asio.so', 'cares')
  lu.assertStrContains(needs 'asio/ares.so', 'cares')
  lu.assertNotStrContains(needs 'asio/ares.so', 'libuv')
end

return T
