-- Servers with TLS: certificates by name, ALPN, new certificates, tickets, errors, time-outs, sockets.
-- test: 8 s
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local certs = require 'certs'
local can = require 'can'
local ends = require 'tls_ends'
local raw = require 'raw'
local rawunix = require 'rawunix'
local t = require 'support'

local T = {}

local function file(name) return certs.dir() .. name end

-- Certificates by name --------------------------------------------------------------------------

local visits = 0

-- Which certificate a client gets that asks for a name; without one if it is an address. Nothing is resumed:
-- the certificate would be that of the first connection.
local function given(port, name)
  visits = visits + 1
  local info = ends.visit(port, { verify = false, server_name = name, alpn = 'visit ' .. visits })
  return info.peer.subject:match '^CN=(.*)$'
end

local function refused(port, name, alert)
  local conn, message, code = ends.connect(port, { verify = false, server_name = name })
  lu.assertNil(conn)
  lu.assertEquals(code, 'EPROTO')
  lu.assertStrContains(message, alert or 'unrecognized name')
end

function T.test_a_table_of_names()
  ends.with(ends.identity('server', { names = {
    ['Example.org'] = ends.identity 'example', ['*.example.org'] = ends.identity 'wild',
    ['www.example.org'] = ends.identity 'constrained_ok',
    ['*.xn--bcher-kva.example'] = ends.identity 'wild_xn',
    ['elsewhere.example'] = { cert = file 'combined.pem' }, ['same.example'] = {},
    ['root.example.'] = ends.identity 'example',
  } }), function(port)
    for name, expected in pairs {
      ['example.org'] = 'example', ['EXAMPLE.ORG'] = 'example', ['example.org.'] = 'example',
      ['a.example.org'] = 'wild', ['www.example.org'] = 'constrained_ok', ['a.b.example.org'] = 'server',
      ['b.xn--bcher-kva.example'] = 'wild_xn', ['xn--bcher-kva.example'] = 'server', ['x.org'] = 'server',
      ['127.0.0.1'] = 'server', ['::1'] = 'server', ['elsewhere.example'] = 'server',
      ['same.example'] = 'server', localhost = 'server', ['*.example.org'] = 'wild',
      ['root.example'] = 'example',
      [('a'):rep(60) .. '.example.org'] = 'wild',
    } do
      lu.assertEquals(given(port, name), expected, name)
    end
  end)
end

-- Options of a name are its own, others are those of the server.
function T.test_options_of_a_name()
  local seen
  ends.with(ends.identity('server', {
    alpn = { 'one' }, min_version = 1.3,
    names = {
      ['strict.example'] = ends.identity('example',
        { verify = 'require', ca = file 'ca.pem', alpn = { 'two' } }),
      ['old.example'] = ends.identity('other', { min_version = '1.2' }),
    },
  }), function(port, errors)
    local client = { verify = false, alpn = { 'one', 'two' }, server_name = 'plain.example' }
    lu.assertEquals(ends.visit(port, client).alpn, 'one')
    lu.assertNil(seen.peer)
    client.server_name = 'old.example'
    lu.assertEquals(ends.visit(port, client).alpn, 'one')
    client.server_name = 'strict.example'
    lu.assertEquals(ends.refused(port, client), 'the peer refuses: ' ..
      (os.getenv 'OPENSSL_CONF' and 'handshake failure' or 'certificate required'))
    local message, code, info = ends.error_of(errors)
    lu.assertStrContains(message, 'did not return a certificate')
    lu.assertEquals({ code, info.server_name, info.peer }, { 'EPROTO', 'strict.example', '127.0.0.1' })
    lu.assertEquals(ends.visit(port, ends.identity('client', client)).alpn, 'two')
    lu.assertEquals({ seen.server_name, seen.peer.subject }, { 'strict.example', 'CN=client' })
  end, function(conn)
    seen = conn:tls()
    conn:write(conn:read_line(), '\n')
    conn:close()
  end)
end

