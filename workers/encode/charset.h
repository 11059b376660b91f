/* charset.h - text in the encodings that machines on a factory's floor write, as UTF-8.
 *
 * A byte order mark says UTF-8 or UTF-16; without one UTF-16 is known by the zeros of its ASCII,
 * and GB18030 by the pairs of high bytes that its common characters are. A single high byte among
 * ASCII, which is what Latin-1's degree sign looks like, is not taken for Chinese.
 *
 * Units: bytes.  Owner: the text lies in the arena or is the input.  Memory: up to 1.5 times the
 * input.  Errors: -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_CHARSET_H
#define PENSTOCK_WORKERS_ENCODE_CHARSET_H

#include "base/arena.h"
#include "base/bytes.h"

/* The text without its byte order mark; what is of no known encoding comes back as it is. */
int charset_to_utf8(struct bytes in, struct arena *a, struct bytes *out);

#endif
