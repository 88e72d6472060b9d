-- SPDX-License-Identifier: MIT
-- TLS: what is here loads asio/tls.so (src/plugins/tls) when it is first needed, and calls it.

local core = ...
local asio, conn, server = core.asio, core.conn, core.server
local c_server = asio.server
local type = type

-- Calls a function of the plugin.
local function call(name, ...)
    local plugin, message, code = core.plugin('tls', "OpenSSL's libssl (to build it, libssl-dev)")
    if not plugin then return nil, message, code end
    return plugin[name](...)
end

-- What makes a connection one of TLS, if the options say so: a function of the connection and a deadline;
-- nil: nothing has to be done; or nil, message, code. The options are argument `arg` of connect.
function core.client(host, opts, arg)
    if type(opts) ~= 'table' or not opts.tls then return nil end
    return call('client', host, opts.tls, arg)
end

-- The options of a server, and which argument they are; nil: there are none.
function core.server_options(_, _, third, fourth)
    if type(third) == 'table' then return third, 3 end -- behind a handler, without a port
    if type(fourth) == 'table' then return fourth, 4 end
end

function asio.server(...)
    local opts, arg = core.server_options(...)
    if not opts or not opts.tls then return c_server(...) end
    return call('server', c_server, opts, arg, ...)
end

--- Begins TLS on a connection, over whatever it is: after STARTTLS for instance. Waits for the handshake.
--- After a failure the connection is closed. See docs/tls.md for the options.
---@param opts? table as the option `tls` of connect; `server = true` and the options of a server on the
--- accepting side; `peeked = true`: bytes that have come and were not read are the peer's first
---@return true? ok
---@return string? message
---@return string? code `CERT_HAS_EXPIRED` and the like, `EPROTO`, `ETIMEDOUT`, `EOF`, `ENOTSUP`: no OpenSSL
function conn.start_tls(self, opts)
    return call('start', self, opts)
end

--- What TLS has agreed on. Waits while the handshake goes on.
---@return table? info
---@return string? message
---@return string? code `ENOTSUP`: the connection has no TLS; `EBADF`: it is closed
function conn.tls(self)
    return call('info', self)
end

--- Replaces certificates and options of a server that was made with the option `tls`. Connections stay as
--- they are.
---@param opts table as the option `tls` of server
---@return true? ok
---@return string? message what is wrong with the new ones; the old ones stay
---@return string? code
function server.set_tls(self, opts)
    return call('set_tls', self, opts)
end
