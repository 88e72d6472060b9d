-- Connections of HTTP that are idle after a request over each: http_idle.lua PORT PID COUNT
-- prints the growth of the server's resident memory, by its process, over their number.
-- SPDX-License-Identifier: MIT
local asio = require 'asio'

local port, pid, count = tonumber(arg[1]), arg[2], tonumber(arg[3])

local REQUEST = 'GET /hello HTTP/1.1\r\nHost: localhost\r\nUser-Agent: idle\r\nAccept: */*\r\n'
    .. 'Accept-Encoding: gzip\r\nCookie: session=%d\r\n\r\n'

local function resident()
    local file = assert(io.open('/proc/' .. pid .. '/smaps_rollup'))
    local text = file:read '*a'
    file:close()
    return tonumber(text:match 'Rss:%s*(%d+)') * 1024
end

local function exchange(conn, number)
    assert(conn:write(REQUEST:format(number)))
    local head = assert(conn:read_until '\r\n\r\n')
    assert(head:find('^HTTP/1.1 200'), head)
    assert(conn:read(tonumber(head:lower():match 'content%-length: (%d+)')))
end

asio.run(function()
    local conns = {}
    for i = 1, 100 do -- what the first ones cost is the server's own
        local conn = assert(asio.connect('127.0.0.1', port))
        for _ = 1, 20 do exchange(conn, i) end
        conn:close()
    end
    asio.sleep(0.3)
    local before = resident()
    for i = 1, count do
        conns[i] = assert(asio.connect('127.0.0.1', port))
        exchange(conns[i], i)
    end
    asio.sleep(0.3)
    print(('idle=%d bytes_each=%.0f'):format(count, (resident() - before) / count))
    for i = 1, count do conns[i]:close() end
end)
