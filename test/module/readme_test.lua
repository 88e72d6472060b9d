-- The README's programs, word for word, and the old style of scripts.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local t = require 'support'

local T = {}

-- The blocks of Lua in the README, in order.
local function readme_programs()
  local file = io.open(t.root .. 'README.md')
  lu.skipIf(not file, 'there is no README.md')
  local text = file:read '*a'
  file:close()
  local programs = {}
  for block in text:gmatch '\n```lua\n(.-)\n```' do programs[#programs + 1] = block end
  return programs
end

local function first_with(programs, words)
  for _, program in ipairs(programs) do
    if program:find(words, 1, true) then return program end
  end
  lu.fail('no program of the README has ' .. words)
end

-- Runs the server of the README in a network of its own, where its port is free, and a client: their output.
local function beside_its_server(words, port, client_text)
  t.need 'ss'
  local server, client = os.tmpname(), os.tmpname()
  for path, text in pairs { [server] = first_with(readme_programs(), words), [client] = client_text } do
    local file = io.open(path, 'w')
    file:write(text)
    file:close()
  end
  local out = t.quiet_child(function(launcher, server_script, client_script, its_port)
    os.execute(('%s %s & echo $! >%s.pid'):format(launcher, server_script, server_script))
    -- Asked of the kernel: a connection just to try would be one more client.
    local up
    for _ = 1, 500 do
      up = os.execute(('ss -Htln sport = :%s | grep -q LISTEN'):format(its_port)) == 0
      if up then break end
      os.execute 'sleep 0.02'
    end
    assert(up, 'the server does not listen')
    os.execute(('timeout 10 %s %s'):format(launcher, client_script))
    os.execute(('kill $(cat %s.pid); rm %s.pid'):format(server_script, server_script))
  end, { wrap = t.network(), args = { t.launcher, server, client, tostring(port) } })
  os.remove(server)
  os.remove(client)
  return out
end

function T.test_the_server_and_the_client()
  local out = beside_its_server('asio.server(', 1234, first_with(readme_programs(), 'asio.connect('))
  lu.assertStrContains(out, 'ping1-pong')
  lu.assertStrContains(out, 'ping2-pong')
end

function T.test_the_server_of_http()
  can.need 'http'
  local out = beside_its_server('http.server(', 8080, [[
    local http = require 'asio.http'
    require 'asio'.run(function()
      for _, path in ipairs { '/hello/world', '/' } do
        local response = assert(http.get('http://127.0.0.1:8080' .. path))
        print(response.status, response.body)
      end
    end)
  ]])
  lu.assertStrContains(out, '200\thello, world\n')
  lu.assertStrContains(out, '404\t')
end

function T.test_every_program_compiles()
  for i, program in ipairs(readme_programs()) do
    local chunk, err = loadstring(program, '=README block ' .. i)
    -- A block may also be an expression or a signature with a comment.
    if not chunk then chunk = loadstring('return ' .. program) end
    lu.assertNotNil(chunk, err)
  end
end

function T.test_scripts_of_the_first_version()
  -- Their handler spawns, their port is a string, and their holder is a global.
  local function connection_th(con)
    local data = con:read(5)
    con:write(data .. '-pong')
    con:close()
  end
  local holder = assert(asio.server('127.0.0.1', '0', function(con)
    asio.spawn_light_thread(connection_th, con)
  end))
  local _, port = holder:address()
  local answers = {}
  local function ping_send(text)
    local con = asio.connect('127.0.0.1', tostring(port))
    con:write(text)
    local answer = con:read(10)
    answers[#answers + 1] = answer
    con:close()
  end
  local one = asio.spawn_light_thread(ping_send, 'ping1')
  local two = asio.spawn_light_thread(ping_send, 'ping2')
  one:join()
  two:join()
  table.sort(answers)
  lu.assertEquals(answers, { 'ping1-pong', 'ping2-pong' })
  asio.destory_server(holder)
end

return T
