-- A reverse proxy: passes requests to another server, and its responses back, piece by piece as they come.
-- The connections to that server are kept and used again. Upgraded connections (WebSocket) pass too.
--     luajit reverse_proxy.lua UPSTREAM [ADDRESS [PORT]]      127.0.0.1 8080; port 0: any that is free
-- UPSTREAM is the beginning of a URL: http://127.0.0.1:3000, http://unix:/run/app.sock:
-- Try it: `luajit reverse_proxy.lua http://127.0.0.1:3000`, then `curl http://127.0.0.1:8080/`. It prints a
-- line for each request that the other server did not answer. Ctrl-C ends it.
local asio = require 'asio'
local http = require 'asio.http'

local upstream, address, port = arg[1], arg[2] or '127.0.0.1', tonumber(arg[3] or 8080)
if not upstream or not upstream:find '^https?://' then
    io.stderr:write 'usage: reverse_proxy.lua http://HOST:PORT [ADDRESS [PORT]]\n'
    os.exit(2, true)
end
upstream = upstream:gsub('/$', '')

local pool = http.pool { per_host = 100 }

-- Fields that concern one connection only (RFC 9110, 7.6.1), and what the two sides set by themselves.
local OWN = {}
for name in ([[connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer
    transfer-encoding upgrade expect]]):gmatch '%S+' do OWN[name] = true end

-- A table of the fields that pass.
local function passing(head, without)
    local dropped, fields = {}, {}
    for _, text in ipairs(head:all 'connection') do
        for name in text:lower():gmatch '[^%s,]+' do dropped[name] = true end
    end
    for i = 1, head:count() do
        local name, value = head:field(i)
        name = name:lower()
        if not OWN[name] and not dropped[name] and name ~= without then
            local before = fields[name]
            if type(before) == 'table' then
                before[#before + 1] = value
            else
                fields[name] = before and { before, value } or value
            end
        end
    end
    return fields
end

-- The protocol that a request, or a 101, changes to.
local function upgrade_of(head)
    for _, text in ipairs(head:all 'connection') do
        if text:lower():find 'upgrade' then return head:get 'upgrade' end
    end
end

local function options_of(req)
    local fields, client = passing(req.headers, 'content-length'), req:peer()
    local before = fields['x-forwarded-for']
    if type(before) == 'table' then before = table.concat(before, ', ') end
    fields['x-forwarded-for'] = before and before .. ', ' .. client or client
    local protocol = upgrade_of(req.headers)
    if protocol then fields.connection, fields.upgrade = 'Upgrade', protocol end
    return {
        pool = pool, headers = fields, stream = true, redirects = false, decompress = false, proxy = false,
        body = req.length and req, length = req.length and req.length >= 0 and req.length or nil,
        timeout = { connect = 5, first_byte = 60, idle = 60 },
    }
end

local STATUS = { ETIMEDOUT = 504, EMSGSIZE = 502 }

-- The server could not be asked, or has not answered; or the client's request could not be read.
local function failed(req, res, message, code)
    if req.refused then return end -- the server of this proxy answers
    print(req.method, req.target, message, code)
    io.flush()
    return res:send(STATUS[code] or 502, { ['Content-Type'] = 'text/plain' }, 'the server does not answer\n')
end

local function switch(res, reply)
    local headers = passing(reply.headers)
    headers.upgrade = upgrade_of(reply.headers)
    local conn = res:upgrade(headers)
    if conn then asio.relay(conn, reply.conn) else reply.conn:abort() end
end

local function serve(req, res)
    local path, query = req.path, req.target:match '%?[^#]*' or ''
    if path:sub(1, 1) ~= '/' then return res:send(400, nil, 'a path expected\n') end
    local reply, message, code = http.request(req.method, upstream .. path .. query, options_of(req))
    if not reply then return failed(req, res, message, code) end
    if reply.conn then return switch(res, reply) end

    res.status, res.headers = reply.status, passing(reply.headers)
    local piece
    repeat
        piece, message, code = reply:read()
        local ok = not piece or res:write(piece)
        if not ok then reply:close() end -- the client has gone
    until not piece or not ok
    -- Half a response must not pass for the whole.
    if code then
        print(req.method, req.target, message, code)
        io.flush()
        req.conn:abort()
    end
end

local server, message = http.server(address, port, serve)
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(5)
    pool:close()
end)
