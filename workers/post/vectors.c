#include <string.h>

#include "workers/post/stages.h"

bool vectors_read(struct stage_item *i, const struct pack_val *root, struct vectors_in *out) {
    struct bytes raw = pack_as_bytes(pack_get(root, "vectors"));
    uint64_t dim = pack_as_u64(pack_get(root, "dim"), 0);
    *out = (struct vectors_in){.model = pack_as_bytes(pack_get(root, "model")),
                               .adapter = pack_as_bytes(pack_get(root, "adapter")),
                               .tokens = pack_get(root, "tokens"),
                               .truncated = pack_get(root, "truncated"),
                               .keep = pack_get(root, "keep")};
    if (dim == 0 || dim > UINT32_MAX / sizeof(float) || raw.len % (dim * sizeof(float)) != 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "vectors: %zu bytes are not rows of %llu floats", raw.len,
                  (unsigned long long)dim);
        return false;
    }
    out->dim = (uint32_t)dim;
    out->n = (uint32_t)(raw.len / (dim * sizeof(float)));
    if (pack_len(out->tokens) != out->n || pack_len(out->truncated) != out->n) {
        item_fail(i, JOB_ERROR_PERMANENT, "vectors: %u rows, but %u token counts and %u marks",
                  out->n, pack_len(out->tokens), pack_len(out->truncated));
        return false;
    }
    float *v = arena_alloc(i->arena, raw.len + 1);
    if (!v) {
        item_fail(i, JOB_ERROR_TRANSIENT, "no memory for %u vectors", out->n);
        return false;
    }
    struct reader r = reader_of(raw);
    for (size_t k = 0; k < (size_t)out->n * out->dim; k++) {
        uint32_t bits = read_u32le(&r);
        memcpy(&v[k], &bits, sizeof bits);
    }
    out->vectors = v;
    return true;
}
