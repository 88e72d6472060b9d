-- What test/oom runs in states that are short of memory.
local asio = require 'asio'

asio.on_error(function() end)

local server = assert(asio.server('127.0.0.1', 0, function(conn)
  for line in conn:lines() do conn:write(line, '\n') end
  conn:close()
end))
local ip, port = server:address()

-- Errors of Lua through C, in the main chunk and in light threads.
for _ = 1, 3 do
  assert(not pcall(asio.sleep, 'soon'))
  assert(not asio.spawn(function() asio.sleep(0) error 'expected' end):join())
end

asio.run(function()
  local conn = assert(asio.connect(ip, port))
  conn:write(('x'):rep(3000), '\n')
  assert(#assert(conn:read_line()) == 3000)
  assert(select(3, asio.timeout(0, function() return conn:read(1) end)) == 'ETIMEDOUT')
  asio.group(function(g)
    local ch = asio.channel()
    g:spawn(function() ch:send 'sent' end)
    assert(ch:recv() == 'sent')
  end)
  local a, b = assert(asio.udp('127.0.0.1', 0)), assert(asio.udp('127.0.0.1', 0))
  a:send('datagram', b:address())
  assert(b:recv() == 'datagram')
  a:close()
  b:close()
  assert(not pcall(asio.group, function(g) g:spawn(error, 'expected') end))
  assert(#asio.threads() > 0)
  conn:close()
  server:close()
end)
