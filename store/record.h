/* record.h - a job's record as bytes.
 *
 *   "PSJ" version u8 | crc u32 | fields, little-endian, in the order of record.c
 *
 * The CRC32C covers everything behind it. A later version appends fields and keeps those before;
 * its number goes up, and this build refuses numbers above its own.
 *
 * Units: bytes.  Owner: decoded strings and payloads borrow from the bytes.  Memory: stages and
 * attempts come from the arena.  Errors: ERR_CORRUPT, ERR_VERSION, ERR_LIMIT (a field over its
 * limit when written), -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_STORE_RECORD_H
#define PENSTOCK_STORE_RECORD_H

#include "store/jobs.h"

/* 2: origin, heir and history; 3: timeouts; 4: source; 5: parents and children */
#define RECORD_VERSION 5u

int record_encode(const struct job_record *r, struct buf *out);
/* With no arena, stages, attempts and notes are checked but left out (their counts are 0). */
int record_decode(struct bytes in, struct job_record *out, struct arena *a);
/* Whether an entry of META_JOBS can be read: 0, ERR_CORRUPT, ERR_VERSION. */
int record_is_bad(struct bytes key, struct bytes value);

#endif
