-- http.request: where a request goes: redirects, credentials and cookies on the way, URLs.
-- test: needs http
-- test: over TLS
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

return T
