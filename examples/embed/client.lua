-- The second Lua state, whose loop the program turns: client.lua PORT
local asio = require 'asio'
local port = ...

asio.spawn(function()
    local conn = assert(asio.connect('localhost', port))
    for _, word in ipairs { 'one', 'two', 'stop' } do
        conn:write(word, '\n')
        print(word, conn:read_line())
    end
    conn:close()
end)
