---@meta asio
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 241
--
-- For editors: the types of the module, and what its C core provides. This file is not part of the
-- module. A function that is written in Lua has only its type here; its text is where it is defined, in
-- the files beside this one. One list, hence its length. docs/reference.md has the same functions; a test
-- compares the two.
--
-- Unless said otherwise, times are seconds and sizes are bytes. Failures are nil, message, code. A call that
-- waits is marked "waits"; in a light thread it may raise an interrupt (`asio.timeout`, `thread:cancel`).

-- Light threads -----------------------------------------------------------------------------------

---@class asio
---@field cancelled userdata the error that waits of a cancelled light thread raise; compare with ==
---@field coroutine asio.coroutine coroutines through which waits pass
---@field shared asio.shared what Lua states share
---@field stdin asio.conn opened when it is first named
---@field stdout asio.conn opened when it is first named
---@field stderr asio.conn opened when it is first named
---@field spawn_light_thread fun(fn: function, ...: any): asio.thread the same as `spawn`
---@field run (fun(fn?: function, ...: any): ...)|(fun(options: asio.run_opts, fn?: function, ...: any): ...)
---@field sleep fun(seconds: number): true waits
---@field yield fun(): true waits; the other light threads run
---@field timeout fun(seconds: number?, fn: function, ...: any): ... waits
---@field shield fun(seconds: number?, fn: function, ...: any): ... waits
---@field group (fun(): asio.group)|(fun(fn: fun(g: asio.group): ...): ...) waits with fn
---@field select fun(list: asio.select_list): integer?, ... waits
---@field connect fun(host: string, port?: asio.port, opts?: asio.connect_opts|boolean): ... waits
---@field resolve fun(host: string, opts?: asio.resolve_opts): asio.record[]?, string?, string? waits
---@field relay fun(a: asio.conn, b: asio.conn, options?: {timeout?: number}): integer?, ... waits
---@field signal fun(name: string): asio.signal?, string?, string?
---@field wait_fd fun(fd: integer, events: "r"|"w"|"rw", timeout?: number): string?, string?, string? waits
---@field worker fun(fn: function|string, ...: any): asio.worker?, string?, string?
---@field offload fun(fn: function, ...: any): ... waits
---@field offload_pool fun(size?: integer, options?: asio.offload_options): asio.offload_pool
---@field dump fun(stream?: {write: function})
---@field dump_on fun(name: string, on?: boolean): true?, string?, string?
local asio = {}

---@alias asio.port integer|string
---@alias asio.run_opts {deadlock?: "raise"|"return"}
---@alias asio.selectable asio.channel|asio.shared_channel|asio.thread|asio.event|asio.semaphore
---@alias asio.select_list {timeout?: number, [integer]: asio.selectable}

---@class asio.thread a light thread
---@field join fun(self: asio.thread, timeout?: number): boolean?, ... waits
local thread = {}

---@class asio.coroutine
---@field create fun(fn: function): thread
---@field resume fun(co: thread, ...: any): boolean, ...
---@field wrap fun(fn: function): fun(...: any): ...
---@field yield fun(...: any): ...
---@field status fun(co: thread): string
---@field running fun(): thread?
---@field isyieldable fun(): boolean
---@field install fun()

--- Runs a function in a new light thread, at once, until it first waits. An error that no light thread has
--- joined by the end of the turn is reported. The handle need not be kept.
---@param fn function
---@param ... any arguments of fn
---@return asio.thread
function asio.spawn(fn, ...) end

--- The running light thread, nil in the main chunk.
---@return asio.thread?
function asio.current() end

--- A clock that only goes forward, from an arbitrary start.
---@return number seconds
function asio.now() end

--- One turn of the loop, for programs that have a loop of their own. Main chunk only.
---@param seconds? number how long to wait for an event; 0: not at all, nil: until there is one
---@return boolean left whether something is left to wait for
function asio.run_once(seconds) end

--- Ends `run` after this turn. Light threads that wait stay as they are. A wait of the main chunk ends
--- with `ECANCELED`.
function asio.stop() end

--- Makes the wait of the light thread, and each later one, raise `asio.cancelled`. Returns at once; `join`
--- waits for the end.
---@return boolean active false: the light thread has ended already
function thread:cancel() end

---@return "running"|"ready"|"waiting"|"done"|"failed"
function thread:status() end

