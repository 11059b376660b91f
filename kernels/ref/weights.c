#include "kernels/ref/ref.h"

#include <stdlib.h>

#include "base/err.h"
#include "kernels/source.h"

int ref_weight_pack_stack(struct ops *o, struct weight *w, uint32_t parts, const uint32_t *n,
                          uint32_t k, const void *const *source, enum dtype dtype, enum dtype want,
                          char *err, size_t err_bytes) {
    (void)o;
    int rc = source_check(parts, n, k, dtype, want, err, err_bytes);
    if (rc) return rc;
    if (dtype_quantized(dtype))
        return ref_quant_pack(w, parts, n, k, source, dtype, err, err_bytes);
    size_t rows = 0;
    for (uint32_t i = 0; i < parts; i++) rows += n[i];
    *w = (struct weight){.n = (uint32_t)rows, .k = k, .dtype = want};
    w->bytes = rows * k * dtype_bytes(want);
    if (parts == 1 && dtype == want) {
        w->data = source[0];
        return 0;
    }
    size_t row_bytes = k * dtype_bytes(want);
    char *to = malloc(w->bytes);
    if (!to)
        return err_set(err, err_bytes, -ENOMEM, "no memory to pack a weight of %u x %u (%zu bytes)",
                       w->n, k, w->bytes);
    w->data = w->owned = to;
    for (uint32_t i = 0; i < parts; i++)
        for (uint32_t row = 0; row < n[i]; row++, to += row_bytes) {
            if (want == DTYPE_F32)
                source_row_f32((float *)(void *)to, source[i], dtype, row, k);
            else
                source_row_bf16((uint16_t *)(void *)to, source[i], dtype, row, k);
        }
    return 0;
}

int ref_weight_pack(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *source,
                    enum dtype dtype, enum dtype want, char *err, size_t err_bytes) {
    return ref_weight_pack_stack(o, w, 1, &n, k, &source, dtype, want, err, err_bytes);
}

int ref_weight_pack_pair(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *gate,
                         const void *up, enum dtype dtype, enum dtype want, char *err,
                         size_t err_bytes) {
    int rc = ref_weight_pack_stack(o, w, 2, (const uint32_t[]){n, n}, k,
                                   (const void *const[]){gate, up}, dtype, want, err, err_bytes);
    if (rc == 0) w->n = n, w->pair = true;
    return rc;
}

int ref_weight_borrow(struct ops *o, struct weight *w, const void *image, size_t bytes, char *err,
                      size_t err_bytes) {
    (void)o;
    size_t rows = (size_t)w->n * (w->pair ? 2 : 1);
    size_t expected =
        dtype_quantized(w->dtype) ? ref_quant_bytes(w, rows) : rows * w->k * dtype_bytes(w->dtype);
    int rc = source_check_image(w, image, bytes, expected, err, err_bytes);
    if (rc) return rc;
    w->bytes = bytes;
    w->data = image;
    w->owned = NULL;
    return 0;
}

void ref_weight_free(struct ops *o, struct weight *w) {
    (void)o;
    free(w->owned);
    *w = (struct weight){0};
}
