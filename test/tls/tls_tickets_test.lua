-- Sessions of TLS that are resumed: tickets, their keys, and what they must not get round.
-- test: 7 s
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local certs = require 'certs'
local ends = require 'tls_ends'
local programs = require 'programs'
local t = require 'support'

local T = {}

local function file(name) return certs.dir() .. name end

local KEY = { ('a'):rep(80), ('b'):rep(80), ('c'):rep(80) }

local function resumed(port, tls)
  return ends.visit(port, tls).resumed
end

function T.test_resumption()
  ends.with(ends.identity 'server', function(port)
    local client = ends.trust()
    lu.assertFalse(resumed(port, client))
    for _ = 1, 3 do lu.assertTrue(resumed(port, client)) end
    lu.assertFalse(resumed(port, ends.trust { alpn = 'other' })) -- other options: none of these sessions
    lu.assertFalse(resumed(port, ends.trust { server_name = 'localhost' }))
  end)
end

-- Servers, one after the other at one port, since a client keeps sessions by it.
local function servers_in_turn(list)
  local port, _ = 0
  local client = ends.trust { alpn = 'tickets of ' .. tostring(list) }
  for i, row in ipairs(list) do
    local server = assert(asio.server('127.0.0.1', port, function(conn)
      conn:write(conn:read_line(), '\n')
      conn:close()
    end, { tls = ends.identity(row[1], { ticket_keys = row[2] }) }))
    _, port = server:address()
    lu.assertEquals(resumed(port, client), row[3], 'server ' .. i)
    server:shutdown()
  end
end

function T.test_ticket_keys()
  servers_in_turn { { 'server', { KEY[1] }, false }, { 'server2', { KEY[1] }, true } }
  servers_in_turn { { 'server', nil, false }, { 'server2', nil, false } }
  servers_in_turn { { 'server', { KEY[1] }, false }, { 'server2', { KEY[2] }, false } }
  servers_in_turn { { 'server', { KEY[1] }, false }, { 'server', { KEY[2], KEY[1] }, true },
    { 'server', { KEY[3], KEY[2] }, true }, { 'server', { KEY[1], KEY[2] }, false } }
end

function T.test_ticket_keys_and_set_tls()
  ends.with(ends.identity 'server', function(port, _, server)
    local client = ends.trust()
    lu.assertFalse(resumed(port, client))
    assert(server:set_tls(ends.identity 'server2'))
    lu.assertTrue(resumed(port, client))
    assert(server:set_tls(ends.identity('server2', { ticket_keys = { KEY[1] } })))
    lu.assertFalse(resumed(port, client))
    assert(server:set_tls(ends.identity('server2', { ticket_keys = { KEY[2], KEY[1] } })))
    lu.assertTrue(resumed(port, client))
    assert(server:set_tls(ends.identity 'server'))
    for _ = 1, 3 do lu.assertTrue(resumed(port, client)) end
  end)
end

-- A certificate of `ca` for localhost that expires at this time, in the directory `dir`.
local function brief(dir, expires)
  local extensions = assert(io.open(dir .. '/extensions', 'w'))
  extensions:write 'subjectAltName = DNS:localhost, IP:127.0.0.1\n'
  extensions:close()
  assert(os.execute(('cd %s && cp -R %sworks . && OPENSSL_CONF=works/conf && export OPENSSL_CONF && ' ..
    'openssl req -new -key %sserver.key -subj /CN=brief -out request && ' ..
    'openssl ca -batch -notext -in request -cert %sca.pem -keyfile %sca.key -extfile extensions ' ..
    '-enddate %s -out brief.pem 2>log'):format(dir, t.quote(certs.dir()), t.quote(certs.dir()),
    t.quote(certs.dir()), t.quote(certs.dir()), os.date('!%Y%m%d%H%M%SZ', expires))) == 0)
  return dir .. '/brief.pem'
end