--- Where it failed, or where it is now. Nil if it has returned or was cancelled.
---@return string? traceback
function thread:traceback() end

--- The name that reports show; without one `#` and a number.
---@param name? string the new name
---@return string name
function thread:name(name) end

-- Groups ------------------------------------------------------------------------------------------

---@class asio.group light threads that end together
---@field wait fun(self: asio.group): true?, string?, string? waits
local group = {}

--- Runs a function in a new light thread of the group. Its error cancels the others. Raises after the end
--- of the group.
---@param fn function
---@param ... any arguments of fn
---@return asio.thread
function group:spawn(fn, ...) end

--- Cancels the light threads of the group. For `wait` this is no error. A light thread that is spawned later
--- is cancelled at its first wait.
function group:cancel() end

-- Several Lua states ------------------------------------------------------------------------------

---@class asio.worker a Lua state on a thread of its own
---@field join fun(self: asio.worker, timeout?: number): boolean?, ... waits
---@field cancel fun(self: asio.worker): boolean
---@field status fun(self: asio.worker): "running"|"done"|"failed"
---@field name fun(self: asio.worker): string

---@class asio.offload_pool Lua states that run functions for light threads of this one
---@field offload fun(self: asio.offload_pool, fn: function, ...: any): ... waits
---@field close fun(self: asio.offload_pool)
---@field stats fun(self: asio.offload_pool): asio.offload_stats

---@alias asio.offload_stats {size: integer, states: integer, running: integer, waiting: integer}

---@class asio.offload_options
---@field queue? integer how many functions may wait for a state (1000); further callers wait for a place
---@field timeout? number how long they wait for it
---@field init? function|string a function, or a module's name: runs first in each state
---@field name? string what its states are called: "offload" if nil

---@class asio.shared
---@field channel fun(capacity?: integer): asio.shared_channel
---@field dict fun(name?: string, options?: asio.dict_options): asio.shared_dict?, string?, string?

---@class asio.shared_channel a channel between Lua states: values are copied, connections move
---@field send fun(self: asio.shared_channel, value: any, timeout?: number): true?, string?, string? waits
---@field recv fun(self: asio.shared_channel, timeout?: number): any, string?, string? waits
---@field iter fun(self: asio.shared_channel): fun(): any the iterator waits
---@field close fun(self: asio.shared_channel)

---@alias asio.dict_options {max_bytes?: integer, evict?: "lru"|"none"}
---@alias asio.dict_key string|number

---@class asio.shared_dict keys and values that Lua states share; values are copied
---@field get fun(self: asio.shared_dict, key: asio.dict_key): any, string?, string? nil: absent
---@field delete fun(self: asio.shared_dict, key: asio.dict_key): boolean
---@field expire fun(self: asio.shared_dict, key: asio.dict_key, ttl?: number): true?, string?, string?
---@field ttl fun(self: asio.shared_dict, key: asio.dict_key): number? math.huge: for ever; nil: absent
---@field lpush fun(self: asio.shared_dict, key: asio.dict_key, value: any): integer?, string?, string?
---@field rpush fun(self: asio.shared_dict, key: asio.dict_key, value: any): integer?, string?, string?
---@field lpop fun(self: asio.shared_dict, key: asio.dict_key): any, string?, string?
---@field rpop fun(self: asio.shared_dict, key: asio.dict_key): any, string?, string?
---@field llen fun(self: asio.shared_dict, key: asio.dict_key): integer?, string?, string?
---@field iter fun(self: asio.shared_dict): fun(): asio.dict_key?, any
---@field count fun(self: asio.shared_dict): integer
---@field bytes fun(self: asio.shared_dict): integer what its entries and tables take
---@field clear fun(self: asio.shared_dict)
local shared_dict = {}

---@param key string|number
---@param value any nil deletes
---@param ttl? number seconds; nil: for ever
---@return true? ok
---@return string? message
---@return string? code `ENOMEM`: more than max_bytes
function shared_dict:set(key, value, ttl) end

--- As set, if the key is absent; else `EEXIST`.
---@param key string|number
---@param value any
---@param ttl? number seconds
---@return true? ok
---@return string? message
---@return string? code
function shared_dict:add(key, value, ttl) end

