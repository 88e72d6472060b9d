-- A model of the client: requests of many light threads through one pool, to a server that misbehaves at
-- random: resets and ends of connections in every phase, early answers, slow bytes, wrong lengths, bytes
-- behind an answer. No request gets what belongs to another one, none hangs, the pool is whole at the end.
--
-- ASIO_HTTP_SECONDS, ASIO_HTTP_SEED: as for http_model_test.lua.
--
-- test: 10 s
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
local t = require 'support'
local ends = require 'http_ends'
local over_tls = require 'over_tls'

local T = {}

local SECONDS = tonumber(os.getenv 'ASIO_HTTP_SECONDS') or (t.long and 300 or 3)
local SEED = tonumber(os.getenv 'ASIO_HTTP_SEED') or (t.long and os.time() or 1)
local THREADS, REQUESTS, PER_HOST = 8, 12, 3
local random = math.random

local function pick(list) return list[random(#list)] end
local function chance(n) return random(n) == 1 end

local plans, failures = {}, {}

local function expect(ok, plan, what, ...)
  if ok then return end
  local list = {}
  for name, value in pairs(plan) do
    list[#list + 1] = name .. ' ' .. (#tostring(value) < 40 and tostring(value) or '#' .. #value)
  end
  failures[#failures + 1] = what:format(...) .. '; ' .. table.concat(list, ', ')
end

-- The server --------------------------------------------------------------------------------------

local function slowly(conn, text)
  local at = 1
  while at <= #text do
    local n = random(pick { 1, 20, 1000, #text })
    if not conn:write(text:sub(at, at + n - 1)) then return nil end
    conn:flush()
    at = at + n
    if chance(20) then asio.sleep(random() / 200) end
  end
  return true
end

local function in_chunks(body)
  local list, at = {}, 1
  while at <= #body do
    local piece = body:sub(at, at + random(500))
    list[#list + 1] = ('%x\r\n%s\r\n'):format(#piece, piece)
    at = at + #piece
  end
  return table.concat(list) .. '0\r\n' .. (chance(2) and 'X-Trailer: a\r\n' or '') .. '\r\n'
end

-- An answer as it has to be: its head, and its body as it goes out.
local function good_answer(plan)
  local fields = ('X-Id: %d\r\n'):format(plan.id)
  local front = chance(5) and 'HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n' or ''
  local body = plan.answer
  if plan.status == 204 or plan.status == 304 then
    return front .. ('HTTP/1.1 %d X\r\n%s\r\n'):format(plan.status, fields), ''
  end
  local framed = plan.framed
  if plan.last and framed ~= 'end' then fields = fields .. 'Connection: close\r\n' end
  if framed == 'length' then
    fields = ('%sContent-Length: %d\r\n'):format(fields, #body)
  elseif framed == 'chunks' then
    fields, body = fields .. 'Transfer-Encoding: chunked\r\n', in_chunks(body)
  end
  if plan.method == 'HEAD' then body = '' end
  return front .. ('HTTP/1.1 %d X\r\n%s\r\n'):format(plan.status, fields), body
end

local POISON = 'HTTP/1.1 200 OK\r\nX-Id: poison\r\nContent-Length: 6\r\n\r\npoison'
-- When it comes behind the next request, nothing tells it from the answer.
local LATE = 'HTTP/1.1 200 OK\r\nX-Id: late\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate'

-- Returns whether another request may follow.
local function misbehave(conn, plan, head, body)
  local how = plan.how
  if how == 'reset' then
    conn:abort()
  elseif how == 'end' then
    conn:close()
  elseif how == 'cut head' or how == 'cut body' then
    local text = how == 'cut head' and head:sub(1, random(#head) - 1)
      or head .. body:sub(1, random(#body + 1) - 1)
    slowly(conn, text)
    if chance(2) then conn:abort() else conn:close() end
  elseif how == 'garbage' then
    conn:write(pick { 'x', '\0\0', 'HTTP/1.1 abc\r\n\r\n', 'HTTP/1.1 200 OK\r\nX\r\n\r\n', '\r\n\r\n\r\n\r\n',
      'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', ('HTTP/1.1 100 C\r\n\r\n'):rep(100) })
    conn:flush()
    asio.sleep(0.01)
    conn:close()
  elseif how == 'behind' then
    local ok = conn:write(head, body, POISON)
    if chance(2) then asio.sleep(random() / 100) end
    return ok
  elseif how == 'later' then -- between two requests, if there is time
    local ok = conn:write(head, body)
    conn:flush()
    asio.sleep(random() / 200)
    conn:write(LATE)
    return ok
  elseif how == 'good, then reset' or how == 'good, then end' then
    slowly(conn, head .. body)
    if chance(2) then asio.sleep(random() / 200) end
    conn:flush()
    if how == 'good, then reset' then asio.sleep(0.005) conn:abort() end
  elseif how == 'silent' then
    conn:read(1) -- until the client gives up
    conn:close()
  end
end

local function serve(conn)
  conn:set_timeout(20 * t.patience)
  while true do
    local whole, request = pcall(ends.read_head, conn)
    if not (whole and request) then break end
    local plan = plans[tonumber(request.target:match '^/(%d+)')]
    if not plan then
      failures[#failures + 1] = 'no request of the model: ' .. request.target
      break
    end
    plan.tries = plan.tries + 1
    if request.fields['x-id'] ~= tostring(plan.id) then
      expect(false, plan, 'a head with the id %s', tostring(request.fields['x-id']))
    end
    local head, body = good_answer(plan)
    if plan.early then
      slowly(conn, head .. body)
      if plan.last then break end
    end
    local ok, got = pcall(ends.read_body, conn, request)
    if not ok or not got then break end
    if plan.is_whole then expect(got == plan.body, plan, 'a body of %d bytes', #got) end
    if plan.how == 'good' then
      if not plan.early and not slowly(conn, head .. body) or plan.last then break end
    elseif not misbehave(conn, plan, head, body) then
      break
    end
  end
  conn:close()
end

-- The client --------------------------------------------------------------------------------------

local HOW = { 'good', 'good', 'good', 'good', 'good', 'reset', 'end', 'cut head', 'cut body', 'garbage',
  'behind', 'later', 'good, then reset', 'good, then end', 'silent' }

local last_id = 0

local function new_plan()
  last_id = last_id + 1
  local plan = {
    id = last_id, tries = 0, how = pick(HOW),
    method = pick { 'GET', 'GET', 'POST', 'PUT', 'HEAD', 'DELETE' },
    status = pick { 200, 200, 200, 201, 204, 304, 404 },
    framed = pick { 'length', 'length', 'chunks', 'end' }, last = chance(6), body = '',
  }
  plan.answer = ('%d,'):format(last_id):rep(pick { 0, 1, 10, random(1000), random(30000) })
  if plan.framed == 'end' then plan.last = true end
  local goes_on = plan.how == 'behind' or plan.how == 'later'
  if goes_on or plan.status == 204 or plan.status == 304 or plan.method == 'HEAD' then
    plan.last, plan.framed = false, 'length'
  end
  if plan.method == 'POST' or plan.method == 'PUT' then
    plan.body = ('%d;'):format(last_id):rep(pick { 0, 1, random(1000), chance(3) and 60000 or 5 })
    plan.early = plan.how == 'good' and chance(4)
  end
  plans[last_id] = plan
  return plan
end

-- A body as a string, or in pieces.
local function body_of(plan)
  if plan.body == '' then return nil end
  if chance(2) then return plan.body end
  local at = 1
  return function()
    if at > #plan.body then return nil end
    local n = random(pick { 10, 1000, 30000 })
    at = at + n
    if chance(20) then asio.sleep(random() / 500) end
    return plan.body:sub(at - n, at - 1)
  end
end

local function read_stream(response, plan)
  local list = {}
  if chance(6) then -- given up, or forgotten
    if chance(2) then response:close() end
    return nil, 'left', 'LEFT'
  end
  while true do
    local piece, message, code = response:read(chance(2) and random(1000) or nil)
    if not piece and code then return nil, message, code end
    if not piece then return table.concat(list) end
    list[#list + 1] = piece
    if chance(20) then asio.sleep(random() / 500) end
  end
end

local ALLOWED = {
  EOF = true, ECONNRESET = true, EPIPE = true, EPROTO = true, ETIMEDOUT = true, LEFT = true, ECANCELED = true,
}

-- Whether this request has to succeed. One that must not be repeated may meet a connection that ends.
local function must_succeed(plan)
  if plan.how ~= 'good' or plan.short then return false end
  return plan.method ~= 'POST' and not plan.streams_up and not plan.early
end

local function ask(pool, url, plan)
  local opts = {
    headers = { ['X-Id'] = plan.id }, stream = chance(3), redirects = false, body = body_of(plan),
  }
  plan.streams_up = type(opts.body) == 'function'
  plan.short = chance(8)
  plan.is_whole = not plan.short and not plan.early
  opts.timeout = { first_byte = plan.how == 'silent' and 0.05 or 10 * t.patience, idle = 10 * t.patience,
    total = plan.short and random() / 50 or nil }
  local response, message, code = pool:request(plan.method, url .. '/' .. plan.id, ends.options(opts))
  local body
  if response and opts.stream then
    body, message, code = read_stream(response, plan)
  elseif response then
    body = response.body
  end
  if response and response:header 'x-id' == 'late' then return response:close() end
  if response and plan.how == 'garbage' then
    return expect(not body or plan.method == 'HEAD', plan, 'a body of garbage: %s', tostring(body))
  end
  if response then
    local id = tostring(response:header 'x-id')
    expect(id == tostring(plan.id), plan, 'the answer of %s', id)
    expect(response.status == plan.status, plan, 'status %d', response.status)
  end
  if not body then
    local may = ALLOWED[code] and (not must_succeed(plan) or code == 'LEFT')
    return expect(may, plan, 'failed: %s (%s)', tostring(message), tostring(code))
  end
  local want = (plan.method == 'HEAD' or plan.status == 204 or plan.status == 304) and '' or plan.answer
  local cut = plan.framed == 'end' and plan.how == 'cut body' -- as if that were the end
  expect(body == want or cut, plan, 'a body of %d bytes, not %d', #body, #want)
  expect(plan.tries <= 2, plan, 'sent %d times', plan.tries)
end

-- Now and then the light thread of a request is cancelled.
local function ask_and_cancel(pool, url, plan)
  plan.short = true
  local thread = asio.spawn(function()
    plan.is_whole = false
    ask(pool, url, plan)
  end)
  asio.sleep(random() / 100)
  thread:cancel()
  thread:join()
end

-- Rounds ------------------------------------------------------------------------------------------

local function round(seed)
  math.randomseed(seed)
  plans = {}
  local server = assert(over_tls.server('127.0.0.1', 0, serve))
  local _, port = server:address()
  local url = ('%s://127.0.0.1:%d'):format(over_tls.on and 'https' or 'http', port)
  local pool = http.pool { per_host = PER_HOST, total = PER_HOST + 1 }
  asio.group(function(group)
    for _ = 1, THREADS do
      group:spawn(function()
        for _ = 1, REQUESTS do
          local plan = new_plan()
          if chance(10) then ask_and_cancel(pool, url, plan) else ask(pool, url, plan) end
          if chance(20) then collectgarbage() elseif chance(4) then collectgarbage('step', random(100)) end
        end
      end)
    end
  end)
  collectgarbage() -- responses that were forgotten
  collectgarbage()
  pool:close()
  local stats = pool:stats()
  lu.assertEquals({ stats.used, stats.idle, stats.hosts }, { 0, 0, 0 }, 'seed ' .. seed)
  local closed = server:shutdown(5 * t.patience)
  if not closed then failures[#failures + 1] = 'connections are left' end
  if failures[1] then error(('seed %d: %s'):format(seed, table.concat(failures, '\n'))) end
end

local function model()
  local last, seed = asio.now() + SECONDS, SEED
  failures = {}
  repeat
    round(seed)
    seed = seed + 1
  until asio.now() > last
  if os.getenv 'ASIO_HTTP_SECONDS' then print(('%d rounds'):format(seed - SEED)) end
end

T.test_model = t.slow(SECONDS + 60, model)

T.test_model_without_compiler = t.slow(SECONDS + 60, t.interpreted(model))

return T
