-- SPDX-License-Identifier: MIT
-- asio.server with the option `threads`, in the state that makes it. On Linux every thread listens at the
-- same address and the kernel shares the connections out (SO_REUSEPORT). For other sockets, and on other
-- systems, this state accepts, and sends each connection to the next thread.

local core, c = ...
local asio = core.asio
local asio_event, asio_now, asio_stop = asio.event, asio.now, asio.stop
local ceil, floor, huge, min = math.ceil, math.floor, math.huge, math.min
local error, ipairs, jit, pairs, pcall = error, ipairs, jit, pairs, pcall
local select, setmetatable, tostring, type, unpack = select, setmetatable, tostring, type, unpack
local news = c.news

local END_SECONDS = 5   -- that threads may take to end when the server cannot be started
local STATS_SECONDS = 1 -- that stats() waits for a thread
local ASK_SECONDS = 1   -- after which threads are asked again at first
local COLLECT_SECONDS = 1 -- that a client waits for room before garbage is collected for it

local system = jit and jit.os

local function pack(...)
    return { n = select('#', ...), ... }
end

local function copy(from)
    local all = {}
    for name, value in pairs(from) do all[name] = value end
    return all
end

-- What the threads report ------------------------------------------------------------------------

-- A group: the threads of a server, as this state sees them. Their workers refer to it; it does not refer to
-- what the script has (the server below), which is collected when the script drops it.
--   workers, alive       in the order of their numbers; how many have not ended
--   waits                while it is started: { n =, done =, event =, listen = port, failure =, raised = }
--   questions            by number: { n =, done =, event =, answers = } (weak)
--   open, limit, room    connections in the threads, see max_connections; an event for room
--   listener             what this state accepts with (weak)
local thread_news = setmetatable({}, { __index = news })

function news.stop_asked()
    asio_stop()
end

local function new_waits(n)
    local waits = { n = n, event = asio_event(), done = {} }
    for i = 1, n do waits.done[i] = false end
    return waits
end

local function all_done(waits)
    for i = 1, waits.n do
        if not waits.done[i] then return false end
    end
    return true
end

-- Its light thread also looks from time to time: there may be no memory to wake it.
local function set_done(waits, w)
    waits.done[w.index] = true
    if all_done(waits) then waits.event:set() end
end

function thread_news.server_ready(w, listens, ok, a, b)
    local waits = w.group.waits
    if not waits then return end
    if ok then
        if waits.listen and not listens then return end -- of the step before
        w.group.address, w.group.port = a, b
        return set_done(waits, w)
    end
    waits.failure = waits.failure or { a, b }
    waits.event:set()
end

function thread_news.server_answer(w, serial, ...)
    local q = w.group.questions[serial]
    if not q or q.done[w.index] then return end
    q.answers[w.index] = pack(...)
    set_done(q, w)
end

local function make_room(group)
    if group.room then group.room:set() end
    group.room = nil
end

-- So many of its connections have gone.
local function set_gone(w, gone)
    w.group.open = w.group.open - (gone - w.gone)
    w.gone = gone
    make_room(w.group)
end

function thread_news.server_gone(w)
    set_gone(w, w.gone + 1)
end

function thread_news.server_all_gone(w, gone)
    if gone > w.gone then set_gone(w, gone) end
end

-- Of a state that could not begin.
function thread_news.died(w, message)
    w.unborn = true
    return news.died(w, message)
end

local function failure_of(w)
    local err = w.outcome[2]
    if not w.unborn then return nil, { err } end
    return { err, tostring(err):find('open files', 1, true) and 'EMFILE' or 'ENOMEM' }
end

local function note_end(waits, w)
    if waits.failure or waits.raised then return end
    waits.failure, waits.raised = failure_of(w)
    waits.event:set()
end

local function on_ended(w)
    local group = w.group
    group.alive = group.alive - 1
    set_gone(w, w.sent)
    if group.waits then note_end(group.waits, w) end
    for _, q in pairs(group.questions) do
        if not q.done[w.index] then set_done(q, w) end
    end
    if group.alive == 0 and group.weak.listener then group.weak.listener:close() end
