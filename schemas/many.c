#include "schemas/many.h"

#include <string.h>

#include "base/err.h"
#include "schemas/walk.h"

/* Heads of msgpack values, written by hand: their lengths are filled in when they are known. */
enum { ARRAY32 = 0xDD, FIXARRAY = 0x90, UINT8 = 0xCC, BIN16 = 0xC5 };
enum { LIST_HEAD_BYTES = 5, FRAMES_MAX = 10 };

static bool fits(const struct bytes *frame, uint32_t frames) {
    size_t bytes = 0;
    for (uint32_t i = 2; i < frames; i++) bytes += frame[i].len;
    return frames <= FRAMES_MAX && frame[1].len <= LIMIT_MANY_ITEM_BYTES &&
           bytes <= LIMIT_MANY_ITEM_BYTES;
}

bool many_add(struct buf *out, uint32_t *n, const struct bytes *frame, uint32_t frames) {
    size_t before = out->len;
    if (*n == LIMIT_MANY || (*n > 0 && out->len > LIMIT_MANY_BYTES) || !fits(frame, frames))
        return false;
    if (*n == 0) buf_append(out, (uint8_t[]){ARRAY32, 0, 0, 0, 0}, LIST_HEAD_BYTES);
    uint8_t type = ((const uint8_t *)frame[0].data)[MSG_TAG_BYTES - 1];
    buf_append(out, (uint8_t[]){(uint8_t)(FIXARRAY | frames), UINT8, type}, 3);
    for (uint32_t i = 1; i < frames; i++) {
        size_t len = frame[i].len;
        buf_append(out, (uint8_t[]){BIN16, (uint8_t)(len >> 8), (uint8_t)len}, 3);
        buf_append(out, frame[i].data, len);
    }
    if (!out->error) {
        ++*n;
        return true;
    }
    out->len = before;
    out->error = 0;
    return false;
}

void many_end(struct buf *out, uint32_t n) {
    for (uint32_t i = 0; i < 4; i++) out->data[1 + i] = (uint8_t)(n >> (24 - 8 * i));
}

static int refuse(struct refusal *why, int code) {
    char limit[64];
    err_set(limit, sizeof limit, 0, "a list of 1 to %u messages", LIMIT_MANY);
    refusal_set(why, "malformed", "payload", limit,
                "send a list of [type, header as bin, payload frames as bin]",
                "the messages of a MANY cannot be told apart");
    return code;
}

int many_begin(struct many_it *it, struct bytes frame, uint64_t n, struct refusal *why) {
    struct walk_token list;
    it->rest = reader_of(frame);
    it->left = 0;
    if (walk_token(&it->rest, &list, NULL) != 0 || list.kind != PACK_ARRAY || list.n == 0 ||
        list.n != n)
        return refuse(why, ERR_CORRUPT);
    if (list.n > LIMIT_MANY) return refuse(why, ERR_LIMIT);
    it->left = list.n;
    return 0;
}

int many_next(struct many_it *it, struct refusal *why) {
    struct walk_token item, t;
    if (it->left == 0) return read_left(&it->rest) ? refuse(why, ERR_CORRUPT) : 0;
    it->left--;
    if (walk_token(&it->rest, &item, NULL) != 0 || item.kind != PACK_ARRAY || item.n < 2 ||
        item.n > LIMIT_FRAMES || walk_token(&it->rest, &t, NULL) != 0 || t.kind != PACK_U64 ||
        t.u > UINT8_MAX)
        return refuse(why, ERR_CORRUPT);
    memcpy(it->tag, (uint8_t[]){'P', 'S', MSG_MAJOR, (uint8_t)t.u}, MSG_TAG_BYTES);
    it->frame[0] = bytes_of(it->tag, MSG_TAG_BYTES);
    for (it->frames = 1; it->frames < item.n; it->frames++) {
        if (walk_token(&it->rest, &t, NULL) != 0 || t.kind != PACK_BIN)
            return refuse(why, ERR_CORRUPT);
        it->frame[it->frames] = t.data;
    }
    return 1;
}
