-- Sequential GETs over one connection of the pool, beside bench/curl_get.c:
--     http_get.lua URL COUNT
-- prints the microseconds of this process's CPU, and of the clock, per request.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local http = require 'asio.http'

local url, count = arg[1], tonumber(arg[2])

local function get()
  local response = assert(http.get(url, { proxy = false }))
  assert(response.status == 200 and response.body)
end

asio.run(function()
  for _ = 1, 200 do get() end
  local used, since = os.clock(), asio.now()
  for _ = 1, count do get() end
  print(('asio: %.2f us of CPU, %.2f us a request'):format(
    (os.clock() - used) * 1e6 / count, (asio.now() - since) * 1e6 / count))
  http.default_pool:close()
end)
