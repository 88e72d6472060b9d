-- Server of ours for a protocol of lines: each line is read, and answered with itself, by itself.
--     asio_lines.lua read_line|lines
local asio = require 'asio'

local handlers = {}

function handlers.read_line(con)
    while true do
        local line = con:read_line()
        if not line then break end
        con:write(line, '\n')
    end
    con:close()
end

function handlers.lines(con)
    for line in con:lines() do con:write(line, '\n') end
    con:close()
end

local server = assert(asio.server('127.0.0.1', 0, handlers[arg[1]]))

local _, port = server:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
