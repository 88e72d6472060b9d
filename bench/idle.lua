-- The memory of an idle connection and of the light thread that waits in its read, for builds that bench/run
-- cannot measure, such as those of ./build.sh cross:
--     ASIO_BUILD=build/i686-linux-gnu test/luajit bench/idle.lua [CONNECTIONS]
-- Needs a limit of open files above that number.
-- SPDX-License-Identifier: MIT
local asio = require 'asio'

local function resident()
    for _ = 1, 2 do collectgarbage() end
    for line in io.lines '/proc/self/status' do
        local kilobytes = line:match '^VmRSS:%s*(%d+) kB'
        if kilobytes then return tonumber(kilobytes) * 1024 end
    end
end

-- The other ends, in a process of their own: opens them, and sends a message over each when the first gets
-- a byte.
local function peer(port, count)
    local conns = {}
    for i = 1, count do conns[i] = assert(asio.connect('127.0.0.1', port)) end
    conns[1]:write 'go'
    conns[1]:read(1)
    for i = 2, count do conns[i]:write 'ab' end
    conns[1]:read(1) -- until the measuring process has gone
    os.exit(0)
end

local function measure(count)
    local opened, messages, first = 0, 0, nil
    local server = assert(asio.server('127.0.0.1', 0, function(conn)
        opened = opened + 1
        for data in function() return conn:read(2) end do
            if data == 'go' then first = conn end
            messages = messages + 1
        end
    end, { backlog = 4096 }))
    local _, port = server:address()
    local before = resident()
    local luajit = os.getenv 'LUAJIT' or 'luajit'
    local process = io.popen(('%s %s peer %d %d'):format(luajit, arg[0], port, count))
    while not first or opened < count do asio.sleep(0.01) end
    print(('%d connections, %.0f bytes each'):format(opened, (resident() - before) / count))
    first:write 'x'
    while messages < count do asio.sleep(0.01) end
    print(('after a message over each: %.0f bytes'):format((resident() - before) / count))
    first:close()
    process:close()
    os.exit(0)
end

if arg[1] == 'peer' then
    asio.run(function() peer(tonumber(arg[2]), tonumber(arg[3])) end)
else
    asio.run(function() measure(tonumber(arg[1]) or 8000) end)
end
