#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "store/state.h"
#include "store/store.h"

int store_payload_put(struct store_write *w, uint64_t job, uint32_t slot, const struct bytes *parts,
                      uint32_t n, struct arena *a, struct job_payload *out) {
    *out = (struct job_payload){0};
    for (uint32_t i = 0; i < n; i++) {
        out->bytes += parts[i].len;
        out->crc = crc32c(out->crc, parts[i].data, parts[i].len);
    }
    if (out->bytes == 0) return 0;
    if (out->bytes > LIMIT_OUTPUT_BYTES) return ERR_LIMIT;
    if (out->bytes > LIMIT_INLINE_BYTES) {
        out->in_blob = true;
        return blob_put(&w->view.blob, (struct blob_id){job, slot, out->crc}, parts, n);
    }
    if (n == 1) {
        out->inlined = parts[0];
        return 0;
    }
    uint8_t *copy = arena_alloc(a, (size_t)out->bytes);
    if (!copy) return -ENOMEM;
    out->inlined = bytes_of(copy, (size_t)out->bytes);
    for (uint32_t i = 0; i < n; i++) {
        if (parts[i].len > 0) memcpy(copy, parts[i].data, parts[i].len);
        copy += parts[i].len;
    }
    return 0;
}

int store_payload_get(struct store_read *t, uint64_t job, uint32_t slot,
                      const struct job_payload *p, struct buf *out) {
    if (p->bytes == 0) return 0;
    if (!p->in_blob) return buf_append(out, p->inlined.data, p->inlined.len);
    char err[160] = "";
    int code =
        blob_get(&t->blob, (struct blob_id){job, slot, p->crc}, p->bytes, out, err, sizeof err);
    if (code == ERR_CORRUPT) log_error("payload_corrupt", "reason=\"%s\"", err);
    return code;
}

static int collect_one(void *arg, struct blob_id id) {
    return store_drop_later(arg, id);
}

int store_payload_del(struct store_write *w, uint64_t job, uint32_t slot) {
    return blob_walk_slot(&w->view.blob, job, slot, collect_one, w);
}
