-- Certificates, good ones and bad ones: each of the zoo (test/support/certs.sh) as a server's and as a
-- client's; names, pins, revocation; the files and texts that options take.
-- test: 8 s
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local certs = require 'certs'
local ends = require 'tls_ends'
local t = require 'support'

local T = {}

local function file(name) return certs.dir() .. name end

-- Servers -------------------------------------------------------------------------------------

-- A server with this certificate, seen by a client that expects this name: the code of the failure (nil:
-- none), and words of its message. The server learns of the refusal.
local function seen(name, expected, code, words, client)
  client = ends.trust(client)
  client.server_name = expected
  ends.with(ends.identity(name), function(port, errors)
    local what = ('%s as %s'):format(name, expected)
    local conn, message, found = ends.connect(port, client)
    if not code then
      lu.assertNotNil(conn, ('%s: %s %s'):format(what, message, found))
      ends.echoed(conn)
      return conn:close()
    end
    lu.assertNil(conn, what)
    lu.assertEquals(found, code, what .. ': ' .. message)
    for _, word in ipairs(words or {}) do lu.assertStrContains(message, word) end
    lu.assertStrContains(ends.error_of(errors), 'the peer refuses')
  end)
end

function T.test_good_servers()
  for _, name in ipairs { 'server', 'server2', 'server_rsa', 'by_inter' } do
    for _, expected in ipairs { 'localhost', 'LocalHost', 'localhost.', '127.0.0.1', '::1', '[::1]' } do
      seen(name, expected)
    end
  end
end

function T.test_dates()
  local year = tonumber(os.date '!%Y')
  seen('expired', 'localhost', 'CERT_HAS_EXPIRED',
    { 'certificate has expired (CN=expired, ', year - 1 .. '-01-01)' })
  seen('not_yet', 'localhost', 'CERT_NOT_YET_VALID',
    { 'certificate is not yet valid (CN=not_yet, ', year + 2 .. '-01-01)' })
end