--- As set, if the key is there; else `ENOENT`.
---@param key string|number
---@param value any
---@param ttl? number seconds
---@return true? ok
---@return string? message
---@return string? code
function shared_dict:replace(key, value, ttl) end

--- Adds to a number.
---@param key string|number
---@param by? number 1
---@param init? number what an absent one counts as; nil: it is then `ENOENT`
---@param ttl? number seconds, of a number that was absent
---@return number? new
---@return string? message
---@return string? code
function shared_dict:incr(key, by, init, ttl) end

--- Replaces the value by what fn makes of it, as one step: fn is called again if the value has changed
--- meanwhile. It should not wait; if it raises, nothing has changed.
---@param key string|number
---@param fn fun(value: any): any gets nil for an absent key; nil deletes it
---@param ttl? number seconds; nil: as it was
---@return any new
---@return string? message
---@return string? code
function shared_dict:update(key, fn, ttl) end

---@param max? integer so many at most
---@return (string|number)[]
function shared_dict:keys(max) end

-- Channels, locks, events -------------------------------------------------------------------------

---@class asio.channel
---@field send fun(self: asio.channel, value: any, timeout?: number): true?, string?, string? waits
---@field recv fun(self: asio.channel, timeout?: number): any, string?, string? waits
---@field iter fun(self: asio.channel): fun(): any the iterator waits
local channel = {}

---@class asio.semaphore
---@field acquire fun(self: asio.semaphore, timeout?: number): true?, string?, string? waits
---@field with fun(self: asio.semaphore, fn: function, ...: any): ... waits
local semaphore = {}

---@class asio.mutex
---@field lock fun(self: asio.mutex, timeout?: number): true?, string?, string? waits
---@field with fun(self: asio.mutex, fn: function, ...: any): ... waits
local mutex = {}

---@class asio.event
---@field wait fun(self: asio.event, timeout?: number): true?, string?, string? waits
local event = {}

--- Makes a channel, which hands values from one light thread to another. First come, first served.
---@param capacity? integer how many values it holds before `send` waits; 0 (the default): `send` waits for
--- the receiver; `math.huge`: `send` never waits
---@return asio.channel
function asio.channel(capacity) end

--- Closes both sides. Values in the channel can still be received; then `recv` returns
--- `nil, "closed", "EBADF"`. `send` returns that at once, also in senders that wait: their values are
--- withdrawn. Closing twice is fine.
function channel:close() end

--- Makes a semaphore, which limits how many light threads do something at a time.
---@param n integer how many are free at the start; may be 0
---@return asio.semaphore
function asio.semaphore(n) end

--- Gives units back. The light thread that has waited longest gets the first. Any light thread may release.
---@param n? integer how many (1)
function semaphore:release(n) end

--- How many are free.
---@return integer
function semaphore:count() end

--- Makes a mutex. It belongs to the light thread that has locked it. If its owner ends without unlocking,
--- the mutex is handed on, and this is reported.
---@return asio.mutex
function asio.mutex() end

--- Hands the mutex to the first light thread that waits. Raises unless the caller owns it.
function mutex:unlock() end

--- Makes an event, which is not set.
---@return asio.event
function asio.event() end

--- Wakes all waiting light threads. Until `clear`, later waits return at once.
function event:set() end

--- Later waits wait again.
function event:clear() end

---@return boolean
function event:is_set() end

-- Timers, signals ---------------------------------------------------------------------------------

---@class asio.timer need not be referenced; keeps `run` going while it is active
local timer = {}

--- Calls a function later, in a light thread of its own.
---@param seconds number
---@param fn fun()
---@return asio.timer
function asio.after(seconds, fn) end

--- Calls a function again and again, in a light thread of its own each time. Calls never overlap: a tick
--- that comes while the function still runs is left out.
---@param seconds number from tick to tick
---@param fn fun()
---@return asio.timer
function asio.every(seconds, fn) end

--- Ends the timer, but not a call that is running.
---@return boolean active false: it had ended already
function timer:stop() end

---@class asio.signal
---@field wait fun(self: asio.signal, timeout?: number): true?, string?, string? waits
---@field iter fun(self: asio.signal): fun(): true? the iterator waits
local signal = {}

--- Watches no more: the signal has its default effect again. Waiting light threads get `ECANCELED`.
function signal:close() end

-- Seeing what goes on -----------------------------------------------------------------------------

