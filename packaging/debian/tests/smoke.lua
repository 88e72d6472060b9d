-- Whether an installed module works: an echo over loopback, a name, another Lua state, and a deadline; says what it is.
local asio = require 'asio'

local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write(conn:read_all())
    conn:close()
end))
local _, port = server:address()

asio.run(function()
    local conn = assert(asio.connect('127.0.0.1', port))
    conn:write(('0123456789'):rep(20000))
    assert(conn:shutdown())
    assert(#assert(conn:read_all()) == 200000, 'not everything has come back')
    conn:close()
    server:close()
    assert(asio.resolve 'localhost', 'localhost has no address')
    local ch = assert(asio.shared.channel(1))
    local worker = assert(asio.worker(function(n) return ch:send(n + 1) end, 41))
    assert(ch:recv(10) == 42 and worker:join(10), 'no worker')
    assert(select(3, asio.timeout(0.01, asio.sleep, 60)) == 'ETIMEDOUT', 'no deadline')
end)
local _, _, code = asio.socketpair():start_tls { server = true } -- which needs a certificate

local has_http, http = pcall(require, 'asio.http')
if has_http then
    local web = assert(http.server('127.0.0.1', 0, function(req, res)
        res:send(200, { ['Content-Type'] = 'text/plain' }, ('hello '):rep(1000) .. req.path)
    end, { gzip = true }))
    local _, web_port = web:address()
    asio.run(function()
        local response = assert(http.get(('http://127.0.0.1:%d/there'):format(web_port)))
        assert(response.body == ('hello '):rep(1000) .. '/there' and response.decoded == 'gzip', 'HTTP is not whole')
        http.default_pool:close()
        web:close()
    end)
end
print('asio works', asio.version or '', asio.stats().resolver or '', code == 'ENOTSUP' and 'no TLS' or 'TLS',
    has_http and 'HTTP' or 'no HTTP')
