---@meta asio.http
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 241 211
--
-- For editors: the types of the module asio.http, as meta.lua has those of asio. This file is not part of the
-- module. docs/reference.md has the same functions; a test compares the two.
--
-- Failures are nil, message, code. A call that waits is marked "waits".

---@alias asio.http.handler fun(req: asio.http.request, res: asio.http.response)
---@alias asio.http.middleware fun(req: asio.http.request, res: asio.http.response, next: function)
---@alias asio.http.headers table<string, string|number|string[]>

-- The module --------------------------------------------------------------------------------------

---@class asio.http
---@field default_pool asio.http.pool the pool of requests that name none
---@field types table<string, string> endings of files, without the dot, and media types; may be changed
---@field handler fun(handler: asio.http.handler, opts?: asio.http.server_opts): fun(conn: asio.conn)
---@field router fun(opts?: asio.http.router_opts): asio.http.router
---@field files fun(root: string, opts?: asio.http.file_opts): asio.http.handler
---@field gzip fun(opts?: asio.http.gzip_opts): asio.http.middleware
---@field access_log fun(to: string|function|table, how?: string|function): function?, string?, string?
---@field request fun(method: string, url: string, opts?: asio.http.request_opts): ... waits
---@field get fun(url: string, opts?: asio.http.request_opts): asio.http.reply?, string?, string? waits
---@field head fun(url: string, opts?: asio.http.request_opts): asio.http.reply?, string?, string? waits
---@field post fun(url: string, opts?: asio.http.request_opts): asio.http.reply?, string?, string? waits
---@field put fun(url: string, opts?: asio.http.request_opts): asio.http.reply?, string?, string? waits
---@field patch fun(url: string, opts?: asio.http.request_opts): asio.http.reply?, string?, string? waits
---@field delete fun(url: string, opts?: asio.http.request_opts): asio.http.reply?, string?, string? waits
---@field options fun(url: string, opts?: asio.http.request_opts): asio.http.reply?, string?, string? waits
---@field pool fun(opts?: asio.http.pool_opts): asio.http.pool
---@field jar fun(): asio.http.jar
local http = {}

--- As asio.server, with HTTP/1.1 on its connections.
---@overload fun(where: string, handler: asio.http.handler, opts?: asio.http.server_opts): asio.http.server?
---@param ip string numeric address, `'*'`, `'localhost'`
---@param port asio.port
---@param handler asio.http.handler a router is one
---@param opts? asio.http.server_opts
---@return asio.http.server?
---@return string? message
---@return string? code
function http.server(ip, port, handler, opts) end

-- Servers -----------------------------------------------------------------------------------------

---@class asio.http.server_opts: asio.server_opts
---@field idle_timeout? number seconds between requests (5)
---@field header_timeout? number seconds for a head (60)
---@field request_timeout? number seconds for a body (300)
---@field write_timeout? number seconds without progress in writing (60)
---@field max_header? integer bytes of a head (16384)
---@field max_headers? integer fields of a head (100)
---@field max_target? integer bytes of a target (8192)
---@field max_body? integer bytes of a body that is read whole (1048576)
---@field max_drain? integer bytes of a body that is read though the handler has not (65536)
---@field trust? string|string[] networks of proxies whose `Forwarded`, `X-Forwarded-For` are believed
---@field json? {encode: function, decode: function} in place of lua-cjson
---@field gzip? boolean|asio.http.gzip_opts responses are compressed
---@field on_request_end? function of the request, the response, and seconds

---@class asio.http.server
---@field close fun(self: asio.http.server) stops listening
---@field shutdown fun(self: asio.http.server, timeout?: number): true?, string?, string? waits
---@field address fun(self: asio.http.server): string?, integer?
---@field set_tls fun(self: asio.http.server, opts: asio.tls_opts): true?, string?, string?
---@field metrics fun(self: asio.http.server, timeout?: number): asio.http.metrics waits with `threads`
---@field stats fun(self: asio.http.server, timeout?: number): table waits; with the option `threads`

---@class asio.http.metrics
---@field requests integer
---@field connections integer
---@field active integer connections that are open
---@field failed integer handlers that have raised
---@field refused integer requests that could not be read
---@field responses table<integer, integer> by status
---@field silent string[]? names of threads that have not answered
---@field [integer] asio.http.thread_metrics with the option `threads`: of each thread

