-- docs/reference.md against lua/asio/meta.lua and http_meta.lua: the same functions with the same parameters,
-- of which the same ones wait. That these files name the functions that exist is checked by meta_test.lua.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

-- Parameters as text: 'host, port?, ...'. A receiver is left out.
local function list(parameters)
  if parameters[1] == 'self' then table.remove(parameters, 1) end
  return table.concat(parameters, ', ')
end

-- meta.lua ----------------------------------------------------------------------------------------

-- Splits at commas that are not in brackets.
local function split(text)
  local parts, depth, from = {}, 0, 1
  for at, char in text:gmatch '()([%(%){}%[%],])' do
    if char == ',' and depth == 0 then
      parts[#parts + 1] = text:sub(from, at - 1)
      from = at + 1
    elseif char:find '[%({%[]' then
      depth = depth + 1
    elseif char ~= ',' then
      depth = depth - 1
    end
  end
  parts[#parts + 1] = text:sub(from)
  return parts
end

-- The parameters of a type: fun(self: asio.conn, size: integer): string?
local function of_type(text)
  local parameters = {}
  for _, part in ipairs(split(text:match '^fun(%b())':sub(2, -2))) do
    local name = part:match '^%s*([%w_.]+%??)%s*:' or part:match '^%s*([%w_.]+%??)%s*$'
    if name then parameters[#parameters + 1] = name end
  end
  return list(parameters)
end

-- The functions of a field: fun(...), or (fun(...))|(fun(...))
local function of_field(text)
  if text:find '^fun%(' then return { of_type(text) } end
  local found = {}
  for one in text:gmatch '%b()' do
    if one:find '^%(fun%(' then found[#found + 1] = of_type(one:sub(2)) end
  end
  return found
end

-- What the reference calls objects of these classes.
local called = {
  ['asio.udp_socket'] = 'udp', ['asio.http.server'] = 'http_server', ['asio.http.request'] = 'req',
  ['asio.http.response'] = 'res', ['asio.http.reply'] = 'response',
}

-- Of functions: no classes.
local tables = {
  ['asio.coroutine'] = 'asio.coroutine', ['asio.shared'] = 'asio.shared', ['asio.http'] = 'http',
}

-- name -> { [parameters] = whether that waits }; an empty table for a value. 'waits with fn' in the text of
-- a field: only with that parameter.
local function annotated(all, file)
  local class, optional, overloads = nil, {}, {}
  local function add(owner, name, variants, waits) -- waits: true, false, or the parameter with which it does
    local prefix = called[owner] or owner:match '[^.]*$'
    local full = owner == 'asio' and 'asio.' .. name
      or tables[owner] and tables[owner] .. '.' .. name or prefix .. ':' .. name
    all[full] = all[full] or {}
    for _, parameters in ipairs(variants) do
      local with = type(waits) == 'string' and (', ' .. parameters):find(', ' .. waits, 1, true)
      all[full][parameters] = waits == true or with and true or false
    end
  end
  for line in io.lines(t.root .. 'lua/asio/' .. file) do
    class = line:match '^%-%-%-@class ([%w_.]+)' or class
    local field, text = line:match '^%-%-%-@field ([%w_]+)%?? (.*)$'
    local parameter, mark = line:match '^%-%-%-@param ([%w_.]+)(%??) '
    local overload = line:match '^%-%-%-@overload (.*)$'
    local of, name, parameters = line:match '^function ([%w_]+)[.:]([%w_]+)(%b())'
    if field and text:find '^%(?fun%(' then
      local waits = text:match '%f[%w]waits with (%w+)' or text:find '%f[%w]waits%f[%W]' ~= nil
      add(class, field, of_field(text), waits)
    elseif field and (class == 'asio' or class == 'asio.http') and not tables[text:match '^[%a.]+'] then
      add(class, field, {}, false)
    elseif parameter then
      optional[parameter] = mark
    elseif overload then
      overloads[#overloads + 1] = of_type(overload)
    elseif of then
      local names = {}
      for p in parameters:gmatch '[%w_.]+' do names[#names + 1] = p .. (optional[p] or '') end
      overloads[#overloads + 1] = list(names)
      add(of == 'asio' and of or 'asio.' .. of, name, overloads, false)
      optional, overloads = {}, {}
    end
  end
  return all
end

local function all_annotated() return annotated(annotated({}, 'meta.lua'), 'http_meta.lua') end

-- reference.md ------------------------------------------------------------------------------------

-- The parameters of a signature: (host[, port][, opts])
local function of_signature(text)
  local parameters = {}
  for bracket, name in text:gmatch '(%[?),? ?([%w_.]+)' do
    local rest = bracket == '[' and name ~= '...'
    parameters[#parameters + 1] = name .. (rest and '?' or '')
  end
  return list(parameters)
end

local function documented()
  local all = {}
  for line in io.lines(t.root .. 'docs/reference.md') do
    local first, second = line:match '^| (`.-`) | (w?) ?|'
    for call in (first or line:match '^| (`asio%.[^|]*`) |' or ''):gmatch '`([^`]+)`' do
      local name, signature = call:match '^([%w_.:]+)(%b())$'
      name = name or call
      if name:find '[.:]' then
        all[name] = all[name] or {}
        if signature then all[name][of_signature(signature)] = second == 'w' end
      end
    end
  end
  return all
end

-- Tests -------------------------------------------------------------------------------------------

local function lines(functions)
  local text = {}
  for name, variants in pairs(functions) do
    if next(variants) == nil then text[#text + 1] = name end
    for parameters, waits in pairs(variants) do
      text[#text + 1] = ('%s(%s)%s'):format(name, parameters, waits and ' waits' or '')
    end
  end
  table.sort(text)
  return text
end

local function missing(from, other)
  local has, found = {}, {}
  for _, line in ipairs(other) do has[line] = true end
  for _, line in ipairs(from) do
    if not has[line] then found[#found + 1] = line end
  end
  return found
end

function T.test_the_reference_has_every_function_of_meta_lua()
  lu.assertEquals(missing(lines(all_annotated()), lines(documented())), {})
end

function T.test_meta_lua_has_every_function_of_the_reference()
  lu.assertEquals(missing(lines(documented()), lines(all_annotated())), {})
end

function T.test_how_parameters_are_read()
  lu.assertEquals(of_signature '(host[, port][, opts])', 'host, port?, opts?')
  lu.assertEquals(of_signature '([fn][, ...])', 'fn?, ...')
  lu.assertEquals(of_signature '()', '')
  lu.assertEquals(of_type 'fun(self: asio.conn, max?: integer): string?', 'max?')
  lu.assertEquals(of_field '(fun(): asio.group)|(fun(fn: fun(g: asio.group): any): any) waits', { '', 'fn' })
end

return T
