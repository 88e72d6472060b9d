-- What test/oom runs in states that are short of memory: requests through a pool to a server. An answer that
-- comes is the right one, and no place in the pool is lost.
jit.off() -- a compiled loop without memory may crash LuaJIT 2.1
local asio = require 'asio'
local http = require 'asio.http'

asio.on_error(function() end)

local router = http.router()
router:get('/parts/:a/*b', function(req, res) res:send(req.params.a .. req.params.b) end)
router:post('/echo', function(req, res) res:send(200, { A = 'b', C = 'd', E = 1 }, (req:read_all())) end)
router:get('/chunks', function(_, res)
  for i = 1, 3 do res:write(('x'):rep(100 * i)) end
  res:finish { ['X-Trailer'] = 'a' }
end)
router:get('/large', function(_, res)
  res.headers['X-Large'] = ('y'):rep(3000)
  res:send(('l'):rep(100000))
end)

local server = assert(http.server('127.0.0.1', 0, router))
local _, port = server:address()
local url = 'http://127.0.0.1:' .. port
local pool = http.pool { per_host = 2 }
local wrong

local function try(want, method, path, body)
  local response, _, code = pool:request(method, url .. path, { timeout = 5, body = body })
  if code == 'ETIMEDOUT' then wrong = path .. ': timed out' end
  if response and response.status == 200 and response.body ~= want then wrong = path end
end

local function pieces()
  local n = 0
  return function()
    n = n + 1
    if n <= 3 then return ('p'):rep(1000) end
  end
end

-- The end of a body is found once, and taken, also if there was no memory for its trailers at first.
local function pipelined()
  local conn = assert(asio.connect('127.0.0.1', port))
  conn:set_timeout(5)
  conn:write('POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n',
    '5\r\nhello\r\n0\r\nX-A: a\r\n\r\n',
    'GET /none HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n')
  local text = conn:read_all()
  if text and text:find('HTTP/1.1 400', 1, true) then wrong = text end
  conn:close()
end

local function requests()
  for _ = 1, 2 do
    pcall(try, 'bc/d', 'GET', '/parts/b/c/d')
    pcall(try, 'hello', 'POST', '/echo', 'hello')
    pcall(try, ('p'):rep(3000), 'POST', '/echo', pieces())
    pcall(try, ('x'):rep(600), 'GET', '/chunks')
    pcall(try, ('l'):rep(100000), 'GET', '/large')
  end
  pipelined()
end

asio.run(function()
  local ok, err = pcall(requests)
  pcall(server.shutdown, server, 1)
  while not pcall(server.close, server) do end
  while not pcall(pool.close, pool) do end
  if not ok then error(err, 0) end
end)
if pool.used ~= 0 then wrong = 'a place is lost' end
if wrong then
  io.stderr:write(wrong, '\n')
  os.exit(1)
end
