-- A transparent proxy for a router: takes the connections that the firewall redirects to it, connects to
-- their original destination, copies both ways, and prints both addresses and the bytes. For Linux.
--     luajit transparent_proxy.lua [ADDRESS [PORT]]            0.0.0.0 8888; port 0: any that is free
-- These rules redirect connections from the inner network of the router, here br-lan:
--     nft add table ip proxy
--     nft add chain ip proxy turn '{ type nat hook prerouting priority dstnat; }'
--     nft add rule ip proxy turn iifname br-lan tcp dport '{ 80, 443 }' redirect to :8888
-- When a browser in the inner network opens a page, the proxy prints
--     192.168.1.20    93.184.216.34:443       1024 bytes out, 52211 back
-- For IPv6 the same with `ip6` in place of `ip`, and ADDRESS `::`. Ctrl-C ends it.
local asio = require 'asio'

local address, port = arg[1] or '0.0.0.0', tonumber(arg[2] or 8888)
local CONNECT, IDLE = 10, 600 -- seconds

local own = {} -- the local ends of our connections onward

local function text(ip, its_port)
    return (ip:find(':', 1, true) and '[%s]:%d' or '%s:%d'):format(ip, its_port)
end

-- The original destination of a connection; or nil and the reason why it cannot be used.
local function destination(conn)
    local raw, message = conn:get_original_dst()
    if not raw then return nil, message end
    local to = asio.addr_to_str(raw)
    if to == text(conn:address()) then return nil, 'was not redirected, it would go on to itself' end
    asio.yield() -- if it comes from this process, the other end's connect has returned after this turn
    if own[text(conn:peer())] then return nil, to .. ': a connection of the proxy itself, check the rule' end
    return raw, to
end

-- Returns the text to print. A client that cannot be served gets a reset, the nearest thing to a refusal.
local function forward(conn)
    local raw, to = destination(conn)
    if not raw then
        conn:abort()
        return to
    end
    local onward, message = asio.connect(raw, { timeout = CONNECT })
    if not onward then
        conn:abort()
        return ('%s\t%s'):format(to, message)
    end
    local name = text(onward:address())
    own[name] = true
    local ok, out, back = pcall(asio.relay, conn, onward, { timeout = IDLE }) -- closes both
    own[name] = nil
    if not ok then error(out, 0) end -- Ctrl-C
    return ('%s\t%s'):format(to, out and ('%d bytes out, %d back'):format(out, back) or back)
end

local server, message = asio.server(address, port, function(conn)
    print(conn:peer(), forward(conn))
    io.flush()
end, { ipv6only = true })
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(0) -- no more clients; the handlers are cancelled
end)
