-- Short runs of the fuzzers of HTTP: test/fuzz/http_fuzz.c reads messages, test/fuzz/http.lua forms and URLs.
-- With ASIO_LONG=1 a minute each with seeds that no run before had, and where there is clang, libFuzzer makes
-- messages for as long.
--
-- test: 12 s
-- test: needs http
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'

local T = {}

local function output_of(line)
  local pipe = io.popen(line .. ' 2>&1; echo "status $?"')
  local text = pipe:read '*a'
  pipe:close()
  return text
end

local function messages(kind)
  can.need 'shell'
  local rounds = t.long and 3000000 or t.sanitized and 5000 or 30000
  for seed = 1, 3 do
    local said = output_of(('timeout %d %s/test/http_fuzz %s %d %d'):format(
      600 * t.patience, os.getenv 'ASIO_BUILD', kind, rounds, t.long and os.time() + seed or seed))
    lu.assertEquals(said, ('%d rounds\nstatus 0\n'):format(rounds), 'seed ' .. seed)
  end
end

T.test_requests = t.main(t.slow(t.long and 1800 or 60, function() messages 'request' end))
T.test_responses = t.main(t.slow(t.long and 1800 or 60, function() messages 'response' end))

T.test_forms_and_urls = t.main(t.slow(t.long and 200 or 60, function()
  can.need('shell', 'plain')
  local seed = t.long and os.time() or 1
  local said = output_of(('timeout %d %s %s %d %d'):format(
    120 * t.patience, t.quote(t.launcher), t.quote(t.root .. 'test/fuzz/http.lua'), t.long and 60 or 2, seed))
  lu.assertStrMatches(said, '%d+ rounds, %d+ URLs\nstatus 0\n', nil, nil, 'seed ' .. seed .. ': ' .. said)
end))

-- libFuzzer begins with these.
local CORPUS = {}
for i, text in ipairs {
  'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
  'POST /a?b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n' ..
    '5;a="b"\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n',
  'PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.0\r\n\r\n',
  'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n',
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
  'HTTP/1.0 200 OK\r\n\r\nto the end',
} do
  CORPUS['corpus/' .. i] = text
end

T.test_libfuzzer = t.main(t.slow(400, function()
  lu.skipIf(not t.long, 'libFuzzer runs with ASIO_LONG=1')
  can.need('shell', 'native')
  can.run('clang', 'pkg-config')
  t.with_files(CORPUS, function(dir)
    local compiled = output_of(([[cd %s && clang -g -O1 -w -DLIBFUZZER -DLLHTTP_STRICT_MODE=1 \
      -D_FILE_OFFSET_BITS=64 -fsanitize=fuzzer,address,undefined -iquote src \
      -I/usr/share/include -I/usr/share/include/llhttp test/fuzz/http_fuzz.c \
      /usr/share/llhttp/llhttp.c /usr/share/llhttp/api.c /usr/share/llhttp/http.c \
      -o %s/fuzz $(pkg-config --cflags --libs luajit libuv)]]):format(t.quote(t.root), dir))
    lu.assertEquals(compiled, 'status 0\n')
    local line = 'cd %s && timeout %d ./fuzz -max_total_time=60 -max_len=1500 -timeout=10 corpus'
    local said = output_of(line:format(dir, 180 * t.patience))
    lu.assertStrContains(said, '\nstatus 0\n', false, said:sub(-4000))
  end)
end))

return T
