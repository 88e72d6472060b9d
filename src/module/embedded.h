/* SPDX-License-Identifier: MIT
 * The Lua parts (lua/asio/), put into the library as source text when it is built: no bytecode,
 * which differs between architectures. In it many bytes stand for words: cmake/embed.cmake. */
#ifndef ASIO_EMBEDDED_H
#define ASIO_EMBEDDED_H

enum { ASIO_EMBEDDED_LONGEST = 64, ASIO_EMBEDDED_WORDS = 4096 }; /* bytes: of a word, of all of them */

/* Strings, each with a 0 behind it: one for each of the 256 bytes, one for each part, and an empty one.
 * A byte stands for its string, or for itself where that is empty. In the string of a byte, lower bytes may stand
 * for strings as well. */
extern const unsigned char asio_embedded[];

#endif
