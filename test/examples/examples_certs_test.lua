-- examples/certs.sh, and the certificates of the tests, held against the command openssl.
--
-- test: needs openssl
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'
local can = require 'can'
local certs = require 'certs'

local T = {}

-- Runs a shell command; $1, $2, ... are the further arguments. Returns its output and its status.
local function sh(command, ...)
  local words = {}
  for i, word in ipairs { command, 'sh', ... } do words[i] = t.quote(word) end
  local pipe = io.popen(('sh -c %s </dev/null 2>&1; echo "status $?"'):format(table.concat(words, ' ')))
  local text, status = pipe:read '*a':match '^(.*)status (%d+)\n$'
  pipe:close()
  return text, tonumber(status)
end

local function must(...)
  local text, status = sh(...)
  lu.assertEquals(status, 0, text)
  return text
end

-- The example -------------------------------------------------------------------------------------

local example = t.root .. 'examples/certs.sh'

-- Calls fn with a directory that does not exist yet.
local function with_directory(fn)
  can.need 'openssl'
  local base = must 'mktemp -d':match '^[^\n]+'
  local ok, err = pcall(fn, base .. '/a directory')
  must('rm -r "$1"', base)
  if not ok then error(err, 0) end
end

local function make(dir, ...)
  return must('sh "$@"', example, dir, ...)
end

-- What the certificate says: all of it, and its names alone.
local function read(path)
  local text = must('openssl x509 -in "$1" -noout -text', path)
  return text, text:match 'Subject Alternative Name: *\n *([^\n]*)'
end

local function verify(dir, name, purpose)
  return must('openssl verify -x509_strict -CAfile "$1/ca.pem" -purpose "$3" "$1/$2.pem"', dir, name, purpose)
end

local function key_of(path)
  return must('openssl x509 -in "$1" -noout -pubkey', path)
end

-- 0 if the certificate is valid so many days from now, else 1.
local function status_in(days, path)
  return select(2, sh('openssl x509 -in "$1" -noout -checkend "$2"', path, days * 86400))
end

function T.test_certs_by_default()
  with_directory(function(dir)
    lu.assertEquals(make(dir), '')
    lu.assertEquals(must('ls -A "$1"', dir):gsub('\n', ' '),
      'ca.key ca.pem client.key client.pem server.key server.pem ')
    verify(dir, 'server', 'sslserver')
    verify(dir, 'client', 'sslclient')
    local text, names = read(dir .. '/server.pem')
    lu.assertEquals(names, 'DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1')
    for _, words in ipairs { 'prime256v1', 'CA:FALSE', 'Digital Signature', 'TLS Web Server Authentication',
      'Subject Key Identifier', 'Authority Key Identifier' } do
      lu.assertStrContains(text, words)
    end
    for _, name in ipairs { 'ca', 'server', 'client' } do
      local pem = dir .. '/' .. name .. '.pem'
      lu.assertEquals(key_of(pem), must('openssl pkey -in "$1" -pubout', dir .. '/' .. name .. '.key'))
      lu.assertStrContains(must('ls -l "$1"', dir .. '/' .. name .. '.key'), '-rw-------', false)
      lu.assertEquals(select(2, must('cat "$1"', pem):gsub('BEGIN', '')), 1)
    end
    lu.assertEquals(status_in(824, dir .. '/server.pem'), 0)
    lu.assertEquals(status_in(826, dir .. '/server.pem'), 1)
  end)
end

function T.test_certs_again_by_the_same_authority()
  with_directory(function(dir)
    make(dir)
    local authority, server = must('cat "$1"/ca.*', dir), key_of(dir .. '/server.pem')
    make(dir, 'example.org', '*.example.org', '10.0.0.7', 'fe80::1')
    lu.assertEquals(must('cat "$1"/ca.*', dir), authority)
    lu.assertNotEquals(key_of(dir .. '/server.pem'), server)
    verify(dir, 'server', 'sslserver')
    lu.assertEquals(select(2, read(dir .. '/server.pem')),
      'DNS:example.org, DNS:*.example.org, IP Address:10.0.0.7, IP Address:FE80:0:0:0:0:0:0:1')

    must('rm "$1/ca.key"', dir)
    local text, status = sh('sh "$@"', example, dir)
    lu.assertEquals(status, 1)
    lu.assertStrContains(text, 'has one of ca.pem and ca.key')
  end)
