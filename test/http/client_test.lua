-- The HTTP client against servers that send what the case says: bodies, redirects, uploads, failures in every
-- phase; the pool is whole after each. Real servers and proxies: client_peers_test.lua.
-- test: needs http
-- test: over TLS
-- test: 20 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
local can = require 'can'
local ends = require 'http_ends'
local t = require 'support'

local T = {}

local answer = ends.answer

local function echo(request)
  return answer(table.concat(request.lines, '\n') .. '\n\n' .. request.body)
end

-- Responses --------------------------------------------------------------------------------------

local CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'

local BODIES = {
  ['/length'] = answer 'hello',
  ['/empty'] = answer '',
  ['/chunked'] = CHUNKED .. '2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n',
  ['/trailers'] = CHUNKED .. '5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n',
  ['/no-content'] = 'HTTP/1.1 204 No Content\r\n\r\n',
  ['/not-modified'] = 'HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n',
  ['/early-hints'] = 'HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n' .. answer 'hello',
}

function T.test_bodies_over_one_connection()
  ends.scripted(function(request, _, number)
    lu.assertEquals(number, 1)
    return BODIES[request.target]
  end, function(url, pool)
    for target, text in pairs(BODIES) do
      local hints = 0
      local response = assert(pool:get(url .. target, { on_informational = function(number, head)
        lu.assertEquals(number, 103)
        lu.assertEquals(head:get 'link', 'a')
        hints = hints + 1
      end }))
      lu.assertEquals(response.status, tonumber(text:match '.*HTTP/1%.1 (%d+)'))
      lu.assertEquals(response.body, text:find 'hel?' and 'hello' or '')
      local sum = response.trailers and response.trailers:get 'x-sum'
      lu.assertEquals(sum, target == '/trailers' and '7' or nil)
      lu.assertEquals(hints, target == '/early-hints' and 1 or 0)
      lu.assertEquals(pool:stats(), { used = 0, idle = 1, hosts = 1 })
    end
  end)
end

function T.test_fields_of_the_response()
  ends.scripted(function()
    return 'HTTP/1.1 299 All right then\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nok'
  end, function(url, pool)
    local response = assert(pool:get(url .. '/a?b#c'))
    lu.assertEquals(response.reason, 'All right then')
    lu.assertEquals(response.version, '1.1')
    lu.assertEquals(response.url, url .. '/a?b')
    lu.assertEquals(response:header 'X-a', '1')
    lu.assertEquals(response.headers:all 'x-A', { '1', '2' })
    lu.assertEquals(response.length, 2)
  end)
end

function T.test_head_has_no_body()
  ends.scripted(function(request)
    return request.method == 'HEAD' and 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n' or answer 'hello'
  end, function(url, pool)
    local head = assert(pool:head(url, { max = 1 }))
    lu.assertEquals({ head.length, head.body }, { 5, '' })
    lu.assertEquals(assert(pool:get(url)).body, 'hello')
    lu.assertEquals(pool:stats().idle, 1)
  end)
end

