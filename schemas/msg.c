#include "schemas/msg.h"

#include <string.h>

#include "base/err.h"
#include "schemas/rows.h"
#include "schemas/walk.h"

/* Each message becomes a function that returns its row: inside it, row_struct can stand for its
 * struct, which the lines of msg.def do not name. */
#define MSG(NAME, name, code, way, least, most, text)                                              \
    static const struct msg_desc *desc_##name(void) {                                              \
        typedef struct msg_##name row_struct;                                                      \
        enum { type = code, direction = MSG_##way, payload_min = least, payload_max = most };      \
        static const char title[] = #NAME, doc[] = text;                                           \
        static const struct field rows[] = {
#define END(name)                                                                                  \
    }                                                                                              \
    ;                                                                                              \
    static const struct msg_desc row = {(enum msg_type)type,                                       \
                                        title,                                                     \
                                        (enum msg_direction)direction,                             \
                                        payload_min,                                               \
                                        payload_max,                                               \
                                        rows,                                                      \
                                        sizeof rows / sizeof *rows,                                \
                                        sizeof(row_struct),                                        \
                                        doc};                                                      \
    return &row;                                                                                   \
    }
/* clang-format off */
#include "schemas/msg.def"
#undef MSG
#undef END
#undef U64
#undef BOOL
#undef STR
#undef ID
#undef STRS
#undef PACK

#define U64(...)
#define BOOL(...)
#define STR(...)
#define ID(...)
#define STRS(...)
#define PACK(...)
#define END(name)

const struct msg_desc *msg_desc(uint32_t type) {
    switch (type) {
#define MSG(NAME, name, ...) case MSG_##NAME: return desc_##name();
#include "schemas/msg.def"
#undef MSG
    default: return NULL;
    }
}

const struct msg_desc *msg_desc_at(uint32_t i) {
    static const uint8_t types[] = {
#define MSG(NAME, ...) MSG_##NAME,
#include "schemas/msg.def"
#undef MSG
    };
    return i < sizeof types ? msg_desc(types[i]) : NULL;
}
/* clang-format on */

/* ---- the frames ---- */

static int check_tag(struct bytes tag, struct refusal *why) {
    const uint8_t *t = tag.data;
    if (tag.len != MSG_TAG_BYTES || t[0] != 'P' || t[1] != 'S') {
        refusal_set(why, "malformed", "tag", "4 bytes: 'P' 'S' major type",
                    "send the frames [tag][header][payload]*; see schemas/README.md",
                    "the first frame has %zu bytes and is not a Penstock tag", tag.len);
        return ERR_CORRUPT;
    }
    if (t[2] == MSG_MAJOR) return 0;
    refusal_set(why, "version", "major", "major 1", "speak protocol 1, or upgrade the older side",
                "protocol major %u is not spoken here", t[2]);
    return ERR_VERSION;
}

/* Headers to the broker are short; the broker's answers carry lists in theirs. */
static size_t header_max(const struct msg_desc *d) {
    return d->direction & (MSG_C2B | MSG_W2B) ? LIMIT_HEADER_BYTES : LIMIT_FRAME_BYTES;
}

static int check_sizes(const struct msg_desc *d, const struct bytes *frame, uint32_t frames,
                       struct refusal *why) {
    char limit[64];
    size_t max = header_max(d);
    if (frame[1].len > max) {
        err_set(limit, sizeof limit, 0, "at most %zu bytes", max);
        refusal_set(why, "limit", "header", limit, "put large data into the payload",
                    "the header of %s has %zu bytes", d->name, frame[1].len);
        return ERR_LIMIT;
    }
    if (frames - 2 < d->payload_min || frames - 2 > d->payload_max) {
        err_set(limit, sizeof limit, 0, "%u to %u payload frames", d->payload_min, d->payload_max);
        refusal_set(why, "frames", "payload", limit, "send the frames [tag][header][payload]*",
                    "%s came with %u payload frames", d->name, frames - 2);
        return ERR_LIMIT;
    }
    for (uint32_t i = 2; i < frames; i++) {
        if (frame[i].len <= LIMIT_FRAME_BYTES) continue;
        err_set(limit, sizeof limit, 0, "at most %u bytes a frame", LIMIT_FRAME_BYTES);
        refusal_set(why, "limit", "payload", limit, "send less in one job: split the input",
                    "payload frame %u of %s has %zu bytes", i - 2, d->name, frame[i].len);
        return ERR_LIMIT;
    }
    return 0;
}

int msg_open(const struct bytes *frame, uint32_t frames, enum msg_direction from,
             const struct msg_desc **out, struct refusal *why) {
    *out = NULL;
    int rc = check_tag(frames ? frame[0] : bytes_of(NULL, 0), why);
    if (rc < 0) return rc;
    uint8_t type = ((const uint8_t *)frame[0].data)[3];
    const struct msg_desc *d = msg_desc(type);
    if (!d || !(d->direction & from)) {
        refusal_set(why, "unknown_type", "type", "the types that this socket takes",
                    "see the message table in schemas/README.md; clients and workers have a socket "
                    "each",
                    "message type 0x%02X%s%s is not taken here", type, d ? " " : "",
                    d ? d->name : "");
        return ERR_UNKNOWN;
    }
    if (frames < 2) {
        refusal_set(why, "frames", "header", "2 frames at least",
                    "send the header, a msgpack map, as the second frame", "%s has no header",
                    d->name);
        return ERR_CORRUPT;
    }
    rc = check_sizes(d, frame, frames, why);
    if (rc == 0) *out = d;
    return rc;
}

int msg_decode(const struct msg_desc *d, struct bytes header, void *out, struct refusal *why) {
    memset(out, 0, d->struct_bytes);
    return field_decode(d->fields, d->n, header, out, why);
}

uint64_t msg_req(struct bytes header) {
    struct reader r = reader_of(header);
    struct walk_token t;
    if (walk_token(&r, &t, NULL) < 0 || t.kind != PACK_MAP) return 0;
    for (uint32_t left = t.n; left > 0; left--) {
        if (walk_token(&r, &t, NULL) < 0 || t.kind != PACK_STR) return 0;
        if (bytes_is(t.data, "req"))
            return walk_token(&r, &t, NULL) == 0 && t.kind == PACK_U64 ? t.u : 0;
        if (walk_skip(&r) < 0) return 0;
    }
    return 0;
}

int msg_encode(enum msg_type type, const void *in, uint8_t tag[MSG_TAG_BYTES], struct buf *out) {
    const struct msg_desc *d = msg_desc(type);
    if (!d) return ERR_UNKNOWN;
    memcpy(tag, (uint8_t[]){'P', 'S', MSG_MAJOR, (uint8_t)type}, MSG_TAG_BYTES);
    return field_encode(d->fields, d->n, in, out);
}
