-- SPDX-License-Identifier: MIT
--
-- Files as responses: res:file and http.files. The bytes go from the file to the connection by the system's
-- own call where there is one (disk.c); else, and where the connection has no room for now, 64 KB at a time
-- are read and written, and writing waits. A file that has changed while it was sent makes the response a
-- fault: the connection is reset.

local core, c, http = ...
local asio = core.asio
local byte, find, format, gsub, lower, match, sub =
    string.byte, string.find, string.format, string.gsub, string.lower, string.match, string.sub
local ipairs, min, pairs, time, type = ipairs, math.min, pairs, os.time, type
local disk_open, disk_stat, disk_read = c.disk_open, c.disk_stat, c.disk_read
local disk_send, disk_close = c.disk_send, c.disk_close

c.response = c.response or {}

local SMALL = 65536          -- is read whole, and sent with the head
local AT_ONCE = 1048576      -- between two looks at the file, and turns of other light threads
local PIECE = 16384          -- is written to wait for room

-- What a failure is for the client. The path is the client's, so a link or a component that is none is not
-- there.
local STATUS = {
    ENOENT = 404, ENOTDIR = 404, ELOOP = 404, ENAMETOOLONG = 404, EISDIR = 404, EACCES = 403, EPERM = 403,
    EMFILE = 503, ENFILE = 503, EAGAIN = 503,
}

-- An open file: handle, size, modified (seconds), part (nanoseconds) and tag, or nil, message, code.
local function open(root, path)
    local handle, kind, size, modified, part = disk_open(root, path)
    if not handle then return nil, kind, size end
    if kind ~= 'file' then
        disk_close(handle)
        if kind == 'directory' then return nil, 'this is a directory', 'EISDIR' end
        return nil, 'this is no regular file', 'EACCES'
    end
    -- A file that has just changed may change again within the same tick of its clock.
    local weak = time() - modified < 1 and 'W/' or ''
    local tag = format('%s"%x-%x-%x"', weak, modified % 2 ^ 40, part, size)
    return { handle = handle, size = size, modified = modified, part = part, tag = tag }
end

local function has_changed(file)
    local kind, size, modified, part = disk_stat(file.handle)
    return kind ~= 'file' or size ~= file.size or modified ~= file.modified or part ~= file.part
end

-- The bytes --------------------------------------------------------------------------------------

local function changed() return nil, 'the file has changed while it was sent', 'EIO' end

-- A piece from `at` on: bytes, at least one; nil, message, code.
local function read_piece(file, at, n)
    local data, message, code = disk_read(file.handle, at, n)
    if not data then return nil, message, code end
    if data == '' or has_changed(file) then return changed() end
    return data
end

-- Sends bytes from `at` on without a copy: how many went; 0: there is no room; -1: no way, they have to be
-- copied.
local function send_piece(res, file, at, n)
    if res.over or res.left and n > res.left then -- another light thread has written, too
        return nil, 'more than Content-Length says', 'EMSGSIZE'
    end
    local sent, message, code = disk_send(res.link.conn, file.handle, at, n)
    if not sent or sent <= 0 then return sent, message, code end
    if res.left then res.left = res.left - sent end
    res.bytes = res.bytes + sent
    if has_changed(file) then return changed() end
    return sent
end

-- The same with a copy; if it is to make room, it waits until the system has all.
local function copy_piece(res, file, at, n, makes_room)
    local data, message, code = read_piece(file, at, n)
    if not data then return nil, message, code end
    local ok
    ok, message, code = res:write(data)
    if ok and makes_room then ok, message, code = res.link.conn:flush() end
    if not ok then return nil, message, code end
    return #data
end

-- The head is out, and says how many bytes come. Waits.
local function send_slice(res, file, at, n)
    local direct, sent, message, code = n > SMALL, nil, nil, nil
    while n > 0 do
        if direct then sent, message, code = send_piece(res, file, at, min(n, AT_ONCE)) end
        if sent == -1 then direct = false end
        if not direct then
            sent, message, code = copy_piece(res, file, at, min(n, SMALL), false)
        elseif sent == 0 then
            sent, message, code = copy_piece(res, file, at, min(n, PIECE), true)
        elseif sent == AT_ONCE and n > sent then
            asio.yield()
        end
        if not sent then return nil, message, code end
        at, n = at + sent, n - sent
    end
    return true
end

-- A response whose head is out and whose body is not whole is a fault that the client sees.
local function end_of(res, ok, message, code)
    if ok then return res:finish() end
    if res.sent and not res.over then c.cut(res) end
    return nil, message, code
end