--- Sends errors that no light thread joins to `fn(err, traceback, thread)`, in a light thread of its own.
--- Reports that concern no failed light thread have neither traceback nor thread.
---@param fn? fun(err: any, traceback?: string, thread?: asio.thread) nil: standard error, as at the start
---@return function? before the function that was set until now
function asio.on_error(fn) end

---@class asio.thread_info
---@field thread asio.thread
---@field name string
---@field id integer
---@field status "running"|"ready"|"waiting"
---@field age number seconds since it was spawned
---@field wait? string what the light thread waits for; only while it waits
---@field waiting? number for how many seconds
---@field traceback string where it is; the script's coroutines inside it come first

--- Every light thread that has not ended.
---@return asio.thread_info[]
function asio.threads() end

---@class asio.stats
---@field threads integer light threads now
---@field threads_peak integer the most at a time
---@field threads_spawned integer since the start
---@field connections integer open now
---@field connections_opened integer since the start
---@field bytes_in integer from the kernel
---@field bytes_out integer to the kernel
---@field turns integer of the loop
---@field longest_turn number seconds: the longest time that one turn kept the processor
---@field handshakes integer of TLS, that servers have done
---@field handshakes_failed integer of TLS, on servers

--- Counters.
---@return asio.stats
function asio.stats() end

--- Reports on standard error when a light thread keeps the processor for longer than that, and then where
--- it next waits.
---@param seconds? number at least a millisecond; nil ends the watchdog
---@return true? ok
---@return string? message
---@return string? code
function asio.watchdog(seconds) end

-- Servers and connections -------------------------------------------------------------------------

---@class asio.opts one table may serve both ends: each ignores the options of the other; unknown names raise
---@field linger? number seconds without progress until a closing connection is given up with a reset (30)
---@field nodelay? boolean TCP_NODELAY (true)
---@field keepalive? boolean|number seconds of silence until the system asks the peer (true: 60; false)
---@field reuseport? boolean several sockets may share the port (false)
---@field handles? boolean Unix sockets: connections can be passed over it (false)

---@class asio.proxy_protocol
---@field from string|string[] trusted networks: '10.0.0.0/8, ::1'; 'unix' for Unix sockets
---@field timeout? number seconds until the header has to be there (5)

---@class asio.tls_opts files are named, or given as PEM text
---@field cert? string the own certificate, and those of the authorities in between
---@field key? string its private key (the file of `cert`)
---@field password? string of an encrypted key
---@field ca? string the authorities that are trusted: a file, a directory, PEM text (those of the system)
---@field crl? string lists of revoked certificates, one of each issuer
---@field pin? string|string[] SHA-256 of the public keys that the peer may have: hexadecimal digits or base64
---@field alpn? string|string[] names of protocols, the preferred one first
---@field min_version? "1.2"|"1.3" ("1.2")
---@field ciphers? string OpenSSL's names, with colons between them
---@field handshake_timeout? number seconds (10)

---@class asio.tls_client_opts: asio.tls_opts
---@field verify? boolean false: any certificate is taken (true)
---@field server_name? string|false the name in the server's certificate (the host)

---@class asio.tls_server_opts: asio.tls_opts
---@field names? table<string, asio.tls_server_opts>|fun(name: string): asio.tls_server_opts? by the name
--- that the client asks for ('*.example.org', too); the function may wait. What an entry lacks is as outside
---@field verify? false|"optional"|"require" whether clients are asked for a certificate (false)
---@field ocsp? string a file with the response of OCSP that goes with the certificate, in DER
---@field ticket_keys? string[] 1 to 3 keys of 80 bytes that servers may share; the first one encrypts

---@class asio.start_tls_opts: asio.tls_client_opts, asio.tls_server_opts
---@field server? boolean this is the accepting side (false)
---@field peeked? boolean bytes that have come and were not read are the peer's first ones of TLS (false)

---@class asio.tls_certificate
---@field subject string 'CN=example.org'
---@field issuer string
---@field names string[] DNS names and addresses
---@field not_before number seconds since 1970, as `os.time`
---@field not_after number
---@field sha256 string hexadecimal digits
---@field pem string