end

-- The server as scripts have it ------------------------------------------------------------------

local server = {} -- methods

local function check(self, fname)
    if type(self) ~= 'table' or not self.group then
        c.misuse(("calling '%s' on something that is not a server"):format(fname))
    end
end

local function check_timeout(value, fname)
    if type(value) ~= 'nil' and not (type(value) == 'number' and value >= 0) then
        c.bad(1, fname, 'seconds, not negative, expected')
    end
    return value ~= huge and value or nil
end

-- Waits until all have answered, and asks those again that have not: what states tell each other is lost
-- where memory runs out. A thread may also be at work for a long time: it is asked less and less often.
local function wait_asking(waits, seconds, ask_again, ...)
    local pause, deadline = ASK_SECONDS, seconds and asio_now() + seconds
    while not (all_done(waits) or waits.failure or waits.raised) do
        local left = deadline and deadline - asio_now() or huge
        if left <= 0 then return end
        local woken, message, code = waits.event:wait(min(left, pause))
        if code == 'ECANCELED' then -- asio.stop, in the main chunk
            waits.failure = waits.failure or { message, code }
            return
        end
        for i = 1, woken and 0 or waits.n do
            if not waits.done[i] then ask_again(i, ...) end
        end
        pause = pause * 2
    end
end

local serial = 0

