-- http.pool: connections that are kept, bounds; time-outs and cancelling in every phase.
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

-- The pool ---------------------------------------------------------------------------------------

function T.test_a_kept_connection_that_was_closed()
  for _, method in ipairs { 'get', 'post' } do
    local requests, closing = 0, asio.channel(1)
    ends.raw(function(conn)
      ends.read_request(conn)
      requests = requests + 1
      conn:write(answer 'hello')
      conn:flush()
      closing:send(true)
    end, function(url, pool)
      for _ = 1, 3 do
        lu.assertEquals(assert(pool[method](pool, url)).body, 'hello')
        closing:recv()
        t.next_turn()
      end
      lu.assertEquals(requests, 3)
    end)
  end
end

-- A request that may have been carried out is not sent again.
function T.test_what_is_not_repeated()
  local requests = 0
  ends.raw(function(conn)
    ends.read_request(conn)
    conn:write(answer 'hello')
    if ends.read_request(conn) then requests = requests + 1 end
  end, function(url, pool)
    assert(pool:get(url))
    local response, _, code = pool:post(url, { body = 'abc' })
    lu.assertNil(response)
    lu.assertTrue(t.codes('EOF', 'ECONNRESET')[code])
    lu.assertEquals(requests, 1)
    assert(pool:get(url)) -- on a new connection
    assert(pool:get(url)) -- lost, and sent again
    lu.assertEquals(requests, 2)
  end)
end

-- Bytes that nothing has asked for: the answer to a request that is still to come.
function T.test_bytes_behind_a_response()
  ends.scripted(function(request, _, number)
    return answer(tostring(number)) .. (request.target == '/more' and answer 'false' or '')
  end, function(url, pool)
    lu.assertEquals(assert(pool:get(url .. '/more')).body, '1')
    lu.assertEquals(assert(pool:get(url)).body, '2')
  end)
end

-- They are in the kernel, and the loop has not seen them when the next request begins.
function T.test_bytes_that_have_just_come()
  local peer
  ends.raw(function(conn)
    peer = conn
    while ends.read_request(conn) do conn:write(answer 'right') end
  end, function(url, pool)
    for _ = 1, 3 do
      lu.assertEquals(pool:get(url).body, 'right')
      peer:write(answer 'wrong')
      peer:flush()
      lu.assertEquals(pool:get(url).body, 'right')
    end
  end)
end

function T.test_bounds()
  local now, most = 0, 0
  ends.scripted(function()
    now = now + 1
    most = math.max(most, now)
    asio.sleep(0.002)
    now = now - 1
    return answer 'hello'
  end, function(url, pool)
    asio.group(function(g)
      for _ = 1, 20 do
        g:spawn(function() lu.assertEquals(assert(pool:get(url)).body, 'hello') end)
      end
    end)
    lu.assertEquals(most, 3)
    lu.assertEquals(pool:stats(), { used = 0, idle = 3, hosts = 1 })
    local other = url:gsub('127.0.0.1', 'localhost')
    for _ = 1, 2 do assert(pool:get(other)) end -- idle ones of the first host make room
    lu.assertTrue(pool:stats().idle <= 4)
  end, { per_host = 3, total = 4 })
end

function T.test_idle_connections_end()
  local connections = 0
  ends.scripted(function(_, _, number)
    connections = number
    return answer 'hello'
  end, function(url, pool)
    assert(pool:get(url))
    asio.sleep(0.03)
    assert(pool:get(url))
    lu.assertEquals(connections, 2)
  end, { idle_time = 0.01 })
end

function T.test_no_pool()
  ends.scripted(function(request)
    lu.assertEquals(request.fields['connection'], 'close')
    return answer 'hello'
  end, function(url)
    assert(http.get(url, ends.options { pool = false }))
    lu.assertEquals(http.default_pool:stats(), { used = 0, idle = 0, hosts = 0 })
  end)
end

-- Time-outs and cancelling -----------------------------------------------------------------------

local PHASES = {
  '', 'HTTP/1.1 200', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n',
  'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello',
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel', 'HTTP/1.1 103 Early\r\n\r\n',
}

-- Sends so much, and then nothing until the client has gone. fn gets a channel that tells of each request.
local function stuck(text, fn)
  local sent = asio.channel(100)
  ends.raw(function(conn)
    ends.read_request(conn)
    conn:write(text)
    conn:flush()
    sent:send(true)
    conn:read(1)
  end, function(url, pool) fn(url, pool, sent) end)
end