---@class asio.tls_info
---@field version string 'TLSv1.3'
---@field cipher string
---@field alpn? string the protocol that was agreed on
---@field server_name? string that the client has asked for
---@field resumed boolean
---@field peer? asio.tls_certificate
---@field bindings {["tls-exporter"]?: string, ["tls-server-end-point"]?: string} for SCRAM-...-PLUS
---@field failure? string what has ended the connection, in words

---@class asio.tls_failure_info
---@field peer? string address
---@field port? integer
---@field server_name? string that the client has asked for

---@class asio.server_opts: asio.opts
---@field backlog? integer connections that the kernel holds until they are accepted (511)
---@field max_connections? integer open at a time; further ones wait in the backlog
---@field proxy_protocol? asio.proxy_protocol|false connections come through a proxy: `peer` is the client
---@field ipv6only? boolean a server on `::` takes no IPv4 (false)
---@field unlink_stale? boolean Unix sockets: the file of a server that has gone is replaced (false)
---@field tls? asio.tls_server_opts|false
---@field on_tls_error? asio.on_tls_error
---@field threads? integer|"auto" so many system threads serve, each with a Lua state of its own;
--- `asio.server` then waits until they are ready
---@field init? function|string with `threads`: runs, or is required, in each of them first

---@class asio.connect_opts: asio.opts
---@field timeout? number seconds for everything together
---@field bind? string|{[1]: string, [2]?: asio.port} local numeric address, and port
---@field servers? string[] as for `resolve`
---@field cache? boolean as for `resolve`
---@field tls? asio.tls_client_opts|boolean true: without options

---@class asio.credentials
---@field pid integer
---@field uid integer
---@field gid integer

--- Runs in a light thread of its own for each connection. If it raises, the connection is aborted.
---@alias asio.handler fun(conn: asio.conn)

--- A handshake has failed. May wait.
---@alias asio.on_tls_error fun(info: asio.tls_failure_info, message: string, code: string)

---@class asio.server closes when it is collected
---@field accept fun(self: asio.server, timeout?: number): asio.conn?, string?, string? waits
---@field shutdown fun(self: asio.server, timeout?: number): true?, string?, string? waits
---@field set_tls fun(self: asio.server, opts: asio.tls_server_opts): true?, string?, string?
local server = {}

---@class asio.server_stats.thread
---@field name string
---@field status "running"|"ended"|"silent" silent: it has not answered, and has no counters
---@field accepts? integer connections that it has got
---@field connections? integer open in its Lua state now
---@field bytes_in? integer
---@field bytes_out? integer
---@field longest_turn? number seconds: the longest time that one turn kept the processor

---@class asio.server_stats of each thread by its number; of all together by name
---@field [integer] asio.server_stats.thread
---@field accepts integer
---@field connections integer
---@field bytes_in integer
---@field bytes_out integer
---@field longest_turn number the longest of all
---@field silent? string[] names of threads that have not answered

---@class asio.threaded_server: asio.server with the option `threads`; it has no `accept`
---@field stats fun(self: asio.threaded_server, timeout?: number): asio.server_stats waits (1)
---@field set_tls fun(self: asio.threaded_server, opts: asio.tls_server_opts): true?, string?, string? waits

---@class asio.conn
---@field read fun(self: asio.conn, size: integer): string?, string?, string? waits
---@field read_some fun(self: asio.conn, max?: integer): string?, string?, string? waits
---@field read_until fun(self: asio.conn, delim: string, max?: number): string?, string?, string? waits
---@field read_line fun(self: asio.conn, max?: number): string?, string?, string? waits
---@field read_all fun(self: asio.conn, max?: number): string?, string?, string? waits
---@field lines fun(self: asio.conn, max?: number): fun(): string? the iterator waits
---@field peek fun(self: asio.conn, size: integer): string?, string?, string? waits
---@field write fun(self: asio.conn, ...: string|number|table): true?, string?, string?, integer? waits
---@field flush fun(self: asio.conn): true?, string?, string?, integer? waits
---@field send_handle fun(self: asio.conn, passed: asio.conn): true?, string?, string? waits
---@field recv_handle fun(self: asio.conn): asio.conn?, string?, string? waits
---@field start_tls fun(self: asio.conn, opts?: asio.start_tls_opts): true?, string?, string? waits
---@field tls fun(self: asio.conn): asio.tls_info?, string?, string? waits
local conn = {}

