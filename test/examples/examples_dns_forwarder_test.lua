-- The DNS forwarder among the examples: by dig, and datagram by datagram, over the tests' name server and
-- over upstreams that do what they are told.
--
-- test: 12 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local ns = require 'ns'
local programs = require 'programs'

local T = {}

-- Calls fn(port) with a forwarder that listens there; the upstreams as it takes them.
local function forwarder(fn, ...)
  lu.assertEquals(programs.with(fn, 'dns_forwarder', {}, '127.0.0.1', 0, ...), '')
end

-- The same over the tests' name server, which is passed too.
local function over_server(fn)
  local server = ns.start()
  local ok, err = pcall(forwarder, function(port) fn(port, server) end, server.servers[1])
  server:close()
  if not ok then error(err, 0) end
end

local function dig(port, ...)
  local words = (' %s'):rep(select('#', ...)):format(...)
  return programs.run(('dig @127.0.0.1 -p %d +time=5 +tries=1%s'):format(port, words))
end

-- Messages ----------------------------------------------------------------------------------------

local function wire(name)
  return name:gsub('([^.]+)%.?', function(label) return string.char(#label) .. label end) .. '\0'
end

local function question(name, type)
  return wire(name) .. '\0' .. string.char(type or 1) .. '\0\1'
end

-- An answer to a query: with so many A records of this TTL.
local function answer(query, count, ttl, flags)
  local stop = query:find('\0', 13, true) + 4
  return query:sub(1, 2) .. (flags or '\129\128') .. '\0\1\0' .. string.char(count) .. '\0\0\0\0'
    .. query:sub(13, stop) .. ('\192\12\0\1\0\1\0\0\0' .. string.char(ttl) .. '\0\4\127\0\0\1'):rep(count)
end

local function ask(port, message, seconds)
  local sock = assert(asio.udp())
  sock:connect('127.0.0.1', port)
  sock:send(message)
  local data, text, code = sock:recv(nil, (seconds or 10) * t.patience)
  sock:close()
  return data, text, code
end

-- An upstream: `reply(query, number, send)` returns what it answers. Returns its address and what closes it.
local function upstream(reply)
  local sock = assert(asio.udp('127.0.0.1', 0))
  local self = { queries = {} }
  asio.spawn(function()
    local data, ip, port = sock:recv()
    while data do
      self.queries[#self.queries + 1] = { data = data, port = port }
      local function send(message) sock:send(message, ip, port) end
      local message = reply(data, #self.queries, send)
      if message then send(message) end
      data, ip, port = sock:recv()
    end
  end)
  self.name = ('%s:%d'):format(sock:address())
  function self.close() sock:close() end
  return self
end

-- dig ---------------------------------------------------------------------------------------------

local function ttl_of(out)
  return tonumber(out:match '\n[%w.]+%.%s+(%d+)%s+IN%s+A%s')
end

T.test_dns_forwarder_dig = t.slow(40, function()
  t.need 'dig'
  over_server(function(port)
    local out, status = dig(port, 'www.ttl30.test')
    lu.assertEquals(status, 0, out)
    lu.assertStrContains(out, 'status: NOERROR')
    lu.assertStrContains(out, '127.0.0.1')
    lu.assertEquals(ttl_of(out), 30)
    asio.sleep(1.1)
    out = dig(port, 'WWW.ttl30.TEST')
    lu.assertStrContains(out, 'WWW.ttl30.TEST.')
    local ttl = ttl_of(out)
    lu.assertTrue(ttl < 30 and ttl > 15, out)
    lu.assertStrContains(dig(port, 'count.www.ttl30.test TXT'), '"1"')

    lu.assertStrContains(dig(port, '-t SRV x.n2.test'), 'host2.test.')
    lu.assertStrContains(dig(port, 'x.missing.test'), 'status: NXDOMAIN')
    lu.assertStrContains(dig(port, 'x.servfail.test'), 'status: SERVFAIL')
    lu.assertStrContains(dig(port, 'x.refused.test'), 'status: REFUSED')
    lu.assertStrContains(dig(port, 'x.wrongthen.test'), '127.0.0.1')
    lu.assertStrContains(dig(port, '+dnssec', 'x.test'), '127.0.0.1')
  end)
end)

function T.test_dns_forwarder_what_is_too_long()
  t.need 'dig'
  over_server(function(port)
    local out = dig(port, '+ignore', 'x.trunc.test')
    lu.assertStrContains(out, 'flags: qr tc')
    lu.assertStrContains(dig(port, 'x.trunc.test'), '127.0.0.1') -- asks again by TCP
    out = dig(port, '+ignore +bufsize=512', 'big.test TXT')
    lu.assertStrContains(out, ' tc ')
    out = dig(port, '+ignore +bufsize=8192', 'big.test TXT') -- from the cache
    lu.assertStrContains(out, ('x'):rep(200))
    out = dig(port, 'big.test TXT +bufsize=512')
    lu.assertStrContains(out, ('x'):rep(200))
    lu.assertStrContains(out, '(TCP)')
  end)
end

-- Datagrams ---------------------------------------------------------------------------------------

function T.test_dns_forwarder_ids_and_ports_are_its_own()
  local up = upstream(function(query) return answer(query, 1, 60) end)
  forwarder(function(port)
    for i = 1, 20 do
      local query = '\1\2\1\0\0\1\0\0\0\0\0\0' .. question('Name' .. i .. '.TEST')
      lu.assertEquals(ask(port, query), answer(query, 1, 60))
    end
    local ids, ports = {}, {}
    for i, query in ipairs(up.queries) do
      lu.assertStrContains(query.data, 'name' .. i)
      ids[query.data:sub(1, 2)], ports[query.port] = true, true
    end
    local count = 0
    for _ in pairs(ids) do count = count + 1 end
    lu.assertTrue(count > 15) -- by chance two may be the same
    count = 0
    for _ in pairs(ports) do count = count + 1 end
    lu.assertTrue(count > 10)
    up.close()
  end, up.name)
end

function T.test_dns_forwarder_keeps_answers_for_their_time()
  local up = upstream(function(query)
    if query:find 'nobody' then -- no such name, as its zone says for at most 2 s
      return query:sub(1, 2) .. '\129\131\0\1\0\0\0\1\0\0' .. query:sub(13)
        .. '\192\12\0\6\0\1\0\0\14\16\0\22\0\0' .. ('\0'):rep(19) .. '\2'
    end
    local ttl = query:find 'short' and 2 or query:find 'zero' and 0 or 60
    return answer(query, query:find 'none' and 0 or 1, ttl)
  end)
  local function asked(port, name, type)
    local before = #up.queries
    local query = 'id\1\0\0\1\0\0\0\0\0\0' .. question(name, type)
    lu.assertEquals(ask(port, query):sub(1, 2), 'id')
    return #up.queries - before
  end
  forwarder(function(port)
    lu.assertEquals({ asked(port, 'a.test'), asked(port, 'A.test') }, { 1, 0 })
    lu.assertEquals({ asked(port, 'a.test', 28), asked(port, 'a.test', 28) }, { 1, 0 })
    lu.assertEquals({ asked(port, 'zero.test'), asked(port, 'zero.test') }, { 1, 1 })
    lu.assertEquals({ asked(port, 'none.test'), asked(port, 'none.test') }, { 1, 1 })
    lu.assertEquals({ asked(port, 'short.test'), asked(port, 'nobody.test') }, { 1, 1 })
    lu.assertEquals({ asked(port, 'short.test'), asked(port, 'nobody.test') }, { 0, 0 })
    asio.sleep(2.05)
    lu.assertEquals({ asked(port, 'short.test'), asked(port, 'nobody.test') }, { 1, 1 })
    lu.assertEquals(asked(port, 'a.test'), 0)
    up.close()
  end, up.name)
end

function T.test_dns_forwarder_believes_only_what_answers_the_question()
  local other = assert(asio.udp('127.0.0.1', 0))
  local up
  up = upstream(function(query, _, send)
    local right = answer(query, 1, 60)
    send(string.char((right:byte(1) + 1) % 256) .. right:sub(2, -2) .. '\9') -- another id
    send(right:sub(1, 13) .. 'z' .. right:sub(15, -2) .. '\9')               -- another name
    send(query)                                                              -- no answer
    send(right:sub(1, 11))
    send ''
    other:send(right:sub(1, -2) .. '\9', '127.0.0.1', up.queries[#up.queries].port)
    return right
  end)
  forwarder(function(port)
    local query = '\1\2\1\0\0\1\0\0\0\0\0\0' .. question 'who.test'
    lu.assertEquals(ask(port, query), answer(query, 1, 60))
    up.close()
  end, up.name)
  other:close()
end

function T.test_dns_forwarder_asks_the_next()
  local silent = upstream(function() end)
  local closed = upstream(function() end)
  closed.close()
  local failing = upstream(function(query) return answer(query, 0, 0, '\129\130') end)
  local good = upstream(function(query) return answer(query, 1, 60) end)
  forwarder(function(port)
    local query = '\1\2\1\0\0\1\0\0\0\0\0\0' .. question 'next.test'
    lu.assertEquals(ask(port, query), answer(query, 1, 60))
    lu.assertEquals({ #silent.queries, #failing.queries, #good.queries }, { 1, 1, 1 })
  end, closed.name, silent.name, failing.name, good.name)
  -- None of them: it says so.
  forwarder(function(port)
    local query = '\1\2\1\0\0\1\0\0\0\0\0\0' .. question 'nobody.test'
    lu.assertEquals(ask(port, query), '\1\2\129\130\0\1\0\0\0\0\0\0' .. question 'nobody.test')
    lu.assertEquals(#silent.queries, 3)
  end, closed.name, silent.name)
  for _, one in ipairs { silent, failing, good } do one.close() end
end

function T.test_dns_forwarder_asks_once_for_all()
  local late = {}
  local up = upstream(function(query, number, send)
    if number == 1 then return answer(query, 1, 60) end
    late[#late + 1] = function() send(answer(query, 1, 60)) end
  end)
  forwarder(function(port)
    local known = '\1\0\0\1\0\0\0\0\0\0' .. question 'known.test'
    local query = '\1\0\0\1\0\0\0\0\0\0' .. question 'slow.test'
    lu.assertEquals(ask(port, 'xx' .. known):sub(1, 2), 'xx')
    asio.group(function(g)
      for i = 10, 40 do
        g:spawn(function() lu.assertEquals(ask(port, i .. query):sub(1, 2), tostring(i)) end)
      end
      t.wait_until(function() return late[1] end, 'the question')
      -- All the others have been read when the answer to one that is known has come behind them.
      lu.assertEquals(ask(port, 'yy' .. known):sub(1, 2), 'yy')
      late[1]()
    end)
    lu.assertEquals(#late, 1)
    up.close()
  end, up.name)
end

function T.test_dns_forwarder_garbage()
  local up = upstream(function(query) return answer(query, 1, 60) end)
  forwarder(function(port)
    local good = '\1\2\1\0\0\1\0\0\0\0\0\1' .. question 'garbage.test' .. '\0\0\41\4\208\0\0\0\0\0\0'
    lu.assertEquals(#ask(port, good), 12 + #question 'garbage.test' + 16)
    local sock = assert(asio.udp())
    sock:connect('127.0.0.1', port)
    for length = 0, #good - 1 do sock:send(good:sub(1, length)) end
    sock:send('\1\2\129' .. good:sub(4))                                         -- an answer
    sock:send(good:sub(1, 12) .. '\192\12\0\1\0\1')                              -- a name that is itself
    sock:send(good:sub(1, 12) .. ('\70' .. ('x'):rep(70)):rep(3) .. '\0\0\1\0\1') -- labels too long
    sock:send(good:sub(1, 5) .. '\0\255\255\255\255\255\255' .. good:sub(13))
    math.randomseed(1)
    for _ = 1, 300 do
      local at = math.random(#good)
      sock:send(good:sub(1, at - 1) .. string.char(math.random(0, 255)) .. good:sub(at + 1))
    end
    sock:flush()
    sock:close()
    local message
    for _ = 1, 10 do -- what comes while the kernel's buffer is full is lost
      message = message or ask(port, good, 1)
    end
    lu.assertEquals(#message, 12 + #question 'garbage.test' + 16)
    up.close()
  end, up.name)
end

T.test_dns_forwarder_mangled_answers = t.slow(60, function()
  over_server(function(port)
    asio.group(function(g)
      for i = 1, 200 do
        g:spawn(function()
          local message = ask(port, 'ab\1\0\0\1\0\0\0\0\0\0' .. question('x.n3.fuzz' .. i .. '.test'))
          lu.assertEquals(message and message:sub(1, 2), 'ab')
        end)
      end
    end)
    local query = 'ab\1\0\0\1\0\0\0\0\0\0' .. question 'x.test'
    lu.assertEquals(ask(port, query), answer(query, 1, 60))
  end)
end)

T.test_dns_forwarder_forgets_what_nobody_asks_for = t.slow(60, function()
  local up = upstream(function(query) return answer(query, 1, 255) end)
  local function query(name) return 'ab\1\0\0\1\0\0\0\0\0\0' .. question(name) end
  forwarder(function(port)
    local count = 10100 -- more than both of its tables hold
    local sock = assert(asio.udp())
    sock:connect('127.0.0.1', port)
    sock:set_timeout(10 * t.patience)
    local function again(name)
      local before = #up.queries
      sock:send(query(name))
      assert(sock:recv())
      return #up.queries - before
    end
    again 'old.test'
    again 'dear.test'
    for i = 1, count, 50 do
      for j = i, i + 49 do sock:send(query('n' .. j .. '.test')) end
      for _ = 1, 50 do assert(sock:recv()) end
      again 'dear.test'
    end
    lu.assertEquals({ again 'dear.test', again 'old.test', again('n' .. count .. '.test') }, { 0, 1, 0 })
    sock:close()
    up.close()
  end, up.name)
end)

return T
