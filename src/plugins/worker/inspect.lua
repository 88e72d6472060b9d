-- SPDX-License-Identifier: MIT
-- asio.dump where there are several Lua states.

local core, c = ...
local concat, ipairs = table.concat, ipairs

local silent = 'no answer: it keeps its processor, is in a call that blocks, or does not run its loop'

local function own_text()
    return core.dump_text(c.peer_name() .. ': ')
end

-- The text of this state and of the others, each of which makes its own.
function core.dump_all()
    local others = c.ask_others()
    if #others == 0 then return core.dump_text '' end
    local parts = { own_text() }
    for _, other in ipairs(others) do
        parts[#parts + 1] = other.text or ('asio: %s: %s\n\n'):format(other.name, silent)
    end
    return concat(parts)
end

c.on_ask(own_text)
