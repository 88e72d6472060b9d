-- A server with unlink_stale took the file of another server that had been bound and did not listen yet for
-- that of a dead one, and removed it.
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local rawunix = require 'rawunix'
local t = require 'support'

local T = {}

function T.test_a_server_between_bind_and_listen()
  local dir = os.tmpname()
  os.remove(dir)
  rawunix.mkdir(dir)
  local path = dir .. '/s'
  local wrap = t.strace '-e trace=listen -e inject=listen:delay_enter=12000 -o /dev/null'
  local script = ([[
    local a = require 'asio'
    local s = assert(a.server('unix:%s', function(c) c:write 'first' end))
    a.spawn(function() a.sleep(1) s:close() end)
    a.run()]]):format(path)
  local first = io.popen(('%s %s %s -e %s'):format(t.ignore_leaks, wrap, t.launcher, t.quote(script)))
  while not rawunix.kind(path) do asio.sleep(0) end
  t.failure('EADDRINUSE', asio.server('unix:' .. path, print, { unlink_stale = true }))
  local conn = assert(asio.connect('unix:' .. path))
  lu.assertEquals(conn:read(5), 'first')
  conn:close()
  first:close()
  os.execute('rm -rf ' .. dir)
end

-- Many at once: one has the name, and answers.
function T.test_servers_that_start_at_once()
  local dir = os.tmpname()
  os.remove(dir)
  rawunix.mkdir(dir)
  local path = dir .. '/s'
  local script = ([[
    local a, path = require 'asio', %q
    local s = a.server('unix:' .. path, function(c) c:write 'alive' end, { unlink_stale = true })
    io.write(s and 'won' or 'lost') io.flush()
    if s then a.spawn(function() a.sleep(1.5) s:close() end) a.run() end]]):format(path)
  rawunix.listen(path):close() -- stale
  lu.assertEquals(rawunix.kind(path), 'socket')
  local children, won = {}, 0
  for i = 1, 6 do children[i] = io.popen(('%s -e %s'):format(t.launcher, t.quote(script))) end
  asio.sleep(0.7)
  local conn = assert(asio.connect('unix:' .. path))
  lu.assertEquals(conn:read(5), 'alive')
  conn:close()
  for _, child in ipairs(children) do
    if child:read '*a' == 'won' then won = won + 1 end
    child:close()
  end
  lu.assertEquals(won, 1)
  os.execute('rm -rf ' .. dir)
end

return T