function T.test_a_function_of_names()
  local asked = {}
  ends.with(ends.identity('server', { names = function(name)
    asked[#asked + 1] = name
    if name:find '^wait' then asio.sleep(0.02) end
    if name:find 'example' then return ends.identity 'example' end
    if name:find 'wrong' then return ends.identity 'nothing' end
  end }), function(port, errors)
    lu.assertEquals(given(port, 'example.org'), 'example')
    lu.assertEquals(given(port, 'Wait.Example.org.'), 'example')
    lu.assertEquals(given(port, 'wait.org'), 'server')
    lu.assertEquals(given(port, '127.0.0.1'), 'server') -- it asks for no name: the function is not called
    refused(port, 'wrong.org')
    local message, code = ends.error_of(errors)
    lu.assertEquals(code, 'ENOENT', message)
    lu.assertEquals(asked, { 'example.org', 'wait.example.org', 'wait.org', 'wrong.org' })
    -- Many that wait at a time.
    asio.group(function(g)
      for i = 1, 20 do
        g:spawn(function() lu.assertEquals(given(port, 'wait' .. i .. '.example'), 'example') end)
      end
    end)
  end)
  ends.with({ names = function() end }, function(port, errors)
    refused(port, 'example.org')
    lu.assertStrContains(ends.error_of(errors), 'no certificate for example.org')
    refused(port, '127.0.0.1', '')
    lu.assertEquals(select(2, ends.error_of(errors)), 'EPROTO')
  end)
end

-- As any error in a handler: it is reported, and the connection ends.
function T.test_a_function_of_names_that_raises()
  local tls = ends.identity('server', { names = function(name)
    if name == 'bad.option' then return { unknown = 1 } end
    error 'on purpose'
  end })
  ends.with(tls, function(port)
    refused(port, 'example.org')
    t.next_turn()
    lu.assertStrContains(t.stderr(), 'on purpose')
    refused(port, 'bad.option')
    t.next_turn()
    lu.assertStrContains(t.stderr(), "unknown option 'tls.unknown'")
  end)
  local server = assert(asio.server('127.0.0.1', 0, nil, { tls = tls }))
  local _, port = server:address()
  local client = asio.spawn(refused, port, 'example.org')
  local conn = assert(server:accept())
  lu.assertNil((conn:read(1)))
  conn:close()
  assert(client:join())
  t.next_turn()
  lu.assertStrContains(t.stderr(), 'on purpose')
  server:close()
end

function T.test_a_function_of_names_that_takes_too_long()
  local left
  ends.with(ends.identity('server', { handshake_timeout = 0.05, names = function()
    left = false
    local ok, err = pcall(asio.sleep, 30)
    left = true
    assert(ok, err)
  end }), function(port, errors)
    local conn, _, code = ends.connect(port, { verify = false, server_name = 'x.org' })
    lu.assertNil(conn)
    lu.assertTrue(code == 'EOF' or code == 'ECONNRESET' or code == 'EPROTO', code)
    lu.assertEquals(select(2, ends.error_of(errors)), 'ETIMEDOUT')
    lu.assertTrue(left)
  end)
end

-- What comes while the function waits is kept, but not without bound.
function T.test_a_peer_that_sends_much_while_the_function_waits()
  local asked
  ends.with(ends.identity('server', { names = function()
    asked = true
    asio.sleep(0.2)
  end }), function(port, errors)
    local relay = assert(asio.server('127.0.0.1', 0))
    local _, relayed = relay:address()
    local client = asio.spawn(ends.connect, relayed, { verify = false, server_name = 'x.org' })
    local from = assert(relay:accept())
    local to = assert(asio.connect('127.0.0.1', port))
    to:write(from:read_some())
    t.wait_until(function() return asked end)
    for _ = 1, 100 do
      if not to:write(('x'):rep(100000)) then break end
    end
    local message, code = ends.error_of(errors)
    lu.assertEquals({ message, code }, { 'the peer sends too much before the handshake', 'EPROTO' })
    to:abort()
    from:abort()
    client:join()
    relay:close()
  end)
end

-- ALPN --------------------------------------------------------------------------------------------

function T.test_alpn()
  for _, row in ipairs {
    { { 'h2', 'http/1.1' }, { 'http/1.1', 'h2' }, 'h2' },
    { { 'h2', 'http/1.1' }, { 'http/1.1' }, 'http/1.1' },
    { 'h2', 'h2', 'h2' }, { nil, { 'h2' }, nil }, { { 'h2' }, nil, nil }, { {}, { 'h2' }, nil },
    { { ('x'):rep(255), 'y' }, { ('x'):rep(254), ('x'):rep(255) }, ('x'):rep(255) },
  } do
    local told
    ends.with(ends.identity('server', { alpn = row[1] }), function(port)
      lu.assertEquals(ends.visit(port, ends.trust { alpn = row[2] }).alpn, row[3])
      lu.assertEquals(told, row[3])
    end, function(conn)
      told = conn:tls().alpn
      conn:write(conn:read_line(), '\n')
      conn:close()
    end)
  end
  ends.with(ends.identity('server', { alpn = { 'h2' } }), function(port, errors)
    local _, message, code = ends.connect(port, ends.trust { alpn = { 'h3', 'http/1.1' } })
    lu.assertEquals(code, 'EPROTO')
    lu.assertStrContains(message, 'no application protocol')
    message, code = ends.error_of(errors)
    lu.assertEquals(code, 'EPROTO')
    lu.assertStrContains(message, 'application protocol')
  end)
end

-- New certificates --------------------------------------------------------------------------------

function T.test_set_tls()
  ends.with(ends.identity 'server', function(port, _, server)
    local before = assert(ends.connect(port, ends.trust()))
    lu.assertEquals(ends.echoed(before).peer.subject, 'CN=server')
    assert(server:set_tls(ends.identity 'server2'))
    lu.assertEquals(given(port), 'server2')
    for _, bad in ipairs {
      { cert = file 'nothing.pem' }, { cert = file 'key_mismatch.pem', key = file 'key_mismatch.key' }, {},
      ends.identity('server', { names = { ['x.org'] = { cert = file 'garbage.pem' } } }),
    } do
      local ok, message, code = server:set_tls(bad)
      lu.assertNil(ok)
      lu.assertIsString(message)
      lu.assertTrue(code == 'ENOENT' or code == 'EINVAL', code)
    end
    t.bad_argument(1, 'set_tls', function() server:set_tls { unknown = 1 } end)
    t.bad_argument(1, 'set_tls', function() server:set_tls() end)
    lu.assertEquals(given(port), 'server2')
    lu.assertEquals(ends.echoed(before).peer.subject, 'CN=server')
    before:close()
    assert(server:set_tls(ends.identity('server', { names = { ['example.org'] = ends.identity 'example' } })))
    lu.assertEquals(given(port, 'example.org'), 'example')
  end)
  local plain = assert(asio.server('127.0.0.1', 0, print))
  t.raises("'set_tls'", plain.set_tls, plain, ends.identity 'server')
  plain:close()
end

-- A handshake that goes on ends with what it began with.
function T.test_set_tls_during_a_handshake()
  local asked, replaced = asio.event(), asio.event()
  local function names()
    asked:set()
    replaced:wait()
  end
  ends.with(ends.identity('server', { names = names }), function(port, _, server)
    local client = asio.spawn(given, port, 'x.org')
    asked:wait()
    assert(server:set_tls(ends.identity 'server2'))
    collectgarbage()
    replaced:set()
    lu.assertEquals({ client:join() }, { true, 'server' })
    lu.assertEquals(given(port, 'x.org'), 'server2')
  end)
end

-- Errors, and limits ------------------------------------------------------------------------------

function T.test_errors_are_told_and_counted()
  ends.with(ends.identity('server', { handshake_timeout = 0.1 * t.patience }), function(port, errors)
    local before = asio.stats()
    for _, row in ipairs {
      { 'GET / HTTP/1.1\r\n\r\n', 'EPROTO', 'http request' }, { ('x'):rep(1000), 'EPROTO', 'TLS: ' },
      { '\22\3\1\0\5', 'ETIMEDOUT', 'timed out' }, { '', 'ETIMEDOUT', 'timed out' },
      { '\22\3\1\2\0\1\0\1\252\3\3', 'EOF', 'closed', true }, { '', 'EOF', 'closed', true },
      { '\21\3\1\0\2\2\40', 'EPROTO', 'TLS: ' },
    } do
      local peer = raw.connect(port)
      if row[1] ~= '' then peer:send(row[1]) end
      if row[4] then peer:close() end
      local message, code, info = ends.error_of(errors)
      lu.assertEquals(code, row[2], message)
      lu.assertStrContains(message, row[3])
      lu.assertEquals({ info.peer, type(info.port) }, { '127.0.0.1', 'number' })
      if not row[4] then peer:close() end
    end
    local peer = raw.connect(port)
    peer:send '\22\3\1'
    ends.in_handshake()
    peer:reset()
    local _, code, info = ends.error_of(errors)
    lu.assertEquals({ code, info.peer, type(info.port) }, { 'ECONNRESET', '127.0.0.1', 'number' })
    ends.visit(port, ends.trust())
    local after = asio.stats()
    lu.assertEquals(after.handshakes_failed - before.handshakes_failed, 8)
    lu.assertEquals(after.handshakes - before.handshakes, 1)
  end)
end

function T.test_a_client_does_not_wait_for_ever()
  can.need 'tls'
  local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:read_all() end))
  local _, port = server:address()
  for _, row in ipairs { { nil, 0.05 }, { 0.05, nil }, { 0.05, 5 }, { 5, 0.05 } } do
    local started = asio.now()
    local tls = { verify = false, handshake_timeout = row[2] }
    t.failure('ETIMEDOUT', asio.connect('127.0.0.1', port, { timeout = row[1], tls = tls }))
    local took = asio.now() - started
    lu.assertTrue(took >= 0.045 and took < 2 * t.patience, tostring(took))
  end
  local waiting = asio.spawn(ends.connect, port, { verify = false })
  ends.in_handshake()
  waiting:cancel()
  lu.assertFalse((waiting:join()))
  server:close()