-- Each resumption brings a new ticket: they would outlive the certificate without end.
function T.test_tickets_of_certificates_that_expire()
  local dir = t.temporary()
  os.remove(dir)
  assert(os.execute('mkdir ' .. dir) == 0)
  local expires = os.time() + 3 * t.patience
  local cert, key = brief(dir, expires), file 'server.key'
  local ca, client = file 'ca.pem', ends.trust { cert = cert, key = key }
  ends.with({ cert = cert, key = key }, function(port)
    ends.with(ends.identity('server', { ca = ca, verify = 'require' }), function(other, errors)
      for i = 1, 2 do
        lu.assertEquals({ resumed(port, ends.trust()), resumed(other, client) }, { i == 2, i == 2 })
      end
      while os.time() <= expires do asio.sleep(0.1) end
      t.failure('CERT_HAS_EXPIRED', ends.connect(port, ends.trust()))
      lu.assertFalse(resumed(port, { verify = false }))
      lu.assertTrue(resumed(port, { verify = false }))
      ends.refused(other, client)
      lu.assertEquals(select(2, ends.error_of(errors)), 'CERT_HAS_EXPIRED')
    end)
  end)
  os.execute('rm -r ' .. dir)
end

-- A ticket does not get round what is asked of the client now.
function T.test_tickets_and_demands()
  local demands = ends.identity('server', { ca = file 'ca.pem', verify = 'optional' })
  ends.with(demands, function(port, errors, server)
    local client = ends.trust()
    lu.assertFalse(resumed(port, client))
    lu.assertTrue(resumed(port, client))
    demands.verify = 'require'
    assert(server:set_tls(demands))
    ends.refused(port, client)
    lu.assertStrContains(ends.error_of(errors), 'did not return a certificate')
  end)
end

-- The list has changed in its file: a client that has been revoked does not come back by its ticket.
function T.test_tickets_of_revoked_clients()
  local path = t.temporary(t.contents(file 'crl_empty.pem'))
  local tls = ends.identity('server', { ca = file 'ca.pem', verify = 'require', crl = path })
  ends.with(tls, function(port, errors, server)
    local client = ends.identity('revoked_client', ends.trust())
    lu.assertFalse(resumed(port, client))
    lu.assertTrue(resumed(port, client))
    local list = assert(io.open(path, 'wb'))
    list:write(t.contents(file 'crl.pem'))
    list:close()
    assert(server:set_tls(tls))
    ends.refused(port, client)
    lu.assertEquals(select(2, ends.error_of(errors)), 'CERT_REVOKED')
  end)
  os.remove(path)
end

-- CVE-2025-23419 and its like: a session of one name at another one, by OpenSSL's client, which offers
-- what it is told to.
function T.test_tickets_and_names()
  local peers = {}
  local strict = { verify = 'require', ca = file 'ca.pem' }
  local path = t.temporary()
  ends.with(ends.identity('server', { names = {
    ['strict.example'] = strict, ['open.example'] = {}, ['alike.example'] = ends.identity 'server2',
  } }), function(port)
    local function visit(name, options)
      local line = ('openssl s_client -connect 127.0.0.1:%d -servername %s %s'):format(port, name, options)
      local out
      programs.talk(line, function(program)
        program:say 'hello\n'
        pcall(program.expect, program, '\nback') -- or it is refused
        program:eof()
        out = program:wait()
      end)
      return peers[name], out
    end
    for _, version in ipairs { '-tls1_2', '-tls1_3' } do
      peers = {}
      visit('open.example', version .. ' -sess_out ' .. path)
      lu.assertFalse(peers['open.example'].resumed)
      lu.assertTrue(visit('open.example', version .. ' -sess_in ' .. path).resumed)
      local seen, out = visit('strict.example', version .. ' -sess_in ' .. path)
      lu.assertNil(seen, out)
      seen = visit('strict.example', ('%s -sess_in %s -cert %s -key %s'):format(
        version, path, file 'client.pem', file 'client.key'))
      lu.assertEquals({ seen.resumed, seen.peer.subject }, { false, 'CN=client' })
    end
  end, function(conn)
    local info = conn:tls()
    if conn:read_line() then
      peers[info.server_name] = info
      conn:write 'back\n'
      conn:read_all()
    end
    conn:close()
  end)
  os.remove(path)
end

return T
