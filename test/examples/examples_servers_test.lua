-- The examples that are servers of simple protocols: echo, chat, command_server; and port_scanner.
--
-- test: 9 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local raw = require 'raw'
local can = require 'can'
local programs = require 'programs'

local T = {}

local function connect(port)
  local conn = assert(asio.connect('127.0.0.1', port))
  conn:set_timeout(10 * t.patience)
  return conn
end

local function expect(conn, ...)
  for _, line in ipairs { ... } do
    local found, message = conn:read_line()
    lu.assertEquals(found or message, line)
  end
end

-- echo --------------------------------------------------------------------------------------------

local function echoes(conn)
  local sent = ('0123456789abcdef'):rep(65536)
  asio.group(function(g)
    g:spawn(function()
      conn:write(sent)
      conn:shutdown()
    end)
    t.same_bytes(assert(conn:read_all(math.huge)), sent)
  end)
  conn:close()
end

function T.test_echo()
  local rest = programs.with(function(port)
    echoes(connect(port))
    local waiting = connect(port)
    waiting:write 'x'
    lu.assertEquals(waiting:read(1), 'x')
    waiting:close()
  end, 'echo', {}, '127.0.0.1', 0)
  lu.assertEquals(rest, '')
end

function T.test_echo_lets_its_clients_go()
  local conn
  programs.with(function(port)
    conn = connect(port)
    conn:write 'x'
    lu.assertEquals(conn:read(1), 'x')
  end, 'echo', {}, '127.0.0.1', 0)
  t.failure(can.has 'resets' and 'ECONNRESET' or 'EOF', conn:read(1))
  conn:close()
end

function T.test_echo_over_a_unix_socket()
  local path = os.tmpname()
  os.remove(path)
  if raw.windows then path = [[\\.\pipe\]] .. path:match '[^/\\]*$' end
  programs.with(function(_, name)
    lu.assertEquals(name, 'unix:' .. path)
    local conn = assert(asio.connect(name))
    conn:set_timeout(10 * t.patience)
    echoes(conn)
  end, 'echo', {}, 'unix:' .. path)
  lu.assertNil((io.open(path)))
end

function T.test_servers_tell_when_they_cannot_listen()
  local server = assert(asio.server('127.0.0.1', 0, function() end))
  local _, port = server:address()
  local names = {
    'echo', 'chat', 'shared_chat', 'command_server', 'redis_server', 'socks5', 'transparent_proxy',
  }
  for _, name in ipairs(names) do
    local out, status = programs.run_example(name, '127.0.0.1', port)
    lu.assertEquals(out, 'cannot listen on 127.0.0.1: address already in use\n')
    lu.assertEquals(status, 1)
  end
  server:close()
end

-- chat --------------------------------------------------------------------------------------------

local function join(port, name)
  local conn = connect(port)
  lu.assertEquals(conn:read(11), 'your name? ')
  conn:write(name, '\n')
  return conn
end

function T.test_chat()
  local ann, bob
  programs.with(function(port)
    ann = join(port, 'ann')
    expect(ann, '* ann has joined', '* here: ann')
    bob = join(port, 'ann')
    lu.assertEquals(bob:read(18), 'taken; your name? ')
    bob:write 'bob the builder\r\nbob\r\n'
    bob:read_until '? '
    expect(bob, '* bob has joined', '* here: ann, bob')
    expect(ann, '* bob has joined')

    ann:write 'hello\27[2J\nhow are you?\n'
    for _, conn in ipairs { ann, bob } do expect(conn, 'ann: hello[2J', 'ann: how are you?') end
    bob:write '/who\nfine\n/quit\n'
    expect(bob, '* here: ann, bob', 'bob: fine')
    t.failure('EOF', bob:read_line())
    expect(ann, 'bob: fine', '* bob left')

    local carl = join(port, 'carl')
    expect(ann, '* carl has joined')
    carl:abort()
    lu.assertStrContains(ann:read_line(), '* carl is gone: connection reset')
    local dora = join(port, 'dora')
    expect(ann, '* dora has joined')
    dora:write(('x'):rep(2000))
    expect(ann, '* dora said too much at once')
    bob:close()
    dora:close()
  end, 'chat', {}, '127.0.0.1', 0)
  expect(ann, '* the server stops')
  t.failure('EOF', ann:read_line())
  ann:close()
