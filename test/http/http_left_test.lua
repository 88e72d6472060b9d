-- What handlers leave: headers and a status that cannot be sent, requests that are used when they are over.
-- test: needs http
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local answers = require 'http_answers'
local web = require 'web'

local T = {}

-- The statuses of two requests on one connection: the handler's, and the next one's.
local function statuses(handler)
  local server = assert(web.server(function(req, res)
    if req.path == '/' then return handler(req, res) end
    return res:send(404)
  end))
  local conn = web.client(server)
  conn:write('GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n')
  local first, next_one = answers.read(conn, 'GET'), answers.read(conn, 'GET')
  conn:close()
  server:shutdown()
  return first and first.status, next_one and next_one.status, server:metrics().failed
end

-- It is an error of the handler as any other: reported with method and path, answered, and the next request
-- is served.
local function is_failure(handler)
  lu.assertEquals({ statuses(handler) }, { 500, 404, 1 })
  lu.assertStrContains(t.stderr(), 'GET / failed: ')
end

function T.test_headers_that_cannot_be_sent()
  is_failure(function(_, res) res.headers.X = 'a\nb' end)
  is_failure(function(_, res) res.headers.X = {{}} end)
  is_failure(function(_, res) res.headers = 'X' end)
  is_failure(function(_, res) res:send(200, { X = 'a\nb' }, '') end)
end

function T.test_a_status_that_cannot_be_sent()
  is_failure(function(_, res) res.status = 999 end)
  is_failure(function(_, res) res.status = '404' end)
  is_failure(function(_, res) res.status = 0 / 0 end)
end

function T.test_streams_that_cannot_begin()
  is_failure(function(_, res)
    res.headers.X = 'a\nb'
    res:write 'text'
  end)
  is_failure(function(_, res)
    res.headers['Content-Length'] = '0x10'
    res:write 'text'
  end)
  is_failure(function(_, res) res:upgrade { X = 'a\nb' } end)
end

-- It may be put right, too.
function T.test_another_try()
  lu.assertEquals({ statuses(function(_, res)
    res.headers.X = 'a\nb'
    lu.assertFalse((pcall(res.write, res, 'text')))
    lu.assertFalse(res.sent)
    res.headers.X, res.headers['Content-Length'] = nil, 4
    res:write 'text'
  end) }, { 200, 404, 0 })
end

function T.test_a_status_that_is_set_too_late()
  lu.assertEquals({ statuses(function(_, res)
    res:send ''
    res.status = 0 / 0
  end) }, { 200, 404, 0 })
end

-- A body that could not be read is refused with 413 all the same.
function T.test_headers_beside_a_body_that_is_too_long()
  local server = assert(web.server(function(req, res)
    res.headers.X = 'a\nb'
    req:read_all(1)
  end))
  local conn = web.client(server)
  conn:write 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab'
  lu.assertEquals(answers.read(conn, 'POST').status, 413)
  conn:close()
  server:shutdown()
  t.stderr()
end

-- Requests that are over --------------------------------------------------------------------------

local function try_all(req, res)
  local calls = {
    { res.send, res }, { res.send, res, 200, {}, 'x' }, { res.write, res, 'x' },
    { res.finish, res }, { res.finish, res, {} }, { res.upgrade, res }, { res.informational, res, 103 },
    { res.redirect, res, '/' }, { res.sse, res }, { res.file, res, '/' },
  }
  for i, call in ipairs(calls) do
    local ok, result, _, code = pcall(unpack(call))
    lu.assertEquals({ ok, result, code }, { true, nil, 'EALREADY' }, i)
  end
  local _, _, code = req:read()
  lu.assertEquals({ req:read() }, { nil, select(2, req:read()), code })
  return code
end

local function use_later(handler, request)
  local req, res
  local server = assert(web.server(function(...)
    req, res = ...
    return handler(...)
  end, { max_drain = 10 }))
  local conn = web.client(server)
  conn:write(request)
  local answer = answers.read(conn, 'GET')
  conn:close()
  server:shutdown()
  return try_all(req, res), answer, req
end

function T.test_an_answer_that_is_over()
  lu.assertNil(use_later(function() end, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'))
  lu.assertNil(use_later(function(_, res) res:upgrade():close() end, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'))
end

function T.test_a_body_that_was_left()
  local post = 'POST / HTTP/1.1\r\nHost: x\r\n'
  lu.assertNil(use_later(function() end, post .. 'Content-Length: 2\r\n\r\nab'))
  for _, fields in ipairs { 'Content-Length: 20', 'Content-Length: 20\r\nExpect: 100-continue' } do
    local code, answer, req = use_later(function() end, post .. fields .. '\r\n\r\na')
    lu.assertEquals({ code, answer.closes }, { 'EBADF', true })
    lu.assertEquals(select(3, req:read_all()), 'EBADF')
  end
  local _, _, req = use_later(function() end, post .. 'Content-Length: 20\r\n\r\na')
  lu.assertEquals(select(3, req:json()), (pcall(require, 'cjson.safe')) and 'EBADF' or 'ENOTSUP')
end

-- A read that has failed fails again in the same way.
function T.test_a_failure_stays()
  local code
  use_later(function(req) code = select(3, req:read_all(1)) .. select(3, req:read()) end,
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab')
  lu.assertEquals(code, 'EMSGSIZEEMSGSIZE')
end

-- Other light threads -----------------------------------------------------------------------------

-- A light thread that is cancelled where no handler runs leaves no connection in the counters.
function T.test_cancelled_beside_handlers()
  local server = assert(web.server(function() end))
  local conn = web.client(server)
  conn:write 'GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /'
  lu.assertEquals(answers.read(conn, 'GET').status, 200)
  lu.assertEquals(server:metrics().active, 1)
  collectgarbage 'stop'
  lu.assertEquals(select(3, server:shutdown(0.01)), 'ETIMEDOUT')
  lu.assertEquals(server:metrics().active, 0)
  collectgarbage 'restart'
  conn:close()
end

-- What another light thread writes in between must not shift the end of the answer.
function T.test_a_file_and_a_writer()
  local path = t.temporary()
  local file = assert(io.open(path, 'wb'))
  file:write(('f'):rep(5000000))
  file:close()
  local server = assert(web.server(function(_, res)
    asio.spawn(function()
      while not res.sent do asio.yield() end
      res:write 'x'
    end)
    return res:file(path)
  end))
  local conn = web.client(server)
  conn:write 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
  lu.assertNil(answers.read(conn, 'GET'))
  conn:close()
  server:shutdown()
  os.remove(path)
end

return T
