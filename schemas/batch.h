/* batch.h - the payload of SUBMIT_MANY: lists of bodies, read in place.
 *
 * A frame is one msgpack list. An item is a body (a map), or [key, body] with an idempotency key.
 *
 * Units: bytes.  Owner: items borrow from the frame.  Memory: none.  Errors: ERR_CORRUPT,
 * ERR_LIMIT, ERR_FIELD with a refusal.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_BATCH_H
#define PENSTOCK_SCHEMAS_BATCH_H

#include "schemas/field.h"

struct batch_item {
    struct bytes key, body; /* key: empty without */
};
struct batch_it {
    struct reader rest;
    uint32_t left;
};
/* Checks the whole frame, so that batch_next can trust it. */
int batch_begin(struct batch_it *it, struct bytes frame, struct refusal *why);
/* 1: *out is the next item; 0: there is none; negative: this item is refused, go on. */
int batch_next(struct batch_it *it, struct batch_item *out, struct refusal *why);

#endif