end

function T.test_certs_refuses()
  with_directory(function(dir)
    local function refused(expected, message, ...)
      local text, status = sh('sh "$@"', example, ...)
      lu.assertStrContains(text, message)
      lu.assertEquals(status, expected, text)
      return text
    end
    lu.assertStrContains(refused(2, 'which directory?'), 'usage: ')
    refused(2, 'unknown option: -x', '-x')
    refused(2, "not a name: ''", dir, 'localhost', '')
    refused(2, "not a name: 'a,IP:1.2.3.4'", dir, 'a,IP:1.2.3.4')
    refused(2, "not a name: 'bücher.example'", dir, 'bücher.example')
    refused(1, 'cannot make the directory', '/dev/null/a')
    refused(0, 'usage: ', '--help')
    lu.assertEquals(select(2, sh('test -e "$1"', dir)), 1)
    refused(1, '300.1.1.1', dir, '300.1.1.1')
    lu.assertEquals(must('ls -A "$1"', dir), 'ca.key\nca.pem\n')
  end)
end

-- The certificates of the tests -----------------------------------------------------------------------

local STRONG, HOST, CRL = '-auth_level 2', '-verify_hostname ', '-crl_check -CRLfile '

-- { name, options, words of the refusal or nothing, ca }
local verified = {
  { 'ca' },
  { 'inter' },
  { 'other_ca', '', 'self.signed certificate' },
  { 'other_ca', '', nil, 'other_ca' },
  { 'server', STRONG },
  { 'server', HOST .. 'localhost' },
  { 'server', '-verify_ip 127.0.0.1' },
  { 'server', '-verify_ip ::1' },
  { 'server', HOST .. 'example.org', 'hostname mismatch' },
  { 'server', CRL .. 'crl.pem' },
  { 'server', CRL .. 'crl_empty.pem' },
  { 'server', CRL .. 'crl_expired.pem', 'CRL has expired' },
  { 'server', '', 'unable to get local issuer', 'other_ca' },
  { 'server2', HOST .. 'localhost' },
  { 'server_rsa', STRONG },
  { 'combined' },
  { 'key_mismatch' },
  { 'by_inter' },
  { 'no_inter', '', 'unable to get local issuer' },
  { 'no_inter', '-untrusted inter.pem' },
  { 'example', HOST .. 'example.org' },
  { 'other', HOST .. 'other.example' },
  { 'wild', HOST .. 'www.example.org' },
  { 'wild', HOST .. 'example.org', 'hostname mismatch' },
  { 'wild_deep', HOST .. 'a.b.example.org', 'hostname mismatch' },
  { 'wild_partial' }, -- this command takes it for www.example.org, unlike browsers
  { 'wild_middle', HOST .. 'www.a.example.org', 'hostname mismatch' },
  { 'wild_top', HOST .. 'example.org', 'hostname mismatch' },
  { 'xn', HOST .. 'xn--bcher-kva.example' },
  { 'wild_xn', HOST .. 'www.xn--bcher-kva.example' },
  { 'cn_only' },
  { 'ip_as_dns', '-verify_ip 127.0.0.1', 'IP address mismatch' },
  { 'client', '-purpose sslclient' },
  { 'client', '-purpose sslserver', 'certificate purpose' },
  { 'client2', '-purpose sslclient', 'unable to get local issuer' },
  { 'client2', '-purpose sslclient', nil, 'other_ca' },
  { 'server_only_eku', '-purpose sslserver' },
  { 'server_only_eku', '-purpose sslclient', 'certificate purpose' },
  { 'expired', '', 'certificate has expired' },
  { 'expired_client', '', 'certificate has expired' },
  { 'not_yet', '', 'not yet valid' },
  { 'self_signed', '', 'self.signed certificate' },
  { 'wrong_host', '' },
  { 'wrong_host', HOST .. 'localhost', 'hostname mismatch' },
  { 'wrong_ca', '', 'unable to get local issuer' },
  { 'revoked', '' },
  { 'revoked_client', '' },
  { 'revoked_client', CRL .. 'crl.pem', 'certificate revoked' },
  { 'revoked', CRL .. 'crl.pem', 'certificate revoked' },
  { 'revoked', CRL .. 'crl_empty.pem' },
  { 'not_a_ca', '', 'invalid CA certificate' },
  { 'constrained', '', 'permitted subtree violation' },
  { 'constrained_ok', HOST .. 'www.example.org' },
  { 'pathlen', '', 'path length constraint exceeded' },
  { 'rsa1024', '-auth_level 0' },
  { 'rsa1024', STRONG, 'key too' },
  { 'sha1', '-auth_level 0' },
  { 'sha1', STRONG, 'too weak' },
  { 'bad_purpose', '-purpose sslserver', 'certificate purpose' },
  { 'garbage', '', '' },
}

