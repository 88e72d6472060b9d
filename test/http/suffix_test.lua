-- Cookies and public suffixes: with libpsl none for a domain below which names are for anyone to register.
-- test: needs http
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local http = require 'asio.http'
local can = require 'can'
local t = require 'support'

local T = {}

-- The domain of the cookie that a host has set for a domain, '=' before it: for the host alone; nil: refused.
local function domain_of(host, domain)
  local jar = http.jar()
  jar:set(('https://%s/'):format(host), 'a=1; Domain=' .. domain)
  local cookie = jar:all()[1]
  return cookie and (cookie.host_only and '=' or '') .. cookie.domain
end

function T.test_none_for_a_public_suffix()
  can.need 'libpsl'
  for _, case in ipairs {
    { 'www.example.co.uk', 'co.uk', nil }, { 'www.example.co.uk', 'example.co.uk', 'example.co.uk' },
    { 'www.example.co.uk', '.CO.UK', nil }, { 'www.example.co.uk', 'uk', nil },
    { 'example.com', 'com', nil }, { 'www.example.com', 'example.com', 'example.com' },
    { 'www.ck', 'www.ck', 'www.ck' }, { 'a.b.ck', 'b.ck', nil }, -- of *.ck and !www.ck
    { 'user.github.io', 'github.io', nil }, { 'user.github.io', 'user.github.io', 'user.github.io' },
    { 'a.xn--85x722f.com.cn', 'com.cn', nil },
    { 'www.internal.lan', 'internal.lan', 'internal.lan' }, -- not listed: what has a dot is none
  } do
    lu.assertEquals(domain_of(case[1], case[2]), case[3], case[1] .. ' for ' .. case[2])
  end
end

-- RFC 6265, 5.3, 5
function T.test_a_host_that_is_a_public_suffix_keeps_cookies_for_itself()
  can.need 'libpsl'
  lu.assertEquals(domain_of('github.io', 'github.io'), '=github.io')
  lu.assertEquals(domain_of('github.io', ''), '=github.io')
  local jar = http.jar()
  jar:set('https://github.io/', 'a=1; Domain=github.io')
  lu.assertEquals(jar:get 'https://github.io/', 'a=1')
  lu.assertNil(jar:get 'https://user.github.io/')
end

function T.test_addresses_are_no_domains()
  lu.assertEquals(domain_of('192.0.2.1', '192.0.2.1'), '=192.0.2.1')
  lu.assertNil(domain_of('192.0.2.1', '2.1'))
  lu.assertEquals(domain_of('localhost', 'localhost'), '=localhost')
end

-- The script has declared the same functions, in its own way.
function T.test_declarations_of_the_script()
  can.need 'libpsl'
  local out = t.quiet_child(function()
    require 'ffi'.cdef 'struct psl; struct psl *psl_latest(int); int psl_is_public_suffix(struct psl *);'
    local jar = require 'asio.http'.jar()
    jar:set('https://a.co.uk/', 'a=1; Domain=co.uk')
    jar:set('https://a.co.uk/', 'b=2; Domain=a.co.uk')
    print(jar:get 'https://a.co.uk/')
  end)
  lu.assertEquals(out, 'b=2\n')
end

-- Without the FFI, as without the library: a domain needs a dot.
function T.test_without_a_list()
  local out = t.quiet_child(function()
    debug.getregistry().kept = package.loaded.ffi -- LuaJIT crashes at its end if it is collected
    package.loaded.ffi = nil
    package.preload.ffi = function() error 'this Lua has none' end
    local jar = require 'asio.http'.jar()
    jar:set('https://www.example.co.uk/', 'a=1; Domain=co.uk')
    jar:set('https://www.example.co.uk/', 'b=2; Domain=uk')
    jar:set('https://co.uk/', 'c=3; Domain=co.uk')
    print(jar:get 'https://www.example.co.uk/')
  end)
  lu.assertEquals(out, 'a=1; c=3\n')
end

return T
