-- The cases of tls_server_test.lua, tls_tickets_test.lua and tls_verify_test.lua again, with TLS 1.2 alone:
-- OpenSSL is told so before it is loaded.
-- test: 8 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local ends = require 'tls_ends'
local rawunix = require 'rawunix'
local t = require 'support'

-- They are of TLS 1.3, or of both versions, or of no version.
local OTHERS = { test_accept = true, test_systemd = true, test_tickets_and_names = true, test_keys = true,
  test_bad_options_raise = true, test_bad_pins_raise = true, test_options_of_a_name = true }

local T = {}

function T.test_the_version()
  can.need 'fork'
  ends.with(ends.identity 'server', function(port)
    lu.assertEquals(ends.visit(port, ends.trust()).version, 'TLSv1.2')
  end)
end

-- Asking for the capability loads OpenSSL: afterwards.
if can.has 'fork' then
  rawunix.setenv('OPENSSL_CONF', t.root .. 'test/support/tls12.conf')
  for _, name in ipairs { 'server', 'tickets', 'verify' } do
    for case, fn in pairs(dofile(t.root .. 'test/tls/tls_' .. name .. '_test.lua')) do
      if not OTHERS[case] then T[case .. '_' .. name] = fn end
    end
  end
end

if not can.has 'tls' then T = { test_all = function() can.need 'tls' end } end

return T