--- Listens. Keep the result in a variable: a server that is collected closes.
---@param ip string numeric address; '*' or '': all addresses; 'localhost': 127.0.0.1
---@param port asio.port 0: any that is free
---@param handler? asio.handler nil: connections are taken by `server:accept`
---@param opts? asio.server_opts
---@return asio.server?
---@return string? message
---@return string? code `EADDRINUSE`, `EACCES`, `EINVAL` (not an address), ...
---@overload fun(where: string|integer, handler?: asio.handler, opts?: asio.server_opts): asio.server?
--- `where`: 'unix:/path', 'unix:@abstract', 'systemd:NAME'; 'unix:' and the name of a pipe on Windows; the
--- number of a listening socket's descriptor, which the server takes over.
function asio.server(ip, port, handler, opts) end

--- Stops listening; connections go on. The name (sic) that `server:close()` had in the first version.
---@param self asio.server
function asio.destory_server(self) end

--- Stops listening; connections go on. Light threads that wait in `accept` get `ECANCELED`.
function server:close() end

---@return string? ip or 'unix:...'
---@return integer|string port or message; none for Unix sockets
---@return string? code
function server:address() end

--- Two connected ends.
---@return asio.conn?
---@return asio.conn|string other_end_or_message
---@return string? code
function asio.socketpair() end

--- A raw address (`conn:get_original_dst`) as text.
---@param addr string
---@return string
function asio.addr_to_str(addr) end

---@class asio.resolve_opts
---@field type? "A"|"AAAA"|"SRV"|"MX"|"TXT"|"PTR" default: the addresses of both families
---@field servers? string[] the name servers to ask, `ip`, `ip:port` or `[ip]:port`
---@field timeout? number
---@field cache? boolean false asks anew

---@class asio.record the fields depend on the type that was asked for
---@field ttl? integer seconds for which the record may be kept, where that is known
---@field address? string A, AAAA
---@field family? "inet"|"inet6" A, AAAA
---@field target? string SRV
---@field port? integer SRV
---@field priority? integer SRV, MX: the lowest first
---@field weight? integer SRV
---@field exchange? string MX
---@field text? string TXT
---@field name? string PTR

--- Forgets what name servers have answered.
function asio.resolve_cache_clear() end

--- Closes in the background: what was written still arrives. Light threads that wait on the connection get
--- `ECANCELED`. Never waits, never raises; closing twice is fine.
function conn:close() end

--- Half-closes: the peer sees the end behind everything that was written. Reading goes on; later writes give
--- `EPIPE`. Never waits: `flush` waits until everything is sent.
---@return true? ok
---@return string? message
---@return string? code `EBADF` (closed), or the first error of writing
function conn:shutdown() end

--- Closes at once: drops output that is not sent, and resets the connection (TCP). Light threads that wait on
--- the connection get `ECANCELED`. Never waits, never raises; a closed connection stays closed.
function conn:abort() end

--- Time-outs for each later read, and each later write or flush. A late call returns
--- `nil, "operation timed out", "ETIMEDOUT"`; a write adds how many bytes are still queued. These will be
--- sent.
---@param read? number nil: none
---@param write? number without it: as for reading
---@return true? ok
---@return string? message
---@return string? code
function conn:set_timeout(read, write) end

--- The address of the other end.
---@return string? ip or 'unix:...'; 'unix:' for an end without a name
---@return integer|string port or message; none for Unix sockets
---@return string? code
function conn:peer() end

--- The address of this end.
---@return string? ip or 'unix:...'
---@return integer|string port or message; none for Unix sockets
---@return string? code
function conn:address() end

--- Unix sockets: the process at the other end, as it was when it connected, or listened.
---@return asio.credentials?
---@return string? message
---@return string? code `ENOTSUP`: another kind of connection, or not on this system
function conn:credentials() end

--- The number of the descriptor, which still belongs to the connection.
---@return integer? fd
---@return string? message
---@return string? code
function conn:fd() end

--- Bytes received and not read; bytes written and not taken by the kernel.
---@return integer? received
---@return integer|string unsent or message
---@return string? code
function conn:pending() end

--- Linux: the original destination of a redirected connection; for `asio.connect` and `asio.addr_to_str`.
---@return string? addr
---@return string? message
---@return string? code
function conn:get_original_dst() end

-- Datagrams ---------------------------------------------------------------------------------------