-- Asks every thread that has not ended; waits. Returns their answers by number: packed values, n = 0: it has
-- ended; none: it has not answered in time.
local function ask(self, seconds, what, ...)
    local group = self.group
    local q = new_waits(#group.workers)
    q.answers = {}
    serial = serial + 1
    local number = serial
    local function ask_one(i, ...)
        local w = group.workers[i]
        local told, message, code = false, nil, nil
        if not w.outcome then told, message, code = c.tell(self.handles[i], what, number, ...) end
        if told then return end
        q.answers[i] = told == nil and { n = 3, nil, message, code } or nil
        q.done[i] = true
    end
    group.questions[number] = q
    for i = 1, q.n do ask_one(i, ...) end
    wait_asking(q, seconds, ask_one, ...)
    group.questions[number] = nil
    for i = 1, q.n do
        if q.done[i] and not q.answers[i] then q.answers[i] = { n = 0 } end
    end
    return q.answers
end

local function tell_all(group, handles, word)
    for i, w in pairs(group.workers) do
        if not w.outcome then c.tell(handles[i], word) end
    end
end

local function stop_accepting(self)
    self.group.stopped = true
    if self.listener then self.listener:close() end
    make_room(self.group)
end

--- Stops accepting, at once. Running handlers go on; a thread ends when its handlers have ended.
function server.close(self)
    check(self, 'close')
    if c.is_closed() then return end
    stop_accepting(self)
    tell_all(self.group, self.handles, 'server_close')
end

function server.address(self)
    check(self, 'address')
    local group = self.group
    if group.stopped or group.alive == 0 or c.is_closed() then return nil, 'closed', 'EBADF' end
    if self.listener then return self.listener:address() end
    return group.address, group.port
end

function server.accept(self)
    check(self, 'accept')
    c.misuse 'accept: this server has a handler, which gets the connections'
end

--- As of other servers: every thread stops accepting, and its handlers finish.
function server.shutdown(self, timeout)
    check(self, 'shutdown')
    timeout = check_timeout(timeout, 'shutdown')
    stop_accepting(self)
    local worst
    for i, a in pairs(ask(self, nil, 'server_shutdown', timeout)) do
        local w = self.group.workers[i]
        w.last = a[4] or w.last
        if a.n > 0 and not a[1] and (not worst or a[3] == 'ECANCELED') then worst = a end
    end
    if worst then return nil, worst[2], worst[3] end
    return true
end

local COUNTERS = { 'accepts', 'connections', 'bytes_in', 'bytes_out' }

local function add_to(totals, entry)
    for _, name in ipairs(COUNTERS) do totals[name] = totals[name] + entry[name] end
    if entry.longest_turn > totals.longest_turn then totals.longest_turn = entry.longest_turn end
end

function server.stats(self, timeout)
    check(self, 'stats')
    timeout = check_timeout(timeout, 'stats') or STATS_SECONDS
    local answers = ask(self, timeout, 'server_stats')
    local totals = { accepts = 0, connections = 0, bytes_in = 0, bytes_out = 0, longest_turn = 0 }
    for i, w in ipairs(self.group.workers) do
        local a = answers[i]
        local counters = a and (a[1] or w.last)
        local entry = copy(counters or {})
        entry.name = w.label
        entry.status = a and (a[1] and 'running' or 'ended') or 'silent'
        totals[i] = entry
        if counters then
            if not a[1] then entry.connections = 0 end
            add_to(totals, entry)
        elseif not a then
            totals.silent = totals.silent or {}
            totals.silent[#totals.silent + 1] = w.label
        end
    end
    return totals
end

--- Every thread takes the new certificates, or all keep the old ones.
function server.set_tls(self, opts)
    check(self, 'set_tls')
    local plugin = self.tls and core.plugin('tls', "OpenSSL's libssl")
    if not plugin then
        c.misuse "calling 'set_tls' on something that is not a server made with the option 'tls'"
    end
    c.check_carried('set_tls', opts)
    local ok, message, code = plugin.set_tls(self.tls, opts)
    if not ok then return nil, message, code end
    local refused
    for _, a in pairs(ask(self, nil, 'server_set_tls', opts)) do
        if a.n > 0 and not a[1] then refused = a end
    end
    if not refused then
        self.tls_options = opts
        return true
    end
    plugin.set_tls(self.tls, self.tls_options)
    ask(self, nil, 'server_set_tls', self.tls_options)
    return nil, refused[2], refused[3]
end

local function text_of(self)
    local address, port = server.address(self)
    if not address then return 'server (closed)' end
    if not port then return ('server (%s, %d threads)'):format(address, #self.group.workers) end
    local format = address:find(':', 1, true) and 'server (tcp [%s]:%d, %d threads)' or
        'server (tcp %s:%d, %d threads)'
    return format:format(address, port, #self.group.workers)
end

local server_mt = { __index = server, __name = 'server', __tostring = text_of }

-- Options ----------------------------------------------------------------------------------------

local MOST = 1024

local function count_of(opts, arg)
    local n = opts.threads
    if n == 'auto' then return c.parallelism() end
    if type(n) == 'number' and n >= 1 and n <= MOST and floor(n) == n then return n end
    c.bad(arg, 'server', ("option 'threads': a number from 1 to %d or 'auto' expected"):format(MOST))
end

local function check_arguments(opts, arg, handler)
    if type(handler) ~= 'function' then
        local text = 'handler function expected, got %s: a server with threads has no accept'
        c.bad(arg - 1, 'server', text:format(type(handler)))
    end
    local init = opts.init
    if init ~= nil and type(init) ~= 'function' and type(init) ~= 'string' then
        local text = "option 'init': function or name of a module expected, got "
        c.bad(arg, 'server', text .. type(init))
    end
    if opts.handles then c.bad(arg, 'server', "option 'handles' does not go with 'threads'") end
end

local function options(opts, changes)
    local all = copy(opts)
    all.threads, all.init = nil, nil
    for name, value in pairs(changes or {}) do all[name] = value end
    return all
end

-- Those of the socket alone.
local function plain(opts, changes)
    local all = options(opts, changes)
    all.tls, all.on_tls_error = nil, nil
    return all
end

-- For the threads; raises for what cannot be carried, before anything is started.
local function carried(opts, shares, n)
    local all = options(opts)
    if shares then
        all.reuseport = true
        if type(all.max_connections) == 'number' then all.max_connections = ceil(all.max_connections / n) end
    end
    for name, value in pairs(all) do c.check_carried(("option '%s'"):format(tostring(name)), value) end
    c.check_carried("option 'init'", opts.init)
    return all
end

-- Starting ---------------------------------------------------------------------------------------

-- Binds without sharing, and closes again: sharing would let the threads join the servers of other processes
-- (of the same user). Returns address and port.
local function try_address(self)
    local where = self.where
    local probe, message, code = self.c_server(where[1], where[2], nil, plain(self.opts))
    if not probe then return nil, message, code end
    local address, port = probe:address()
    probe:close()
    return address, port
end

local function new_thread(self, i, opts)
    local group = self.group
    local w, message, code = c.spawn_worker('server', {
        name = ('%s, thread %d'):format(self.name, i), what = 'handler', quiet = true, news = thread_news,
        init = self.opts.init, body = 'server_thread',
    }, self.handler, opts, not self.shares, self.layer)
    if not w then return nil, message, code end
    w.group, w.index, w.sent, w.gone, w.on_ended = group, i, 0, 0, on_ended
    self.handles[i] = w.handle
    group.workers[i] = w
    group.alive = group.alive + 1
    local ok, why, its_code = c.at_end(w.handle, 'server_close')
    w.handle = nil -- dropping the server tells the threads
    if not ok then return nil, why, its_code end
    return w
end

-- Waits until all are ready. Returns true; nil, message, code; or nil, nil, nil, { what one has raised }.
local function await(self, waits)
    wait_asking(waits, nil, function(i)
        local w = self.group.workers[i]
        if w.outcome then
            note_end(waits, w)
        elseif waits.listen then
            c.tell(self.handles[i], 'server_listen', self.where[1], waits.listen)
        else
            c.tell(self.handles[i], 'server_ask_ready')
        end
    end)
    self.group.waits = nil
    if waits.raised then return nil, nil, nil, waits.raised end
    if waits.failure then return nil, waits.failure[1], waits.failure[2] end
    return true
end

local function start_threads(self)
    local waits = new_waits(self.n)
    self.group.waits = waits
    local opts = self.carried
    for i = 1, self.n do
        local w, message, code = new_thread(self, i, opts)
        if not w then return nil, message, code end
    end
    return await(self, waits)
end

local function listen_in_threads(self)
    local address, port, code = try_address(self)
    if not address then return nil, port, code end
    local waits = new_waits(self.n)
    waits.listen = port
    self.group.waits = waits
    for i = 1, self.n do
        local told, message, its_code = c.tell(self.handles[i], 'server_listen', self.where[1], port)
        if told == nil then return nil, message, its_code end
    end
    return await(self, waits)
end

-- The number of the next thread that takes a connection; nil: there is no room.
local function pick(group, n)
    if group.limit and group.open >= group.limit then return nil end
    for _ = 1, n do
        group.last = group.last % n + 1
        if not group.workers[group.last].outcome then return group.last end
    end
end

local function distributor(group, handles, n)
    return function(conn)
        local i = pick(group, n)
        while not i and group.alive > 0 and not group.stopped do
            group.room = group.room or asio_event()
            if not group.room:wait(COLLECT_SECONDS) then
                for number, w in ipairs(group.workers) do
                    if not w.outcome then c.tell(handles[number], 'server_make_room', w.sent) end
                end
            end
            i = pick(group, n)
        end
        if not i or group.stopped then return conn:abort() end
        local w = group.workers[i]
        if not c.tell(handles[i], 'server_conn', conn) then return conn:abort() end
        if group.limit then group.open, w.sent = group.open + 1, w.sent + 1 end
    end
end

-- With a limit of connections one at a time is taken, which waits for room; others stay in the backlog.
local function listen_here(self)
    local group, limit = self.group, self.opts.max_connections
    group.limit = type(limit) == 'number' and limit or nil
    local opts = plain(self.opts, { max_connections = limit and 1 })
    local arguments = copy(self.where)
    arguments[#arguments + 1] = distributor(group, self.handles, self.n)
    arguments[#arguments + 1] = opts
    local listener, message, code = self.c_server(unpack(arguments))
    if not listener then return nil, message, code end
    self.listener, group.weak.listener = listener, listener
    return true
end

local function start(self)
    if self.shares then
        local address, message, code = try_address(self)
        if not address then return nil, message, code end
    end
    local ok, message, code, raised = start_threads(self)
    if not ok then return ok, message, code, raised end
    if self.shares then return listen_in_threads(self) end
    return listen_here(self)
end

-- Ends what was started. Waits, unless the caller has been cancelled.
local function give_up(self, waits)
    local group = self.group
    group.waits, group.stopped = nil, true
    if self.listener then self.listener:close() end
    tell_all(group, self.handles, 'cancel')
    for _, w in pairs(waits and group.workers or {}) do
        if not w.outcome then w.done:wait(END_SECONDS) end
    end
end

-- (Not by tostring: of a number it crashes LuaJIT when memory is out.)
local function name_of(address, port)
    if port == nil then return ('server %s'):format(address) end
    local is_ipv6 = type(address) == 'string' and address:find(':', 1, true)
    return (is_ipv6 and 'server [%s]:%s' or 'server %s:%s'):format(address, port)
end

-- Errors of handlers, and asio.dump, name the port that the system has chosen.
local function started(self)
    local group = self.group
    local name = name_of(server.address(self))
    for i, w in ipairs(group.workers) do
        w.label = ('%s, thread %d'):format(name, i)
        w.quiet = false
        c.rename(self.handles[i], w.label)
    end
    self.where, self.c_server, self.handler, self.layer = nil, nil, nil, nil
    self.opts, self.carried = nil, nil
    return setmetatable(self, server_mt)
end

-- What the options of TLS mean is found out here, before there are threads; set_tls compares with it.
local function check_tls(self, opts, arg)
    if not opts.tls then return true end
    local plugin, message, code = core.plugin('tls', "OpenSSL's libssl (to build it, libssl-dev)")
    if not plugin then return nil, message, code end
    self.tls_options = opts.tls
    self.tls, message, code = plugin.server(function() return {} end, opts, arg)
    return self.tls, message, code
end

-- asio.server of a table with `threads`; c_server is the same without them. `layer` is for a protocol over
-- the connections (HTTP): a function that is carried to each thread and called there behind `init`, with the
-- handler. It returns the handler of connections, and a table of functions which that thread calls:
-- `shutdown()` before it waits for its handlers, and `stats(counters)`, which may add a field of its own.
function c.server(c_server, first, second, third, fourth, layer)
    local opts, arg = core.server_options(first, second, third, fourth)
    local has_port = arg == 4
    local n, handler = count_of(opts, arg), second
    if has_port then handler = third end
    check_arguments(opts, arg, handler)
    if system == 'Windows' then
        return nil, "option 'threads': connections cannot change threads on Windows", 'ENOTSUP'
    end
    local where = { first, has_port and second or nil }
    local self = {
        n = n, where = where, handler = handler, opts = opts, c_server = c_server, layer = layer,
        handles = {},
        shares = has_port and system == 'Linux', name = name_of(where[1], where[2]),
        group = {
            workers = {}, alive = 0, open = 0, last = 0, questions = setmetatable({}, { __mode = 'v' }),
            weak = setmetatable({}, { __mode = 'v' }),
        },
    }
    self.carried = carried(opts, self.shares, n)
    local ok, message, code = check_tls(self, opts, arg)
    if not ok then return nil, message, code end
    local ran, raised
    ran, ok, message, code, raised = pcall(start, self)
    if ran and ok then return started(self) end
    give_up(self, ran)
    if not ran then error(ok, 0) end
    if raised then error(raised[1], 0) end
    return nil, message, code
end

local destory = asio.destory_server
function asio.destory_server(self)
    if type(self) == 'table' and self.group then return server.close(self) end
    return destory(self)
end
