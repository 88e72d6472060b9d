-- Follows the links of a web site, a few pages at a time, and tells which of them lead nowhere.
--     luajit crawler.lua URL [AT_ONCE [PAGES]]      8 at once, 1000 pages at most
-- `luajit crawler.lua http://127.0.0.1:8080/` prints a line for each page that is missing, with the first
-- page that leads to it, and a line at the end:
--     404     http://127.0.0.1:8080/old.html     from http://127.0.0.1:8080/
--     25 pages, 1 missing
-- It stays on the host of the URL. Use it on sites of yours. Ctrl-C ends it early.
local asio = require 'asio'
local http = require 'asio.http'

local start, at_once, most = arg[1], tonumber(arg[2] or 8), tonumber(arg[3] or 1000)

local function site_of(url) return url:match '^https?://[^/?#]+' end

local site = start and site_of(start)
if not site or not at_once or at_once < 1 or not most then
    io.stderr:write 'usage: crawler.lua URL [AT_ONCE [PAGES]]\n'
    os.exit(2, true)
end

local pool = http.pool { per_host = at_once }
local seen, pages, missing = {}, 0, 0

-- RFC 3986, 5.2, for what links in pages are: nil: not a page of this site.
local function resolve(base, link)
    link = link:gsub('#.*', ''):gsub('&amp;', '&'):match '^%s*(.-)%s*$'
    if link:find '^//' then link = base:match '^https?:' .. link end
    if link:find '^%a[%w+.-]*:' then return site_of(link) == site and link or nil end
    local path = base:sub(#site + 1):match '^[^?]*'
    if path == '' then path = '/' end
    if link == '' then return nil end
    if link:find '^?' then
        link = path .. link
    elseif not link:find '^/' then
        link = path:match '^.*/' .. link
    end
    local new_path, query = link:match '^([^?]*)(.*)$'
    local kept = {}
    for name in new_path:gmatch '[^/]+' do
        if name == '..' then kept[#kept] = nil elseif name ~= '.' then kept[#kept + 1] = name end
    end
    local slash = new_path:find '/%.?%.?$' and #kept > 0 and '/' or ''
    return site .. '/' .. table.concat(kept, '/') .. slash .. query
end

local function report(what, url, from)
    missing = missing + 1
    print(what, url, 'from ' .. from)
end

local found -- a function

-- Only what is HTML is read: of a large file the head is enough.
local function visit(url, from)
    local response, message = http.get(url, { pool = pool, stream = true, timeout = 30 })
    if not response then return report(message, url, from) end
    local text
    if response.status == 200 and (response:header 'content-type' or ''):find '^text/html' then
        text, message = response:read_all(4 * 1048576)
        if not text then report(message, url, from) end
    end
    response:close()
    if response.status >= 400 then report(response.status, url, from) end
    if site_of(response.url) ~= site then return end -- a redirect has led elsewhere
    for link in (text or ''):gmatch '[hH][rR][eE][fF]%s*=%s*["\']([^"\']*)' do
        found(resolve(response.url, link), url)
    end
end

local function crawl()
    local slots = asio.semaphore(at_once)
    asio.group(function(g)
        function found(url, from)
            if not url or seen[url] or pages >= most then return end
            seen[url], pages = true, pages + 1
            g:spawn(function()
                slots:acquire() -- waits while AT_ONCE pages are read
                visit(url, from)
                slots:release()
            end)
        end
        found(start, 'the command line')
    end)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    local search = asio.spawn(crawl)
    local watch = asio.spawn(function()
        interrupt:wait()
        search:cancel()
    end)
    local ok, err = search:join()
    watch:cancel()
    pool:close()
    print(('%d pages, %d missing'):format(pages, missing))
    if not ok and err ~= asio.cancelled then io.stderr:write(tostring(err), '\n') end
end)
