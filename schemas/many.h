/* many.h - the payload of MANY: several messages to one peer in one, written and read in place.
 *
 * The frame is a msgpack list. An item is a list: the message's type, its header as bin, and its
 * payload frames as bin. What zmq takes for a message is paid once for all of them.
 *
 * Units: bytes.  Owner: the writer appends to the caller's buf; what is read borrows from the
 * frame.  Memory: none else.  Errors: ERR_CORRUPT, ERR_LIMIT with a refusal; of the writer in the
 * buf.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_MANY_H
#define PENSTOCK_SCHEMAS_MANY_H

#include "schemas/msg.h"

/* Appends a message, its frames as msg_open reads them: tag, header, payload. The first one begins
 * the list. False, with `out` as it was: the message is too long to go along, the list is full, or
 * there is no memory. */
bool many_add(struct buf *out, uint32_t *n, const struct bytes *frame, uint32_t frames);
/* Writes how many there are into the list's head; then the frame is whole. */
void many_end(struct buf *out, uint32_t n);

struct many_it {
    struct reader rest;
    uint32_t left;
    uint8_t tag[MSG_TAG_BYTES];
    struct bytes frame[LIMIT_FRAMES]; /* of the message that many_next found, its tag first */
    uint32_t frames;
};
/* n: how many the header says there are. ERR_CORRUPT, ERR_LIMIT. */
int many_begin(struct many_it *it, struct bytes frame, uint64_t n, struct refusal *why);
/* 1: a message is in it->frame; 0: there is none; negative: the rest cannot be read. */
int many_next(struct many_it *it, struct refusal *why);

#endif