-- Small and whole: with the head.
local function send_small(res, file, at, n)
    local data = ''
    while #data < n do
        local piece, message, code = read_piece(file, at + #data, n - #data)
        if not piece then
            res.status = 500
            return nil, message, code
        end
        data = data == '' and piece or data .. piece
    end
    return res:send(res.status, nil, data)
end

local function send_range(res, file, at, n)
    if n <= SMALL and res.link.req.method ~= 'HEAD' then return send_small(res, file, at, n) end
    res.headers['Content-Length'] = n
    local ok, message, code = res:write ''
    if ok and not res.bodiless then ok, message, code = send_slice(res, file, at, n) end
    return end_of(res, ok, message, code)
end

-- RFC 9110, 14.6. The boundary must not be in the file, whose maker may want it to be: it is random.
local function send_ranges(res, file, ranges, kind)
    local boundary = c.boundary_of()
    local last, total, heads = '\r\n--' .. boundary .. '--\r\n', 0, {}
    for i, range in ipairs(ranges) do
        heads[i] = format('\r\n--%s\r\nContent-Type: %s\r\nContent-Range: bytes %.0f-%.0f/%.0f\r\n\r\n',
            boundary, kind, range.first, range.last, file.size)
        total = total + #heads[i] + range.last - range.first + 1
    end
    res.headers['Content-Type'] = 'multipart/byteranges; boundary=' .. boundary
    res.headers['Content-Length'] = total + #last
    local ok, message, code = res:write ''
    for i, range in ipairs(ranges) do
        if ok then ok, message, code = res:write(heads[i]) end
        if ok then ok, message, code = send_slice(res, file, range.first, range.last - range.first + 1) end
    end
    if ok then ok, message, code = res:write(last) end
    return end_of(res, ok, message, code)
end

-- The head ---------------------------------------------------------------------------------------

local function set_default(headers, name, value)
    local small = lower(name)
    for other in pairs(headers) do
        if type(other) == 'string' and lower(other) == small then return end
    end
    headers[name] = value
end

-- RFC 6266: a name for all, and one for those that know more than ASCII.
local function disposition(name)
    if find(name, '^[%w%-._ ]+$') then return format('attachment; filename="%s"', name) end
    return format('attachment; filename="%s"; filename*=UTF-8\'\'%s',
        gsub(name, '[^%w%-._ ]', '_'), c.escape(name))
end

local function set_headers(res, file, path, opts)
    local headers = res.headers
    set_default(headers, 'Last-Modified', c.http_date(file.modified))
    set_default(headers, 'ETag', file.tag)
    if opts.max_age then set_default(headers, 'Cache-Control', format('max-age=%.0f', opts.max_age)) end
    if opts.download then
        local name = opts.download == true and match(path, '[^/]*$') or opts.download
        set_default(headers, 'Content-Disposition', disposition(name))
    end
end

-- A compressor is in front of the response (gzip.lua), and takes it.
local function send_compressed(res, file)
    local at, sent, message, code = 0, true, nil, nil
    if res.link.req.method == 'HEAD' then at = file.size end
    while sent and at < file.size do
        sent, message, code = copy_piece(res, file, at, SMALL, false)
        at = at + (sent or 0)
    end
    return end_of(res, sent, message, code)
end

local function send_file(req, res, file, path, opts)
    set_headers(res, file, path, opts)
    local headers, kind = res.headers, opts.type or c.type_of(path)
    local status = c.precondition(req, file.tag, file.modified)
    if status then return res:send(status, nil, '') end
    set_default(headers, 'Content-Type', kind)
    if res.compresses and res:compresses(kind, file.size) then return send_compressed(res, file) end
    set_default(headers, 'Accept-Ranges', 'bytes')
    local ranges = c.ranges_of(req, file.size, file.tag, file.modified)
    if not ranges then return send_range(res, file, 0, file.size) end
    if #ranges == 0 then
        headers['Content-Type'] = nil
        return res:send(416, { ['Content-Range'] = format('bytes */%.0f', file.size) }, '')
    end
    res.status = 206
    if ranges[2] then return send_ranges(res, file, ranges, kind) end
    local first, last = ranges[1].first, ranges[1].last
    headers['Content-Range'] = format('bytes %.0f-%.0f/%.0f', first, last, file.size)
    return send_range(res, file, first, last - first + 1)
end

-- For scripts ------------------------------------------------------------------------------------

local KINDS = { root = 'string', type = 'string', max_age = 'number', index = 'string', dotfiles = 'boolean',
    param = 'string' }

local function check_options(opts, fname, arg)
    if opts == nil then return {} end
    if type(opts) ~= 'table' then c.bad(arg, fname, 'table expected, got ' .. type(opts)) end
    for name, value in pairs(opts) do
        local kind = KINDS[name] or name == 'download' and (value == true and 'boolean' or 'string')
        if not kind then c.unknown_option(arg, fname, name, KINDS) end
        if type(value) ~= kind and value ~= false then
            c.bad(arg, fname, ("option '%s': %s expected, got %s"):format(name, kind, type(value)))
        end
        if kind == 'string' and value and find(value, '[%c]') then
            c.bad(arg, fname, ("option '%s': a character that is not allowed"):format(name))
        end
    end
    return opts
end

local function serve_file(req, res, file, path, opts)
    local ok, message, code = send_file(req, res, file, path, opts)
    disk_close(file.handle)
    return ok, message, code
end

--- Sends a file: with its type, its tag and date, in part or not at all if the request asks for that (Range,
--- If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, If-Range). Waits. Reading the disk stops
--- the loop.
---@param path string
---@param opts? table root: the path comes from outside, and is looked up beneath this directory: components
--- that are empty, `.` or `..`, have a backslash, or are links that lead out, are not found; type; download:
--- true, or a name under which the client is to store it; max_age: seconds
---@return true? ok
---@return string? message
---@return string? code nothing is sent, and `res.status` says why (404, 403): `ENOENT`, `EISDIR`, `EACCES`;
--- the connection is reset: the file has changed meanwhile (`EIO`), or as for res:write
function c.response.file(self, path, opts)
    if type(path) ~= 'string' then c.bad(1, 'file', 'string expected, got ' .. type(path)) end
    opts = check_options(opts, 'file', 2)
    if self.sent then return nil, 'the response has been sent', 'EALREADY' end
    local file, message, code = open(opts.root, path)
    if not file then
        self.status = STATUS[code] or 500
        return nil, message, code
    end
    return serve_file(self.link.req, self, file, path, opts)
end

-- The path beneath the root that a request asks for, and whether it ends as a directory's does. nil: none.
local function wanted(req, opts)
    local path = req.params and req.params[opts.param or 'path']
    if not path then
        path = c.unescape(req.path)
        if not path or byte(path) ~= 47 then return nil end
        path = sub(path, 2)
    end
    local directory = path == '' or sub(path, -1) == '/'
    path = gsub(path, '/$', '')
    for name in path:gmatch '[^/]+' do
        if byte(name) == 46 and not opts.dotfiles and name ~= '.well-known' then return nil end
    end
    return path, directory
end

local function refuse(res, code)
    local status = STATUS[code] or 500
    return res:send(status, { ['Content-Type'] = 'text/plain; charset=utf-8' },
        status == 404 and 'Not Found\n' or status == 403 and 'Forbidden\n' or 'the file cannot be read\n')
end

-- Two slashes at the front would be another host's name.
local function to_directory(req, res)
    if find(req.path, '^/[/\\]') then return refuse(res, 'ENOENT') end
    local query = find(req.target or '', '?', 1, true)
    return res:send(301, { Location = req.path .. '/' .. (query and sub(req.target, query) or '') }, '')
end

local function serve_path(req, res, root, opts)
    local path, directory = wanted(req, opts)
    if not path then return refuse(res, 'ENOENT') end
    local file, _, code = open(root, path)
    if file and directory then
        disk_close(file.handle)
        return refuse(res, 'ENOTDIR')
    end
    if code == 'EISDIR' and opts.index ~= false then
        local index = (path == '' and '' or path .. '/') .. (opts.index or 'index.html')
        local found
        found, _, code = open(root, index)
        if found and not directory then
            disk_close(found.handle)
            return to_directory(req, res)
        end
        file, path = found, index
    end
    if not file then return refuse(res, code) end
    return serve_file(req, res, file, path, opts)
end

http.internal = http.internal or {}
http.internal.serve_path = serve_path -- by this name in other Lua states, see router.lua

--- A handler that answers GET and HEAD with the files beneath a directory; with a router, `*path` names the
--- file: `r:get('/static/*path', http.files('public'))`. A directory is answered with its index.
---@param root string
---@param opts? table as of res:file, for all files; index: `index.html`, false: none; dotfiles: true: also
--- names that begin with a dot; param: the name of the router's parameter
---@return fun(req, res)
function http.files(root, opts)
    if type(root) ~= 'string' or root == '' or find(root, '%z') then
        c.bad(1, 'files', 'the name of a directory expected')
    end
    opts = check_options(opts, 'files', 2)
    return function(req, res)
        if req.method ~= 'GET' and req.method ~= 'HEAD' then
            return res:send(405, { Allow = 'GET, HEAD' }, 'Method Not Allowed\n')
        end
        return serve_path(req, res, root, opts)
    end
end