end

function T.test_half_open_ones_count()
  ends.with(ends.identity('server', { handshake_timeout = 30 }), function(port)
    local first = raw.connect(port)
    ends.in_handshake()
    local second = asio.spawn(ends.visit, port, ends.trust())
    lu.assertNil((second:join(0.1)))
    first:close()
    lu.assertTrue((second:join()))
  end, nil, { max_connections = 1 })
end

function T.test_half_open_ones_do_not_hold_up_others()
  ends.with(ends.identity('server', { handshake_timeout = 30 }), function(port)
    local served = assert(ends.connect(port, ends.trust()))
    local silent = {}
    for i = 1, 1000 do
      silent[i] = raw.connect(port)
      if i % 2 == 0 then silent[i]:send '\22\3\1\2\0\1\0\1\252' end
      if i % 20 == 0 then
        ends.echoed(served)
        ends.visit(port, ends.trust())
      end
    end
    served:close()
    for i = 1, 1000 do silent[i]:close() end
  end)
end

function T.test_closing_the_server_ends_handshakes()
  for _, how in ipairs { 'close', 'shutdown' } do
    ends.with(ends.identity('server', { handshake_timeout = 30 }), function(port, _, server)
      local silent = raw.connect(port)
      ends.in_handshake()
      if how == 'shutdown' then
        t.failure('ETIMEDOUT', server:shutdown(0.05))
      else
        server:close()
      end
      silent:close()
      t.wait_until(function() return ends.handshakes() == 0 end, 'the end of the handshake')
    end)
  end
