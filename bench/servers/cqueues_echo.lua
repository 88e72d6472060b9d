-- Echo server on cqueues, one coroutine per connection: cqueues_echo.lua SIZE exact|some
--     exact   reads messages of SIZE bytes and writes each, with the calls that wait by themselves
--     some    takes whatever is there, with the calls beneath them: the quickest way measured
local cqueues = require 'cqueues'
local errno = require 'cqueues.errno'
local socket = require 'cqueues.socket'

local size = tonumber(arg[1]) or 64
local echo = {}

-- Its buffers hold 4 KB unless told; more helps large messages and only costs memory with small ones.
local function enlarge(con)
    if size > 4096 then con:setbufsiz(65536, 65536) end
end

-- Buffered input serves many messages per system call; output is best not buffered, since nothing
-- would flush it before the coroutine waits for the next message.
function echo.exact(con)
    enlarge(con)
    con:setmode('bf', 'bn')
    while true do
        local data = con:xread(size)
        if not data or not con:xwrite(data, 'bn') then break end
    end
    con:close()
end

local function send_all(con, data)
    local sent = 0
    while true do
        local n, why = con:send(data, sent + 1, #data)
        sent = sent + n
        if sent == #data then return true end
        if why ~= errno.EAGAIN then return false end
        cqueues.poll(con)
    end
end

function echo.some(con)
    enlarge(con)
    con:setmode('bn', 'bn')
    while true do
        local data, why = con:recv(-65536)
        if data then
            if not send_all(con, data) then break end
        elseif why == errno.EAGAIN then
            cqueues.poll(con)
        else
            break
        end
    end
    con:close()
end

local handler = assert(echo[arg[2] or 'exact'], 'the second argument is exact or some')
local server = assert(socket.listen { host = '127.0.0.1', port = 0 })
assert(server:listen())

local queue = cqueues.new()
queue:wrap(function()
    for con in server:clients { nodelay = true } do queue:wrap(handler, con) end
end)

local _, _, port = server:localname()
print('port=' .. port)
io.stdout:flush()
assert(queue:loop())
