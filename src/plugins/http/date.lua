-- SPDX-License-Identifier: MIT
-- Dates of HTTP (RFC 9110, 5.6.7): written in one form, read in three. Os.date would follow the locale.

local _, c = ...
local date, floor, format, match, tonumber = os.date, math.floor, string.format, string.match, tonumber

local DAYS = { 'Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat' }
local MONTHS = { 'Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec' }
local number_of = {}
for i, name in ipairs(MONTHS) do number_of[name] = i end

-- Seconds since 1970 as a date. The year has four digits.
function c.http_date(seconds)
    local d = date('!*t', floor(seconds))
    return format('%s, %02d %s %04d %02d:%02d:%02d GMT',
        DAYS[d.wday], d.day, MONTHS[d.month], d.year, d.hour, d.min, d.sec)
end

-- Days since 1970 of a date of the Gregorian calendar. A year begins with March, so that a leap day is its
-- last.
local function days_of(year, month, day)
    if month <= 2 then year, month = year - 1, month + 12 end
    local leaps = floor(year / 4) - floor(year / 100) + floor(year / 400)
    return 365 * year + leaps + floor((153 * (month - 3) + 2) / 5) + day - 719469
end

local function seconds_of(year, month, day, hour, minute, second)
    month = number_of[month]
    year, day, hour, minute = tonumber(year), tonumber(day), tonumber(hour), tonumber(minute)
    second = tonumber(second)
    if not month or day < 1 or day > 31 or hour > 23 or minute > 59 or second > 60 then return nil end
    return days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
end

-- Seconds since 1970; nil: it is no date.
function c.parse_date(text)
    local day, month, year, hour, minute, second =
        match(text, '^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$')
    if day then return seconds_of(year, month, day, hour, minute, second) end
    day, month, year, hour, minute, second =
        match(text, '^%a+, (%d%d)%-(%a%a%a)%-(%d%d) (%d%d):(%d%d):(%d%d) GMT$')
    if day then -- two digits: the century in which it is not far in the future
        local now = date('!*t').year
        year = tonumber(year) + now - now % 100
        return seconds_of(year > now + 50 and year - 100 or year, month, day, hour, minute, second)
    end
    month, day, hour, minute, second, year =
        match(text, '^%a%a%a (%a%a%a) ([ %d]%d) (%d%d):(%d%d):(%d%d) (%d%d%d%d)$')
    if day then return seconds_of(year, month, day, hour, minute, second) end
end
