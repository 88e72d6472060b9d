-- HTTP server of ours: asio_http.lua MODE FILE
--     hello   reads 5 headers and answers 13 bytes
--     echo    a route with 2 parameters sends the body back
--     file    sends FILE
local asio = require 'asio'
local http = require 'asio.http'

local mode, file = arg[1], arg[2]
local plain = { ['Content-Type'] = 'text/plain' }
local handlers = {}

function handlers.hello(req, res)
    local headers = req.headers
    local host, agent, accept = headers:get 'host', headers:get 'user-agent', headers:get 'accept'
    local encoding, cookie = headers:get 'accept-encoding', headers:get 'cookie'
    if not (host and agent and accept and encoding and cookie) then return res:send(400) end
    return res:send(200, plain, 'hello, world\n')
end

handlers.echo = http.router()
handlers.echo:post('/users/:user/posts/:post', function(req, res)
    local params = req.params
    if not (params.user and params.post) then return res:send(400) end
    return res:send(200, plain, req:read_all())
end)

function handlers.file(_, res)
    return res:file(file)
end

local server = assert(http.server('127.0.0.1', 0, handlers[mode], { idle_timeout = 600, backlog = 1024 }))
local _, port = server:address()
print('port=' .. port)
io.stdout:flush()
asio.run()
