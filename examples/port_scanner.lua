-- Finds the open TCP ports of a machine of yours, many at a time.
--     luajit port_scanner.lua HOST [FIRST[-LAST] [AT_ONCE [SECONDS]]]      1-1024, 200, 1
-- `luajit port_scanner.lua localhost 1-65535` prints a line for each open port, with the greeting of the
-- service, if it sends one:
--     22      SSH-2.0-OpenSSH_9.2
--     1 open, 65534 closed, 0 without an answer
-- Ctrl-C ends the search early; the ports found by then are printed.
local asio = require 'asio'

local host, ports = arg[1], arg[2] or '1-1024'
local at_once, seconds = tonumber(arg[3] or 200), tonumber(arg[4] or 1)
local first, last = ports:match '^(%d+)%-?(%d*)$'
first, last = tonumber(first), tonumber(last ~= '' and last or first)
local wrong = not (host and first and at_once and seconds)
if wrong or first < 1 or first > last or last > 65535 or at_once < 1 then
    io.stderr:write 'usage: port_scanner.lua HOST [FIRST[-LAST] [AT_ONCE [SECONDS]]]\n'
    os.exit(2, true)
end

local banners, count = {}, { open = 0, closed = 0, silent = 0 }

-- The greeting of a service that sends first; '' if it sends nothing.
local function banner(conn)
    conn:set_timeout(seconds)
    local text = conn:read_some(200) or ''
    return text:match('^[^\r\n]*'):gsub('[^\32-\126]', '.')
end

-- A name may have several addresses, and a service may listen on one of them only.
local function connect(addresses, port)
    local conn, message, code
    for _, record in ipairs(addresses) do
        conn, message, code = asio.connect(record.address, port, { timeout = seconds })
        if conn then break end
    end
    return conn, message, code
end

local function probe(addresses, port)
    local conn, message, code = connect(addresses, port)
    if conn then
        count.open = count.open + 1
        banners[port] = ''
        banners[port] = banner(conn)
        conn:abort()
    elseif code == 'ECONNREFUSED' then
        count.closed = count.closed + 1
    elseif code == 'EMFILE' then
        error('too many at once: ' .. message, 0)
    else
        count.silent = count.silent + 1 -- or a router says that it cannot be reached
    end
end

local function scan(addresses)
    local slots = asio.semaphore(at_once)
    asio.group(function(g)
        for port = first, last do
            slots:acquire() -- waits while AT_ONCE probes run
            g:spawn(function()
                probe(addresses, port)
                slots:release()
            end)
        end
    end)
end

local addresses, message = asio.resolve(host)
if not addresses then
    io.stderr:write(('%s: %s\n'):format(host, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    local search = asio.spawn(scan, addresses)
    local watch = asio.spawn(function()
        interrupt:wait()
        search:cancel()
    end)
    local ok, err = search:join()
    watch:cancel()
    for port = first, last do
        if banners[port] then print(port, banners[port]) end
    end
    print(('%d open, %d closed, %d without an answer'):format(count.open, count.closed, count.silent))
    if not ok and err ~= asio.cancelled then io.stderr:write(tostring(err), '\n') end
end)
