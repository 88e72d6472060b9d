-- SPDX-License-Identifier: MIT
-- The program's command line. Returns the exit status: 0, 1 for a script that failed, 2 for a command line
-- that says nothing sensible, -1 for Ctrl-C.

local cli, name = ...
local words = { select(3, ...) }

local usage = [[
asio SCRIPT [ARGS]   runs the script as a light thread, then the loop until nothing is left to wait for
asio - [ARGS]        the same; the script comes from standard input
asio -e CODE [ARGS]  the same; the script is CODE, in which `asio` is the module
asio                 a prompt, if standard input is a terminal; otherwise as asio -
asio -v              tells the versions
asio -h              tells this
]]

function cli.complain(message)
    io.stdout:flush()
    io.stderr:write('asio: ', message, '\n')
end

local function misuse(message)
    cli.complain(message)
    io.stderr:write(usage)
    return 2
end

-- The script is arg[0]; what comes before it has negative numbers, as with luajit.
local function set_arg(position, script)
    local arg = { [0] = script, [-position] = name }
    for i, word in ipairs(words) do
        if i ~= position then arg[i - position] = word end
    end
    _G.arg = arg
    return arg
end

local function run(position, script, fn, message)
    if not fn then
        cli.complain(message)
        return 1
    end
    local arg = set_arg(position, script)
    return cli.script(cli, fn, unpack(arg, 1, #arg))
end

local function run_code(code)
    if not code then return misuse "'-e' needs code" end
    table.remove(words, 2)
    _G.asio = require 'asio'
    return run(1, '-e', loadstring(code, '=-e'))
end

local first = words[1]
if first == nil and cli.is_terminal(0) then
    set_arg(0, name)
    _G.asio = require 'asio'
    return cli.prompt(cli)
elseif first == nil or first == '-' then
    return run(first and 1 or 0, first or name, loadfile())
elseif first == '-e' then
    return run_code(words[2])
elseif first == '-v' then
    print(('LuaAsio %s, %s (%s, %s)'):format(cli.version, jit.version, jit.os, jit.arch))
    return 0
elseif first == '-h' or first == '--help' then
    io.stdout:write(usage)
    return 0
elseif first == '--' then
    if not words[2] then return misuse "'--' needs a script" end
    return run(2, words[2], loadfile(words[2]))
elseif first:sub(1, 1) == '-' then
    return misuse(("unknown option '%s'"):format(first))
end
return run(1, first, loadfile(first))
