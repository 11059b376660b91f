/* msg.h - the messages of protocol 1: one struct, one code and one table row each, from msg.def.
 *
 * A message is frames: [ "PS" major type ] [ msgpack header ] [ payload ]*. msg_open checks the
 * first frame and finds the row; msg_decode fills the row's struct. Nothing here knows a socket.
 *
 * Units: as msg.def says.  Owner: decoded structs borrow from the header's bytes.  Memory: encode
 * appends to the caller's buf.  Errors: ERR_VERSION, ERR_UNKNOWN, ERR_FIELD, ERR_LIMIT,
 * ERR_CORRUPT with a refusal.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_MSG_H
#define PENSTOCK_SCHEMAS_MSG_H

#include <stdint.h>

#include "schemas/field.h"

#define MSG_MAJOR 1
#define MSG_TAG_BYTES 4

enum msg_direction {
    MSG_C2B = 1,
    MSG_B2C = 2,
    MSG_W2B = 4,
    MSG_B2W = 8,
    MSG_B2A = 10,
    MSG_ANY = 15
};

/* enum msg_type: MSG_SUBMIT = 0x01, ... */
enum msg_type {
#define MSG(NAME, name, code, direction, payload_min, payload_max, doc) MSG_##NAME = code,
#define U64(...)
#define BOOL(...)
#define STR(...)
#define ID(...)
#define STRS(...)
#define PACK(...)
#define END(name)
#include "schemas/msg.def"
#undef MSG
#undef U64
#undef BOOL
#undef STR
#undef ID
#undef STRS
#undef PACK
#undef END
};

/* struct msg_submit { uint64_t req; struct bytes kind; ... }, one for each message. */
#define MSG(NAME, name, code, direction, payload_min, payload_max, doc) struct msg_##name {
#define U64(field, ...) uint64_t field;
#define BOOL(field, ...) bool field;
#define STR(field, ...) struct bytes field;
#define ID(field, ...) uint64_t field;
#define STRS(field, ...) struct field_strs field;
#define PACK(field, ...) struct bytes field;
/* clang-format off */
#define END(name) };
/* clang-format on */
#include "schemas/msg.def"
#undef MSG
#undef U64
#undef BOOL
#undef STR
#undef ID
#undef STRS
#undef PACK
#undef END

struct msg_desc {
    enum msg_type type;
    const char *name; /* "SUBMIT" */
    enum msg_direction direction;
    uint32_t payload_min, payload_max; /* frames behind the header */
    const struct field *fields;
    uint32_t n;
    size_t struct_bytes;
    const char *doc;
};
const struct msg_desc *msg_desc(uint32_t type); /* NULL: no such message */
const struct msg_desc *msg_desc_at(uint32_t i); /* i-th row, NULL past the end */

/* Checks the tag frame, the direction, the number of frames and the header's size; on success *out
 * is the row. `from` is the set of directions this receiver takes (MSG_C2B on the client
 * socket). */
int msg_open(const struct bytes *frame, uint32_t frames, enum msg_direction from,
             const struct msg_desc **out, struct refusal *why);
int msg_decode(const struct msg_desc *d, struct bytes header, void *out, struct refusal *why);
/* The request number of a header that may be malformed otherwise, 0 when there is none. */
uint64_t msg_req(struct bytes header);

/* Writes the tag into tag[MSG_TAG_BYTES] and appends the header to out. */
int msg_encode(enum msg_type type, const void *in, uint8_t tag[MSG_TAG_BYTES], struct buf *out);

#endif