end

-- Many lines at once are no reason to throw anybody out who reads.
function T.test_chat_a_burst()
  programs.with(function(port)
    local ann, bob = join(port, 'ann'), join(port, 'bob')
    expect(ann, '* ann has joined', '* here: ann', '* bob has joined')
    expect(bob, '* bob has joined', '* here: ann, bob')
    local line = ('x'):rep(900)
    asio.group(function(g)
      g:spawn(function() ann:write((line .. '\n'):rep(100)) end)
      g:spawn(function()
        for _ = 1, 100 do expect(bob, 'ann: ' .. line) end
      end)
      for _ = 1, 100 do expect(ann, 'ann: ' .. line) end
    end)
    ann:close()
    bob:close()
  end, 'chat', {}, '127.0.0.1', 0)
end

T.test_chat_nobody_waits_for_a_slow_reader = t.slow(60, function()
  programs.with(function(port)
    local slow = raw.connect(port, { buffers = 4096 })
    slow:send('slow\n', 5)
    local ann = join(port, 'ann')
    local text = ann:read_line() -- whoever was first
    lu.assertStrContains(text, ' has joined')
    local lines, gone = (('x'):rep(900) .. '\n'):rep(20), false
    for _ = 1, 2000 do
      ann:write(lines)
      local n = 0
      while n < 20 and not gone do
        local line = assert(ann:read_line())
        if line:find '^ann: x' then n = n + 1 end
        gone = gone or line == '* slow was too slow'
      end
      if gone then break end
    end
    lu.assertTrue(gone)
    slow:close()
    ann:close()
  end, 'chat', {}, '127.0.0.1', 0)
end)

-- shared_chat -------------------------------------------------------------------------------------

-- Reads until that line has come.
local function await(conn, wanted)
  local line
  repeat line = assert(conn:read_line(), wanted) until line == wanted
end

-- Which thread serves whom is the kernel's choice: what is said comes to all alike.
function T.test_shared_chat()
  local names, conns = { 'ann', 'bob', 'carl', 'dora', 'eve', 'fred', 'gina', 'hal' }, {}
  programs.with(function(port)
    for i, name in ipairs(names) do
      conns[i] = join(port, name)
      await(conns[i], '* here: ' .. table.concat(names, ', ', 1, i))
    end
    for i = 1, #names - 1 do await(conns[i], '* hal has joined') end
    local other = join(port, 'eve')
    lu.assertEquals(other:read(18), 'taken; your name? ')
    other:close()

    asio.group(function(g)
      for i, conn in ipairs(conns) do
        g:spawn(function()
          for n = 1, 50 do conn:write(('line %d\n'):format(n)) end
        end)
        g:spawn(function() -- every line of every client, those of each in their order
          local last = {}
          for _ = 1, #names * 50 do
            local name, n = conn:read_line():match '^(%l+): line (%d+)$'
            lu.assertEquals(tonumber(n), (last[name] or 0) + 1, names[i] .. ' reads ' .. name)
            last[name] = tonumber(n)
          end
        end)
      end
    end)

    conns[8]:write '/who\n/quit\n'
    expect(conns[8], '* here: ' .. table.concat(names, ', '))
    t.failure('EOF', conns[8]:read_line())
    for i = 1, 7 do expect(conns[i], '* hal left') end
    conns[8] = join(port, 'hal')
    for i = 1, 7 do expect(conns[i], '* hal has joined') end
    await(conns[8], '* here: ' .. table.concat(names, ', '))
    conns[1]:abort()
    for i = 2, 8 do lu.assertStrContains(conns[i]:read_line(), '* ann is gone: connection reset') end
  end, 'shared_chat', {}, '127.0.0.1', 0, 3)
  for i = 2, 8 do
    expect(conns[i], '* the server stops')
    t.failure('EOF', conns[i]:read_line())
    conns[i]:close()
  end
end

-- command_server ----------------------------------------------------------------------------------

