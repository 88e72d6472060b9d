-- SPDX-License-Identifier: MIT
-- The public waiting functions. Each is a shim over a C function that returns a token first:
-- a C function cannot raise after it has waited (LuaJIT has no lua_yieldk), so interrupts are
-- raised here; and results that carry no token came from somebody who resumed the light thread's
-- coroutine by hand: then it goes on waiting.

local core = ...
local asio, conn, thread = core.asio, core.conn, core.thread
local OK, FAIL, INTERRUPT = core.OK, core.FAIL, core.INTERRUPT
local repark, outcome = core.repark, core.outcome
local type = type
local error = error -- a script that replaces it must not swallow interrupts

local refusal = 'this light thread is waiting: only asio can resume it'

-- `self` stays on the stack, and so alive, while it waits again.
local function unusual(self, token, ...)
    if token == OK or token == FAIL then return ... end
    if token == INTERRUPT then error((...), 0) end
    return unusual(self, repark(nil, refusal, self))
end

local function finish(self, token, ...)
    if token == OK then return ... end
    return unusual(self, token, ...)
end
core.finish, core.unusual = finish, unusual

local c_read, c_read_some, c_write, c_flush = core.read, core.read_some, core.write, core.flush

--- Reads exactly `size` bytes. Waits until they are there.
--- At the end of file before that many: `nil, "end of file", "EOF"`, and nothing is consumed.
---@param size integer bytes; 0 gives "" at once
---@return string? data
---@return string? message
---@return string? code `EOF`, `ETIMEDOUT`, `EBADF` (closed), `ECANCELED` (closed meanwhile), `EBUSY`
--- (somebody else is reading), ...
function conn.read(self, size)
    local token, data, message, code = c_read(self, size)
    if token == OK then return data end
    return unusual(self, token, data, message, code)
end

--- Reads what is there, at least one byte. Waits for the first.
---@param max? integer at most so many bytes
---@return string? data
---@return string? message
---@return string? code as for `read`
function conn.read_some(self, max)
    local token, data, message, code = c_read_some(self, max)
    if token == OK then return data end
    return unusual(self, token, data, message, code)
end

--- Queues data to be sent when the light thread next waits or ends. Waits only while more than
--- 64 KB are queued. The first error stays and is returned by every later write and flush.
---@param ... string|number|table strings, numbers, (nested) lists of them, string.buffer objects
---@return true? ok
---@return string? message
---@return string? code
---@return integer? unsent after `ETIMEDOUT`: bytes that are still queued and will be sent, do not resend
function conn.write(self, ...)
    local token, ok, message, code, unsent = c_write(self, ...)
    if token == OK then return true end
    if token == FAIL and unsent then return nil, message, code, unsent end
    return unusual(self, token, ok, message, code)
end

--- Waits until the kernel has taken everything that was written.
---@return true? ok
---@return string? message
---@return string? code
---@return integer? unsent as for `write`
function conn.flush(self)
    return finish(self, c_flush(self))
end

asio.spawn_light_thread = asio.spawn

local c_join, c_sleep, c_yield, c_run = core.join, core.sleep, core.yield, core.run

--- Waits for the light thread to end.
---@param timeout? number seconds
---@return boolean? ok true, results... | false, error | nil, message, "ETIMEDOUT"
---@return any ...
function thread.join(self, timeout)
    local ended, message, code = finish(self, c_join(self, timeout))
    if ended then return outcome(self) end
    return nil, message, code
end

--- Waits. 0 lets the others run.
---@param seconds number
---@return true
function asio.sleep(seconds)
    return finish(nil, c_sleep(seconds))
end

--- Lets the other light threads run.
---@return true
function asio.yield()
    return finish(nil, c_yield())
end

-- A string carries where it was raised: run raises it far from there.
local function raise_outcome(main, ok, ...)
    if ok then return ... end
    local err, traceback = (...), main:traceback()
    if type(err) == 'string' and traceback then err = err .. '\n' .. traceback end
    error(err, 0)
end

local function ran(options, main, message, code)
    if code == 'EDEADLK' then
        if options and options.deadlock == 'return' then return nil, message, code end
        error(message, 0)
    end
    if main then return raise_outcome(main, outcome(main)) end
end

--- Runs the loop until nothing is left to wait for, `asio.stop()` is called, or Ctrl-C (which
--- raises "interrupted!"). With a function, runs that first, as a light thread: its error
--- ends the run at once and is raised here (a string with the light thread's traceback behind it),
--- its results are returned at the end.
--- Light threads that wait for what can never come are a deadlock: raises, and says what each
--- waits for and where; or returns that with `asio.run({ deadlock = 'return' }, fn, ...)`.
---@param fn? function|{deadlock?: string} options may come first
---@param ... any arguments of fn
---@return any ... results of fn; or nil, message, "EDEADLK"
function asio.run(fn, ...)
    if type(fn) == 'table' then return ran(fn, finish(nil, c_run(...))) end
    return ran(nil, finish(nil, c_run(fn, ...)))
end
