-- SPDX-License-Identifier: MIT
-- What comes from the process and from other libraries: signals, descriptors.

local core = ...
local asio = core.asio
local signal = core.signal
local finish, c_wait, open_stdio = core.finish, core.wait_signal, core.open_stdio

--- Watches for a signal of the process, which then does not do what it does by default (Ctrl-C does not
--- end `run` any more). Open objects alone do not keep `run` going.
---@param name string `SIGTERM`, `SIGINT`, `SIGHUP`, `SIGUSR1`, ...
---@return table? signal
---@return string? message
---@return string? code
function asio.signal(name)
    return core.new_signal(name, 'signal')
end

--- Waits for the signal; one that came before counts.
---@param timeout? number seconds
---@return true? ok
---@return string? message
---@return string? code `ETIMEDOUT`, `EBADF` (closed), `ECANCELED` (closed meanwhile)
function signal.wait(self, timeout)
    return finish(self, c_wait(self, timeout))
end
local wait = signal.wait

--- For loops: `for _ in signal:iter() do`, until it is closed. Waits.
---@return fun(): true?
function signal.iter(self)
    return function() return (wait(self)) end
end

local c_wait_fd = core.wait_fd

--- Waits until a descriptor of somebody else's is ready: sockets and pipes of other C libraries.
--- It must not be closed meanwhile. Not for connections of asio's own: those have methods.
---@param fd integer
---@param events string `r` to read, `w` to write, `rw` for either
---@param timeout? number seconds
---@return string? ready `r`, `w` or `rw`
---@return string? message
---@return string? code `ETIMEDOUT`, `EPERM` (a regular file: always ready), `EEXIST` (asio's own)
function asio.wait_fd(fd, events, timeout)
    return finish(nil, c_wait_fd(fd, events, timeout))
end

-- Opened by being named: who does not use them finds nothing changed.
local numbers = { stdin = 0, stdout = 1, stderr = 2 }
setmetatable(asio, {
    __index = function(module, name)
        local number = numbers[name]
        if not number then return nil end
        local conn = open_stdio(number)
        rawset(module, name, conn)
        return conn
    end,
})
