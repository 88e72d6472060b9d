-- The HTTP client against servers that send what the case says: responses, bodies, uploads; the pool is whole
-- after each. Connections and time-outs: client_pool_test.lua; redirects and URLs: client_urls_test.lua; real
-- servers and proxies: client_peers_test.lua.
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
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
