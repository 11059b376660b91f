/* readme.h - the parts of schemas/README.md that come from the tables.
 *
 * A part stands between the lines `<!-- begin NAME -->` and `<!-- end NAME -->`. The test compares;
 * with PENSTOCK_WRITE_README=1 it writes the file instead.
 *
 * Units: bytes.  Owner: the caller's buf.  Memory: the buf.  Errors: asserts.  Threads: one. */
#ifndef PENSTOCK_TESTS_README_H
#define PENSTOCK_TESTS_README_H

#include "base/json.h"
#include "schemas/msg.h"

/* messages, kinds, refusals, limits; false: no such part. examples is schemas/examples.json. */
bool readme_part(const char *name, const struct json *examples, struct buf *out);
/* The frames of a message's example: frame[0] the tag, frame[1] the header, then the payload. */
uint32_t readme_frames(const struct msg_desc *d, const struct json *examples,
                       struct buf frame[LIMIT_FRAMES]);

#endif
