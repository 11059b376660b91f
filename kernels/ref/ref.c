#include "kernels/ref/ref.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

static void *ref_alloc(struct ops *o, size_t bytes) {
    (void)o;
    if (bytes > PTRDIFF_MAX - 64) return NULL;
    size_t whole = bytes < 64 ? 64 : (bytes + 63) & ~(size_t)63;
    void *buffer = aligned_alloc(64, whole);
    if (buffer) memset(buffer, 0, whole);
    return buffer;
}

static void ref_free(struct ops *o, void *buffer) {
    (void)o;
    free(buffer);
}

static void ref_copy(struct ops *o, void *to, const void *from, size_t bytes) {
    (void)o;
    if (bytes) memcpy(to, from, bytes);
}

static void ref_sync(struct ops *o) {
    (void)o;
}

static void ref_close(struct ops *o) {
    free(o);
}

static const struct ops REF_OPS = {
    .backend = "ref",
    .numerics_id = "ref-f32-1",
    .host = true,
    .layout = "ref-1",
    .act = DTYPE_F32,
    .act_bytes = sizeof(float),
    .threads = 1,
    .alloc = ref_alloc,
    .free = ref_free,
    .upload = ref_copy,
    .download = ref_copy,
    .sync = ref_sync,
    .weight_pack = ref_weight_pack,
    .weight_pack_stack = ref_weight_pack_stack,
    .weight_pack_pair = ref_weight_pack_pair,
    .weight_free = ref_weight_free,
    .weight_borrow = ref_weight_borrow,
    .embed = ref_embed,
    .norm = ref_norm,
    .linear = ref_linear,
    .gated = ref_gated,
    .qkv = ref_qkv,
    .attend = ref_attend,
    .pool = ref_pool,
    .gather = ref_gather,
    .sample_bytes = ref_sample_bytes,
    .sample = ref_sample,
    .close = ref_close,
};

int ref_open(struct ops **out, char *err, size_t err_bytes) {
    struct ops *o = malloc(sizeof *o);
    if (!o) return err_set(err, err_bytes, -ENOMEM, "no memory for the scalar backend");
    *o = REF_OPS;
    *out = o;
    return 0;
}