---@class asio.http.thread_metrics: asio.http.metrics without counters if it is silent
---@field name string
---@field status "running"|"ended"|"silent"

---@class asio.http.head the fields of a message, in their order
---@field get fun(self: asio.http.head, name: string): string?
---@field all fun(self: asio.http.head, name: string): string[]
---@field field fun(self: asio.http.head, index: integer): string?, string?
---@field count fun(self: asio.http.head): integer
---@field [string] string? as get

---@class asio.http.request
---@field method string
---@field target string as it came
---@field path string the target without query, not decoded
---@field version "1.1"|"1.0"
---@field headers asio.http.head
---@field length integer? of the body; nil: there is none; -1: not known
---@field conn asio.conn
---@field params table<string, string> of the route
---@field state table for the script
---@field header fun(self: asio.http.request, name: string): string?
---@field query fun(self: asio.http.request): table<string, string>
---@field query_all fun(self: asio.http.request): table<string, string[]>
---@field read fun(self: asio.http.request, max?: integer): string?, string?, string? waits
---@field read_all fun(self: asio.http.request, max?: integer): string?, string?, string? waits
---@field chunks fun(self: asio.http.request): fun(): string? waits
---@field json fun(self: asio.http.request, max?: integer): any, string?, string? waits
---@field form fun(self: asio.http.request, opts?: asio.http.form_opts): table?, table|string, string? waits
---@field parts fun(self: asio.http.request): asio.http.parts?, string?, string?
---@field cookies fun(self: asio.http.request): table<string, string>
---@field peer fun(self: asio.http.request): string?, asio.port?

---@class asio.http.form_opts
---@field max? integer bytes (1048576)
---@field max_fields? integer (1000)

---@class asio.http.parts of a multipart form; callable, for loops: `for part in req:parts() do`
---@field next fun(self: asio.http.parts): asio.http.part?, string?, string? waits

---@class asio.http.part
---@field name string
---@field filename string?
---@field headers asio.http.head
---@field read fun(self: asio.http.part, max?: integer): string?, string?, string? waits
---@field read_all fun(self: asio.http.part, max?: integer): string?, string?, string? waits
---@field chunks fun(self: asio.http.part): fun(): string? waits

---@class asio.http.response
---@field status integer 200
---@field headers asio.http.headers
---@field sent boolean the head is out
---@field bytes integer of the body so far
---@field write fun(self: asio.http.response, data: string|number): true?, string?, string? waits
---@field finish fun(self: asio.http.response, trailers?: table): true?, string?, string? waits
---@field json fun(self: asio.http.response, value: any, status?: integer): true?, string?, string? waits
---@field redirect fun(self: asio.http.response, location: string, status?: integer): true?, ... waits
---@field informational fun(self: asio.http.response, status: integer, headers?: table): true?, ... waits
---@field file fun(self: asio.http.response, path: string, opts?: asio.http.file_opts): true?, ... waits
---@field sse fun(self: asio.http.response, opts?: {heartbeat?: number|false}): asio.http.events?, ... waits
---@field upgrade fun(self: asio.http.response, headers?: asio.http.headers): asio.conn?, ... waits
---@field set_cookie fun(self: asio.http.response, name: string, value: string, opts?: asio.http.cookie_opts)
---@field clear_cookie fun(self: asio.http.response, name: string, opts?: asio.http.cookie_opts)
---@field send fun(self: asio.http.response, status?: integer, headers?: table, body?: string): ... waits

---@class asio.http.cookie_opts
---@field domain? string
---@field path? string|false `'/'`
---@field max_age? number seconds
---@field expires? number seconds since 1970
---@field secure? boolean
---@field http_only? boolean true
---@field same_site? "lax"|"strict"|"none"|false `'lax'`
---@field partitioned? boolean

---@class asio.http.events server-sent events
---@field send fun(self: asio.http.events, event: string|table): true?, string?, string? waits
---@field comment fun(self: asio.http.events, text?: string): true?, string?, string? waits
---@field close fun(self: asio.http.events): true?, string?, string? waits

---@class asio.http.file_opts
---@field root? string of res:file: the path is looked up beneath this directory
---@field type? string
---@field download? boolean|string
---@field max_age? number seconds
---@field index? string|false of http.files: `'index.html'`
---@field dotfiles? boolean of http.files
---@field param? string of http.files: the name of the router's parameter

