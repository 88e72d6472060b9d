-- Cookies: what a request brings, and what a response may set.
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'
local web = require 'web'

local T = {}

local function cookies_of(lines)
  local found
  web.with(function(req, res)
    found = req:cookies()
    return res:send 'ok'
  end, function(port)
    web.send(port, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n', lines, '\r\n')
  end)
  return found
end

function T.test_cookies_of_a_request()
  lu.assertEquals(cookies_of '', {})
  lu.assertEquals(cookies_of 'Cookie: a=1; b="q d"; c=x=y;d = e ; =f; g; (h)=1; i=\r\n',
    { a = '1', b = 'q d', c = 'x=y', d = 'e', i = '' })
  lu.assertEquals(cookies_of 'Cookie: a=first; a=second\r\nCookie: b=1; a=third\r\n',
    { a = 'first', b = '1' })
end

-- The Set-Cookie lines of a response that fn(res) prepares.
local function set(fn)
  local list = {}
  web.with(function(_, res)
    fn(res)
    return res:send 'ok'
  end, function(port)
    local _, head = web.request(port, 'GET', '/')
    for text in head:gmatch 'Set%-Cookie: ([^\r\n]*)' do list[#list + 1] = text end
  end)
  return list
end

function T.test_setting()
  lu.assertEquals(set(function(res)
    res:set_cookie('a', 'b'):set_cookie('n', 7, { path = '/x', domain = 'example.org', max_age = 3600,
      expires = 784111777, secure = true, http_only = false, same_site = 'None', partitioned = true })
    res:set_cookie('bare', '', { path = false, http_only = false, same_site = false })
    res:set_cookie('__Host-id', 'x', { secure = true, same_site = 'strict' })
    res:clear_cookie('a', { max_age = 5 })
  end), {
    'a=b; Path=/; HttpOnly; SameSite=Lax',
    'n=7; Domain=example.org; Path=/x; Max-Age=3600; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Secure; ' ..
      'SameSite=None; Partitioned',
    'bare=',
    '__Host-id=x; Path=/; Secure; HttpOnly; SameSite=Strict',
    'a=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax',
  })
end

function T.test_beside_a_header_of_the_script()
  lu.assertEquals(set(function(res)
    res.headers['set-cookie'] = 'own=1'
    res:set_cookie('a', 'b')
  end), {})
  local texts
  web.with(function(_, res)
    res.headers['set-cookie'] = 'own=1'
    res:set_cookie('a', 'b')
    texts = res.headers['set-cookie']
    return res:send 'ok'
  end, function(port) web.request(port, 'GET', '/') end)
  lu.assertEquals(texts, { 'own=1', 'a=b; Path=/; HttpOnly; SameSite=Lax' })
end

function T.test_what_a_browser_would_drop_raises()
  set(function(res)
    local function raises(words, ...) t.raises(words, res.set_cookie, res, ...) end
    for _, name in ipairs { '', 'a b', 'a=b', 'a;b', 'a\r\nb', '"a"' } do
      raises('no name of a cookie', name, 'x')
    end
    for _, value in ipairs { 'a b', 'a;b', 'a,b', '"a"', 'a\\b', 'a\r\nSet-Cookie: x=y', '\195\188', '\0' } do
      raises('a character that a cookie cannot have', 'a', value)
    end
    raises('string expected, got nil', 'a')
    raises('at most 4096 bytes', 'a', ('x'):rep(4096))
    raises("unknown option 'httponly'", 'a', 'b', { httponly = true })
    raises("option 'secure': boolean expected", 'a', 'b', { secure = 1 })
    raises("option 'path': a path begins", 'a', 'b', { path = 'x' })
    raises("option 'path': a character", 'a', 'b', { path = '/x; Domain=y' })
    raises("option 'domain': a character", 'a', 'b', { domain = 'x\r\n' })
    raises("option 'max_age': a whole number", 'a', 'b', { max_age = 1.5 })
    raises("option 'same_site'", 'a', 'b', { same_site = 'some' })
    raises('goes with secure', 'a', 'b', { same_site = 'none' })
    raises('goes with secure', 'a', 'b', { partitioned = true })
    raises('is secure', '__Secure-a', 'b')
    raises('is secure', '__host-a', 'b')
    raises('no domain', '__Host-a', 'b', { secure = true, domain = 'example.org' })
    raises("the path '/'", '__Host-a', 'b', { secure = true, path = '/x' })
  end)
end

function T.test_after_the_head()
  web.with(function(_, res)
    res:write 'x'
    t.raises('has been sent', res.set_cookie, res, 'a', 'b')
  end, function(port) web.request(port, 'GET', '/') end)
end

-- curl's jar takes what is set, and gives it back.
function T.test_curl()
  local jar, found = t.temporary ''
  web.with(function(req, res)
    found = req:cookies()
    res:set_cookie('sid', 'abc.def~1', { max_age = 60 })
    return res:send 'ok'
  end, function(port)
    web.curl(port, '/', ('-c %s -b %s'):format(jar, jar))
    lu.assertEquals(found, {})
    web.curl(port, '/', ('-c %s -b %s'):format(jar, jar))
    lu.assertEquals(found, { sid = 'abc.def~1' })
  end)
  os.remove(jar)
end

return T