-- Keys that have no certificate beside them which is verified, and intermediate authorities whose leaves are.
local others = { encrypted = true, deeper = true, constrained_ca = true, crl = true, crl_empty = true,
  crl_expired = true }

function T.test_certs_of_the_tests()
  local dir, seen = certs.dir(), {}
  for _, case in ipairs(verified) do
    local name, options, refusal, ca = unpack(case, 1, 4)
    seen[name] = true
    local text, status = sh(('cd "$1" && openssl verify -CAfile %s.pem -untrusted %s.pem %s %s.pem'):format(
      ca or 'ca', name, options or '', name), dir)
    local what = ('%s %s:\n%s'):format(name, options, text)
    lu.assertEquals(status == 0, refusal == nil, what)
    lu.assertTrue(not refusal or text:find(refusal) ~= nil, what)
  end
  for name in must('ls "$1"', dir):gmatch '([%w_]+)%.[pk]em' do
    lu.assertTrue(seen[name] or others[name], name .. ' is not verified')
  end
end

function T.test_keys_of_the_tests()
  local dir = certs.dir()
  for name in must('ls "$1"', dir):gmatch '([%w_]+)%.key' do
    if name ~= 'encrypted' then
      local public = must('openssl pkey -in "$1" -pubout', dir .. name .. '.key')
      lu.assertEquals(public == key_of(dir .. name .. '.pem'), name ~= 'key_mismatch', name)
    end
  end
  must('openssl pkey -in "$1" -noout -passin pass:secret', dir .. 'encrypted.key')
  local _, status = sh('openssl pkey -in "$1" -noout -passin pass:wrong', dir .. 'encrypted.key')
  lu.assertNotEquals(status, 0)
end

function T.test_stapled_responses_of_the_tests()
  local dir = certs.dir()
  for name, response in pairs { server = 'ocsp', revoked = 'ocsp_revoked' } do
    local text = must('cd "$1" && openssl ocsp -CAfile ca.pem -issuer ca.pem -cert "$2.pem" -respin "$3.der"',
      dir, name, response)
    lu.assertStrContains(text, 'Response verify OK')
    lu.assertStrContains(text, name == 'server' and 'server.pem: good' or 'revoked.pem: revoked')
  end
end

function T.test_certs_are_made_once()
  local dir = certs.dir()
  lu.assertEquals(dir:sub(-1), '/')
  local ca = must('cat "$1"', dir .. 'ca.pem')
  lu.assertEquals(t.quiet_child(function()
    local file = assert(io.open(require('certs').dir() .. 'ca.pem'))
    io.write(file:read '*a')
    file:close()
  end), ca)
end

return T
