-- The key-value server among the examples that speaks the protocol of Redis: with the commands and the
-- benchmark of Redis, side by side with its server, and byte by byte.
--
-- test: 15 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local can = require 'can'
local programs = require 'programs'

local T = {}

-- Calls fn(port) with the server on two threads; it has to report nothing.
local function with_server(fn, env)
  lu.assertEquals(programs.with(fn, 'redis_server', { env = env }, '127.0.0.1', 0, 2), '')
end

local function connect(port)
  local conn = assert(asio.connect('127.0.0.1', port))
  conn:set_timeout(20 * t.patience)
  return conn
end

-- Sends all and returns all answers: the server has to end the connection by itself.
local function answers(port, ...)
  local conn = connect(port)
  conn:write(...)
  conn:shutdown()
  local all, message = conn:read_all(math.huge)
  conn:close()
  return all or message
end

local function command(...)
  local out = { ('*%d\r\n'):format(select('#', ...)) }
  for i, text in ipairs { ... } do out[i + 1] = ('$%d\r\n%s\r\n'):format(#text, text) end
  return table.concat(out)
end

local function expect(conn, ...)
  for _, line in ipairs { ... } do
    local found, message = conn:read_line()
    lu.assertEquals(found or message, line)
  end
end

-- Commands ----------------------------------------------------------------------------------------

-- What both servers are asked, a line a command, and have to answer alike.
local DIALOGUE = [[
PING
ping hello
ECHO text
SET colour blue
GET colour
get COLOUR
SET colour red NX
SET nothing red XX
SET colour green XX
GET colour
SET once 1 NX EX 100
TTL once
TTL colour
TTL nothing
PTTL nothing
PTTL colour
SET once 2 PX 100000
TTL once
SET once 3
TTL once
EXPIRE once 50
TTL once
PERSIST once
PERSIST once
TTL once
EXPIRE nothing 50
EXPIRE once 0
GET once
EXPIRE colour -1
EXISTS colour
EXPIRE colour soon
SET k v EX
SET k v EX 0
SET k v EX -5
SET k v PX ten
SET k v NX XX
SET k v EX 5 PX 5
SET k v SOMETIMES
SET k
SET
GET
GET a b
EXISTS k
INCR visits
INCR visits
INCRBY visits 40
DECR visits
DECRBY visits 50
GET visits
INCRBY visits many
INCRBY visits 1.5
SET word abc
INCR word
GET word
SET padded 007
INCR padded
SET number 41
INCR number
GET number
INCR number
MSET a 1 b 2 c 3
MGET a b nothing c
MSET a 1 b
EXISTS a b c d a
DEL a b d a
DEL
DBSIZE
SELECT 0
SELECT 99
SELECT x
CONFIG GET save
CONFIG GET appendonly
FLUSHALL
DBSIZE
GET word
]]

local function by_words(text)
  return (text:gsub('([^\n]+)\n', function(line)
    local words = {}
    for word in line:gmatch '%S+' do words[#words + 1] = word end
    return command(unpack(words))
  end))
end

-- Both ways of sending them; and what a client may get wrong.
local function asked()
  local list = {
    DIALOGUE, by_words(DIALOGUE),
    'PING\r\nQUIT\r\nPING\r\n', '\r\n\n  \r\nPING\r\n', '*0\r\n*-1\r\nPING\r\n',
  }
  for _, wrong in ipairs {
    '*1\r\n+PING\r\n', '*1\r\n$-1\r\nPING\r\n', '*1\r\n$x\r\nPING\r\n', '*x\r\n', '*99999999999\r\n',
    '*1\r\n$9999999999\r\n', '*1\r\n$\r\n', '*\r\n', '*01\r\n', '*1\r\n$04\r\nPING\r\n', '*-0\r\n',
  } do
    list[#list + 1] = 'PING\r\n' .. wrong .. 'PING\r\n'
  end
  for _, text in ipairs {
    '', ' ', '\r\n', 'a\0b', '*1\r\n$4\r\nPING\r\n', ('x'):rep(100), ('x'):rep(300000),
  } do
    list[#list + 1] = table.concat {
      command('SET', 'key', text), command('GET', 'key'), command('MGET', 'key', 'no', 'key'),
      command('SET', text, 'value'), command('GET', text), command('DEL', text, text), command('ECHO', text),
    }
  end
  return list
end

-- Calls fn(port) with the real one.
local function with_redis(fn)
  can.run 'redis-server'
  local port = programs.free_port()
  local line = ("redis-server --port %d --bind 127.0.0.1 --save '' --appendonly no --dir /tmp"):format(port)
  programs.talk(line, function(program)
    program:expect 'Ready to accept connections'
    fn(port)
  end)
end

function T.test_redis_server_answers_as_redis_does()
  can.run 'redis-server'
  with_server(function(port)
    with_redis(function(real)
      for _, text in ipairs(asked()) do
        lu.assertEquals(answers(port, text), answers(real, text), text:sub(1, 100))
      end
    end)
  end)
end

-- The same without Redis: a few of the answers by heart.
function T.test_commands()
  with_server(function(port)
    local function says(lines, wanted) lu.assertEquals(answers(port, by_words(lines)), wanted) end
    says('SET a 5 PX 90000\nGET a\nTTL a\nINCR a\nTTL a\nMGET a b\nDEL a b\nGET a\n',
      '+OK\r\n$1\r\n5\r\n:90\r\n:6\r\n:90\r\n*2\r\n$1\r\n6\r\n$-1\r\n:1\r\n$-1\r\n')
    lu.assertEquals(answers(port, 'ping\r\nFLY me\n*1\r\n$2\r\n\1\255\r\nGET\n'), table.concat {
      '+PONG\r\n', "-ERR unknown command 'FLY'\r\n", "-ERR unknown command '??'\r\n",
      "-ERR wrong number of arguments for 'get' command\r\n",
    })
    says('SET n 9007199254740990\nINCR n\nINCR n\nGET n\n', '+OK\r\n:9007199254740991\r\n' ..
      '-ERR increment or decrement would overflow\r\n$16\r\n9007199254740991\r\n')
    says('SET n 9007199254740992\nINCR n\n', '+OK\r\n-ERR value is not an integer or out of range\r\n')
    says('SET n 1 EX 99999999999\nEXPIRE n 99999999999\n',
      "-ERR invalid expire time in 'set' command\r\n-ERR invalid expire time in 'expire' command\r\n")
    lu.assertStrContains(answers(port, 'INFO\r\n'), 'redis_version:')
    lu.assertEquals(answers(port, 'COMMAND\r\nCOMMAND DOCS\r\n'), '*0\r\n*0\r\n')
  end)
end

function T.test_keys_expire()
  with_server(function(port)
    local conn = connect(port)
    conn:write 'SET short lived PX 30\n'
    expect(conn, '+OK')
    t.wait_until(function()
      conn:write 'EXISTS short\n'
      return conn:read_line() == ':0'
    end, 'expired')
    conn:close()
  end)
end

-- All threads have the same keys, and none counts twice.
function T.test_many_clients_count_together()
  with_server(function(port)
    asio.group(function(g)
      for _ = 1, 8 do
        g:spawn(function()
          local out = answers(port, by_words('INCR visits\n'):rep(500))
          lu.assertEquals(select(2, out:gsub('\r\n', '')), 500)
        end)
      end
    end)
    lu.assertEquals(answers(port, 'GET visits\n'), '$4\r\n4000\r\n')
  end)
end

-- Bytes -------------------------------------------------------------------------------------------

function T.test_commands_in_pieces()
  with_server(function(port)
    local text = by_words('SET key value\nGET key\nMSET a 1 b 22\nMGET a b\n') .. 'PING\r\n' ..
      command('SET', ('k'):rep(150), ('v'):rep(12345)) .. command('GET', ('k'):rep(150))
    local wanted = answers(port, text)
    lu.assertStrContains(wanted, '+PONG\r\n+OK\r\n$12345\r\nvvv')
    for _, size in ipairs { 1, 2, 3, 7, 100 } do
      local conn = connect(port)
      for at = 1, #text, size do
        if at < 300 or at % 50 == 0 or size > 50 then
          conn:write(text:sub(at, at + size - 1))
          conn:flush()
        else -- not byte by byte to the end
          conn:write(text:sub(at))
          break
        end
      end
      conn:shutdown()
      lu.assertEquals(conn:read_all(), wanted, size)
      conn:close()
    end
  end)
end

-- Sizes are bounded, and what is refused is not kept.
function T.test_bounds()
  with_server(function(port)
    local function protocol_error(what, ...)
      lu.assertStrContains(answers(port, ...), '-ERR Protocol error: ' .. what)
    end
    protocol_error('invalid multibulk length', '*2000\r\n')
    protocol_error('invalid bulk length', '*2\r\n$3\r\nGET\r\n$1048577\r\n')
    protocol_error('too big inline request', ('x'):rep(8192))
    protocol_error('invalid bulk length', '*2\r\n$', ('1'):rep(100))
    protocol_error('too many bytes in a command',
      '*6\r\n$4\r\nMGET\r\n', (('$1048576\r\n%s\r\n'):format(('x'):rep(1048576))):rep(5))

    local large = ('x'):rep(1048576)
    lu.assertEquals(answers(port, command('SET', 'first', large)), '+OK\r\n')
    lu.assertStrContains(answers(port, command('SET', 'second', large)), '-OOM command not allowed')
    lu.assertEquals(answers(port, 'EXISTS first second\nFLUSHALL\nSET second x\n'), ':1\r\n+OK\r\n+OK\r\n')
  end, 'MEMORY=1.5')
end

-- Clients that break off, or send anything, are nothing to report.
function T.test_noise()
  with_server(function(port)
    for i = 1, 200 do
      local noise = {}
      math.randomseed(i)
      local words = {
        '*1\r\n', '*3\r\n', '$3\r\n', 'SET\r\n', 'GET\r\n', '$0\r\n', '\r\n', '\n', 'x', ' ', '\0',
        '*', '$', '-1',
      }
      for k = 1, math.random(1, 40) do noise[k] = words[math.random(#words)] end
      local conn = connect(port)
      conn:write(table.concat(noise))
      if i % 2 == 0 then
        conn:shutdown()
        conn:read_all()
      end
      conn:abort()
    end
    lu.assertEquals(answers(port, 'PING\r\n'), '+PONG\r\n')
  end)
end

-- Redis' own clients ------------------------------------------------------------------------------

function T.test_redis_cli()
  can.run 'redis-cli'
  with_server(function(port)
    local typed = [[set colour "deep blue"\nget colour\nmget colour none\nincr n\nfly\n]]
    local out, status = programs.run(("sh -c %s"):format(t.quote(
      ("printf '%s' | redis-cli -p %d"):format(typed, port))))
    lu.assertEquals(status, 0, out)
    lu.assertEquals(out, "OK\ndeep blue\ndeep blue\n\n1\nERR unknown command 'fly'\n\n")
  end)
end

function T.test_redis_benchmark()
  can.run 'redis-benchmark'
  with_server(function(port)
    for options, count in pairs {
      ['-t ping,set,get,incr,mset -n 20000 -P 16 -r 1000'] = 6,
      ['-t ping,set,get,incr,mset -n 2000 -c 100'] = 6,
      ['-t set,get -n 200 -d 100000 -P 4'] = 2,
    } do
      local out, status = programs.run(('redis-benchmark -p %d -q --csv %s'):format(port, options))
      lu.assertEquals(status, 0, out)
      lu.assertNil(out:find('rror', 1, true), out)
      lu.assertEquals(select(2, out:gsub('"[%u_]+[^"\n]*","[%d.inf]+"', '')), count, out)
    end
  end)
end

return T
