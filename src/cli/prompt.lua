-- SPDX-License-Identifier: MIT
-- The prompt: lines are typed, or read from standard input where no library edits them, and each runs in a
-- light thread of its own, while the others go on.

local cli = ...
local asio = require 'asio'
local editor = cli.editor and cli.editor.open() and cli.editor

local PROMPT, MORE = '> ', '>> '

local running     -- the light thread of the line that runs
local typed = 0   -- bytes of the line that is being typed, or of those before it
local pressed = false -- Ctrl-C was the last key
local shown       -- the prompt
local forgotten   -- what had been typed before this line
local status      -- when it is time to leave

local function leave(with)
    status = status or with
    asio.stop()
end

-- Lines ------------------------------------------------------------------------------------------

local function show(prompt)
    shown = prompt
    if editor then return editor.start(prompt) end
    io.stdout:write(prompt)
    io.stdout:flush()
end

local function feed()
    local ready, message = asio.wait_fd(0, 'r')
    if not ready then return false, message end
    local line, count = editor.feed()
    typed, pressed = count or 0, false
    return line
end

-- Returns the next line; nil: the end.
local function read(prompt)
    show(prompt)
    if not editor then return (asio.stdin:read_line()) end
    local line
    repeat line = feed() until line ~= nil
    editor.stop()
    if line then return line end
    io.stdout:write '\n'
    return nil
end

-- A line that begins with = is an expression, as in Lua 5.1; so is any that can be one.
local function compile(text)
    local fn = loadstring('return ' .. text:gsub('^%s*=', ''), '=stdin')
    if fn then return fn end
    return loadstring(text, '=stdin')
end

local function incomplete(message)
    return message:find "near '<eof>'$" ~= nil
end

-- A chunk of one line or several. Returns nil at the end of the input; false: the lines make no sense.
local function read_chunk()
    local text = read(PROMPT)
    if not text then return nil end
    while true do
        local fn, message = compile(text)
        if fn or not incomplete(message) then return fn or false, text, message end
        forgotten = false
        local more = read(MORE)
        if not more then return nil end
        text = forgotten and more or text .. '\n' .. more
    end
end

-- Running a line -----------------------------------------------------------------------------------

local function describe(err)
    if err == asio.cancelled then return 'interrupted!' end
    local meta = type(err) ~= 'string' and getmetatable(err)
    if type(meta) == 'table' and meta.__tostring then err = tostring(err) end
    if type(err) ~= 'string' and type(err) ~= 'number' then
        err = ('(error object is a %s value)'):format(type(err))
    end
    if err:find 'interrupted!$' then return 'interrupted!' end
    local traceback = debug.traceback(err, 2)
    return traceback:match "^(.*)\n\t%[C%]: in function 'xpcall'" or traceback
end

local function report(ok, ...)
    cli.busy(false)
    if not ok then return cli.complain((...)) end
    if select('#', ...) == 0 then return end
    local fine, message = pcall(print, ...)
    if not fine then cli.complain(message) end
end

local function run_line(fn)
    running = asio.current()
    cli.busy(true)
    report(xpcall(fn, describe))
end

local function run(fn)
    local thread = asio.spawn(run_line, fn)
    thread:join()
    running = nil
    io.stdout:flush()
end

-- Signals ------------------------------------------------------------------------------------------

-- What has been typed is forgotten; if that is nothing, the next Ctrl-C leaves.
local function interrupt_typing()
    if editor then editor.stop() end
    io.stdout:write '^C\n'
    if typed == 0 and shown == PROMPT then
        if pressed then return leave(-1) end
        pressed = true
        io.stdout:write '(once more, or Ctrl-D, to leave)\n'
    end
    typed, forgotten = 0, true
    show(PROMPT)
end

local function watch_interrupts()
    local signal = assert(asio.signal 'SIGINT')
    cli.catch_interrupts()
    for _ in signal:iter() do
        if not cli.interrupted() then
            if running then running:cancel() else interrupt_typing() end
        end
    end
end

local function watch(name, fn)
    local signal = asio.signal(name)
    if not signal then return end
    asio.spawn(function()
        for _ in signal:iter() do fn() end
    end):name('prompt: ' .. name)
end

-- The prompt ---------------------------------------------------------------------------------------

local history = os.getenv 'ASIO_HISTORY' or (os.getenv 'HOME' or '') .. '/.asio_history'

local function prompt()
    while true do
        local fn, text, message = read_chunk()
        if fn == nil then break end
        if editor and text:find '%S' then editor.remember(text) end
        typed, pressed = 0, false
        if fn then run(fn) else cli.complain(message) end
    end
    if editor and editor.gone() then
        cli.complain 'the terminal has gone'
        return leave(1)
    end
    leave(0)
end

local native_run = asio.run

-- The loop runs while lines are typed: nothing is left to do but to run the function.
function asio.run(fn, ...)
    if type(fn) == 'table' then return asio.run(...) end
    if fn then return fn(...) end
end

print(('LuaAsio %s, %s. Calls that wait let the others go on; `asio` is the module.'):format(
    cli.version, jit.version))
if editor then
    editor.load(history)
    watch('SIGWINCH', editor.resize)
    watch('SIGCONT', editor.resume)
end
asio.spawn(watch_interrupts):name 'prompt: SIGINT'
asio.spawn(prompt):name 'prompt'
while not status do native_run { deadlock = 'return' } end
if editor then
    editor.stop()
    editor.save(history)
end
return status
