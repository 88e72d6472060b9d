-- Figures and tables for the benchmarks: medians, Markdown, and the list of bounds that must hold.
-- SPDX-License-Identifier: MIT
local M = {}

local bounds = {} -- in the order in which they were checked

function M.median(values)
    if #values == 0 then return nil end
    local sorted = {}
    for i, value in ipairs(values) do sorted[i] = value end
    table.sort(sorted)
    local middle = math.floor(#sorted / 2)
    if #sorted % 2 == 1 then return sorted[middle + 1] end
    return (sorted[middle] + sorted[middle + 1]) / 2
end

-- The median of values[round] / base[round]. Machines drift: only figures of the same round are
-- compared with each other.
function M.ratio(values, base)
    local ratios = {}
    for round, value in pairs(values) do
        if base[round] and base[round] > 0 then ratios[#ratios + 1] = value / base[round] end
    end
    return M.median(ratios)
end

-- The present values of a list with holes.
function M.present(values, rounds)
    local list = {}
    for round = 1, rounds do list[#list + 1] = values[round] end
    return list
end

-- A number with its thousands set apart; "-" for none.
function M.count(value)
    if not value then return '-' end
    local text = string.format('%.0f', value)
    local sign, digits = text:match('^(%-?)(%d+)$')
    digits = digits:reverse():gsub('(%d%d%d)', '%1,'):reverse():gsub('^,', '')
    return sign .. digits
end

function M.number(format, value)
    return value and string.format(format, value) or '-'
end

function M.note(format, ...)
    io.stderr:write(string.format(format, ...), '\n')
end

function M.print(format, ...)
    io.stdout:write(string.format(format, ...), '\n')
    io.stdout:flush()
end

function M.heading(text)
    M.print('\n## %s\n', text)
end

-- Prints a Markdown table: the first column is text, the rest are figures.
function M.table(titles, rows)
    local rules = { '---' }
    for i = 2, #titles do rules[i] = '---:' end
    M.print('| %s |', table.concat(titles, ' | '))
    M.print('| %s |', table.concat(rules, ' | '))
    for _, row in ipairs(rows) do M.print('| %s |', table.concat(row, ' | ')) end
end

-- Notes a bound and prints it: `ok` is nil when there was nothing to measure.
function M.bound(what, required, measured, ok)
    local verdict = 'not measured'
    if ok ~= nil then verdict = ok and 'ok' or '**MISSED**' end
    bounds[#bounds + 1] = { what, required, measured, verdict }
    M.print('\n%s: required %s, measured %s: %s', what, required, measured, verdict)
end

-- The same for a figure that must be at most (or, with 'least', at least) so much.
function M.limit(what, value, limit, format, least)
    local word = least and 'at least ' or 'at most '
    local ok
    if value and least then ok = value >= limit elseif value then ok = value <= limit end
    M.bound(what, word .. string.format(format, limit), M.number(format, value), ok)
end

-- Prints all bounds; returns how many were missed.
function M.summary()
    if #bounds == 0 then return 0 end
    M.heading 'What must hold'
    local missed = 0
    for _, bound in ipairs(bounds) do
        if bound[4]:find('MISSED', 1, true) then missed = missed + 1 end
    end
    M.table({ 'what', 'required', 'measured', 'verdict' }, bounds)
    return missed
end

return M