function T.test_time_outs_in_every_phase()
  for _, text in ipairs(PHASES) do
    stuck(text, function(url, pool)
      t.failure('ETIMEDOUT', pool:get(url, { timeout = 0.02 }))
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
      t.failure('ETIMEDOUT', pool:get(url, { timeout = { first_byte = 0.02, idle = 0.02 } }))
      t.failure('ETIMEDOUT', asio.timeout(0.02, pool.get, pool, url))
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end)
  end
end

function T.test_cancelled_in_every_phase()
  for _, text in ipairs(PHASES) do
    stuck(text, function(url, pool, sent)
      for _, stream in ipairs { true, false } do
        local thread = asio.spawn(function()
          local response = pool:get(url, { stream = stream })
          if response then response:read_all() end
        end)
        sent:recv()
        t.next_turn()
        thread:cancel()
        lu.assertEquals({ thread:join(5) }, { false, asio.cancelled })
        lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
      end
    end)
  end
end

function T.test_resets_in_every_phase()
  for _, text in ipairs(PHASES) do
    ends.raw(function(conn)
      ends.read_request(conn)
      conn:write(text)
      conn:flush()
      conn:abort()
    end, function(url, pool)
      local response, _, code = pool:get(url)
      lu.assertNil(response)
      lu.assertTrue(t.codes('ECONNRESET', 'EOF', 'ETRUNCATED')[code], code)
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end)
  end
end

-- Requests that end at any point, beside others, over few connections: none gets the response of another.
function T.test_cancelled_at_random()
  math.randomseed(11)
  ends.scripted(function(request, conn)
    local text = answer(request.target:rep(50), '', math.random(20) == 1 and '404 No' or nil)
    local cut = math.random(#text)
    conn:write(text:sub(1, cut))
    if math.random(3) == 1 then asio.sleep(math.random() * 0.002) end
    if math.random(30) == 1 then return nil end
    return text:sub(cut + 1)
  end, function(url, pool)
    local good = 0
    asio.group(function(g)
      for i = 1, 30 do
        g:spawn(function()
          for n = 1, t.count(400) do
            local target = ('/%d/%d'):format(i, n)
            local stream = math.random(2) == 1
            local limit = n % 10 == 0 and 60 or math.random() * 0.02 -- a busy machine may need more for any
            local response = asio.timeout(limit, function()
              local found = pool:get(url .. target, { stream = stream })
              if found then found.text = stream and found:read_all() or found.body end
              return found
            end)
            if response and response.text then
              lu.assertEquals(response.text, target:rep(50))
              good = good + 1
            end
          end
        end)
      end
    end)
    lu.assertTrue(good > 0)
    lu.assertEquals(pool:stats().used, 0)
    lu.assertTrue(pool:stats().idle <= 4)
  end, { per_host = 4 })
end

function T.test_cancelled_while_waiting_for_a_place()
  stuck('', function(url, _, sent)
    local pool = http.pool { per_host = 1 }
    local first = asio.spawn(pool.get, pool, url, ends.options {})
    local second = asio.spawn(pool.get, pool, url, ends.options {})
    sent:recv()
    lu.assertEquals(pool:stats().used, 1)
    second:cancel()
    lu.assertFalse((second:join(5)))
    lu.assertEquals(pool:stats().used, 1)
    first:cancel()
    lu.assertFalse((first:join(5)))
    lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
  end)
end

function T.test_a_total_time_covers_the_stream()
  stuck('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', function(url, pool)
    local response = assert(pool:get(url, { stream = true, timeout = 0.05 }))
    lu.assertEquals(response:read(), 'hello')
    t.failure('ETIMEDOUT', response:read())
    lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
  end)
end

function T.test_cancelled_uploads()
  ends.raw(function(conn)
    ends.read_head(conn)
    conn:read(1e9)
  end, function(url, pool)
    for _, body in ipairs { ('x'):rep(1e7), function() return ('x'):rep(1000) end } do
      t.failure('ETIMEDOUT', pool:post(url, { body = body, timeout = 0.05 }))
      lu.assertEquals(pool:stats(), { used = 0, idle = 0, hosts = 0 })
    end
  end)
end

function T.test_connections_that_fail()
  local port = asio.server('127.0.0.1', 0, function() end)
  local _, number = port:address()
  port:close()
  t.failure('ECONNREFUSED', http.get('http://127.0.0.1:' .. number))
  t.failure('ECONNREFUSED', http.get('http://[::1]:' .. number, { proxy = 'http://127.0.0.1:' .. number }))
  lu.assertEquals(http.default_pool:stats(), { used = 0, idle = 0, hosts = 0 })
end

return T