function T.test_a_body_up_to_the_end_of_the_connection()
  ends.raw(function(conn)
    ends.read_request(conn)
    conn:write('HTTP/1.1 200 OK\r\n\r\n' .. ('x'):rep(100000))
  end, function(url, pool)
    lu.assertEquals(#assert(pool:get(url)).body, 100000)
    lu.assertEquals(pool:stats().idle, 0)
  end)
end

function T.test_streamed()
  ends.scripted(function(request)
    return request.target == '/big' and answer(('0123456789'):rep(100000)) or BODIES['/chunked']
  end, function(url, pool)
    local response = assert(pool:get(url, { stream = true }))
    lu.assertNil(response.body)
    lu.assertEquals(pool:stats().used, 1)
    lu.assertEquals(response:read(1), 'h')
    lu.assertEquals(response:read_all(), 'ello')
    lu.assertEquals({ response:read() }, {})
    lu.assertEquals(pool:stats(), { used = 0, idle = 1, hosts = 1 })

    local parts = {}
    for piece in assert(pool:get(url .. '/big', { stream = true })):chunks() do parts[#parts + 1] = piece end
    t.same_bytes(table.concat(parts), ('0123456789'):rep(100000))

    response = assert(pool:get(url .. '/big', { stream = true }))
    response:read()
    response:close()
    t.failure('EBADF', response:read())
    lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
  end)
end

-- The place of a response that the script has dropped is given to the next request.
function T.test_a_response_that_is_dropped()
  ends.scripted(function() return answer 'hello' end, function(url, pool)
    assert(pool:get(url, { stream = true }))
    lu.assertEquals(pool:stats().used, 1)
    lu.assertEquals(assert(pool:get(url)).body, 'hello')
  end, { per_host = 1 })
end

function T.test_too_large()
  ends.scripted(function(request)
    return request.target == '/length' and answer(('x'):rep(101)) or
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n' .. ('x'):rep(101) .. '\r\n0\r\n\r\n'
  end, function(url, pool)
    for _, target in ipairs { '/length', '/chunked' } do
      t.failure('EMSGSIZE', pool:get(url .. target, { max = 100 }))
      lu.assertEquals(#assert(pool:get(url .. target, { max = 101 })).body, 101)
    end
    local response = assert(pool:get(url, { stream = true }))
    t.failure('EMSGSIZE', response:read_all(100))
  end)
end

-- What is not HTTP, or ends too early, in each phase; 'EOF' where nothing at all has come.
local BROKEN = {
  [''] = 'EOF',
  ['HTT'] = 'EOF',
  ['HTTP/1.1 200 OK\r\nContent-Le'] = 'EOF',
  ['HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n'] = 'EOF',
  ['HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123'] = 'EOF',
  ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123'] = 'EOF',
  ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n'] = 'EOF',
  ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n'] = 'EPROTO',
  ['HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n123'] = 'EPROTO',
  ['HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n123'] = 'EPROTO',
  ['HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n'] = 'EPROTO',
  ['HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n'] = 'EPROTO',
  ['SSH-2.0-OpenSSH_9.2\r\n'] = 'EPROTO',
  [('HTTP/1.1 200 OK\r\n' .. ('A: %s\r\n'):rep(70)):gsub('%%s', ('x'):rep(1000))] = 'EMSGSIZE',
  [('HTTP/1.1 100 Continue\r\n\r\n'):rep(40)] = 'EPROTO',
}

function T.test_broken_responses()
  for text, code in pairs(BROKEN) do
    ends.raw(function(conn)
      ends.read_request(conn)
      conn:write(text)
    end, function(url, pool)
      local response, message, found = pool:get(url)
      lu.assertNil(response, text:sub(1, 80))
      lu.assertEquals(found, code, text:sub(1, 80) .. message)
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end)
  end
end

function T.test_responses_byte_by_byte()
  for _, text in pairs(BODIES) do
    ends.raw(function(conn)
      ends.read_request(conn)
      for i = 1, #text do
        conn:write(text:sub(i, i))
        conn:flush()
        asio.yield()
      end
      ends.read_request(conn)
    end, function(url, pool)
      lu.assertEquals(assert(pool:get(url)).body, text:find 'hel?' and 'hello' or '')
      lu.assertEquals(pool:stats().idle, 1)
    end)
  end
end

-- Whatever comes, the request ends, and the pool is whole.
function T.test_mangled_responses()
  local texts = {}
  for _, text in pairs(BODIES) do texts[#texts + 1] = text end
  table.sort(texts)
  math.randomseed(7)
  local function mangled()
    local text = texts[math.random(#texts)]
    for _ = 1, math.random(3) do
      local at = math.random(#text)
      local noise = ({ '', string.char(math.random(0, 255)), '\r\n', '0', ' ' })[math.random(5)]
      text = text:sub(1, at - 1) .. noise .. text:sub(at + math.random(0, 2))
    end
    return text
  end
  ends.raw(function(conn)
    ends.read_request(conn)
    conn:write(mangled())
  end, function(url, pool)
    for _ = 1, t.count(20000) do
      local response, message, code = pool:get(url, { redirects = false })
      if not response then
        lu.assertIsString(message)
        lu.assertTrue(t.codes('EOF', 'EPROTO', 'EMSGSIZE', 'ECONNRESET', 'ETIMEDOUT')[code], code)
      end
      lu.assertEquals(pool:stats().used, 0)
    end
  end)
end

-- Requests ---------------------------------------------------------------------------------------

function T.test_the_request()
  ends.scripted(echo, function(url, pool)
    local body = assert(pool:get(url .. '/a b?c="d"#e', { query = { f = '1 2', g = { 3, '&' } } })).body
    lu.assertStrContains(body, 'GET /a%20b?c=%22d%22&f=1%202&g=3&g=%26 HTTP/1.1\nHost: 127.0.0.1:')
    lu.assertStrContains(body, '\nAccept: */*')
    lu.assertNotStrContains(body, 'Content-Length')
    body = assert(pool:post(url)).body
    lu.assertStrContains(body, 'POST / HTTP/1.1\n')
    lu.assertStrContains(body, '\nContent-Length: 0')
    local headers = { Host = 'pot', ['user-agent'] = 'me', A = { 1, 2 } }
    body = assert(pool:request('brew', url, { headers = headers })).body
    lu.assertStrContains(body, 'BREW / HTTP/1.1\n')
    lu.assertStrContains(body, '\nHost: pot\n')
    lu.assertStrContains(body, '\nuser-agent: me\n')
    lu.assertStrContains(body, '\nA: 1\nA: 2')
    lu.assertEquals(t.occurrences(body:lower(), 'host:'), 1)
    lu.assertEquals(t.occurrences(body:lower(), 'user-agent:'), 1)
  end)
end

function T.test_bodies_of_requests()
  local pieces = { 'ab', '', 'c' }
  local function source()
    local i = 0
    return function()
      i = i + 1
      return pieces[i]
    end
  end
  local path = t.temporary 'from a file'
  ends.scripted(echo, function(url, pool)
    local function post(opts) return assert(pool:post(url, opts)).body end
    lu.assertStrContains(post { body = 'abc' }, 'Content-Length: 3\n\nabc')
    lu.assertStrContains(post { body = ('x'):rep(300000) }, '\n\n' .. ('x'):rep(300000))
    lu.assertStrContains(post { body = source() }, 'Transfer-Encoding: chunked\n\nabc')
    lu.assertStrContains(post { body = source(), length = 3 }, 'Content-Length: 3\n\nabc')
    lu.assertStrContains(post { form = { a = '1&2', b = 'ü' } }, '\n\na=1%262&b=%C3%BC')
    local file = assert(io.open(path))
    file:seek('set', 5)
    lu.assertStrContains(post { body = file }, 'Content-Length: 6\n\na file')
    file:close()
    t.failure('EINVAL', pool:post(url, { body = source(), length = 4 }))
    t.failure('EINVAL', pool:post(url, { body = source(), length = 2 }))
    t.failure('EIO', pool:post(url, { body = function() return nil, 'broken', 'EIO' end }))
    t.raises('my own', pool.post, pool, url, { body = function() error 'my own' end })
    local line = debug.getinfo(1, 'l').currentline
    t.raises(('client_test.lua:%d: body: '):format(line + 2), function()
      local response = pool:post(url, { body = function() return 5 end })
      return response
    end)
    lu.assertEquals(pool:stats().used, 0)
  end)
  os.remove(path)
end

function T.test_an_error_of_a_source_keeps_its_traceback()
  ends.scripted(echo, function(url, pool)
    local function inner() error 'my own' end
    local posting = asio.spawn(function()
      pool:post(url, { body = function() inner() end })
    end)
    lu.assertStrMatches(t.reported "in function 'inner'", ".*failed: .*my own.*in function 'inner'.*")
    lu.assertEquals(posting:status(), 'failed')
  end)
end

function T.test_multipart()
  local i = 0
  local function source()
    i = i + 1
    return ({ 'str', 'eam' })[i]
  end
  ends.scripted(echo, function(url, pool)
    local body = assert(pool:post(url, { multipart = {
      { name = 'a"b', body = 'text' },
      { name = 'f', body = source, filename = 'x.bin', length = 6 },
    } })).body
    local boundary = body:match 'Content%-Type: multipart/form%-data; boundary=(%S+)'
    local sent = body:match '\n\n(.*)$'
    lu.assertEquals(tonumber(body:match 'Content%-Length: (%d+)'), #sent)
    lu.assertEquals(sent, (([[
--B
Content-Disposition: form-data; name="a%22b"

text
--B
Content-Disposition: form-data; name="f"; filename="x.bin"
Content-Type: application/octet-stream

stream
--B--
]]):gsub('\n', '\r\n'):gsub('B', boundary)))
  end)
end

function T.test_a_request_that_waits_for_100_continue()
  for _, opts in ipairs { { body = 'abc' }, { body = function() return nil end } } do
    opts.expect = true
    local got
    ends.raw(function(conn)
      local head = ends.read_head(conn)
      lu.assertEquals(head.fields['expect'], '100-continue')
      lu.assertEquals(conn:pending(), 0)
      conn:write 'HTTP/1.1 100 Continue\r\n\r\n'
      got = conn:read(3)
      conn:write(answer 'thanks')
    end, function(url, pool)
      lu.assertEquals(assert(pool:post(url, opts)).body, 'thanks')
      lu.assertEquals(got, opts.body == 'abc' and 'abc' or '0\r\n')
    end)
  end
  ends.raw(function(conn) -- it is refused, and nothing of it is sent
    ends.read_head(conn)
    conn:write(answer('no', '', '417 No'))
    t.failure('EOF', conn:read(1))
  end, function(url, pool)
    local response = assert(pool:post(url, { body = 'abc', expect = true }))
    lu.assertEquals(response.status, 417)
    lu.assertEquals(pool:stats().idle, 0)
  end)
end

-- The answer ends the upload.
function T.test_an_answer_before_the_body_is_sent()
  ends.raw(function(conn)
    ends.read_head(conn)
    conn:write('HTTP/1.1 103 Early Hints\r\n\r\n' .. answer('too large', '', '413 Too Large'))
    conn:read_all(1e9)
  end, function(url, pool)
    local count = 0
    local response = assert(pool:post(url, { body = function()
      count = count + 1
      asio.sleep(0.001)
      return ('x'):rep(1000)
    end }))
    lu.assertEquals(response.status, 413)
    lu.assertEquals(response.body, 'too large')
    lu.assertTrue(count > 0)
    lu.assertEquals(pool:stats().idle, 0)
  end)
end

function T.test_upgrade()
  ends.raw(function(conn)
    lu.assertEquals(ends.read_request(conn).fields['upgrade'], 'echo')
    conn:write 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nfirst'
    conn:write(conn:read(5))
  end, function(url, pool)
    local response = assert(pool:get(url, { headers = { Upgrade = 'echo', Connection = 'Upgrade' } }))
    lu.assertEquals(response.status, 101)
    lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    lu.assertEquals(response.conn:read(5), 'first')
    response.conn:write 'hello'
    lu.assertEquals(response.conn:read_all(), 'hello')
    response.conn:close()
  end)
end

-- The pool ---------------------------------------------------------------------------------------

function T.test_a_kept_connection_that_was_closed()
  for _, method in ipairs { 'get', 'post' } do
    local requests, closing = 0, asio.channel(1)
    ends.raw(function(conn)
      ends.read_request(conn)
      requests = requests + 1
      conn:write(answer 'hello')
      conn:flush()
      closing:send(true)
    end, function(url, pool)
      for _ = 1, 3 do
        lu.assertEquals(assert(pool[method](pool, url)).body, 'hello')
        closing:recv()
        t.next_turn()
      end
      lu.assertEquals(requests, 3)
    end)
  end
end

-- A request that may have been carried out is not sent again.
function T.test_what_is_not_repeated()
  local requests = 0
  ends.raw(function(conn)
    ends.read_request(conn)
    conn:write(answer 'hello')
    if ends.read_request(conn) then requests = requests + 1 end
  end, function(url, pool)
    assert(pool:get(url))
    local response, _, code = pool:post(url, { body = 'abc' })
    lu.assertNil(response)
    lu.assertTrue(t.codes('EOF', 'ECONNRESET')[code])
    lu.assertEquals(requests, 1)
    assert(pool:get(url)) -- on a new connection
    assert(pool:get(url)) -- lost, and sent again
    lu.assertEquals(requests, 2)
  end)
end

-- Bytes that nothing has asked for: the answer to a request that is still to come.
function T.test_bytes_behind_a_response()
  ends.scripted(function(request, _, number)
    return answer(tostring(number)) .. (request.target == '/more' and answer 'false' or '')
  end, function(url, pool)
    lu.assertEquals(assert(pool:get(url .. '/more')).body, '1')
    lu.assertEquals(assert(pool:get(url)).body, '2')
  end)
end

-- They are in the kernel, and the loop has not seen them when the next request begins.
function T.test_bytes_that_have_just_come()
  local peer
  ends.raw(function(conn)
    peer = conn
    while ends.read_request(conn) do conn:write(answer 'right') end
  end, function(url, pool)
    for _ = 1, 3 do
      lu.assertEquals(pool:get(url).body, 'right')
      peer:write(answer 'wrong')
      peer:flush()
      lu.assertEquals(pool:get(url).body, 'right')
    end
  end)
end

function T.test_bounds()
  local now, most = 0, 0
  ends.scripted(function()
    now = now + 1
    most = math.max(most, now)
    asio.sleep(0.002)
    now = now - 1
    return answer 'hello'
  end, function(url, pool)
    asio.group(function(g)
      for _ = 1, 20 do
        g:spawn(function() lu.assertEquals(assert(pool:get(url)).body, 'hello') end)
      end
    end)
    lu.assertEquals(most, 3)
    lu.assertEquals(pool:stats(), { used = 0, idle = 3, hosts = 1 })
    local other = url:gsub('127.0.0.1', 'localhost')
    for _ = 1, 2 do assert(pool:get(other)) end -- idle ones of the first host make room
    lu.assertTrue(pool:stats().idle <= 4)
  end, { per_host = 3, total = 4 })
end

function T.test_idle_connections_end()
  local connections = 0
  ends.scripted(function(_, _, number)
    connections = number
    return answer 'hello'
  end, function(url, pool)
    assert(pool:get(url))
    asio.sleep(0.03)
    assert(pool:get(url))
    lu.assertEquals(connections, 2)
  end, { idle_time = 0.01 })
end

function T.test_no_pool()
  ends.scripted(function(request)
    lu.assertEquals(request.fields['connection'], 'close')
    return answer 'hello'
  end, function(url)
    assert(http.get(url, ends.options { pool = false }))
    lu.assertEquals(http.default_pool:stats(), { used = 0, idle = 0, hosts = 0 })
  end)
end

-- Time-outs and cancelling -----------------------------------------------------------------------

local PHASES = {
  '', 'HTTP/1.1 200', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n',
  'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello',
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel', 'HTTP/1.1 103 Early\r\n\r\n',
}

-- Sends so much, and then nothing until the client has gone. fn gets a channel that tells of each request.
local function stuck(text, fn)
  local sent = asio.channel(100)
  ends.raw(function(conn)
    ends.read_request(conn)
    conn:write(text)
    conn:flush()
    sent:send(true)
    conn:read(1)
  end, function(url, pool) fn(url, pool, sent) end)
end

function T.test_time_outs_in_every_phase()
  for _, text in ipairs(PHASES) do
    stuck(text, function(url, pool)
      t.failure('ETIMEDOUT', pool:get(url, { timeout = 0.02 }))
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
      t.failure('ETIMEDOUT', pool:get(url, { timeout = { first_byte = 0.02, idle = 0.02 } }))
      t.failure('ETIMEDOUT', asio.timeout(0.02, pool.get, pool, url))
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end)
  end
end

function T.test_cancelled_in_every_phase()
  for _, text in ipairs(PHASES) do
    stuck(text, function(url, pool, sent)
      for _, stream in ipairs { true, false } do
        local thread = asio.spawn(function()
          local response = pool:get(url, { stream = stream })
          if response then response:read_all() end
        end)
        sent:recv()
        t.next_turn()
        thread:cancel()
        lu.assertEquals({ thread:join(5) }, { false, asio.cancelled })
        lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
      end
    end)
  end
end

function T.test_resets_in_every_phase()
  for _, text in ipairs(PHASES) do
    ends.raw(function(conn)
      ends.read_request(conn)
      conn:write(text)
      conn:flush()
      conn:abort()
    end, function(url, pool)
      local response, _, code = pool:get(url)
      lu.assertNil(response)
      lu.assertTrue(t.codes('ECONNRESET', 'EOF', 'ETRUNCATED')[code], code)
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end)
  end
end

-- Requests that end at any point, beside others, over few connections: none gets the response of another.
function T.test_cancelled_at_random()
  math.randomseed(11)
  ends.scripted(function(request, conn)
    local text = answer(request.target:rep(50), '', math.random(20) == 1 and '404 No' or nil)
    local cut = math.random(#text)
    conn:write(text:sub(1, cut))
    if math.random(3) == 1 then asio.sleep(math.random() * 0.002) end
    if math.random(30) == 1 then return nil end
    return text:sub(cut + 1)
  end, function(url, pool)
    local good = 0
    asio.group(function(g)
      for i = 1, 30 do
        g:spawn(function()
          for n = 1, t.count(400) do
            local target = ('/%d/%d'):format(i, n)
            local stream = math.random(2) == 1
            local limit = n % 10 == 0 and 60 or math.random() * 0.02 -- a busy machine may need more for any
            local response = asio.timeout(limit, function()
              local found = pool:get(url .. target, { stream = stream })
              if found then found.text = stream and found:read_all() or found.body end
              return found
            end)
            if response and response.text then
              lu.assertEquals(response.text, target:rep(50))
              good = good + 1
            end
          end
        end)
      end
    end)
    lu.assertTrue(good > 0)
    lu.assertEquals(pool:stats().used, 0)
    lu.assertTrue(pool:stats().idle <= 4)
  end, { per_host = 4 })
end

function T.test_cancelled_while_waiting_for_a_place()
  stuck('', function(url, _, sent)
    local pool = http.pool { per_host = 1 }
    local first = asio.spawn(pool.get, pool, url, ends.options {})
    local second = asio.spawn(pool.get, pool, url, ends.options {})
    sent:recv()
    lu.assertEquals(pool:stats().used, 1)
    second:cancel()
    lu.assertFalse((second:join(5)))
    lu.assertEquals(pool:stats().used, 1)
    first:cancel()
    lu.assertFalse((first:join(5)))
    lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
  end)
end

function T.test_a_total_time_covers_the_stream()
  stuck('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', function(url, pool)
    local response = assert(pool:get(url, { stream = true, timeout = 0.05 }))
    lu.assertEquals(response:read(), 'hello')
    t.failure('ETIMEDOUT', response:read())
    lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
  end)
end

function T.test_cancelled_uploads()
  ends.raw(function(conn)
    ends.read_head(conn)
    conn:read(1e9)
  end, function(url, pool)
    for _, body in ipairs { ('x'):rep(1e7), function() return ('x'):rep(1000) end } do
      t.failure('ETIMEDOUT', pool:post(url, { body = body, timeout = 0.05 }))
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end
  end)
end

function T.test_connections_that_fail()
  local port = asio.server('127.0.0.1', 0, function() end)
  local _, number = port:address()
  port:close()
  t.failure('ECONNREFUSED', http.get('http://127.0.0.1:' .. number))
  t.failure('ECONNREFUSED', http.get('http://[::1]:' .. number, { proxy = 'http://127.0.0.1:' .. number }))
  lu.assertEquals(http.default_pool:stats(), { used = 0, idle = 0, hosts = 0 })
end

-- Redirects --------------------------------------------------------------------------------------

function T.test_methods_of_redirects()
  ends.scripted(function(request)
    local status = request.target:match '^/(%d+)'
    if status then return answer('gone', 'Location: ../to?x#y\r\n', status .. ' There') end
    return echo(request)
  end, function(url, pool)
    for status, expected in pairs {
      [301] = 'GET', [302] = 'GET', [303] = 'GET', [307] = 'POST', [308] = 'POST',
    } do
      local opts = { body = 'abc', headers = { ['Content-Type'] = 'x/y' } }
      local response = assert(pool:post(url .. '/' .. status, opts))
      lu.assertStrContains(response.body, expected .. ' /to?x HTTP/1.1')
      lu.assertEquals(response.body:find('abc', 1, true) ~= nil, expected == 'POST')
      lu.assertEquals(response.body:find('x/y', 1, true) ~= nil, expected == 'POST')
      lu.assertEquals(response.url, url .. '/to?x')
      lu.assertStrContains(assert(pool:put(url .. '/' .. status, { body = 'abc' })).body,
        status == 303 and 'GET' or 'PUT')
    end
    lu.assertEquals(assert(pool:get(url .. '/301', { redirects = false })).status, 301)
    local response = assert(pool:post(url .. '/307', { body = function() return nil end }))
    lu.assertEquals(response.status, 307) -- its body is gone
    lu.assertEquals(pool:stats().idle, 1)
  end)
end

function T.test_redirects_without_end()
  local count = 0
  ends.scripted(function()
    count = count + 1
    return answer('', 'Location: /again\r\n', '302 Found')
  end, function(url, pool)
    t.failure('ELOOP', pool:get(url))
    lu.assertEquals(count, 11)
    t.failure('ELOOP', pool:get(url, { redirects = 2 }))
    lu.assertEquals(count, 14)
  end)
end

function T.test_bad_redirects()
  local place
  ends.scripted(function()
    return answer('', 'Location: ' .. place .. '\r\n', '302 Found')
  end, function(url, pool)
    for bad, code in pairs {
      ['ftp://127.0.0.1/'] = 'EINVAL', ['http://'] = 'EINVAL', ['http://unix:/run/docker.sock:/'] = 'EPROTO',
      ['http://a b/'] = 'EINVAL', ['file:///etc/passwd'] = 'EINVAL',
    } do
      place = bad
      t.failure(code, pool:get(url))
    end
  end)
end

-- To another host go neither credentials nor cookies.
function T.test_redirects_to_another_host()
  local other
  ends.scripted(function(request)
    if request.target == '/to' then return echo(request) end
    return answer('', 'Location: ' .. other .. '/to\r\n', '307 There')
  end, function(url, pool)
    local headers = { Authorization = 'secret', Cookie = 'secret', ['X-Other'] = 'kept', HOST = 'secret' }
    local with_auth = { auth = 'user:secret', headers = { ['X-Other'] = 'kept' } }
    for _, opts in ipairs { { headers = headers }, with_auth } do
      other = url:gsub('127.0.0.1', 'localhost')
      local body = assert(pool:get(url, opts)).body
      lu.assertNotStrContains(body, 'secret')
      lu.assertNotStrContains(body, 'Authorization')
      lu.assertStrContains(body, 'X-Other: kept')
      other = url
      lu.assertStrContains(assert(pool:get(url, opts)).body, 'Authorization')
    end
    other = url:gsub('127.0.0.1', 'localhost')
    local body = assert(pool:get((url:gsub('//', '//user:secret@')))).body
    lu.assertNotStrContains(body, 'Authorization')
  end)
end

-- Credentials, cookies ---------------------------------------------------------------------------

function T.test_basic_credentials()
  ends.scripted(echo, function(url, pool)
    for address, opts in pairs {
      [url] = { auth = { 'Aladdin', 'open sesame' } }, [url .. '/'] = { auth = 'Aladdin:open sesame' },
      [url:gsub('//', '//Aladdin:open%%20sesame@')] = {},
    } do
      local body = assert(pool:get(address, opts)).body
      lu.assertStrContains(body, 'Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==')
    end
  end)
end

function T.test_cookies()
  local jar = http.jar()
  jar:set('http://www.example.org/a/b', 'plain=1')
  jar:set('http://www.example.org/a/b', 'domain=2; Domain=example.org; Path=/')
  jar:set('https://www.example.org/', 'secure=3; Secure; Domain=.Example.org')
  jar:set('http://www.example.org/', 'refused=4; Secure')
  jar:set('http://www.example.org/', 'foreign=5; Domain=example.com')
  jar:set('http://www.example.org/', 'wide=6; Domain=org')
  jar:set('http://www.example.org/', 'old=7; Expires=Wed, 21 Oct 2015 07:28:00 GMT')
  jar:set('http://www.example.org/', 'new=8; Expires=Fri, 31-Dec-2060 07:28:00 GMT')
  jar:set('http://www.example.org/', 'age=9; Max-Age=0; Expires=Fri, 31-Dec-2060 07:28:00 GMT')
  jar:set('http://www.example.org/', '__Host-x=10; Path=/')
  lu.assertEquals(jar:get 'http://www.example.org/', 'domain=2; new=8')
  lu.assertEquals(jar:get 'http://www.example.org/a/c', 'plain=1; domain=2; new=8')
  lu.assertEquals(jar:get 'http://www.example.org/ab', 'domain=2; new=8')
  lu.assertEquals(jar:get 'https://example.org/', 'domain=2; secure=3')
  lu.assertEquals(jar:get 'http://notexample.org/', nil)
  jar:set('http://www.example.org/', 'domain=; Domain=example.org; Max-Age=-1')
  lu.assertEquals(jar:get 'http://www.example.org/', 'new=8')
  lu.assertEquals(#jar:all(), 3)
  jar:set('http://127.0.0.1/', 'ip=1; Domain=127.0.0.1')
  lu.assertEquals(jar:get 'http://127.0.0.1/', 'ip=1')
  lu.assertEquals(jar:get 'http://1.127.0.0.1/', nil)
  jar:clear()
  lu.assertEquals(jar:all(), {})
end

function T.test_a_jar_on_the_way()
  local jar = http.jar()
  ends.scripted(function(request)
    if request.target == '/login' then
      return answer('', 'Set-Cookie: a=1\r\nSet-Cookie: b=2; Path=/x\r\nLocation: /home\r\n', '303 There')
    end
    return answer(request.fields['cookie'] or 'none')
  end, function(url, pool)
    lu.assertEquals(assert(pool:post(url .. '/login', { jar = jar })).body, 'a=1')
    lu.assertEquals(assert(pool:get(url .. '/x/', { jar = jar })).body, 'b=2; a=1')
    lu.assertEquals(assert(pool:get(url)).body, 'none')
    lu.assertEquals(assert(pool:get((url:gsub('127.0.0.1', 'localhost')), { jar = jar })).body, 'none')
  end)
end

-- URLs -------------------------------------------------------------------------------------------

function T.test_bad_urls()
  for _, url in ipairs {
    '', 'example.org', 'ftp://example.org', 'http://', 'http:///x', 'http://a:b', 'http://a:0',
    'http://a:65536', 'http://a b/', 'http://a\r\nX: y/', 'http://[::1', 'http://[1.2.3.4]',
    'http://\195\188ber.example/', 'http://a%00/', 'http://a\\@b/', 'http://unix:', 'http://u%zz@a/',
  } do
    t.failure('EINVAL', http.get(url))
  end
end

function T.test_unix_sockets()
  can.need 'unix_sockets'
  local path = t.temporary()
  os.remove(path)
  local server = assert(asio.server('unix:' .. path, function(conn)
    for request in function() return ends.read_request(conn) end do conn:write(echo(request)) end
    conn:close()
  end))
  local pool = http.pool()
  local body = assert(pool:get('http://unix:' .. path .. ':/containers/json?all=1')).body
  lu.assertStrContains(body, 'GET /containers/json?all=1 HTTP/1.1\nHost: localhost\n')
  lu.assertStrContains(assert(pool:get('http://unix:' .. path)).body, 'GET / HTTP/1.1')
  lu.assertEquals(pool:stats(), { used = 0, idle = 1, hosts = 1 })
  pool:close()
  server:close()
end

-- A reference leads to the same socket, whatever is in its name; so does the URL of the response.
function T.test_unix_sockets_with_odd_names()
  can.need 'unix_sockets'
  t.with_files({}, function(dir)
    local server = assert(asio.server('unix:' .. dir .. '/%41: ?', function(conn)
      for request in function() return ends.read_request(conn) end do
        conn:write(request.lines[1]:find '^GET /a ' and
          'HTTP/1.1 302 Found\r\nLocation: b\r\nContent-Length: 0\r\n\r\n' or echo(request))
      end
      conn:close()
    end))
    local pool = http.pool()
    local response = assert(pool:get('http://unix:' .. dir .. '/%2541%3A%20%3f:/a'))
    lu.assertStrContains(response.body, 'GET /b HTTP/1.1')
    lu.assertStrContains(assert(pool:get(response.url)).body, 'GET /b HTTP/1.1')
    pool:close()
    server:close()
  end)
end

function T.test_ipv6()
  local server = asio.server('::1', 0, function(conn)
    conn:write(echo(ends.read_request(conn)))
    conn:close()
  end)
  lu.skipIf(not server, 'this machine has no IPv6')
  local _, port = server:address()
  local body = assert(http.get(('http://[::1]:%d/'):format(port), { pool = false })).body
  lu.assertStrContains(body, ('Host: [::1]:%d\n'):format(port))
  local url = ('http://[::1%%25lo]:%d/'):format(port) -- the zone is of this side: the server does not see it
  local response = http.get(url, { pool = false })
  if response then
    lu.assertEquals(response.url, url)
    lu.assertStrContains(response.body, ('Host: [::1]:%d\n'):format(port))
  end
  server:close()
end

-- Misuse -----------------------------------------------------------------------------------------

function T.test_misuse()
  t.bad_argument(1, 'get', function()
    http.get(nil)
  end)
  t.bad_argument(2, 'request', function()
    http.request('GET', {})
  end)
  t.bad_argument(1, 'request', function()
    http.request('CONNECT', 'http://a')
  end)
  t.bad_argument(2, 'get', function()
    http.get('http://a', { time_out = 1 })
  end)
  t.bad_argument(2, 'post', function()
    http.post('http://a', { timeout = { all = 1 } })
  end)
  t.bad_argument(1, 'pool', function()
    http.pool { per_host = 0 }
  end)
  for name, words in pairs {
    header = "'header'; did you mean 'headers'?", params = "'params'; did you mean 'query'?",
    colour = "(unknown option 'colour')",
  } do
    t.raises(words, http.get, 'http://127.0.0.1:1', { [name] = {} })
  end
  t.raises("'timeout.conect'; did you mean 'timeout.connect'?", http.get, 'http://127.0.0.1:1',
    { timeout = { conect = 1 } })
  t.raises('a table of options expected, got string', http.post, 'http://127.0.0.1:1', 'a=b')
  t.raises("options 'body' and 'json': one body expected", http.post, 'http://127.0.0.1:1',
    { body = 'x', json = {} })
  t.raises("'body'", http.post, 'http://127.0.0.1:1', { body = {} })
  t.raises("'Content-Length'", http.post, 'http://127.0.0.1:1', { headers = { ['Content-Length'] = 1 } })
  ends.scripted(echo, function(url, pool)
    for _, value in ipairs { 'a\r\nb', 'a\0b', 'a\nb' } do
      t.raises('not allowed', pool.get, pool, url, { headers = { A = value } })
    end
    t.raises('not allowed', pool.get, pool, url, { headers = { ['A b'] = 1 } })
    t.raises('not allowed', pool.request, pool, 'GET /x', url)
    lu.assertEquals(pool:stats().used, 0)
  end)
end

return T
