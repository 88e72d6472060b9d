-- SPDX-License-Identifier: MIT
--
-- Access logs: a line for each request, for the server's option on_request_end. What a client has sent cannot
-- end a line, or a string in it.

local _, c, http = ...
local byte, date, format, gsub, sub = string.byte, os.date, string.format, string.gsub, string.sub
local error, io, pcall, setmetatable, time, tostring, type =
    error, io, pcall, setmetatable, os.time, tostring, type

local MONTHS = { 'Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec' }

-- Made once a second.
local second, common_time, iso_time

local function tick()
    local now = time()
    if now == second then return end
    local d = date('!*t', now)
    second = now
    common_time = format('%02d/%s/%04d:%02d:%02d:%02d +0000',
        d.day, MONTHS[d.month], d.year, d.hour, d.min, d.sec)
    iso_time = format('%04d-%02d-%02dT%02d:%02d:%02dZ', d.year, d.month, d.day, d.hour, d.min, d.sec)
end

local function of_common(character) return format('\\x%02X', byte(character)) end
local function of_json(character) return format('\\u%04x', byte(character)) end

local function quoted(text)
    return text and '"' .. gsub(text, '[%c"\\\127-\255]', of_common) .. '"' or '"-"'
end

-- Bytes beyond ASCII one by one: a client may send what is no UTF-8.
local function json_string(text)
    return text and '"' .. gsub(text, '[%c"\\\127-\255]', of_json) .. '"' or 'null'
end

local formats = {}

-- The Common Log Format of NCSA's server, with UTC.
function formats.common(req, res)
    return format('%s - - [%s] %s %d %s', tostring(req:peer() or '-'), common_time,
        quoted(req.method .. ' ' .. req.target .. ' HTTP/' .. req.version), res.status,
        res.bytes > 0 and format('%.0f', res.bytes) or '-')
end

function formats.combined(req, res)
    return format('%s %s %s', formats.common(req, res), quoted(req:header 'referer'),
        quoted(req:header 'user-agent'))
end

function formats.json(req, res, seconds)
    return format('{"time":"%s","peer":%s,"method":%s,"target":%s,"version":"%s","status":%d,"bytes":%.0f,' ..
        '"seconds":%.6f,"referer":%s,"user_agent":%s}', iso_time, json_string((req:peer())),
        json_string(req.method), json_string(req.target), req.version, res.status, res.bytes, seconds,
        json_string(req:header 'referer'), json_string(req:header 'user-agent'))
end

-- Destinations by name -----------------------------------------------------------------------------

-- Such a log can go to other Lua states: each opens the file when it has a line for it, so it is not in the
-- function but here, by a table that is. A line is one call to the system, at the end of the file: there is
-- no buffer. So lines of threads, and of processes, do not mix. The standard streams are the C library's,
-- which all states share, each call under a lock; they have a buffer, which is emptied behind each line.
local open_files = setmetatable({}, { __mode = 'k' })

-- The second in which a line last looked whether its file is where it was.
local looked = setmetatable({}, { __mode = 'k' })

local standard = { stdout = io and io.stdout, stderr = io and io.stderr }

local function open(log)
    if standard[log.to] then
        open_files[log] = standard[log.to]
        return true
    end
    local file, message, number = io.open(log.to, 'ab')
    if not file then return nil, message, number end
    file:setvbuf 'no'
    open_files[log] = file
    return true
end

-- A file that was renamed or removed, as logrotate does, is opened anew. As long as that fails, lines go
-- where they went. At most once a second, and only when there is a line: nothing wakes up an idle server.
local function open_anew(log, file)
    looked[log] = time()
    if standard[log.to] or not c.moved(file, log.to) then return file end
    if open(log) then file:close() end
    return open_files[log]
end

local function append(log, line)
    if not open_files[log] then
        local ok, message = open(log)
        if not ok then error(message, 0) end
        looked[log] = time()
    end
    local file = open_files[log]
    if looked[log] ~= time() then file = open_anew(log, file) end
    file:write(line)
    file:flush()
end
http.internal.append_to_log = append -- other states find it by this name

-- A relative path means the same file when it is opened anew, whatever directory the program is in by then.
local function whole_path(to)
    local directory = sub(to, 1, 1) ~= '/' and not standard[to] and c.working_directory()
    return directory and directory .. '/' .. to or to
end

local function named(to)
    local log = { to = whole_path(to) }
    local ok, message, number = open(log)
    if not ok then
        local _, _, code = c.failure(number)
        return nil, message, code
    end
    return function(line) return append(log, line) end
end

local function writer_of(to)
    if type(to) == 'function' then return to end
    if type(to) == 'string' then return named(to) end
    local ok, write = pcall(function() return to.write end)
    if not ok or type(write) ~= 'function' then
        c.bad(1, 'access_log', 'a function, a name or something with a method write expected')
    end
    return function(line) return to:write(line) end
end

--- A function for the server's option on_request_end that writes a line for each request when it has been
--- answered.
---@param to function|table|string it is called with a line; or a file: something with the method `write`;
--- or `'stdout'`, `'stderr'`, or the path of a file to which lines are added
---@param how? string|function 'common' (the default), 'combined', 'json'; or fn(req, res, seconds) -> line
--- without its end, nil: none
---@return fun(req, res, seconds)?
---@return string? message
---@return string? code `ENOENT`, `EACCES`, ...: the file cannot be opened
function http.access_log(to, how)
    local make = how
    if type(how) ~= 'function' then make = formats[how == nil and 'common' or how] end
    if not make then c.bad(2, 'access_log', "'common', 'combined', 'json' or a function expected") end
    local write, message, code = writer_of(to)
    if not write then return nil, message, code end
    return function(req, res, seconds)
        tick()
        local line = make(req, res, seconds)
        if line then write(line .. '\n') end
    end
end
