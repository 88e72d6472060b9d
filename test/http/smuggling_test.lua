-- Requests that two programs could read differently: each is refused, and the connection closed.
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local web = require 'web'

local T = {}

-- The statuses of the answers to these bytes, and how often the handler ran. Waits for the connection's end.
local function ask(...)
  local calls = 0
  local server = assert(web.server(function(req, res)
    calls = calls + 1
    local body = req:read_all()
    if body then res:send(200, nil, body) end
  end, { idle_timeout = 0.3 }))
  local conn = web.client(server)
  for _, piece in ipairs { ... } do
    conn:write(piece)
    conn:flush()
    asio.sleep(0.0005)
  end
  local answers = conn:read_all() or ''
  conn:close()
  server:close()
  local statuses = {}
  for status in answers:gmatch 'HTTP/1%.1 (%d%d%d)' do statuses[#statuses + 1] = tonumber(status) end
  return statuses, calls, answers
end

-- Whole, and byte by byte: the same answer, one, and no request behind it.
local function refused(text, status)
  status = status or 400
  local statuses, calls, answers = ask(text .. 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n')
  lu.assertEquals(statuses, { status }, text)
  lu.assertStrContains(answers, 'Connection: close')
  local bytes = {}
  for i = 1, #text do bytes[i] = text:sub(i, i) end
  local one_by_one = ask(unpack(bytes))
  lu.assertEquals(one_by_one, { status }, text)
  return calls
end

-- Refused before the handler runs.
local function refused_head(text, status)
  lu.assertEquals(refused(text, status), 0, text)
end

local function head(lines, line)
  return (line or 'POST / HTTP/1.1') .. '\r\nHost: x\r\n' .. lines .. '\r\n\r\n'
end

function T.test_what_is_right_is_served()
  local statuses = ask(head 'Content-Length: 3' .. 'abc' .. head 'Transfer-Encoding: chunked' ..
    '3\r\nabc\r\n0\r\n\r\n' .. head('X:', 'GET / HTTP/1.1') .. head('X: \t a \t ', 'GET / HTTP/1.1') ..
    '\r\n' .. head('X: a', 'GET / HTTP/1.1'))
  lu.assertEquals(statuses, { 200, 200, 200, 200, 200 })
end

function T.test_length_and_chunks()
  refused_head(head 'Content-Length: 3\r\nTransfer-Encoding: chunked' .. '0\r\n\r\n')
  refused_head(head 'Transfer-Encoding: chunked\r\nContent-Length: 3' .. '0\r\n\r\n')
end

function T.test_two_lengths()
  refused_head(head 'Content-Length: 3\r\nContent-Length: 4' .. 'abcd')
  refused_head(head 'Content-Length: 3\r\nContent-Length: 3' .. 'abc')
  refused_head(head 'Content-Length: 3, 3' .. 'abc')
end

function T.test_lengths_that_are_no_numbers()
  for _, value in ipairs { '+3', '-3', '0x3', '3a', '3 3', '', '3.0', '99999999999999999999999' } do
    refused_head(head('Content-Length: ' .. value) .. 'abc')
  end
end

function T.test_codings()
  for _, value in ipairs { 'xchunked', 'chunked, identity', 'chunked, chunked', 'chunked;q=1', '"chunked"',
    'gzip', 'identity', 'gzip, chunked', 'chunked\11' } do
    local text = head('Transfer-Encoding: ' .. value) .. '0\r\n\r\n' .. head('X: a', 'GET /s HTTP/1.1')
    local statuses, calls = ask(text)
    lu.assertEquals(#statuses, 1, value)
    lu.assertTrue(statuses[1] == 400 or statuses[1] == 501, value)
    lu.assertEquals(calls, 0, value)
  end
  refused_head(head 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked' .. '0\r\n\r\n')
  refused_head(head('Transfer-Encoding: chunked', 'POST / HTTP/1.0') .. '0\r\n\r\n')
end

function T.test_folded_lines()
  refused_head(head 'X: a\r\n b')
  refused_head(head 'X: a\r\n\tb')
  refused_head(head 'X:\r\n b')
  refused_head(head 'X: a\r\n ')
  refused_head(head 'Content-Length: 3\r\n 4')
  refused_head(head 'Transfer-Encoding:\r\n chunked' .. '0\r\n\r\n')
  refused_head 'GET / HTTP/1.1\r\n Host: x\r\n\r\n'
end

function T.test_bare_line_feeds()
  refused_head 'GET / HTTP/1.1\nHost: x\r\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: x\r\nX: y\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: x\r\n\n'
end

-- RFC 9112, 2.2: empty lines before a request are skipped, if they are lines.
function T.test_before_the_request_line()
  for _, bytes in ipairs { '\n', '\r', '\n\n', '\r\r\n', '\n\r', '\r\n\n', '\r\n\r', '\n\r\n' } do
    refused_head(bytes .. head('X: a', 'GET / HTTP/1.1'))
  end
  local get = head('X: a', 'GET / HTTP/1.1')
  lu.assertEquals(ask('\r\n' .. get .. '\r\n\r\n\r\n' .. get), { 200, 200 })
  lu.assertEquals(ask('\r', '\n\r', '\n' .. get .. '\r', '\n', get), { 200, 200 })
  lu.assertEquals(ask(get .. '\n' .. get), { 200, 400 })
  lu.assertEquals(ask(head 'Content-Length: 3' .. 'abc\r\n' .. get), { 200, 200 }, 'of old programs')
end

function T.test_bare_carriage_returns()
  refused_head('GET / HTTP/1.1\rHost: x\r\n\r\n', 505)
  refused_head 'GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: x\r\nX: y\r\r\n\r\n'
end

function T.test_bytes_that_are_not_allowed()
  refused_head(head 'X: a\0b')
  refused_head(head 'X\0: ab')
  refused_head('GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n')
  refused_head(head 'X: a\1b')
  refused_head(head 'X: a\127b')
end

function T.test_blanks_around_names()
  refused_head(head 'Content-Length : 3' .. 'abc')
  refused_head(head 'Transfer-Encoding\t: chunked' .. '0\r\n\r\n')
  refused_head(head ' X: a')
  refused_head(head 'X Y: a')
  refused_head(head ': a')
  refused_head(head 'no colon')
end

function T.test_lines_of_requests()
  refused_head 'GET  / HTTP/1.1\r\nHost: x\r\n\r\n'
  refused_head 'GET /  HTTP/1.1\r\nHost: x\r\n\r\n'
  refused_head('GET / HTTP/1.1 \r\nHost: x\r\n\r\n', 505)
  refused_head 'GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n'
  refused_head 'GET / x HTTP/1.1\r\nHost: x\r\n\r\n'
  refused_head('GET /\r\n\r\n', 505)
  refused_head 'GET / HTTQ/1.1\r\nHost: x\r\n\r\n'
  refused_head ' GET / HTTP/1.1\r\nHost: x\r\n\r\n'
end

function T.test_versions()
  for _, version in ipairs { '2.0', '1.2', '3.0', '0.9' } do
    refused_head('GET / HTTP/' .. version .. '\r\nHost: x\r\n\r\n', 505)
  end
  refused_head('GET / HTTP/1.10\r\nHost: x\r\n\r\n', 505)
end

function T.test_hosts()
  refused_head 'GET / HTTP/1.1\r\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: a, b\r\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n'
  refused_head 'GET / HTTP/1.1\r\nHost: a@b\r\n\r\n'
end

-- Bodies: the handler has been called already, and gets an error.

local function refused_body(text, status)
  refused(head 'Transfer-Encoding: chunked' .. text, status)
end

function T.test_sizes_of_chunks()
  for _, size in ipairs { '0x3', '+3', '-3', ' 3', 'g', '', '3 ', '10000000000000003', '3_' } do
    refused_body(size .. '\r\nabc\r\n0\r\n\r\n')
  end
end

function T.test_ends_of_chunks()
  refused_body '3\nabc\r\n0\r\n\r\n'
  refused_body '3\r\nabc\n0\r\n\r\n'
  refused_body '3\r\nabcd\r\n0\r\n\r\n'
  refused_body '3\r\nabc0\r\n\r\n'
  refused_body '3\rabc\r\n0\r\n\r\n'
  refused_body '3\r\nabc\r\n0\n\r\n'
  refused_body '3\r\nabc\r\n0\r\n\n'
end

function T.test_extensions_of_chunks()
  local statuses = ask(head 'Transfer-Encoding: chunked' .. '3;a=b\r\nabc\r\n0\r\n\r\n')
  lu.assertEquals(statuses, { 200 })
  refused_body '3;a\nb\r\nabc\r\n0\r\n\r\n'
  refused_body '3;a\0b\r\nabc\r\n0\r\n\r\n'
  local huge = ask(head 'Transfer-Encoding: chunked' .. '3;' .. ('a'):rep(100000))
  lu.assertEquals(huge, { 431 })
end

function T.test_trailers()
  local statuses = ask(head 'Transfer-Encoding: chunked' .. '0\r\nX: a\r\n\r\n')
  lu.assertEquals(statuses, { 200 })
  refused_body '0\r\nX: a\nY: b\r\n\r\n'
  refused_body '0\r\nX : a\r\n\r\n'
  refused_body '0\r\nX: a\r\n b\r\n\r\n'
  local huge = ask(head 'Transfer-Encoding: chunked' .. '0\r\n' .. ('X: a\r\n'):rep(20000) .. '\r\n')
  lu.assertEquals(huge, { 431 })
end

return T
