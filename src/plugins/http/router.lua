-- SPDX-License-Identifier: MIT
--
-- Http.router: a tree of segments. A request is looked up in one walk: at each node the child of the
-- segment's text, then the parameter, then the router that is mounted there, then the rest. A node is reached
-- by one way only, so a walk visits each node at most once, whatever the path.
--
-- A path without parameters is found by one look into `exact`.

local _, c, http = ...
local getmetatable, ipairs, load, pairs = getmetatable, ipairs, load, pairs
local select, setmetatable, type = select, setmetatable, type
local concat, sort, find, sub, upper = table.concat, table.sort, string.find, string.sub, string.upper
local unescape = c.unescape

local router = {}
local meta = { __index = router, __name = 'asio.http.router' }
local definitions = 0 -- of routes, middleware and mounts: what was put together before is old

local function new_node() return { static = {} } end

-- Definitions ------------------------------------------------------------------------------------

local function check_router(self, fname)
    if type(self) ~= 'table' or getmetatable(self) ~= meta then
        c.misuse(("calling '%s' on something that is not a router"):format(fname))
    end
end

local function add_name(names, name, path, fname, arg)
    if name == '' then c.bad(arg, fname, ("'%s': a parameter without a name"):format(path)) end
    if not find(name, '^[%a_][%w_]*$') then
        local text = "'%s': a parameter is a whole segment; its name has letters, digits, '_'"
        c.bad(arg, fname, text:format(path))
    end
    for _, other in ipairs(names) do
        if other == name then c.bad(arg, fname, ("'%s': two parameters '%s'"):format(path, name)) end
    end
    names[#names + 1] = name
end

-- The segments of a path, into a list; how many.
local function split(path, list)
    local n, from = 0, 2
    while true do
        local slash = find(path, '/', from, true)
        n = n + 1
        if not slash then
            list[n] = sub(path, from)
            return n
        end
        list[n] = sub(path, from, slash - 1)
        from = slash + 1
    end
end

-- The node of a path, made where it is missing; the names of its parameters; whether it has none.
local function node_of(self, path, fname, arg)
    if type(path) ~= 'string' or sub(path, 1, 1) ~= '/' then
        c.bad(arg, fname, "a path expected, which begins with '/'")
    end
    if self.slash == 'ignore' and #path > 1 and sub(path, -1) == '/' then path = sub(path, 1, -2) end
    local node, names = self.root, {}
    local list = {}
    local n = split(path, list)
    for i, segment in ipairs(list) do
        local kind, key = sub(segment, 1, 1), nil
        if kind == ':' then key = 'param' elseif kind == '*' then key = 'rest' end
        if key == 'rest' and i < n then
            c.bad(arg, fname, ("'%s': nothing can follow '%s'"):format(path, segment))
        end
        local into = key and node or node.static
        if key then add_name(names, sub(segment, 2), path, fname, arg) end
        into[key or segment] = into[key or segment] or new_node()
        node = into[key or segment]
    end
    return node, names, path
end

-- ...: middleware, and the handler at the end
local function handlers_of(fname, arg, ...)
    local list = { ... }
    local n = select('#', ...)
    if n == 0 then c.bad(arg, fname, 'function expected, got no value') end
    for i = 1, n do
        local kind = type(list[i])
        local callable = kind == 'function' or (getmetatable(list[i]) or {}).__call
        if not callable then c.bad(arg + i - 1, fname, 'function expected, got ' .. kind) end
    end
    return list
end

local function add(self, method, path, fname, arg, handlers)
    local node, names, text = node_of(self, path, fname, arg)
    node.methods = node.methods or {}
    if node.methods[method] then
        local what = method == '*' and 'any method' or method
        c.bad(arg, fname, ("'%s': there is a route for %s already: '%s'")
            :format(path, what, node.methods[method].path))
    end
    node.methods[method] = { router = self, path = path, names = names, handlers = handlers }
    if #names == 0 and not find(text, '%', 1, true) then self.exact[text] = node end
    definitions = definitions + 1
    return self
end

for _, name in ipairs { 'get', 'post', 'put', 'delete', 'patch', 'head', 'options', 'any' } do
    local method = name == 'any' and '*' or upper(name)
    router[name] = function(self, path, ...)
        check_router(self, name)
        return add(self, method, path, name, 1, handlers_of(name, 2, ...))
    end
end

--- A route for one method, or a list of them.
function router.route(self, methods, path, ...)
    check_router(self, 'route')
    local list = type(methods) == 'table' and methods or { methods }
    local handlers = handlers_of('route', 3, ...)
    if #list == 0 then c.bad(1, 'route', 'a method expected') end
    for _, method in ipairs(list) do
        if type(method) ~= 'string' or not find(method, "^[%w!#$%%&'*+.^_`|~-]+$") then
            c.bad(1, 'route', 'a method, or a list of them, expected')
        end
        add(self, method, path, 'route', 2, handlers)
    end
    return self
end

--- Runs for each request that the router gets, before the routes, in the order of definition; of a router
--- that is mounted: for each request that has a route in it.
function router.use(self, ...)
    check_router(self, 'use')
    for _, fn in ipairs(handlers_of('use', 1, ...)) do self.middleware[#self.middleware + 1] = fn end
    definitions = definitions + 1
    return self
end

--- What comes behind the prefix is looked up in the other router.
function router.mount(self, prefix, other)
    check_router(self, 'mount')
    if type(other) ~= 'table' or getmetatable(other) ~= meta then
        c.bad(2, 'mount', 'router expected, got ' .. type(other))
    end
    local above = self
    while above do
        if above == other then c.bad(2, 'mount', 'a router cannot be mounted within itself') end
        above = above.parent
    end
    if other.parent then c.bad(2, 'mount', 'this router is mounted already') end
    if type(prefix) == 'string' then prefix = sub(prefix, 1, 1) .. sub(prefix, 2):gsub('/$', '') end
    local node, names = self.root, {}
    if prefix ~= '/' then node, names = node_of(self, prefix, 'mount', 1) end
    if find(prefix, '/*', 1, true) then
        c.bad(1, 'mount', ("'%s': nothing can follow a rest"):format(prefix))
    elseif node.mount then
        c.bad(1, 'mount', ("'%s': a router is mounted there already"):format(prefix))
    end
    node.mount, other.parent, other.prefix_names = other, self, names
    definitions = definitions + 1
    return self
end

-- The walk ---------------------------------------------------------------------------------------

-- A look-up: the segments, decoded, at 1 to n; method; values of the parameters so far; the methods that
-- there would be, if any node was found.
local function split_decoded(s, path)
    s.n = split(path, s)
    if not find(path, '%', 1, true) then return true end
    for i = 1, s.n do
        local text = unescape(s[i])
        if not text or find(text, '\0', 1, true) then return false end
        s[i] = text
    end
    return true
end

local function pick(node, s)
    local methods = node.methods
    if not methods then return nil end
    local route = methods[s.method] or s.method == 'HEAD' and methods.GET or methods['*']
    if route then return route end
    s.allowed = s.allowed or {}
    for method in pairs(methods) do s.allowed[method] = true end
end

local walk

local function walk_end(node, s)
    local route = pick(node, s)
    if route or not node.mount then return route end
    local index = node.mount.root.static['']
    if index then return pick(index, s) end
    return walk_end(node.mount.root, s)
end

-- With a value: what is found below has it.
local function walk_value(node, s, i, value)
    local count = s.count + 1
    s.count, s.values[count] = count, value
    local route = walk(node, s, i)
    if not route then s.count = count - 1 end
    return route
end

function walk(node, s, i)
    if i > s.n then return walk_end(node, s) end
    local child = node.static[s[i]]
    local route = child and walk(child, s, i + 1)
    if not route and node.param and s[i] ~= '' then route = walk_value(node.param, s, i + 1, s[i]) end
    if not route and node.mount then route = walk(node.mount.root, s, i) end
    if not route and node.rest then
        route = walk_value(node.rest, s, s.n + 1, concat(s, '/', i, s.n))
    end
    return route
end

-- The way that the walk tries first, which most requests end on, without a list of segments: compiled it
-- takes a third of the time. nil: it leads nowhere.
local function descend(node, path, s)
    local from, count, values = 2, 0, s.values
    while true do
        local slash = find(path, '/', from, true)
        local segment = sub(path, from, slash and slash - 1 or -1)
        local child = node.static[segment]
        if not child then
            child = node.param
            if not child or segment == '' then return nil end
            count = count + 1
            values[count] = segment
        end
        node = child
        if not slash then return pick(node, s) end
        from = slash + 1
    end
end

-- nil: no such route; nil, true: the path cannot be decoded
local function find_route(self, path, s)
    if sub(path, 1, 1) ~= '/' then return nil end
    if self.slash == 'ignore' and #path > 1 and sub(path, -1) == '/' then path = sub(path, 1, -2) end
    local node = self.exact[path]
    local route = node and pick(node, s)
    if not route and not find(path, '%', 1, true) then route = descend(self.root, path, s) end
    if route then return route end
    if not split_decoded(s, path) then return nil, true end
    return walk(self.root, s, 1)
end

-- Running ----------------------------------------------------------------------------------------

local run

-- On its own: LuaJIT does not compile a function that makes closures.
local function run_before(chain, i, req, res)
    local called = false
    return chain[i](req, res, function()
        if called then c.misuse "calling 'next' a second time" end
        called = true
        return run(chain, i + 1, req, res)
    end)
end

function run(chain, i, req, res)
    if chain[i + 1] then return run_before(chain, i, req, res) end
    return chain[i](req, res)
end

local function append(to, list)
    for _, value in ipairs(list) do to[#to + 1] = value end
end

-- A function that makes a table of values with these names: written for the route, so that the table has room
-- from the start and no loop ends a trace. add_name has checked the names.
local function params_function(names)
    local fields = {}
    for i, name in ipairs(names) do fields[i] = ("['%s'] = values[%d]"):format(name, i) end
    return load(('local values = ... return { %s }'):format(concat(fields, ', ')))
end

-- The functions and the names of a route, as seen from this router. A router is mounted once, so the way is
-- known.
local function compose(self, route)
    local routers, at = {}, route.router
    while at ~= self do
        routers[#routers + 1] = at
        at = at.parent
    end
    local chain, names = {}, {}
    append(chain, self.middleware)
    for i = #routers, 1, -1 do
        append(chain, routers[i].middleware)
        append(names, routers[i].prefix_names)
    end
    append(chain, route.handlers)
    append(names, route.names)
    return { chain = chain, params_of = params_function(names) }
end

local function composed(self, route)
    if self.composed_at ~= definitions then self.composed, self.composed_at = {}, definitions end
    local entry = self.composed[route]
    if not entry then
        entry = compose(self, route)
        self.composed[route] = entry
    end
    return entry
end

local function allow_of(methods)
    local list = {}
    if methods.GET then methods.HEAD = true end
    methods.OPTIONS = true
    for method in pairs(methods) do list[#list + 1] = method end
    sort(list)
    return concat(list, ', ')
end

local function all_methods(self, into)
    local function visit(node)
        for method in pairs(node.methods or {}) do
            if method ~= '*' then into[method] = true end
        end
        for _, child in pairs(node.static) do visit(child) end
        if node.param then visit(node.param) end
        if node.rest then visit(node.rest) end
        if node.mount then visit(node.mount.root) end
    end
    visit(self.root)
    return into
end

-- The path with the other ending, if that has a route. Two slashes in front would be another host's name.
local function other_slash(self, req)
    local path = req.path
    if self.slash ~= 'redirect' or path == '/' or find(path, '^/[/\\]') then return nil end
    local other = sub(path, -1) == '/' and sub(path, 1, -2) or path .. '/'
    if not find_route(self, other, { method = req.method, values = {}, count = 0 }) then return nil end
    local query = find(req.target or '', '?', 1, true)
    return other .. (query and sub(req.target, query) or '')
end

local function answer(status, headers, text)
    return function(_, res) return res:send(status, headers, text) end
end

-- What answers where no route does (RFC 9110, 15.5.5, 15.5.6, 9.3.7).
local function otherwise(self, req, s, undecodable)
    if undecodable then return answer(400, nil, 'Bad Request\n') end
    if req.method == 'OPTIONS' and (s.allowed or req.path == '*') then
        return answer(204, { Allow = allow_of(s.allowed or all_methods(self, {})) })
    end
    if s.allowed then return answer(405, { Allow = allow_of(s.allowed) }, 'Method Not Allowed\n') end
    local location = other_slash(self, req)
    if location then return answer(308, { Location = location }) end
    return self.not_found or answer(404, nil, 'Not Found\n')
end

-- A look-up is over before a handler runs: one is enough, but for a finalizer that runs in between.
local spare

local function look_up(self, req)
    local s = spare or { values = {} }
    spare = nil
    s.method, s.count, s.allowed = req.method, 0, nil
    local route, undecodable = find_route(self, req.path, s)
    return s, route, undecodable
end

local function dispatch(self, req, res)
    local s, route, undecodable = look_up(self, req)
    if not route then
        req.params = {}
        local chain = {}
        append(chain, self.middleware)
        chain[#chain + 1] = otherwise(self, req, s, undecodable)
        return run(chain, 1, req, res)
    end
    local entry = composed(self, route)
    req.params, req.route = entry.params_of(s.values), route.path
    spare = s
    return run(entry.chain, 1, req, res)
end

meta.__call = dispatch

-- What other Lua states find by its name: a function with such upvalues can be carried there, one with C
-- functions further down cannot.
http.internal = http.internal or {}
http.internal.dispatch = dispatch

-- A handler for other Lua states, where tables come without their metatables.
function c.portable(handler)
    if getmetatable(handler) ~= meta then return handler end
    return function(req, res) return dispatch(handler, req, res) end
end

local OPTIONS = { slash = true, not_found = true }
local SLASH = { strict = true, redirect = true, ignore = true }

--- A router: a handler with routes. A path consists of segments: text, `:name` (one segment, not empty),
--- `*name` (all that follows, at the end). Text goes before parameters, these before the rest; a route that
--- lacks the method gives way to one that has it. Parameters are decoded. `opts.slash`, where only the path
--- with the other ending, with or without a slash, has a route: 'strict': not found (the default);
--- 'redirect': 308 to it; 'ignore': both are the same. `opts.not_found`: a handler.
function http.router(opts)
    local kind = type(opts) -- a NULL of the FFI is equal to nil
    if kind ~= 'nil' and kind ~= 'table' then c.bad(1, 'router', 'table expected, got ' .. kind) end
    opts = opts or {}
    for name in pairs(opts) do
        if not OPTIONS[name] then c.unknown_option(1, 'router', name, OPTIONS) end
    end
    local slash = opts.slash == nil and 'strict' or opts.slash
    if not SLASH[slash] then
        c.bad(1, 'router', "option 'slash': 'strict', 'redirect' or 'ignore' expected")
    end
    if opts.not_found ~= nil then handlers_of('router', 1, opts.not_found) end
    local self = { root = new_node(), exact = {}, middleware = {}, composed = {} }
    self.slash, self.not_found = slash, opts.not_found
    return setmetatable(self, meta)
end
