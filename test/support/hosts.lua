-- The C program that embeds the core (test/host/), for the tests that run it.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'

local M = {}

local function start(run)
  -- c-ares takes an answer for which it has no memory for a lost one, and asks again after its time.
  local env = ('%s ASIO_RESOLVER=%s RES_OPTIONS="timeout:1 attempts:1" ASIO_SHARE=%s'):format(
    run.env or '', run.resolver or 'getaddrinfo', run.share or '1/1')
  return io.popen(('%s timeout -k 5 %d %s %s 2>&1; echo "status $?"'):format(
    env, run.seconds * t.patience, t.quote(os.getenv 'ASIO_BUILD' .. '/test/host'), run.mode))
end

--- Runs it several times at once, each with {mode=, seconds=[, resolver='ares'][, share='K/N'][, env=,
--- assignments for the shell]}. Blocks the loop: nothing else goes on meanwhile.
function M.run_together(...)
  can.need 'host'
  lu.skipIf(t.stress, 'its states do not collect at every opportunity')
  local children, outputs = {}, {}
  for i, run in ipairs { ... } do children[i] = start(run) end
  for i, child in ipairs(children) do
    outputs[i] = child:read '*a'
    child:close()
  end
  for _, output in ipairs(outputs) do
    -- What it counted is the last thing it prints, unless it died.
    local failed, status = output:match '%d+ passed, (%d+) failed\nstatus (%d+)\n$'
    local failures = output:match '\n(FAILED.*)' or output
    lu.assertEquals({ failed, status }, { '0', '0' }, failures:sub(1, 8000) .. output:sub(-2000))
  end
end

function M.skip_without_ares()
  can.need 'ares'
end

--- Runs one mode, within so many seconds, by the resolver 'getaddrinfo' (default) or 'ares'.
function M.run(mode, seconds, resolver)
  if resolver then M.skip_without_ares() end
  M.run_together { mode = mode, seconds = seconds, resolver = resolver }
end

return M
