-- Short runs of the fuzzers of HTTP: test/fuzz/http_fuzz.c for messages, forms and URLs, test/fuzz/http.lua
-- for forms that a server reads. With ASIO_LONG=1 they are longer, and have seeds that no run before had.
-- Under the sanitizers (./build.sh asan http_fuzz), and with ASIO_LONG=1, libFuzzer makes the inputs:
-- ASIO_FUZZ_SECONDS (60) for each target.
--
-- test: 12 s
-- test: needs http
-- test: needs shell
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

local function fuzz(target, rounds)
  can.need 'shell'
  rounds = t.long and rounds * 100 or t.sanitized and rounds / 6 or rounds
  for seed = 1, 3 do
    local said = output_of(('timeout %d %s/test/http_fuzz %s %d %d'):format(
      600 * t.patience, t.quote(os.getenv 'ASIO_BUILD'), target, rounds, t.long and os.time() + seed or seed))
    lu.assertEquals(said, ('%d rounds\nstatus 0\n'):format(rounds), 'seed ' .. seed)
  end
end

T.test_requests = t.main(t.slow(t.long and 1800 or 60, function() fuzz('request', 30000) end))
T.test_responses = t.main(t.slow(t.long and 1800 or 60, function() fuzz('response', 30000) end))
T.test_multipart = t.main(t.slow(t.long and 1800 or 60, function() fuzz('multipart', 10000) end))
T.test_urls = t.main(t.slow(t.long and 1800 or 60, function() fuzz('url', 30000) end))

T.test_forms_of_a_server = t.main(t.slow(t.long and 200 or 60, function()
  can.need('shell', 'plain')
  local seed = t.long and os.time() or 1
  local said = output_of(('timeout %d %s %s %d %d'):format(
    120 * t.patience, t.quote(t.launcher), t.quote(t.root .. 'test/fuzz/http.lua'), t.long and 60 or 2, seed))
  lu.assertStrMatches(said, '%d+ rounds\nstatus 0\n', nil, nil, 'seed ' .. seed .. ': ' .. said)
end))

-- libFuzzer ---------------------------------------------------------------------------------------

local SECONDS = tonumber(os.getenv 'ASIO_FUZZ_SECONDS') or 60

-- The target is the name of the program.
local function build_fuzzers(dir)
  local compiled = output_of(([[cd %s && clang -g -O1 -w -DLIBFUZZER -DLLHTTP_STRICT_MODE=1 \
    -D_FILE_OFFSET_BITS=64 -DASIO_ROOT='"%s"' -fsanitize=fuzzer,address,undefined -iquote src \
    -I/usr/share/include -I/usr/share/include/llhttp test/fuzz/http_fuzz.c \
    /usr/share/llhttp/llhttp.c /usr/share/llhttp/api.c /usr/share/llhttp/http.c \
    -o %s/request $(pkg-config --cflags --libs luajit libuv) && \
    cd %s && for name in response multipart url; do ln request $name; done]]):format(
    t.quote(t.root), t.root, dir, dir))
  lu.assertEquals(compiled, 'status 0\n')
end

-- What is found goes into a directory of its own, not to the inputs that are kept.
local function start_fuzzer(dir, target, most)
  local kept, log = t.quote(t.root .. 'test/fuzz/http/' .. target), dir .. '/' .. target .. '.log'
  return io.popen(([[mkdir %s/%s.new && timeout %d %s/%s -max_total_time=%d -max_len=%d -timeout=60 \
    -rss_limit_mb=1024 -malloc_limit_mb=64 -artifact_prefix=%s/ -dict=%s.dict %s/%s.new %s >%s 2>&1; \
    echo "status $?"; tail -c 8000 %s]]):format(dir, target, (SECONDS + 120) * t.patience, dir, target,
    SECONDS, most, dir, kept, dir, target, kept, log, log))
end

-- Two at a time: more would only share the processors.
local function run_libfuzzer(dir)
  build_fuzzers(dir)
  for _, pair in ipairs { { 'request', 'response', most = 1500 }, { 'multipart', 'url', most = 12000 } } do
    local running = {}
    for i, target in ipairs(pair) do running[i] = start_fuzzer(dir, target, pair.most) end
    for i, target in ipairs(pair) do
      local said = running[i]:read '*a'
      running[i]:close()
      lu.assertStrMatches(said, 'status 0\n.*\nDone %d+ runs.*', nil, nil, target .. ': ' .. said)
    end
  end
end

T.test_libfuzzer = t.main(t.slow(4 * SECONDS + 300, function()
  lu.skipIf(not (t.long or t.sanitized), 'libFuzzer runs under the sanitizers, or with ASIO_LONG=1')
  can.need('shell', 'native', 'libfuzzer')
  can.run 'pkg-config'
  t.with_files({}, run_libfuzzer)
end))

return T