function T.test_issuers()
  seen('self_signed', 'localhost', 'DEPTH_ZERO_SELF_SIGNED_CERT', { 'self', 'signed', '(CN=self_signed)' })
  seen('wrong_ca', 'localhost', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', { '(CN=wrong_ca)' })
  seen('no_inter', 'localhost', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', { '(CN=no_inter)' })
  seen('not_a_ca', 'localhost', 'INVALID_CA', { '(CN=server)' })
  seen('pathlen', 'localhost', 'PATH_LENGTH_EXCEEDED', { '(CN=inter)' })
  seen('constrained', 'localhost', 'PERMITTED_VIOLATION', { '(CN=constrained)' })
  seen('constrained_ok', 'www.example.org')
  -- Trusted as it is; another authority; one that is named is trusted although it is no root.
  seen('self_signed', 'localhost', nil, nil, { ca = file 'self_signed.pem' })
  seen('wrong_ca', 'localhost', nil, nil, { ca = file 'other_ca.pem' })
  seen('server', 'localhost', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', nil, { ca = file 'other_ca.pem' })
  seen('no_inter', 'localhost', nil, nil, { ca = file 'inter.pem' })
  seen('no_inter', 'localhost', nil, nil, { ca = t.contents(file 'ca.pem') .. t.contents(file 'inter.pem') })
end

-- A certificate that is named as an authority is trusted itself, and may issue others only if it says so.
function T.test_a_leaf_that_is_trusted()
  local leaf = file 'server.pem'
  seen('server', 'localhost', nil, nil, { ca = leaf })
  seen('server', 'example.org', 'HOSTNAME_MISMATCH', nil, { ca = leaf })
  seen('server2', 'localhost', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', nil, { ca = leaf })
  seen('not_a_ca', 'localhost', 'INVALID_CA', nil, { ca = leaf })
  seen('expired', 'localhost', 'CERT_HAS_EXPIRED', nil, { ca = file 'expired.pem' })
  seen('revoked', 'localhost', 'CERT_REVOKED', nil,
    { ca = t.contents(file 'revoked.pem') .. t.contents(file 'ca.pem'), crl = file 'crl.pem' })
  seen('pathlen', 'localhost', 'PATH_LENGTH_EXCEEDED', nil, { ca = file 'inter.pem' })
  seen('constrained', 'localhost', 'PERMITTED_VIOLATION', nil, { ca = file 'constrained_ca.pem' })
end

function T.test_purpose()
  for _, name in ipairs { 'bad_purpose', 'client' } do
    seen(name, 'localhost', 'INVALID_PURPOSE', { '(CN=' .. name .. ')' })
  end
end

-- The names of the zoo, and who they are good for.
local NAMES = {
  { 'wrong_host', 'elsewhere.example', true }, { 'wrong_host', 'localhost', false },
  { 'wrong_host', 'www.elsewhere.example', false },
  { 'example', 'example.org', true }, { 'example', 'EXAMPLE.org.', true }, { 'example', 'example.or', false },
  { 'example', 'www.example.org', false }, { 'example', 'example.org.evil', false },
  { 'wild', 'www.example.org', true }, { 'wild', 'WWW.example.ORG', true }, { 'wild', 'example.org', false },
  { 'wild', 'a.b.example.org', false }, { 'wild', 'www.example.com', false },
  { 'wild_deep', 'a.b.example.org', false }, { 'wild_deep', 'b.example.org', false },
  { 'wild_partial', 'www.example.org', false }, { 'wild_partial', 'w.example.org', false },
  { 'wild_middle', 'www.a.example.org', false }, { 'wild_middle', 'www.example.org', false },
  { 'wild_top', 'example.org', false }, { 'wild_top', 'www.example.org', false },
  { 'xn', 'xn--bcher-kva.example', true }, { 'xn', 'XN--BCHER-KVA.example', true },
  { 'xn', 'b\195\188cher.example', false }, { 'xn', 'bucher.example', false },
  { 'wild_xn', 'www.xn--bcher-kva.example', true }, { 'wild_xn', 'xn--bcher-kva.example', false },
  { 'cn_only', 'localhost', false },
  { 'ip_as_dns', '127.0.0.1', false, 'IP_ADDRESS_MISMATCH' }, { 'ip_as_dns', 'localhost', false },
  { 'example', '127.0.0.1', false, 'IP_ADDRESS_MISMATCH' },
  { 'example', '::1', false, 'IP_ADDRESS_MISMATCH' },
  { 'server', '127.0.0.2', false, 'IP_ADDRESS_MISMATCH' }, { 'server', '::2', false, 'IP_ADDRESS_MISMATCH' },
  { 'server', '0:0:0:0:0:0:0:1', true }, { 'server', '::1%lo', true }, { 'server', '127.1', false },
  { 'server', '127.0.0.1.', true }, { 'server', '::ffff:127.0.0.1', false, 'IP_ADDRESS_MISMATCH' },
}

function T.test_names()
  for _, row in ipairs(NAMES) do
    local name, expected, good, code = unpack(row)
    seen(name, expected, not good and (code or 'HOSTNAME_MISMATCH') or nil,
      { code and 'IP address mismatch' or 'ostname mismatch', '(CN=' })
  end
end

function T.test_what_is_no_name()
  ends.with(ends.identity 'example', function(port)
    for _, name in ipairs {
      '', '.', '.example.org', '*.example.org\0', 'example.org\0.evil', '\0', ('a'):rep(256), 'example.org..',
    } do
      local _, _, code = ends.connect(port, ends.trust { server_name = name })
      lu.assertItemsEquals({ code == 'EINVAL' or code == 'HOSTNAME_MISMATCH' }, { true }, ('%q'):format(name))
    end
    for _, name in ipairs { 1, {}, true, false } do
      t.bad_argument(3, 'connect', function()
        asio.connect('127.0.0.1', port, { tls = { server_name = name } })
      end)
    end
  end)
end

-- The name is the host's, unless the option says another.
function T.test_the_host_is_the_name()
  ends.with(ends.identity 'server', function(port)
    lu.assertEquals(ends.visit(port, ends.trust(), 'localhost').server_name, 'localhost')
    lu.assertNil(ends.visit(port, ends.trust()).server_name) -- an address is not told
  end)
  ends.with(ends.identity 'example', function(port)
    t.failure('HOSTNAME_MISMATCH', ends.connect(port, ends.trust(), 'localhost'))
    t.failure('IP_ADDRESS_MISMATCH', ends.connect(port, ends.trust()))
    local info = ends.visit(port, ends.trust { server_name = 'Example.ORG.' }, 'localhost')
    lu.assertEquals(info.server_name, 'example.org')
  end)
end

-- A name as long as a raw address is one with a port.
function T.test_a_host_of_many_bytes()
  can.need 'tls'
  local label = ('a'):rep(63)
  local host = table.concat({ label, label, label }, '.')
  local _, _, code = asio.connect(host, 443, { tls = true, timeout = 0.1 })
  lu.assertItemsEquals({ code == 'ETIMEDOUT' or code:find('^EAI_') == 1 }, { true }, code)
end

function T.test_ipv6()
  local works = asio.server('::1', 0, print)
  lu.skipIf(not works, 'no IPv6 here')
  works:close()
  for _, host in ipairs { '::1', '[::1]' } do
    ends.with(ends.identity 'server', function(port)
      ends.visit(port, ends.trust(), host)
    end, nil, { ip = '::1' })
    ends.with(ends.identity 'example', function(port)
      t.failure('IP_ADDRESS_MISMATCH', ends.connect(port, ends.trust(), host))
    end, nil, { ip = '::1' })
  end
end

-- By default what is too weak is refused, by whichever side sees it first.
function T.test_weak()
  for _, name in ipairs { 'rsa1024', 'sha1' } do
    local options = ends.identity(name)
    local server, message, code = asio.server('127.0.0.1', 0, print, { tls = options })
    if not server then
      lu.assertEquals(code, 'EINVAL')
      lu.assertStrContains(message, 'weak')
    else
      server:close()
      seen(name, 'localhost', name == 'sha1' and 'CA_MD_TOO_WEAK' or 'EE_KEY_TOO_SMALL')
    end
  end
end

function T.test_without_verification()
  for _, name in ipairs { 'expired', 'self_signed', 'wrong_ca', 'wrong_host', 'no_inter', 'bad_purpose' } do
    ends.with(ends.identity(name), function(port)
      local info = ends.visit(port, { verify = false })
      lu.assertEquals(info.peer.subject, 'CN=' .. name)
    end)
  end
end

-- The system's certificates do not include those of the zoo.
function T.test_the_default_authorities()
  ends.with(ends.identity 'server', function(port)
    local _, _, code = ends.connect(port, true, 'localhost')
    lu.assertEquals(code, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY')
  end)
end

-- Revocation ------------------------------------------------------------------------------------

function T.test_revoked_servers()
  seen('revoked', 'localhost')
  seen('revoked', 'localhost', 'CERT_REVOKED',
    { 'certificate revoked (CN=revoked)' }, { crl = file 'crl.pem' })
  seen('server', 'localhost', nil, nil, { crl = file 'crl.pem' })
  seen('revoked', 'localhost', nil, nil, { crl = file 'crl_empty.pem' })
  seen('server', 'localhost', 'CRL_HAS_EXPIRED', { 'CRL has expired' }, { crl = file 'crl_expired.pem' })
  seen('wrong_ca', 'localhost', 'UNABLE_TO_GET_CRL', nil, { ca = file 'other_ca.pem', crl = file 'crl.pem' })
end

-- Pins ------------------------------------------------------------------------------------------

local function pin_of(name, encode)
  local pipe = io.popen(('openssl x509 -in %s -pubkey -noout | openssl pkey -pubin -outform der | %s'):format(
    t.quote(file(name .. '.pem')), encode))
  local text = pipe:read '*a'
  pipe:close()
  return text
end

local function hex_of(name) return pin_of(name, 'openssl dgst -sha256'):match '%x+%s*$':match '%x+' end
local function base64_of(name)
  return pin_of(name, 'openssl dgst -sha256 -binary | openssl base64'):match '%S+'
end

function T.test_pins()
  local hex, base64, wrong = hex_of 'server', base64_of 'server', hex_of 'server2'
  lu.assertEquals({ #hex, #base64 }, { 64, 44 })
  for _, pin in ipairs { hex, hex:upper(), base64, 'sha256//' .. base64, { hex }, { wrong, base64 } } do
    seen('server', 'localhost', nil, nil, { pin = pin })
    seen('server', 'elsewhere', nil, nil, { pin = pin, verify = false })
  end
  for _, pin in ipairs { wrong, base64_of 'server2', { wrong, hex_of 'example' } } do
    seen('server', 'localhost', 'PIN_MISMATCH', { 'pinned' }, { pin = pin })
    seen('server', 'localhost', 'PIN_MISMATCH', { 'pinned' }, { pin = pin, verify = false })
  end
  -- A pin alone does for a certificate that is not trusted otherwise; with verification it does not.
  for _, name in ipairs { 'self_signed', 'wrong_ca', 'no_inter', 'expired' } do
    seen(name, 'localhost', nil, nil, { pin = hex_of(name), verify = false })
    seen(name, 'localhost', 'PIN_MISMATCH', nil, { pin = wrong, verify = false })
  end
  seen('expired', 'localhost', 'CERT_HAS_EXPIRED', nil, { pin = hex_of 'expired' })
  seen('by_inter', 'localhost', 'PIN_MISMATCH', nil, { pin = hex_of 'inter' }) -- the leaf's key alone counts
  seen('by_inter', 'localhost', 'PIN_MISMATCH', nil, { pin = hex_of 'ca', verify = false })
end

function T.test_bad_pins_raise()
  can.need 'tls'
  local hex = ('0'):rep(64)
  for _, pin in ipairs {
    '', 'x', hex .. '0', hex:sub(2), ('g'):rep(64), ('*'):rep(44), 1, true, {}, { 1 }, { hex, '' },
    { hex, hex, hex, hex, hex, hex, hex, hex, hex }, 'sha256//', 'sha1//' .. hex, { a = hex },
  } do
    t.bad_argument(3, 'connect', function()
      asio.connect('127.0.0.1', 1, { tls = { pin = pin } })
    end)
  end
end

-- Clients ---------------------------------------------------------------------------------------

-- A client of this certificate (nil: none) at a server that asks for one: what the server says of it.
local function client_seen(name, code, words, server)
  server = ends.identity('server', server)
  if server.verify == nil then server.verify = 'require' end
  server.ca = server.ca or file 'ca.pem'
  ends.with(server, function(port, errors)
    local options = ends.trust()
    if name then options = ends.identity(name, options) end
    local conn, message, found = ends.connect(port, options)
    local reply
    if conn then -- in TLS 1.3 a client is done before the server has looked at its certificate
      conn:write 'hello\n'
      reply, message, found = conn:read_line()
    end
    if not code then
      lu.assertEquals(reply, 'hello', ('%s: %s %s'):format(name, message, found))
    else
      lu.assertNil(reply)
      local told, its_code = ends.error_of(errors)
      lu.assertEquals(its_code, code, ('%s: %s'):format(name, told))
      for _, word in ipairs(words or {}) do lu.assertStrContains(told, word) end
      lu.assertItemsEquals({ t.codes('EPROTO', 'EPIPE', 'ECONNRESET')[found] }, { true }, found)
    end
    if conn then conn:close() end
  end)
end

function T.test_clients()
  client_seen 'client'
  client_seen('client', nil, nil, { verify = 'optional' })
  client_seen(nil, nil, nil, { verify = 'optional' })
  client_seen(nil, nil, nil, { verify = false, ca = file 'ca.pem' })
  client_seen(nil, 'EPROTO', { 'did not return a certificate' })
  client_seen('client2', nil, nil, { ca = file 'other_ca.pem' })
  for _, demand in ipairs { 'require', 'optional' } do
    client_seen('client2', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', { '(CN=client2)' }, { verify = demand })
    client_seen('server_only_eku', 'INVALID_PURPOSE', { '(CN=server_only_eku)' }, { verify = demand })
    client_seen('self_signed', 'DEPTH_ZERO_SELF_SIGNED_CERT', nil, { verify = demand })
    client_seen('expired_client', 'CERT_HAS_EXPIRED', { '-01-01)' }, { verify = demand })
  end
end

function T.test_revoked_clients()
  client_seen('client', nil, nil, { crl = file 'crl.pem' })
  client_seen('revoked_client', 'CERT_REVOKED', { '(CN=revoked_client)' }, { crl = file 'crl.pem' })
end

function T.test_pinned_clients()
  client_seen('client', nil, nil, { pin = hex_of 'client' })
  client_seen('client', 'PIN_MISMATCH', { 'pinned' }, { pin = hex_of 'client2' })
  local alone = { pin = hex_of 'client2', verify = false }
  client_seen('client2', nil, nil, alone)
  client_seen('client', 'PIN_MISMATCH', nil, alone)
  client_seen(nil, 'EPROTO', { 'did not return a certificate' }, alone)
end

function T.test_the_client_as_the_server_sees_it()
  local told
  ends.with(ends.identity('server', { verify = 'require', ca = file 'ca.pem' }), function(port)
    for i = 1, 2 do -- the second resumes, and is known as well
      ends.visit(port, ends.identity('client', ends.trust()))
      lu.assertEquals({ told.resumed, told.peer.subject }, { i > 1, 'CN=client' })
    end
  end, function(conn)
    told = conn:tls()
    conn:write(conn:read_line(), '\n')
    conn:close()
  end)
  local peer = told.peer
  lu.assertEquals({ peer.subject, peer.issuer, peer.names }, { 'CN=client', 'CN=ca', {} })
  lu.assertEquals(peer.pem, t.contents(file 'client.pem'))
  local pipe = io.popen('openssl x509 -noout -fingerprint -sha256 -in ' .. t.quote(file 'client.pem'))
  local print_of = pipe:read '*a':gsub('^.*=', ''):gsub('%X', ''):lower()
  pipe:close()
  lu.assertEquals(peer.sha256, print_of)
  lu.assertTrue(peer.not_before <= os.time() and peer.not_after > os.time())
end

-- What options take -----------------------------------------------------------------------------

-- Whether a server can be made of these options: nil, or the code and message of the failure.
local function server_of(tls)
  local server, message, code = asio.server('127.0.0.1', 0, print, { tls = tls })
  if server then return server:close() and nil end
  return code, message
end

function T.test_keys()
  local cert = file 'client.pem'
  lu.assertNil(server_of { cert = cert, key = file 'client.key' })
  lu.assertNil(server_of { cert = cert, key = file 'encrypted.key', password = 'secret' })
  for _, row in ipairs {
    { { cert = cert, key = file 'encrypted.key', password = 'wrong' }, 'EINVAL', 'password' },
    { { cert = cert, key = file 'encrypted.key', password = ('long'):rep(1000) }, 'EINVAL', 'password' },
    { { cert = cert, key = file 'encrypted.key' }, 'EINVAL', 'encrypted' },
    { { cert = cert, key = file 'key_mismatch.key' .. 'x' }, 'ENOENT', 'key: no such file or directory (/' },
    { { cert = cert .. 'x', key = file 'client.key' }, 'ENOENT', 'cert: no such file or directory (/' },
    { { cert = file 'key_mismatch.pem', key = file 'key_mismatch.key' }, 'EINVAL', 'not the key' },
    { { cert = cert }, 'EINVAL', 'no private key' },
    { { cert = file 'client.key', key = file 'client.key' }, 'EINVAL', 'no certificate' },
    { { cert = file 'garbage.pem', key = file 'client.key' }, 'EINVAL', 'no certificate' },
    { { cert = cert, key = file 'garbage.pem' }, 'EINVAL', 'no private key' },
    { { key = file 'client.key' }, 'EINVAL', 'certificate' },
    { {}, 'EINVAL', 'certificate' },
    { { cert = certs.dir(), key = file 'client.key' }, 'EINVAL', 'cert' },
    { { cert = '', key = file 'client.key' }, 'ENOENT', 'cert' },
    { { cert = '-----BEGIN CERTIFICATE-----\nnonsense\n', key = file 'client.key' }, 'EINVAL', 'cert' },
  } do
    local code, message = server_of(row[1])
    lu.assertEquals(code, row[2], message)
    lu.assertStrContains(message, row[3])
    lu.assertNotStrContains(message, 'BEGIN')
  end
end

-- Text in place of files, and a file that has both.
function T.test_text_and_combined()
  local cert, key = t.contents(file 'server.pem'), t.contents(file 'server.key')
  local ca = t.contents(file 'ca.pem')
  for _, tls in ipairs {
    { cert = cert, key = key }, { cert = file 'server.pem', key = key }, { cert = cert .. key },
    { cert = key .. cert }, { cert = file 'combined.pem' },
    { cert = 'words before\n' .. cert, key = key },
    { cert = cert:gsub('\n', '\r\n'), key = key },
    { cert = cert, key = t.contents(file 'server.key') },
  } do
    ends.with(tls, function(port)
      local both = t.contents(file 'other_ca.pem') .. ca
      for _, trusted in ipairs { ca, 'words\n' .. ca, file 'ca.pem', both } do
        ends.visit(port, { ca = trusted })
      end
    end)
  end
end

function T.test_authorities()
  local dir = t.temporary()
  os.remove(dir)
  assert(os.execute(('mkdir %s && cp %s %s && openssl rehash %s 2>/dev/null'):format(
    dir, t.quote(file 'ca.pem'), dir, dir)) == 0)
  local ok, err = pcall(function()
    seen('server', 'localhost', nil, nil, { ca = dir })
    seen('wrong_ca', 'localhost', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', nil, { ca = dir })
  end)
  os.execute('rm -r ' .. dir)
  assert(ok, err)
  for _, row in ipairs {
    { { ca = file 'nothing.pem' }, 'ENOENT', 'ca: ' }, { { ca = file 'garbage.pem' }, 'EINVAL', 'ca: ' },
    { { ca = file 'server.key' }, 'EINVAL', 'ca: ' }, { { ca = '' }, 'ENOENT', 'ca: ' },
    { { crl = file 'nothing.pem' }, 'ENOENT', 'crl: ' }, { { crl = file 'ca.pem' }, 'EINVAL', 'crl: ' },
    { { crl = file 'garbage.pem' }, 'EINVAL', 'crl: ' },
    { { cert = file 'nothing.pem' }, 'ENOENT', 'cert: ' }, { { key = file 'client.key' }, 'EINVAL', 'cert' },
    { { ciphers = 'nonsense' }, 'EINVAL', 'ciphers: ' }, { { ciphers = '' }, 'EINVAL', 'ciphers: ' },
  } do
    local conn, message, code = ends.connect(1, row[1], 'localhost')
    lu.assertNil(conn)
    lu.assertEquals(code, row[2], message)
    lu.assertStrContains(message, row[3])
  end
  local code, message = server_of(ends.identity('server', { ocsp = file 'ca.pem' }))
  lu.assertEquals({ code, message:match '^ocsp: ' }, { 'EINVAL', 'ocsp: ' })
end

-- Something behind the first that cannot be read would take the rest with it in silence.
function T.test_what_is_damaged_is_not_left_out()
  local cert, other = t.contents(file 'server.pem'), t.contents(file 'other_ca.pem')
  local ca, crl = t.contents(file 'ca.pem'), t.contents(file 'crl.pem')
  local function damaged(text) return (text:gsub('\n....', '\n****', 2)) end
  for _, row in ipairs {
    { cert = cert .. damaged(ca) .. other, key = file 'server.key' }, { ca = other .. damaged(cert) .. ca },
    { ca = ca .. cert:sub(1, 200) }, { ca = ca, crl = crl .. damaged(crl) .. crl },
  } do
    local conn, message, code = ends.connect(1, row, 'localhost')
    lu.assertEquals({ conn, code }, { nil, 'EINVAL' })
    lu.assertStrContains(message, 'behind the first cannot be read')
  end
  for _, name in ipairs { 'ca', 'cert', 'key', 'password', 'crl', 'ciphers' } do
    local row = ends.identity('client', ends.trust())
    row[name] = (row[name] or file 'crl.pem') .. '\0x'
    t.bad_argument(3, 'connect', function() asio.connect('localhost', 1, { tls = row }) end)
  end
end

-- A PEM that is encrypted where no password can be asked for must not ask at the terminal.
function T.test_encrypted_certificates_do_not_ask()
  local text = t.contents(file 'ca.pem'):gsub('^(%-+BEGIN CERTIFICATE%-+\n)',
    '%1Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n')
  local _, _, code = ends.connect(1, { ca = text }, 'localhost')
  lu.assertEquals(code, 'EINVAL')
  lu.assertEquals((server_of { cert = text, key = file 'server.key' }), 'EINVAL')
end

-- Files that have changed are read again, although nothing else has.
function T.test_changed_files()
  local path = t.temporary(t.contents(file 'other_ca.pem'))
  ends.with(ends.identity 'server', function(port)
    t.failure('UNABLE_TO_GET_ISSUER_CERT_LOCALLY', ends.connect(port, { ca = path }))
    local new = assert(io.open(path, 'wb'))
    new:write(t.contents(file 'ca.pem'))
    new:close()
    ends.visit(port, { ca = path })
  end)
  os.remove(path)
end

function T.test_bad_options_raise()
  certs.dir()
  for _, tls in ipairs {
    1, 'yes', { unknown = true }, { 'localhost' }, { ca = 1 }, { cert = {} }, { key = true },
    { password = 1 }, { verify = 'require' }, { verify = 1 }, { min_version = '1.1' }, { min_version = 2 },
    { min_version = {} },
    { alpn = 1 }, { alpn = { '' } }, { alpn = { ('x'):rep(256) } }, { alpn = { 1 } }, { ciphers = 1 },
    { handshake_timeout = -1 }, { handshake_timeout = 0 / 0 }, { handshake_timeout = '1' }, { crl = 1 },
  } do
    t.bad_argument(3, 'connect', function()
      asio.connect('localhost', 1, { tls = tls })
    end)
  end
  for _, own in ipairs {
    { verify = 'sometimes' }, { verify = 1 }, { names = 1 }, { names = { 1 } }, { names = { ['*'] = {} } },
    { names = { ['a.*.org'] = {} } }, { names = { ['w*.org'] = {} } }, { names = { ['*.*.org'] = {} } },
    { names = { ['example.org'] = 1 } }, { ticket_keys = {} }, { ticket_keys = 'x' },
    { ticket_keys = { 'x' } },
    { names = { ['example.org'] = { unknown = 1 } } },
  } do
    local tls = ends.identity('server', own)
    t.bad_argument(4, 'server', function()
      asio.server('127.0.0.1', 0, print, { tls = tls })
    end)
  end
  t.bad_argument(4, 'server', function()
    asio.server('127.0.0.1', 0, print, { tls = ends.identity 'server', on_tls_error = 1 })
  end)
end

return T