---@class asio.http.gzip_opts
---@field min? integer bytes (1024)
---@field level? integer 1 to 9 (6)
---@field types? string[]

-- Routers -----------------------------------------------------------------------------------------

---@class asio.http.router_opts
---@field slash? "strict"|"redirect"|"ignore"
---@field not_found? asio.http.handler

---@class asio.http.router a handler: `router(req, res)`
---@field get fun(self: asio.http.router, path: string, ...: function): asio.http.router
---@field head fun(self: asio.http.router, path: string, ...: function): asio.http.router
---@field post fun(self: asio.http.router, path: string, ...: function): asio.http.router
---@field put fun(self: asio.http.router, path: string, ...: function): asio.http.router
---@field patch fun(self: asio.http.router, path: string, ...: function): asio.http.router
---@field delete fun(self: asio.http.router, path: string, ...: function): asio.http.router
---@field options fun(self: asio.http.router, path: string, ...: function): asio.http.router
---@field any fun(self: asio.http.router, path: string, ...: function): asio.http.router
---@field route fun(self: asio.http.router, methods: string|string[], path: string, ...: function): ...
---@field use fun(self: asio.http.router, ...: asio.http.middleware): asio.http.router
---@field mount fun(self: asio.http.router, prefix: string, other: asio.http.router): asio.http.router

-- The client --------------------------------------------------------------------------------------

---@class asio.http.request_opts
---@field headers? asio.http.headers
---@field query? table<string, string|string[]>
---@field body? string|function|table
---@field length? integer of a body that is no string
---@field json? any
---@field form? table
---@field multipart? table
---@field auth? string|table
---@field stream? boolean the body is read by the script
---@field max? integer bytes of a body that is read whole (16 MiB)
---@field redirects? integer|false 10
---@field proxy? string|false
---@field proxy_tls? asio.tls_opts
---@field timeout? number|{connect?: number, first_byte?: number, idle?: number, total?: number}
---@field tls? asio.tls_opts
---@field pool? asio.http.pool|false
---@field jar? asio.http.jar
---@field decompress? boolean true
---@field expect? boolean
---@field on_informational? function of the status and the headers of each response 1xx
---@field connect? asio.connect_opts

---@class asio.http.reply what a request has brought
---@field status integer
---@field reason string
---@field headers asio.http.head
---@field body string? nil with `stream = true`
---@field length integer? what the head says
---@field url string behind redirects
---@field version "1.1"|"1.0"
---@field decoded string? the coding that was undone
---@field trailers asio.http.head?
---@field conn asio.conn? behind 101 Switching Protocols
---@field header fun(self: asio.http.reply, name: string): string?
---@field read fun(self: asio.http.reply, most?: integer): string?, string?, string? waits
---@field read_all fun(self: asio.http.reply, most?: integer): string?, string?, string? waits
---@field chunks fun(self: asio.http.reply): fun(): string? waits
---@field json fun(self: asio.http.reply): any, string?, string? waits
---@field close fun(self: asio.http.reply)

---@class asio.http.pool_opts
---@field per_host? integer connections (32)
---@field total? integer connections (256)
---@field idle_time? number seconds (60)

---@class asio.http.pool
---@field request fun(self: asio.http.pool, method: string, url: string, opts?: table): ... waits
---@field get fun(self: asio.http.pool, url: string, opts?: table): asio.http.reply?, ... waits
---@field head fun(self: asio.http.pool, url: string, opts?: table): asio.http.reply?, ... waits
---@field post fun(self: asio.http.pool, url: string, opts?: table): asio.http.reply?, ... waits
---@field put fun(self: asio.http.pool, url: string, opts?: table): asio.http.reply?, ... waits
---@field patch fun(self: asio.http.pool, url: string, opts?: table): asio.http.reply?, ... waits
---@field delete fun(self: asio.http.pool, url: string, opts?: table): asio.http.reply?, ... waits
---@field options fun(self: asio.http.pool, url: string, opts?: table): asio.http.reply?, ... waits
---@field close fun(self: asio.http.pool, forever?: boolean)
---@field stats fun(self: asio.http.pool): {used: integer, idle: integer, hosts: integer}

---@class asio.http.jar
---@field set fun(self: asio.http.jar, url: string, header: string)
---@field get fun(self: asio.http.jar, url: string): string?
---@field clear fun(self: asio.http.jar, domain?: string)
---@field all fun(self: asio.http.jar): table[]

return http
