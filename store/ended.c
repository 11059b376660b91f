#include "store/ended.h"

#include "base/err.h"
#include "store/txn.h"

#define COUNTER "ended"

static int newest_given(const struct env_txn *meta, uint64_t *newest) {
    struct bytes value;
    *newest = 0;
    int code = env_get(meta, META_INFO, bytes_str(COUNTER), &value);
    if (code == -ENOENT) return 0;
    return code == 0 ? num_of(value, newest) : code;
}

int ended_add(struct store_write *w, uint64_t job, uint64_t *offset) {
    struct env_txn *meta = &w->view.meta;
    uint8_t number[NUM_KEY_BYTES], id[NUM_KEY_BYTES];
    int code = newest_given(meta, offset);
    if (code != 0) return code;
    struct bytes key = num_key(number, ++*offset);
    code = env_put(meta, META_ENDED, key, num_key(id, job), ENV_APPEND);
    if (code == 0) code = env_put(meta, META_INFO, bytes_str(COUNTER), key, ENV_REPLACE);
    return code == -EEXIST ? ERR_CORRUPT : code;
}

int ended_del(struct store_write *w, uint64_t offset) {
    uint8_t key[NUM_KEY_BYTES];
    int code = env_del(&w->view.meta, META_ENDED, num_key(key, offset));
    return code == -ENOENT ? ERR_CORRUPT : code;
}

int ended_after(struct store_read *t, uint64_t after, struct ended *out, uint32_t max,
                uint32_t *n) {
    struct env_cursor c;
    uint8_t first[NUM_KEY_BYTES];
    struct bytes key = num_key(first, after + 1), value;
    *n = 0;
    if (after == UINT64_MAX) return 0;
    int code = env_cursor_open(&t->meta, META_ENDED, &c);
    if (code != 0) return code;
    for (code = env_move(&c, ENV_AT_LEAST, &key, &value); code == 0 && *n < max;
         code = env_move(&c, ENV_NEXT, &key, &value)) {
        struct ended e;
        if (num_of(key, &e.offset) != 0 || num_of(value, &e.job) != 0) code = ERR_CORRUPT;
        if (code != 0) break;
        out[(*n)++] = e;
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

int ended_bounds(struct store_read *t, uint64_t *oldest, uint64_t *newest) {
    struct ended first;
    uint32_t n;
    int code = newest_given(&t->meta, newest);
    if (code == 0) code = ended_after(t, 0, &first, 1, &n);
    if (code == 0) *oldest = n ? first.offset : *newest + 1;
    return code;
}