end

function T.test_accept()
  local tls = ends.identity('server', { handshake_timeout = 30 })
  local server = assert(asio.server('127.0.0.1', 0, nil, { tls = tls }))
  local _, port = server:address()
  local silent = raw.connect(port)
  local first = assert(server:accept())
  lu.assertTrue(first:write 'never in clear\n')
  local client = asio.spawn(ends.visit, port, ends.trust())
  local second = assert(server:accept())
  lu.assertEquals(second:read_line(), 'hello')
  lu.assertTrue(second:write 'hello\n')
  lu.assertTrue((client:join()))
  second:close()
  lu.assertNil((silent:recv(100, 0)))
  silent:send 'hello\n'
  lu.assertNil((first:read_line()))
  first:close()
  lu.assertNotStrContains(t.recv(silent), 'clear')
  silent:close()
  -- What TLS has agreed on is told when it has.
  client = asio.spawn(function() return assert(ends.connect(port, ends.trust())) end)
  local third = assert(server:accept())
  lu.assertEquals(third:tls().version, 'TLSv1.3')
  select(2, client:join()):close()
  third:close()
  local gone = raw.connect(port)
  local fourth = assert(server:accept())
  gone:close()
  t.failure('EBADF', fourth:tls())
  server:close()
end

-- A half-close before the handshake is over ended it.
function T.test_a_half_close_during_the_handshake()
  local server = assert(asio.server('127.0.0.1', 0, nil, { tls = ends.identity 'server' }))
  local _, port = server:address()
  for _, text in ipairs { '', 'all of it' } do
    local client = asio.spawn(function()
      local conn = assert(ends.connect(port, ends.trust()))
      lu.assertEquals(conn:read_all(), text)
      conn:write 'an answer'
      conn:close()
    end)
    local conn = assert(server:accept())
    conn:write(text)
    lu.assertTrue(conn:shutdown())
    t.failure('EPIPE', conn:write 'more')
    lu.assertEquals(conn:read_all(), 'an answer')
    conn:close()
    lu.assertTrue((client:join()))
  end
  server:close()
