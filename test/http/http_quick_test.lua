-- The short cuts of compiled code (src/plugins/http/quick.lua) against the functions of the C API.
-- test: needs http
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local web = require 'web'
local t = require 'support'

local T = {}

-- Answers many times, so that it is compiled, in many ways; prints each answer, headers sorted, or the error.
local function answers(mode)
  if mode == 'without' then jit.off() end
  local asio = require 'asio'
  local web_server = require 'asio.http'.server
  local fixed = { ['Content-Type'] = 'text/plain' }
  local long = ('v'):rep(3000)
  local ways = {
    function(_, res) return res:send(200, fixed, 'hello') end,
    function(_, res) return res:send 'hello' end,
    function(_, res) return res:send(404) end,
    function(_, res) return res:send(204, fixed) end,
    function(_, res) return res:send(304, fixed, 'none') end,
    function(_, res) return res:send(200, { A = '1', B = '2' }, ('x'):rep(100)) end,
    function(_, res) return res:send(200, { A = '1', B = '2', C = '3' }, 'three') end,
    function(_, res) return res:send(200, { A = 1 }, 'number') end,
    function(_, res) return res:send(200, { A = { '1', '2' } }, 'list') end,
    function(_, res) return res:send(200, {}, 17) end,
    function(_, res) return res:send(200, { Date = 'x', ['Content-Length'] = '3' }, 'date') end,
    function(_, res) return res:send(200, { ['Transfer-Encoding'] = 'chunked' }, 'coding') end,
    function(_, res) return res:send(200, { A = long }, 'long value') end,
    function(_, res) return res:send(200, fixed, long) end,
    function(_, res) return res:send(200, fixed, ('b'):rep(100000)) end,
    function(_, res)
      res.status, res.headers.A = 201, 'set'
      return res:send 'merged'
    end,
    function(_, res) return res:send(200, { A = 'a\tb' }, 'tab') end,
    function(req, res)
      local headers = req.headers
      return res:send(200, { A = req:header 'x-b' or 'none' }, headers:get 'x-A' .. headers:get 'HOST')
    end,
    function(req, res)
      local empty, missing = req.headers:get 'X-Empty', req.headers:get 'X'
      return res:send(empty == '' and missing == nil and 'empty' or 'wrong')
    end,
    function(_, res)
      local errors = {}
      local bad = {
        { [''] = 'x' }, { A = 'x\n' }, { ['A:'] = 'x' }, { A = '1', B = 'x\r' }, { A = true }, { 'x' },
        { A = 'x\0y' }, { A = '1', [''] = '2' },
      }
      for i = 1, #bad do errors[i] = tostring(select(2, pcall(res.send, res, 200, bad[i], 'x'))) end
      return res:send(table.concat(errors, '\n'))
    end,
    function(_, res) return res:send(200, { Connection = 'Close' }, 'the last') end,
  }
  local way
  local server = assert(web_server('127.0.0.1', 0, function(req, res) return way(req, res) end))
  asio.run(function()
    for i = 1, #ways do
      way = ways[i]
      local conn = assert(asio.connect(server:address()))
      local request =
        (i % 2 == 0 and 'HEAD' or 'GET') .. ' / HTTP/1.1\r\nHost: h\r\nx-a: 1\r\nX-Empty:\r\n\r\n'
      local times = 150
      conn:write(request:rep(times), (request:gsub('^HEAD', 'GET'):gsub('Host', 'Connection: close\r\nHost')))
      local all = assert(conn:read_all(64000000)):gsub('Date: [^\r]*GMT\r\n', '')
      local lines = {}
      for line in all:gmatch '[^\r]*\r?' do lines[#lines + 1] = line end
      table.sort(lines)
      print(i, #all, table.concat(lines, '|'):sub(1, 300000))
      conn:close()
    end
    server:close()
  end)
end

function T.test_the_same_as_without()
  local with = t.child(answers, { args = { 'with' }, seconds = 60 }).out
  local without = t.child(answers, { args = { 'without' }, seconds = 60 }).out
  lu.assertStrContains(with, 'the last')
  lu.assertEquals(t.occurrences(with, 'wrong'), 0)
  t.same_bytes(with, without)
end

-- The debug library can give their metatable to another userdata.
function T.test_not_a_head()
  web.with(function(req, res)
    local get = req.headers.get
    local other = newproxy(true)
    debug.setmetatable(other, getmetatable(req.headers))
    local texts = {}
    for i, self in ipairs { other, 'text', 1, {}, io.stdout } do
      local ok, err = pcall(get, self, 'host')
      texts[i] = tostring(ok) .. (tostring(err):match 'calling a method of headers' or tostring(err))
    end
    res:send(table.concat(texts, ',') .. tostring(pcall(get, req.headers)) .. get(req.headers, 'host'))
  end, function(port)
    local _, _, body = web.request(port, 'GET', '/')
    lu.assertEquals(body, ('falsecalling a method of headers,'):rep(5):sub(1, -2) .. 'falsex')
  end)
end

-- A finalizer that answers another request while this one's short cut is at work.
function T.test_answers_within_answers()
  local other
  local function handler(req, res)
    if req.path == '/wait' then
      other = res
      while not res.sent do require 'asio'.sleep(0.001) end
      return
    end
    local trap = newproxy(true)
    getmetatable(trap).__gc = function()
      if other and not other.sent then other:send(200, { A = 'inner' }, 'inner') end
    end
    trap = nil -- luacheck: ignore
    for i = 1, 2000 do res.headers['X-' .. i % 2] = 'outer' .. i end
    collectgarbage()
    res:send(200, nil, 'outer')
  end
  web.with(handler, function(port)
    local first = assert(web.connect(port))
    assert(first:write 'GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    t.wait_until(function() return other end)
    local _, head, body = web.request(port, 'GET', '/')
    lu.assertEquals(body, 'outer')
    lu.assertStrContains(head, 'X-1: outer1999')
    lu.assertStrContains(assert(first:read_all()), '\r\n\r\ninner')
    first:close()
  end)
end

-- Finalizers run anywhere in compiled code: between the look-up of a value and the making of its string, too,
-- where a trace begins behind the look-up.
function T.test_finalizers_that_ask_another_head()
  local first, wrong
  web.with(function(req, res)
    local headers = req.headers
    if not first then
      first = headers
      return
    end
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function() return first:get 'x-other' end
    wrong = 0
    for round = 1, 1000 do
      for _ = 1, 20 do newproxy(proxy) end
      for i = 1, 100 do
        local value = headers:get(round > 100 and i % 2 == 0 and 'x-value' or 'x-none')
        if value and value .. i .. round ~= 'v' .. i .. round then wrong = wrong + 1 end
      end
    end
    res:send 'done'
  end, function(port)
    local conn = assert(web.connect(port))
    conn:write('GET / HTTP/1.1\r\nHost: x\r\nX-Other: ', ('o'):rep(900), '\r\n\r\n')
    conn:write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Value: v\r\n\r\n')
    lu.assertStrContains(conn:read_all(100000), 'done')
    conn:close()
  end)
  lu.assertEquals(wrong, 0)
end

return T