function T.test_command_server()
  programs.with(function(port)
    local conn = connect(port)
    conn:write('SET colour deep  blue\r\nget colour\nGET nothing\nDEL colour\nDEL colour\nGET colour\n',
      'INCR visits\nINCR visits\nSET word abc\nINCR word\nCOUNT\nPING\n', 'SET\nSET x\nFLY\n\nset x \n')
    expect(conn, 'OK', 'VALUE deep  blue', 'NONE', 'OK', 'NONE', 'NONE', 'VALUE 1', 'VALUE 2', 'OK',
      'ERROR not a number', 'VALUE 2', 'PONG', 'ERROR something is missing',
      'ERROR something is missing', 'ERROR no such command', 'ERROR no such command',
      'ERROR something is missing')
    local other = connect(port)
    other:write 'GET visits\nQUIT\nGET visits\n'
    lu.assertEquals(other:read_all(), 'VALUE 2\n')
    other:close()
    conn:write('SET a ', ('x'):rep(9000), '\n')
    lu.assertEquals(conn:read_all(), 'ERROR the line is too long\n')
    conn:close()

    local many = connect(port)
    many:write(('INCR many\n'):rep(5000))
    many:shutdown()
    local answers = assert(many:read_all())
    lu.assertEquals(select(2, answers:gsub('VALUE', '')), 5000)
    lu.assertStrContains(answers, 'VALUE 5000\n')
    many:close()
  end, 'command_server', {}, '127.0.0.1', 0)
end

function T.test_command_server_closes_who_is_idle_and_takes_no_more_than_it_may()
  programs.with(function(port)
    local first, second = connect(port), connect(port)
    first:write 'PING\n'
    lu.assertEquals(first:read_line(), 'PONG')
    second:write 'PING\n'
    second:set_timeout(0.1)
    t.failure('ETIMEDOUT', second:read_line()) -- it waits
    first:write 'QUIT\n'
    t.failure('EOF', first:read_line())
    first:close()
    second:set_timeout(10 * t.patience)
    expect(second, 'PONG', 'ERROR idle for too long')
    t.failure('EOF', second:read_line())
    second:close()
  end, 'command_server', { env = 'IDLE=3 CLIENTS=1' }, '127.0.0.1', 0)
end

-- port_scanner ------------------------------------------------------------------------------------

function T.test_port_scanner()
  local polite = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write 'SSH-2.0-\1test\r\nmore'
    conn:read(1)
    conn:close()
  end))
  local _, port = polite:address()
  local first, last = math.max(port - 50, 1), math.min(port + 50, 65535)
  local out, status = programs.run_example('port_scanner', '127.0.0.1', first .. '-' .. last, 10, 2)
  lu.assertEquals(status, 0, out)
  lu.assertStrContains(out, port .. '\tSSH-2.0-.test\n')
  local open, closed, silent = out:match '\n(%d+) open, (%d+) closed, (%d+) without an answer\n$'
  lu.assertEquals(open + closed + silent, last - first + 1)
  lu.assertTrue(tonumber(open) >= 1)

  -- A name has several addresses.
  out = programs.run_example('port_scanner', 'localhost', port, 10, 2)
  lu.assertStrContains(out, port .. '\tSSH-2.0-.test\n1 open, 0 closed, 0 without an answer\n')
  polite:close()
end

function T.test_port_scanner_without_an_answer()
  local full, fill = raw.full_listener()
  local out = programs.run_example('port_scanner', '127.0.0.1', full:port(), 10, 0.3)
  lu.assertEquals(out, '0 open, 0 closed, 1 without an answer\n')
  full:close()
  for _, one in ipairs(fill or {}) do one:close() end
end

function T.test_port_scanner_interrupted()
  local connected
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    connected = true
    conn:read(1)
    conn:close()
  end))
  local _, port = server:address()
  local scanner = programs.start('port_scanner', {}, '127.0.0.1', port, 10, 60)
  t.wait_until(function() return connected end, 'the scanner', 10)
  lu.assertEquals(scanner:stop(), port .. '\t\n1 open, 0 closed, 0 without an answer\n')
  server:close()
end

function T.test_port_scanner_told_nonsense()
  for _, words in ipairs { {}, { 'localhost', 'all' }, { 'localhost', '0-5' }, { 'localhost', '5-70000' },
    { 'localhost', '9-5' }, { 'localhost', '1', 'many' } } do
    local out, status = programs.run_example('port_scanner', unpack(words))
    lu.assertEquals(status, 2)
    lu.assertStrContains(out, 'usage: ')
  end
  local out, status = programs.run_example('port_scanner', 'no such name')
  lu.assertEquals(out, 'no such name: unknown node or service\n')
  lu.assertEquals(status, 1)
end

return T
