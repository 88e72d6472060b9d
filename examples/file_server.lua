-- Serves the files of a directory: with their types, in parts (videos, interrupted downloads), not at all if
-- the browser has them, compressed where that helps.
--     luajit file_server.lua [DIRECTORY [ADDRESS [PORT]]]     . 127.0.0.1 8080; port 0: any that is free
-- Open http://127.0.0.1:8080/ in a browser: of a directory it shows index.html. Files whose names begin with
-- a dot are not served, nor is what symbolic links lead to outside of the directory. It prints a line for
-- each request. Ctrl-C ends it.
local asio = require 'asio'
local http = require 'asio.http'

local directory, address, port = arg[1] or '.', arg[2] or '127.0.0.1', tonumber(arg[3] or 8080)

local server, message = http.server(address, port, http.files(directory, { max_age = 60 }), {
    gzip = true,
    on_request_end = http.access_log(io.stdout, 'combined'),
})
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(5) -- downloads may end within 5 seconds
end)
