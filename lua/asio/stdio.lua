-- SPDX-License-Identifier: MIT
-- asio.stdin, asio.stdout, asio.stderr: opened when they are first named, so that nothing changes for a
-- script that does not use them.

local core = ...
local asio, open_stdio = core.asio, core.open_stdio

local numbers = { stdin = 0, stdout = 1, stderr = 2 }
setmetatable(asio, {
    __index = function(module, name)
        local number = numbers[name]
        if not number then return nil end
        local conn = open_stdio(number)
        rawset(module, name, conn)
        return conn
    end,
})
