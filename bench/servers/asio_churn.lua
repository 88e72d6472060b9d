-- Server of ours for connections that are used once: it echoes one message and closes. A second
-- port, control=N, collects all garbage when a byte arrives and answers how much the Lua heap holds:
-- only after that does memory that is still there count as growth.
--     asio_churn.lua SIZE
local asio = require 'asio'

local size = tonumber(arg[1]) or 64

local server = assert(asio.server('127.0.0.1', 0, function(con)
    local data = con:read(size)
    if data then con:write(data) end
    con:close()
end))

local control = assert(asio.server('127.0.0.1', 0, function(con)
    con:read(1)
    collectgarbage()
    collectgarbage() -- what the finalizers of the first one released
    con:write(string.format('memory=%d\n', collectgarbage 'count' * 1024))
    con:close()
end))

local _, control_port = control:address()
print('control=' .. control_port)
local _, port = server:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
