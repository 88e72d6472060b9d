-- SPDX-License-Identifier: MIT
-- Percent-encoding (RFC 3986, 2.1), and that of forms, where a plus is a space.

local _, c = ...
local byte, char, find, format, gsub = string.byte, string.char, string.find, string.format, string.gsub
local tonumber = tonumber

local function of_hex(digits) return char(tonumber(digits, 16)) end
local function to_hex(character) return format('%%%02X', byte(character)) end

-- The text without escapes; nil: a percent sign without two hexadecimal digits behind it.
function c.unescape(text, plus)
    if plus and find(text, '+', 1, true) then text = gsub(text, '%+', ' ') end
    if not find(text, '%', 1, true) then return text end
    if find(text, '%%%X') or find(text, '%%%x%X') or find(text, '%%%x?$') then return nil end
    return (gsub(text, '%%(%x%x)', of_hex))
end

-- All but unreserved characters (RFC 3986, 2.3), and slashes if they are to stay.
function c.escape(text, slashes)
    return (gsub(text, slashes and '[^%w%-._~/]' or '[^%w%-._~]', to_hex))
end
