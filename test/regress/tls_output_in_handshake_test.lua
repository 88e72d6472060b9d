-- What was written during a handshake waited for `linger` seconds after the peer had gone in the midst of it,
-- and so did a flush.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local raw = require 'raw'
local t = require 'support'

local T = {}

function T.test_a_peer_that_goes()
  can.need 'tls'
  local a, b = asio.socketpair()
  local fd = a:fd()
  local shaking = asio.spawn(a.start_tls, a, { verify = false })
  lu.assertTrue(a:write 'early')
  local flusher = asio.spawn(a.flush, a)
  b:close()
  local _, flushed, _, code = flusher:join(5 * t.patience)
  lu.assertNil(flushed)
  lu.assertTrue(code == 'EPROTO' or code == 'ECANCELED', code)
  local _, ok, _, why = shaking:join()
  lu.assertEquals({ ok, why }, { nil, 'EOF' })
  t.wait_until(function() return not raw.is_open(fd) end, 'the descriptor to go')
end

return T
