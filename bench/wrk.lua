-- The requests of wrk: wrk -s wrk.lua URL -- hello|pipelined|echo|file
-- Five headers; the cookie is another one in each request, so that no server gains by strings it has seen.
-- SPDX-License-Identifier: MIT
local PIPELINE = 16

local counter = 0
local one

local function lines(method, path, more)
    local line = ('%s %s HTTP/1.1\r\n'):format(method, path)
    return line .. 'Host: localhost\r\nUser-Agent: wrk\r\nAccept: text/html,application/xhtml+xml\r\n'
        .. 'Accept-Encoding: gzip, deflate\r\n' .. more .. 'Cookie: session='
end

-- Requests are made of a front, a number and a back.
local function numbered(front, back)
    return function()
        counter = counter + 1
        return front .. counter .. back
    end
end

local modes = {}

function modes.hello() one = numbered(lines('GET', '/hello', ''), '\r\n\r\n') end

function modes.file() one = numbered(lines('GET', '/file', ''), '\r\n\r\n') end

function modes.echo()
    one = numbered(lines('POST', '/users/42/posts/1234', 'Content-Length: 1024\r\n'),
        '\r\n\r\n' .. ('b'):rep(1024))
end

function modes.pipelined()
    modes.hello()
    local single, list = one, {}
    one = function()
        for i = 1, PIPELINE do list[i] = single() end
        return table.concat(list)
    end
end

function init(args) modes[args[1]]() end -- luacheck: ignore

function request() return one() end -- luacheck: ignore
