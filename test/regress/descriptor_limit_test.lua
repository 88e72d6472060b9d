-- At the limit of descriptors every call that opens one says EMFILE, and leaves none open; clients wait.
-- SPDX-License-Identifier: MIT

local t = require 'support'

local T = {}

-- Each call with 0, 1, 2, ... descriptors left, until it has what it needs.
local function all_calls(dir)
  local asio, raw = require 'asio', require 'raw'
  local function call_all(tcp, unix, port)
    local handles = { handles = true }
    return {
      connect = function() return asio.connect('127.0.0.1', port) end,
      connect_name = function() return asio.connect('localhost', port, { timeout = 5 }) end,
      connect_unix = function() return asio.connect('unix:' .. dir .. '/a') end,
      connect_handles = function() return asio.connect('unix:' .. dir .. '/a', handles) end,
      pair = function() return asio.socketpair() end,
      server = function() return asio.server('127.0.0.1', 0, print) end,
      server_all = function() return asio.server('*', 0, print) end,
      server_unix = function() return asio.server('unix:' .. dir .. '/b', print, { unlink_stale = true }) end,
      server_abstract = function() return asio.server('unix:@', print, handles) end,
      udp = function() return asio.udp('127.0.0.1', 0) end,
      udp_later = function()
        local socket = assert(asio.udp())
        local ok, message, code = socket:send('x', '127.0.0.1', port)
        socket:close()
        return ok, message, code
      end,
      accept = function() return tcp:accept(0.02) end,
      accept_handles = function() return unix:accept(0.02) end,
    }
  end
  local function drop(...)
    for _, value in ipairs { ... } do
      if type(value) == 'userdata' then value:close() end
    end
  end
  asio.run(function()
    local tcp = assert(asio.server('127.0.0.1', 0))
    local unix = assert(asio.server('unix:' .. dir .. '/a', nil, { handles = true }))
    local clients, port = {}, select(2, tcp:address())
    for i = 1, 20 do
      clients[i] = raw.connect(port)
      clients[i + 20] = assert(asio.connect('unix:' .. dir .. '/a', { handles = true }))
    end
    for name, call in pairs(call_all(tcp, unix, port)) do
      drop(call()) -- what the library opens once and keeps
      asio.sleep(0.005)
      local fds, spare, results = raw.count_fds(), 0
      repeat
        raw.limit_fds(spare)
        results = { call() }
        raw.unlimit_fds()
        local code = results[3]
        local refused = code == 'EMFILE' or name:find 'accept' and code == 'ETIMEDOUT'
        assert(results[1] or refused, name .. ': ' .. tostring(code))
        drop(unpack(results, 1, 2))
        local deadline = asio.now() + 5
        while raw.count_fds() > fds and asio.now() < deadline do asio.sleep(0.002) end
        assert(raw.count_fds() <= fds, name .. ' has left descriptors open')
        spare = spare + 1
      until results[1] or spare > 40
      assert(results[1], name .. ': ' .. tostring(results[3]))
    end
    for _, client in ipairs(clients) do client:close() end
    tcp:close()
    unix:close()
  end)
end

function T.test_every_call_at_the_limit()
  local dir = os.tmpname()
  os.remove(dir)
  os.execute('mkdir ' .. dir)
  t.child(all_calls, { args = { dir }, seconds = 60, env = t.ignore_leaks })
  os.execute('rm -rf ' .. dir)
end

return T
