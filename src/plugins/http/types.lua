-- SPDX-License-Identifier: MIT
-- Types of content by the ends of file names. Http.types is the table itself: scripts may add to it.

local _, c, http = ...
local ipairs, lower, match = ipairs, string.lower, string.match

local types = {}
http.types = types

local function add(kind, ...)
    for _, ending in ipairs { ... } do types[ending] = kind end
end

add('text/html; charset=utf-8', 'html', 'htm')
add('text/css; charset=utf-8', 'css')
add('text/javascript; charset=utf-8', 'js', 'mjs')
add('text/plain; charset=utf-8', 'txt', 'log', 'lua', 'c', 'h', 'conf')
add('text/markdown; charset=utf-8', 'md')
add('text/csv; charset=utf-8', 'csv')
add('text/calendar; charset=utf-8', 'ics')
add('text/vtt; charset=utf-8', 'vtt')
add('text/xml; charset=utf-8', 'xml')
add('application/json', 'json', 'map')
add('application/manifest+json', 'webmanifest')
add('application/xhtml+xml', 'xhtml')
add('application/rss+xml', 'rss')
add('application/atom+xml', 'atom')
add('application/wasm', 'wasm')
add('application/pdf', 'pdf')
add('application/rtf', 'rtf')
add('application/zip', 'zip')
add('application/gzip', 'gz', 'tgz')
add('application/x-bzip2', 'bz2')
add('application/x-xz', 'xz')
add('application/zstd', 'zst')
add('application/x-tar', 'tar')
add('application/x-7z-compressed', '7z')
add('application/java-archive', 'jar')
add('application/epub+zip', 'epub')
add('application/vnd.openxmlformats-officedocument.wordprocessingml.document', 'docx')
add('application/vnd.openxmlformats-officedocument.spreadsheetml.sheet', 'xlsx')
add('application/vnd.openxmlformats-officedocument.presentationml.presentation', 'pptx')
add('application/vnd.oasis.opendocument.text', 'odt')
add('application/vnd.oasis.opendocument.spreadsheet', 'ods')
add('application/vnd.oasis.opendocument.presentation', 'odp')
add('application/octet-stream', 'bin', 'exe', 'dll', 'so', 'iso', 'img', 'deb', 'rpm', 'dmg')
add('image/png', 'png')
add('image/jpeg', 'jpg', 'jpeg')
add('image/gif', 'gif')
add('image/webp', 'webp')
add('image/avif', 'avif')
add('image/svg+xml', 'svg')
add('image/bmp', 'bmp')
add('image/tiff', 'tif', 'tiff')
add('image/vnd.microsoft.icon', 'ico')
add('font/woff', 'woff')
add('font/woff2', 'woff2')
add('font/ttf', 'ttf')
add('font/otf', 'otf')
add('audio/mpeg', 'mp3')
add('audio/mp4', 'm4a')
add('audio/ogg', 'ogg', 'oga', 'opus')
add('audio/wav', 'wav')
add('audio/flac', 'flac')
add('audio/aac', 'aac')
add('video/mp4', 'mp4', 'm4v')
add('video/webm', 'webm')
add('video/ogg', 'ogv')
add('video/quicktime', 'mov')
add('video/mp2t', 'ts')
add('application/vnd.apple.mpegurl', 'm3u8')

-- The type of a file of this name.
function c.type_of(path)
    local ending = match(path, '%.([^./]+)$')
    return ending and types[lower(ending)] or 'application/octet-stream'
end
