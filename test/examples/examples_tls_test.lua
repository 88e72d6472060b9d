-- The examples that use TLS, with certificates that examples/certs.sh makes.
--
-- test: 5 s
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'
local certs = require 'certs'
local programs = require 'programs'

local T = {}

local function with_certificates(fn)
  can.need('shell', 'tls')
  certs.with_examples(fn)
end

local function connect(port, tls)
  local conn = assert(asio.connect('localhost', port, { tls = tls, timeout = 10 * t.patience }))
  conn:set_timeout(10 * t.patience)
  return conn
end

local function subject(conn)
  return conn:tls().peer.subject .. ' ' .. table.concat(conn:tls().peer.names, ' ')
end

local function serve(port, dir)
  return 'tls_server', {}, port, 'localhost=' .. dir, '*.example.org=' .. dir .. '/example'
end

local function greeting(conn)
  return (conn:read_line():gsub(', and have TLSv1%.%d$', ''))
end

function T.test_tls_server()
  with_certificates(function(dir)
    local rest = programs.with(function(port)
      local conn = connect(port, { ca = dir .. '/ca.pem' })
      lu.assertEquals(subject(conn), 'CN=Development server localhost')
      lu.assertEquals(greeting(conn), 'you asked for localhost')
      conn:write 'one\r\ntwo\n'
      conn:shutdown()
      lu.assertEquals(conn:read_all(), 'one\ntwo\n')
      conn:close()

      conn = connect(port, { ca = dir .. '/example/ca.pem', server_name = 'www.example.org' })
      lu.assertEquals(subject(conn), 'CN=Development server example.org *.example.org')
      lu.assertEquals(greeting(conn), 'you asked for www.example.org')
      conn:close()

      t.failure('UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
        asio.connect('localhost', port, { tls = { ca = dir .. '/example/ca.pem' } }))
    end, serve(0, dir))
    lu.assertEquals(rest, '127.0.0.1, localhost: the peer refuses: unknown CA (EPROTO)\n')
  end)
end

function T.test_tls_server_without_certificates()
  with_certificates(function(dir)
    local out, status = programs.run_example('tls_server', 0, 'localhost=' .. dir .. '/nothing')
    lu.assertStrMatches(out, 'cannot serve: .*no such file or directory.*\n')
    lu.assertEquals(status, 1)
    out, status = programs.run_example('tls_server', 0, 'nonsense')
    lu.assertStrContains(out, 'usage: ')
    lu.assertEquals(status, 2)
  end)
end

-- The client, with lines on its standard input.
local function client(lines, ...)
  local words = { t.quote(t.launcher), t.quote(programs.example 'tls_client') }
  for _, word in ipairs { ... } do words[#words + 1] = t.quote(word) end
  local command = ("printf '%s' | %s 2>&1"):format(lines, table.concat(words, ' '))
  return programs.run('sh -c ' .. t.quote(command))
end

function T.test_tls_client()
  with_certificates(function(dir)
    programs.with(function(port)
      local out, status = client('hello\\nbye\\n', 'localhost', port, dir .. '/ca.pem')
      lu.assertStrMatches(out, 'TLSv1%.%d, TLS_[%w_]+\n' ..
        'CN=Development server, issued by CN=Development ca, until 20%d%d%-%d%d%-%d%d\n' ..
        'you asked for localhost, and have TLSv1%.%d\nhello\nbye\n')
      lu.assertEquals(status, 0)

      out, status = client('', 'localhost', port, dir .. '/example/ca.pem')
      lu.assertStrContains(out, ('localhost port %d: unable to get local issuer certificate'):format(port))
      lu.assertEquals(status, 1)
    end, serve(0, dir))
  end)
end

function T.test_tls_client_told_nothing()
  local out, status = programs.run_example('tls_client', 'localhost')
  lu.assertEquals(out, 'usage: tls_client.lua HOST PORT [CA]\n')
  lu.assertEquals(status, 2)
end

function T.test_mutual_tls()
  with_certificates(function(dir)
    local out, status = programs.run_example('mutual_tls', dir)
    lu.assertStrContains(out, 'client:\twelcome, CN=Development client\t\n')
    lu.assertStrContains(out, 'server:\tTLS: peer did not return a certificate\tEPROTO\n')
    lu.assertStrMatches(out, '.*client:\t[^\n]*\tEPROTO\n.*')
    lu.assertEquals(status, 0)
  end)
end

function T.test_smtp_starttls()
  with_certificates(function(dir)
    local out, status = programs.run_example('smtp_starttls', dir)
    lu.assertStrMatches(out, 'S: 220 localhost ready\nC: EHLO client%.example\nS: 250%-localhost\n' ..
      'S: 250 STARTTLS\nC: STARTTLS\nS: 220 go ahead\n   TLSv1%.%d\nC: EHLO .*' ..
      'S: 250 took 3 lines\nC: QUIT\nS: 221 bye\n')
    lu.assertEquals(status, 0)
    out, status = programs.run_example('smtp_starttls', dir .. '/nothing')
    lu.assertStrContains(out, 'no such file or directory')
    lu.assertEquals(status, 1)
  end)
end

function T.test_tls_terminator()
  with_certificates(function(dir)
    local backend = assert(asio.server('127.0.0.1', 0, function(conn)
      conn:write('you said ', conn:read_all())
      conn:close()
    end))
    local function ask(port, tls)
      local conn = connect(port, tls)
      conn:write 'something'
      conn:shutdown()
      lu.assertEquals(conn:read_all(), 'you said something')
      conn:close()
    end
    local rest = programs.with(function(port, _, program)
      ask(port, { ca = dir .. '/ca.pem' })
      local before = connect(port, { ca = dir .. '/ca.pem' })
      os.execute(('cp %s/example/server.* %s'):format(t.quote(dir), t.quote(dir)))
      program:hangup()
      lu.assertEquals(program:line(), 'certificates\treloaded')
      ask(port, { ca = dir .. '/example/ca.pem', server_name = 'example.org' })
      before:write 'still there'
      before:shutdown()
      lu.assertEquals(before:read_all(), 'you said still there')
      before:close()

      os.remove(dir .. '/server.key')
      program:hangup()
      lu.assertStrMatches(program:line(), 'certificates\tstay as they were: .*no such file or directory.*')
      ask(port, { ca = dir .. '/example/ca.pem', server_name = 'example.org' })
    end, 'tls_terminator', {}, 0, '127.0.0.1', (select(2, backend:address())), dir)
    lu.assertEquals(rest, '')
    backend:close()
  end)
end

function T.test_tls_terminator_without_a_backend()
  with_certificates(function(dir)
    local nobody = require('raw').listen()
    local target = nobody:port()
    nobody:close()
    local rest = programs.with(function(port)
      local conn, _, code = asio.connect('localhost', port, { tls = { ca = dir .. '/ca.pem' } })
      if conn then
        code = select(3, conn:read(1))
        conn:close()
      end
      lu.assertEquals(code, 'ECONNRESET')
    end, 'tls_terminator', {}, 0, '127.0.0.1', target, dir)
    lu.assertEquals(rest, ('127.0.0.1 port %d: connection refused\n'):format(target))
  end)
end

return T
