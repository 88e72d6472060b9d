-- A short run of the man in the middle (test/fuzz/tls.lua), for either version of TLS. With ASIO_LONG=1 ten
-- minutes, with seeds that no run before had.
--
-- test: 8 s
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'

local T = {}

local function run(version)
  can.need('shell', 'tls', 'openssl')
  local seconds = t.long and 600 or t.sanitized and 8 or 3
  local pipe = io.popen(('%s %s --seconds %d --first %d --version %s --limit %d 2>&1; echo $?'):format(
    t.quote(t.launcher), t.quote(t.root .. 'test/fuzz/tls.lua'), seconds, t.long and os.time() % 1000000 or 1,
    version, 20 * t.patience))
  local text = pipe:read '*a'
  pipe:close()
  lu.assertEquals(text:match '(%d+)%s*$', '0', text:sub(-8000))
end

T.test_a_man_in_the_middle_of_tls_1_2 = t.main(t.slow(t.long and 700 or 60, function() run '1.2' end))
T.test_a_man_in_the_middle_of_tls_1_3 = t.main(t.slow(t.long and 700 or 60, function() run '1.3' end))

return T
