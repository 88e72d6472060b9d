-- Requests whose bodies are sent while the response is read: servers that answer as they read, early, with an
-- error; uploads that fail on either side; the pool is whole after each.
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
local ends = require 'http_ends'
local t = require 'support'

local T = {}

local answer = ends.answer
local CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
local SIZE = 10 * 1024 * 1024

local function text_of(size)
  local line = {}
  for i = 1, 4096 do line[i] = ('%08d'):format(i * 7919) end
  return table.concat(line):rep(math.ceil(size / 32768)):sub(1, size)
end

local BIG = text_of(SIZE)

local function source_of(text, size)
  local at = 1
  return function()
    if at > #text then return nil end
    at = at + size
    return text:sub(at - size, at - 1)
  end
end

-- The next piece of a request's body, framed in either way; nil: it is over, or cut.
local function reader_of(conn, request)
  if request.fields['transfer-encoding'] ~= 'chunked' then
    local left = tonumber(request.fields['content-length'] or 0)
    return function()
      local piece = left > 0 and conn:read_some(math.min(left, 65536)) or nil
      left = left - (piece and #piece or 0)
      return piece
    end
  end
  return function()
    local size = tonumber(conn:read_line() or '', 16)
    local piece = size and conn:read(size)
    if not piece or not conn:read_line() or size == 0 then return nil end
    return piece
  end
end

-- Requests are answered with what they bring, as it comes.
local function echo(conn)
  for request in function() return ends.read_head(conn) end do
    if not conn:write(CHUNKED) then return end
    for piece in reader_of(conn, request) do
      if not conn:write(('%x\r\n'):format(#piece), piece, '\r\n') then return end
    end
    if not conn:write '0\r\n\r\n' then return end
  end
end

local function bodies()
  return {
    { body = BIG }, { body = source_of(BIG, 50000) },
    { body = source_of(BIG, 50000), length = SIZE },
    { body = source_of(BIG, 1000003), expect = false }, { body = source_of('', 1) },
  }
end

-- A server that answers while it reads -------------------------------------------------------------

function T.test_an_echo_of_10_mb()
  ends.raw(echo, function(url, pool)
    for i, opts in ipairs(bodies()) do
      local response = assert(pool:post(url, opts))
      t.same_bytes(response.body, i == 5 and '' or BIG)
      lu.assertEquals(pool:stats(), { used = 0, idle = 1, hosts = 1 })
    end
  end)
end

function T.test_an_echo_that_is_streamed()
  ends.raw(echo, function(url, pool)
    for i, opts in ipairs(bodies()) do
      opts.stream = true
      local response = assert(pool:put(url, opts))
      lu.assertEquals(pool:stats().used, 1)
      t.same_bytes(assert(response:read_all()), i == 5 and '' or BIG)
      lu.assertEquals(pool:stats(), { used = 0, idle = 1, hosts = 1 })
    end
  end)
end

-- Each piece is sent when the last one has come back: neither way waits for the end of the other.
function T.test_turn_by_turn()
  ends.raw(echo, function(url, pool)
    local back, sent = asio.channel(1), 0
    local response = assert(pool:post(url, { stream = true, body = function()
      if sent > 0 then lu.assertEquals(back:recv(), 'piece ' .. sent) end
      sent = sent + 1
      return sent <= 100 and 'piece ' .. sent or nil
    end }))
    for piece in response:chunks() do back:send(piece) end
    lu.assertEquals(sent, 101)
    lu.assertEquals(pool:stats().idle, 1)
  end)
end

-- The same against the server of this library, which may say that it closes the connection afterwards.
function T.test_an_echo_by_the_server()
  local web = require 'web'
  web.with(function(req, res)
    for piece in req:chunks() do res:write(piece) end
  end, function(port)
    local url = (require 'over_tls'.on and 'https' or 'http') .. '://127.0.0.1:' .. port
    for i, opts in ipairs(bodies()) do
      for _, pool in ipairs { false, http.default_pool } do
        if type(opts.body) == 'function' and pool then opts = bodies()[i] end
        opts.pool = pool
        t.same_bytes(assert(http.post(url, ends.options(opts))).body, i == 5 and '' or BIG)
      end
    end
    http.default_pool:close()
    lu.assertEquals(http.default_pool:stats().used, 0)
  end, { max_body = math.huge })
end

-- Early answers ------------------------------------------------------------------------------------

-- An error ends the upload, also if the server keeps the connection and reads no more.
function T.test_an_early_error()
  for _, opts in ipairs { { body = BIG }, { body = function() return ('x'):rep(10000) end },
    { body = function() asio.sleep(60) end } } do
    ends.raw(function(conn)
      ends.read_head(conn)
      conn:write(answer('too large', '', '413 Too Large'))
      conn:flush()
      conn:read_until 'no such thing'
    end, function(url, pool)
      local response = assert(pool:post(url, opts))
      lu.assertEquals(response.status, 413)
      lu.assertEquals(response.body, 'too large')
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end)
  end
end

-- The whole answer comes before the body; the server reads that to its end all the same.
function T.test_an_early_answer_of_a_server_that_reads_on()
  for _, text in ipairs {
    answer 'thanks', 'HTTP/1.1 204 No Content\r\n\r\n', CHUNKED .. '6\r\nthanks\r\n0\r\n\r\n',
  } do
    local got
    ends.raw(function(conn)
      for request in function() return ends.read_head(conn) end do
        conn:write(text)
        conn:flush()
        got = 0
        for piece in reader_of(conn, request) do got = got + #piece end
      end
    end, function(url, pool)
      for i, opts in ipairs(bodies()) do
        for _, stream in ipairs { false, true } do
          if i == 1 or not stream then
            opts.stream = stream
            local response = assert(pool:post(url, opts))
            local body = stream and response:read_all() or response.body
            lu.assertEquals(body, text:find 'thanks' and 'thanks' or '')
            lu.assertEquals(pool:stats(), { used = 0, idle = 1, hosts = 1 })
          end
        end
      end
      assert(pool:get(url)) -- behind the last body
      lu.assertEquals(got, 0)
    end)
  end
end

-- A server that says so closes behind its answer (RFC 9112, 9.6): the rest of the body is for nothing.
function T.test_an_early_answer_of_a_server_that_closes()
  ends.raw(function(conn)
    ends.read_head(conn)
    conn:write(answer('thanks', 'Connection: close\r\n'))
    conn:flush()
    conn:read_until 'no such thing'
  end, function(url, pool)
    for _, body in ipairs { BIG, function() return 'x' end, function() asio.sleep(60) end } do
      lu.assertEquals(assert(pool:post(url, { body = body })).body, 'thanks')
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end
  end)
end

function T.test_an_early_redirect()
  local path = t.temporary(BIG)
  ends.raw(function(conn)
    local request = ends.read_head(conn)
    while request and request.target == '/to' do
      local got = 0
      for piece in reader_of(conn, request) do got = got + #piece end
      conn:write(answer(request.method .. ' ' .. got))
      request = ends.read_head(conn)
    end
    if not request then return end
    conn:write(answer('', 'Location: /to\r\n', request.target:sub(2) .. ' There'))
    conn:flush()
    conn:read_until 'no such thing'
  end, function(url, pool)
    local file = assert(io.open(path))
    lu.assertEquals(assert(pool:post(url .. '/307', { body = file })).body, 'POST ' .. SIZE)
    file:close()
    lu.assertEquals(assert(pool:post(url .. '/308', { body = BIG })).body, 'POST ' .. SIZE)
    local count = 0
    local function endless()
      count = count + 1
      return ('x'):rep(1000)
    end
    lu.assertEquals(assert(pool:post(url .. '/303', { body = endless })).body, 'GET 0')
    local before = count
    asio.sleep(0.01)
    lu.assertEquals(count, before)
  end)
  os.remove(path)
end

-- Failures -----------------------------------------------------------------------------------------

-- What the source says or raises is told before the head, within the body, and behind it.
function T.test_a_source_that_fails()
  local HEAD = 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n'
  for _, text in ipairs { '', HEAD, HEAD .. 'hello' } do
    ends.raw(function(conn)
      ends.read_head(conn)
      conn:write(text)
      conn:flush()
      conn:read_all(1e9)
    end, function(url, pool)
      for _, stream in ipairs { false, true } do
        local function post(fn, length)
          local response, message, code = pool:post(url, { stream = stream, length = length, body = function()
            asio.sleep(0.02)
            return fn()
          end })
          if response and stream then return response:read_all() end
          return response, message, code
        end
        t.failure('EIO', post(function() return nil, 'broken', 'EIO' end))
        t.failure('EINVAL', post(function() return nil end, 1))
        t.failure('EINVAL', post(function() return 'ab' end, 1))
        t.raises('my own', post, function() error 'my own' end)
        t.raises('no string', post, function() return 1 end)
        lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
      end
    end)
  end
end

-- The peer goes within its answer: what the upload met is the failure, or the end of the answer.
function T.test_an_answer_that_is_cut()
  ends.raw(function(conn)
    ends.read_head(conn)
    conn:write(CHUNKED .. '5\r\nhello\r\n')
    conn:flush()
    conn:read(100000)
    conn:abort()
  end, function(url, pool)
    local response, _, code = pool:post(url, { body = BIG })
    lu.assertNil(response)
    lu.assertTrue(t.codes('ECONNRESET', 'EPIPE', 'EOF', 'ETRUNCATED')[code], code)
    lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
  end)
end

-- Ends ---------------------------------------------------------------------------------------------

local PHASES = {
  '', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n', CHUNKED .. '5\r\nhello\r\n', answer 'hello',
}

-- Sends so much, and takes nothing.
local function stuck(text, fn)
  local over = asio.event()
  ends.raw(function(conn)
    ends.read_head(conn)
    conn:write(text)
    conn:flush()
    over:wait()
  end, function(...)
    fn(...)
    over:set()
  end)
end

-- Bodies that the peer does not take, or that wait; `running` tells whether the source is in a wait.
local function stuck_bodies()
  local running = { false }
  return { BIG, function() return ('x'):rep(1000) end, function()
    running[1] = true
    local ok, err = pcall(asio.sleep, 60)
    running[1] = false
    if not ok then error(err, 0) end
  end }, running
end

function T.test_time_outs()
  for _, text in ipairs(PHASES) do
    stuck(text, function(url, pool)
      local all, running = stuck_bodies()
      for i, body in ipairs(all) do
        t.failure('ETIMEDOUT', pool:post(url, { body = body, timeout = 0.03 }))
        t.failure('ETIMEDOUT', asio.timeout(0.03, pool.post, pool, url, { body = body }))
        if i < 3 then
          local _, _, code = pool:post(url, { body = body, timeout = { first_byte = 0.03, idle = 0.03 } })
          lu.assertEquals(code, text ~= answer 'hello' and 'ETIMEDOUT' or nil)
        end
        lu.assertFalse(running[1])
        lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
      end
    end)
  end
end

function T.test_cancelled()
  for _, text in ipairs(PHASES) do
    stuck(text, function(url, pool)
      local all, running = stuck_bodies()
      for _, body in ipairs(all) do
        for _, stream in ipairs { true, false } do
          local thread = asio.spawn(function()
            local response = pool:post(url, { body = body, stream = stream })
            if response then response:read_all() end
            asio.sleep(60)
          end)
          asio.sleep(0.01)
          thread:cancel()
          lu.assertEquals({ thread:join(5) }, { false, asio.cancelled })
          lu.assertFalse(running[1])
          lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
        end
      end
    end)
  end
end

function T.test_closed()
  stuck(CHUNKED .. '5\r\nhello\r\n', function(url, pool)
    local all, running = stuck_bodies()
    for _, body in ipairs(all) do
      local response = assert(pool:post(url, { body = body, stream = true }))
      lu.assertEquals(response:read(), 'hello')
      response:close()
      lu.assertFalse(running[1])
      t.failure('EBADF', response:read())
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end
  end)
end

-- By its own source.
function T.test_closed_by_the_source()
  ends.raw(echo, function(url, pool)
    local response, count = nil, 0
    response = assert(pool:post(url, { stream = true, body = function()
      count = count + 1
      if response then response:close() end
      asio.sleep(0.001)
      return 'x'
    end }))
    local piece, _, code
    repeat piece, _, code = response:read() until not piece
    lu.assertTrue(t.codes('ECANCELED', 'EBADF')[code], code)
    asio.sleep(0.01)
    local before = count
    asio.sleep(0.01)
    lu.assertEquals(count, before)
  end)
end

-- The upload of a response that the script has dropped ends too.
function T.test_a_response_that_is_dropped()
  ends.raw(echo, function(url, pool)
    local count = 0
    assert(pool:post(url, { stream = true, body = function()
      count = count + 1
      asio.sleep(0.001)
      return 'x'
    end }))
    collectgarbage()
    lu.assertEquals(assert(pool:post(url, { body = 'hello' })).body, 'hello')
    local before = count
    asio.sleep(0.01)
    lu.assertEquals(count, before)
  end, { per_host = 1 })
end

-- The total time ends an upload whose response is not read.
function T.test_a_total_time_covers_the_upload()
  ends.raw(echo, function(url, pool)
    local count = 0
    local response = assert(pool:post(url, { stream = true, timeout = 0.05, body = function()
      count = count + 1
      asio.sleep(0.001)
      return 'x'
    end }))
    asio.sleep(0.1)
    local before = count
    asio.sleep(0.02)
    lu.assertEquals(count, before)
    local piece, _, code
    repeat piece, _, code = response:read() until not piece
    lu.assertEquals(code, 'ETIMEDOUT')
  end)
end

-- A slow source does not run into the time-outs of the response, which begin at the end of the request.
function T.test_times_begin_at_the_end_of_the_request()
  for _, text in ipairs { '', CHUNKED } do
    ends.raw(function(conn)
      local request = ends.read_head(conn)
      conn:write(text)
      conn:flush()
      for _ in reader_of(conn, request) do end
      asio.sleep(0.05)
      conn:write(text == '' and answer 'late' or '4\r\nlate\r\n0\r\n\r\n')
    end, function(url, pool)
      local function post(seconds)
        local count = 0
        return pool:post(url, { timeout = { first_byte = seconds, idle = seconds }, body = function()
          count = count + 1
          asio.sleep(0.06)
          return count < 5 and 'x' or nil
        end })
      end
      lu.assertEquals(assert(post(0.2 * t.patience)).body, 'late')
      t.failure('ETIMEDOUT', post(0.02))
    end)
  end
end

-- Echoes of any size that end at any point, over few connections: none gets bytes of another.
function T.test_at_random()
  math.randomseed(5)
  ends.raw(echo, function(url, pool)
    local good = 0
    asio.group(function(g)
      for i = 1, 10 do
        g:spawn(function()
          for n = 1, t.count(60) do
            local text = ('%d/%d '):format(i, n):rep(math.random(40000))
            local stream = math.random(2) == 1
            local limit = n % 10 == 0 and 60 or math.random() * 0.05 -- a busy machine may need more for any
            local body = asio.timeout(limit, function()
              local found = pool:post(url, {
                body = math.random(2) == 1 and text or source_of(text, math.random(100000)), stream = stream,
              })
              return found and (stream and found:read_all() or found.body)
            end)
            if body then
              t.same_bytes(body, text)
              good = good + 1
            end
          end
        end)
      end
    end)
    lu.assertTrue(good > 0)
    lu.assertEquals(pool:stats().used, 0)
  end, { per_host = 4 })
end

return T
