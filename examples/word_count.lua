-- Counts the words of files on all processors, and prints the most frequent ones.
--     luajit word_count.lua [FILE...]      itself
-- `luajit word_count.lua README.md docs/*.md` prints ten lines and what was counted:
--        2028  the
--         ...
--     39678 words, 2349 different, in 22 files
-- Files are cut into pieces of 4 MB. Each piece is counted in a Lua state of the pool, which returns a table;
-- the tables are added up here. The exit code is 1 if a file could not be read.
local asio = require 'asio'

local PIECE, SHOWN = 4 * 1024 * 1024, 10
local files = #arg > 0 and arg or { arg[0] }

-- Runs in a state of the pool: it has copies of its arguments, and the libraries of that state.
-- Counts the lines that begin in this piece of the file.
local function count(path, from, size)
    local file = assert(io.open(path, 'rb'))
    if from > 0 then
        file:seek('set', from - 1)
        file:read '*l' -- the rest of a line that begins before
    end
    local left = from + size - file:seek()
    local text = left > 0 and file:read(left) or ''
    if text ~= '' and text:sub(-1) ~= '\n' then text = text .. (file:read '*l' or '') end
    file:close()
    local words = {}
    for word in text:gmatch "[%a\128-\255][%w\128-\255']*" do
        word = word:lower()
        words[word] = (words[word] or 0) + 1
    end
    return words
end

local totals, failed = {}, 0

local function add(words)
    for word, n in pairs(words) do totals[word] = (totals[word] or 0) + n end
end

local function size_of(path)
    local file, message = io.open(path, 'rb')
    if not file then return nil, message end
    local first, wrong = file:read(1) -- of a directory this fails
    local size = first and file:seek 'end' or 0
    file:close()
    if wrong then return nil, path .. ': ' .. wrong end
    return size
end

local function count_all()
    asio.group(function(g)
        for _, path in ipairs(files) do
            local size, message = size_of(path)
            if not size then
                io.stderr:write(message, '\n')
                failed = failed + 1
            end
            for from = 0, (size or 0) - 1, PIECE do
                g:spawn(function() add(assert(asio.offload(count, path, from, PIECE))) end)
            end
        end
    end)
end

local function report()
    local list, sum = {}, 0
    for word, n in pairs(totals) do
        list[#list + 1] = word
        sum = sum + n
    end
    table.sort(list, function(a, b)
        if totals[a] ~= totals[b] then return totals[a] > totals[b] end
        return a < b
    end)
    for i = 1, math.min(SHOWN, #list) do print(('%7d  %s'):format(totals[list[i]], list[i])) end
    print(('%d words, %d different, in %d files'):format(sum, #list, #files - failed))
end

asio.run(count_all)
report()
os.exit(failed == 0 and 0 or 1, true)