end

-- The handshake has not begun when the connection is closed.
function T.test_what_is_written_and_closed_before_the_handshake_arrives()
  local told = 0
  local server = assert(asio.server('127.0.0.1', 0, nil, {
    tls = ends.identity 'server', on_tls_error = function() told = told + 1 end,
  }))
  local _, port = server:address()
  local failed, done = asio.stats().handshakes_failed, asio.stats().handshakes
  local client = asio.spawn(function()
    local conn = assert(ends.connect(port, ends.trust()))
    local text = assert(conn:read_all())
    conn:close()
    return text
  end)
  local conn = assert(server:accept())
  conn:write(('x'):rep(50000))
  conn:close()
  lu.assertEquals({ client:join() }, { true, ('x'):rep(50000) })
  lu.assertEquals({ told, asio.stats().handshakes_failed, asio.stats().handshakes }, { 0, failed, done + 1 })
  server:close()
end

-- What is written waits for the handshake; when the peer goes before, nothing of the connection stays.
function T.test_a_peer_that_goes_before_what_is_written()
  local server = assert(asio.server('127.0.0.1', 0, nil, { tls = ends.identity 'server' }))
  for _, how in ipairs { 'close', 'reset' } do
    local peer = raw.connect(select(2, server:address()))
    local conn = assert(server:accept())
    assert(conn:write 'waits')
    ends.in_handshake()
    peer[how](peer)
    lu.assertNil((conn:flush()))
    lu.assertNil((conn:write 'more'))
    conn:close()
    peer = raw.connect(select(2, server:address()))
    conn = assert(server:accept())
    assert(conn:write 'waits')
    conn:close()
    peer[how](peer)
  end
  server:close()
end

-- Sockets of other kinds --------------------------------------------------------------------------

local function reply(conn)
  conn:write(conn:read_line(), '\n')
  conn:close()
end

local function visit_unix(name, tls)
  local conn = assert(asio.connect(name, { tls = tls }))
  local info = ends.echoed(conn)
  conn:close()
  return info
end

function T.test_unix_sockets()
  can.need 'unix_sockets'
  local dir, remove = rawunix.directory()
  local name = 'unix:' .. dir .. '/s'
  local server = assert(asio.server(name, reply, { tls = ends.identity 'server' }))
  local client = ends.trust { server_name = 'localhost' }
  lu.assertFalse(visit_unix(name, client).resumed)
  lu.assertTrue(visit_unix(name, client).resumed)
  t.bad_argument(2, 'connect', function() asio.connect(name, { tls = ends.trust() }) end)
  local conn, _, code = asio.connect(name, { tls = ends.trust { server_name = 'elsewhere' } })
  lu.assertEquals({ conn, code }, { nil, 'HOSTNAME_MISMATCH' })
  server:close()
  remove()
end

function T.test_descriptors()
  can.need 'descriptors'
  for _, handler in ipairs { reply, false } do
    local listener = raw.listen()
    local port, fd = listener:port(), listener.fd
    listener.fd = -1
    local server = assert(asio.server(fd, handler or nil, { tls = ends.identity 'server' }))
    local client = asio.spawn(ends.visit, port, ends.trust())
    if not handler then reply(assert(server:accept())) end
    lu.assertTrue((client:join()))
    server:close()
  end
end

function T.test_systemd()
  can.need('fork', 'numbers')
  local listener = raw.listen()
  local out = rawunix.lend(listener.fd, 8, function()
    return t.quiet_child(function(dir)
      local lib = require 'asio'
      local tls = { cert = dir .. 'server.pem', key = dir .. 'server.key' }
      local server = assert(lib.server('systemd:web', function(conn)
        conn:write(conn:tls().version)
        conn:close()
      end, { tls = tls }))
      lib.run(function()
        local ip, port = server:address()
        local conn = assert(lib.connect(ip, port, { tls = { ca = dir .. 'ca.pem' } }))
        print((conn:read_all()))
        conn:close()
        server:close()
      end)
    end, { args = { certs.dir() }, wrap = ('sh -c %s sh'):format(t.quote(
      'exec 3<&8 8<&-; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec "$@"')) })
  end)
  lu.assertEquals(out, 'TLSv1.3\n')
  listener:close()
end

return T
