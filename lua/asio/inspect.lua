-- SPDX-License-Identifier: MIT
-- Light threads as text: asio.dump, asio.dump_on, the deadlock report.

local core = ...
local asio = core.asio
local threads = asio.threads
local concat, ipairs, max, min = table.concat, ipairs, math.max, math.min
local error, pcall, type = error, pcall, type

local NAMES = 10 -- of a group are told
local GROUPS = 50 -- in a deadlock report

-- Light threads that do the same at the same place: {thread, ...}, the largest group first.
local function grouped(list)
    local groups, by_key = {}, {}
    for _, thread in ipairs(list) do
        local key = (thread.wait or thread.status) .. '\n' .. thread.traceback
        local group = by_key[key]
        if not group then
            group = { order = #groups }
            by_key[key], groups[#groups + 1] = group, group
        end
        group[#group + 1] = thread
    end
    table.sort(groups, function(a, b)
        if #a ~= #b then return #a > #b end
        return a.order < b.order
    end)
    return groups
end

local function names(group)
    local parts = {}
    for i = 1, min(#group, NAMES) do parts[i] = group[i].name end
    if #group > NAMES then parts[#parts + 1] = '...' end
    return concat(parts, ', ')
end

local function since(group, field)
    local shortest, longest = math.huge, 0
    for _, thread in ipairs(group) do
        shortest, longest = min(shortest, thread[field]), max(longest, thread[field])
    end
    if longest - shortest < 0.1 then return ('%.1f s'):format(longest) end
    return ('%.1f to %.1f s'):format(shortest, longest)
end

local function describe(group)
    local first = group[1]
    local doing = first.status
    if first.wait then doing = ('waits for %s since %s'):format(first.wait, since(group, 'waiting')) end
    local head = #group == 1 and 'light thread ' .. first.name
        or ('%d light threads (%s)'):format(#group, names(group))
    return ('%s: %s, age %s\n%s'):format(head, doing, since(group, 'age'), first.traceback)
end

local function describe_all(list, limit)
    local groups, parts = grouped(list), {}
    for i = 1, min(#groups, limit) do parts[i] = describe(groups[i]) end
    if #groups > limit then parts[#parts + 1] = ('and %d more groups'):format(#groups - limit) end
    return concat(parts, '\n\n')
end

local function write_of(stream)
    return stream.write
end

-- `name`: of the Lua state, where there are others.
function core.dump_text(name)
    local list = threads()
    local text = ('asio: %s%d light thread%s\n\n'):format(name, #list, #list == 1 and '' or 's')
    return #list > 0 and text .. describe_all(list, math.huge) .. '\n\n' or text
end

--- Writes what every light thread does, and where; equal ones together, with their number. Then those of
--- the other Lua states of the process, each of which answers for itself: the call blocks for that, at most
--- half a second.
---@param stream? table an object with a method `write`: a file, a connection; standard error by default
function asio.dump(stream)
    if stream == nil then stream = io.stderr end
    local indexed, write = pcall(write_of, stream)
    if not indexed or type(write) ~= 'function' then
        local text = "bad argument #1 to 'dump' (an object with a method write expected, got %s)"
        error(text:format(type(stream)), 2)
    end
    write(stream, core.dump_all and core.dump_all() or core.dump_text '')
end

local dumpers = {}

--- Dumps to standard error whenever the process gets a signal, while the loop runs.
---@param name string `SIGUSR1` for instance
---@param on? boolean false: no more
---@return true? ok
---@return string? message
---@return string? code
function asio.dump_on(name, on)
    local dumper, message, code = dumpers[name or '']
    if not dumper then
        dumper, message, code = core.new_signal(name, 'dump_on', function() asio.dump() end)
        if not dumper then return nil, message, code end
    end
    if on == false then
        dumper:close()
        dumper = nil
    end
    dumpers[name] = dumper
    return true
end

core.set_deadlock(function()
    local list = {}
    for _, thread in ipairs(threads()) do
        if thread.wait then list[#list + 1] = thread end
    end
    local head = 'deadlock: nothing can wake what waits'
    if #list == 0 then return head .. ': the main chunk' end
    return ('%s: %d light thread%s\n\n%s'):format(
        head, #list, #list == 1 and '' or 's', describe_all(list, GROUPS))
end)
