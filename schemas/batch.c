#include "schemas/batch.h"

#include <stdio.h>

#include "base/err.h"
#include "schemas/walk.h"

int batch_begin(struct batch_it *it, struct bytes frame, struct refusal *why) {
    struct walk_fault fault;
    struct walk_token list;
    *it = (struct batch_it){.rest = reader_of(frame)};
    int code = walk_check(frame, &fault);
    if (code != 0) {
        refusal_set(why, fault.code, "payload", fault.limit ? fault.limit : "",
                    "send one msgpack list a frame", "the list at offset %zu %s", fault.offset,
                    fault.what);
        return code;
    }
    if (walk_token(&it->rest, &list, NULL) == 0 && list.kind == PACK_ARRAY) {
        it->left = list.n;
        return 0;
    }
    refusal_set(why, "type", "payload", "a list of bodies", "send one msgpack list a frame",
                "a payload frame is not a list");
    return ERR_FIELD;
}

/* The whole value at the reader, which moves behind it. */
static struct bytes take(struct reader *r) {
    const uint8_t *from = r->at;
    if (walk_skip(r) < 0) return (struct bytes){NULL, 0};
    return bytes_of(from, (size_t)(r->at - from));
}

int batch_next(struct batch_it *it, struct batch_item *out, struct refusal *why) {
    if (it->left == 0) return 0;
    it->left--;
    *out = (struct batch_item){.body = take(&it->rest)};
    struct reader r = reader_of(out->body);
    struct walk_token t, key;
    if (walk_token(&r, &t, NULL) == 0 && t.kind == PACK_MAP) return 1;
    if (t.kind == PACK_ARRAY && t.n == 2 && walk_token(&r, &key, NULL) == 0 &&
        key.kind == PACK_STR) {
        if (key.data.len > 0 && key.data.len <= LIMIT_KEY_BYTES) {
            out->key = key.data;
            out->body = take(&r);
            return 1;
        }
        char limit[64];
        snprintf(limit, sizeof limit, "a string of 1 to %u bytes", LIMIT_KEY_BYTES);
        refusal_set(why, "limit", "key", limit, "send a shorter key, or the body alone",
                    "the key has %zu bytes", key.data.len);
        return ERR_LIMIT;
    }
    refusal_set(why, "type", "payload", "a body, or [key, body]",
                "send each job as a map of the kind's fields, or as [key, map]",
                "an item of the list is neither a map nor [key, map]");
    return ERR_FIELD;
}
