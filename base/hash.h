/* hash.h - a name for content: BLAKE2b of some parts, as text.
 *
 * Units: bytes.  Owner, memory: the caller's buffer.  Errors: none.  Threads: any. */
#ifndef PENSTOCK_BASE_HASH_H
#define PENSTOCK_BASE_HASH_H

#include <stdint.h>

#include "base/bytes.h"

#define HASH_HEX_BYTES 65 /* 256 bits and a NUL */

/* Parts count with their lengths: ("ab", "c") and ("a", "bc") differ. */
void hash_hex(const struct bytes *parts, uint32_t n, char out[HASH_HEX_BYTES]);

#endif