---@class asio.udp_opts
---@field reuseaddr? boolean other sockets may bind the same address (SO_REUSEADDR)
---@field reuseport? boolean other sockets may bind the same port, and the kernel spreads datagrams over them
--- (SO_REUSEPORT); needs an address
---@field ipv6only? boolean an IPv6 socket takes no IPv4
---@field broadcast? boolean may send to broadcast addresses
---@field recv_buffer? integer bytes of the kernel's receive buffer
---@field send_buffer? integer bytes of the kernel's send buffer
---@field recv_queue? integer bytes kept until `recv` takes them; above it the kernel's buffer fills (131072)
---@field send_queue? integer bytes queued above which `send` waits (131072)

---@class asio.udp_socket closes when it is collected
---@field recv fun(self: asio.udp_socket, max?: integer, timeout?: number): string?, string, asio.port waits
---@field send fun(self: asio.udp_socket, data: string, host?: string, port?: asio.port): true?, ... waits
---@field flush fun(self: asio.udp_socket): true?, string?, string?, integer? waits
---@field connect fun(self: asio.udp_socket, host: string, port?: asio.port): true?, string?, string? waits
local udp_socket = {}

--- Makes a datagram socket. Without an address it is opened at its first use, for the family of the first
--- address that it is given (IPv4 if there is none).
---@param ip? string numeric address; '*' or '': all addresses; 'localhost': 127.0.0.1
---@param port? asio.port 0: any that is free
---@param opts? asio.udp_opts may come first
---@return asio.udp_socket?
---@return string? message
---@return string? code `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`, `EINVAL` (not an address), `ENODEV` (no such
--- interface), ...
function asio.udp(ip, port, opts) end

--- Closes; what is queued still goes out. Waiting light threads get `ECANCELED`. Never waits, never raises;
--- closing twice is fine.
function udp_socket:close() end

--- Time-outs for each later `recv`, and each later `send` or `flush`.
---@param read? number nil: none
---@param write? number left out: as for receiving
---@return true? ok
---@return string? message
---@return string? code
function udp_socket:set_timeout(read, write) end

---@return string? ip
---@return integer|string port or message
---@return string? code
function udp_socket:address() end

--- The peer that `connect` has fixed.
---@return string? ip
---@return integer|string port or message
---@return string? code `ENOTCONN`
function udp_socket:peer() end

--- The number of the descriptor, which still belongs to the socket.
---@return integer? fd
---@return string? message
---@return string? code
function udp_socket:fd() end

--- Datagrams that wait in the socket's own queues.
---@return integer? received datagrams received, not yet taken by `recv`
---@return integer|string queued datagrams queued, not yet taken by the kernel; or message
---@return string? code
function udp_socket:pending() end

--- Joins a multicast group: receives what is sent to it.
---@param ip string numeric address of the group
---@param interface? string its name; or an address of it (IPv4), an address with it (IPv6: `fe80::1%eth0`)
---@return true? ok
---@return string? message
---@return string? code `ENODEV`, `EINVAL` (not a group), `EADDRINUSE` (joined already), ...
function udp_socket:join(ip, interface) end

--- Leaves a multicast group.
---@param ip string
---@param interface? string as for `join`
---@return true? ok
---@return string? message
---@return string? code `EADDRNOTAVAIL` (not joined), ...
function udp_socket:leave(ip, interface) end

--- Sets the interface through which datagrams go to multicast groups.
---@param interface? string as for `join`; nil: the system picks one
---@return true? ok
---@return string? message
---@return string? code
function udp_socket:set_multicast_interface(interface) end

--- Sets how many networks a datagram to a group may cross.
---@param ttl integer 0 to 255; 0: this machine, 1: the local network
---@return true? ok
---@return string? message
---@return string? code
function udp_socket:set_multicast_ttl(ttl) end

--- Sets whether members of a group on this machine receive what this socket sends to it.
---@param on boolean true at the start
---@return true? ok
---@return string? message
---@return string? code
function udp_socket:set_multicast_loop(on) end

--- Allows sending to broadcast addresses.
---@param on boolean
---@return true? ok
---@return string? message
---@return string? code
function udp_socket:set_broadcast(on) end

--- Sets how many routers a datagram may pass.
---@param ttl integer 1 to 255
---@return true? ok
---@return string? message
---@return string? code
function udp_socket:set_ttl(ttl) end

return asio
