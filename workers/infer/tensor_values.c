#include "workers/infer/tensor_values.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kernels/half.h"
#include "kernels/source.h"

#define SCAN_BLOCK 4096u

int tensor_dtype(const struct tensor *t, enum dtype *out) {
    static const struct {
        const char *name;
        enum dtype dtype;
    } types[] = {
        {"F32", DTYPE_F32}, {"F16", DTYPE_F16}, {"BF16", DTYPE_BF16}, {"F8_E4M3", DTYPE_F8E4M3}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(t->type, types[i].name) == 0) {
            *out = types[i].dtype;
            return 0;
        }
    return -ENOTSUP;
}

/* Index of the first element whose exponent is all ones (a NaN or an infinity), or n. */
static uint64_t scan32(const uint32_t *v, uint64_t n, uint32_t exponent) {
    for (uint64_t at = 0; at < n; at += SCAN_BLOCK) {
        uint64_t end = n - at < SCAN_BLOCK ? n : at + SCAN_BLOCK;
        uint32_t bad = 0;
        for (uint64_t i = at; i < end; i++) bad |= (v[i] & exponent) == exponent;
        for (uint64_t i = at; bad && i < end; i++)
            if ((v[i] & exponent) == exponent) return i;
    }
    return n;
}

static uint64_t scan16(const uint16_t *v, uint64_t n, uint16_t exponent) {
    for (uint64_t at = 0; at < n; at += SCAN_BLOCK) {
        uint64_t end = n - at < SCAN_BLOCK ? n : at + SCAN_BLOCK;
        uint32_t bad = 0;
        for (uint64_t i = at; i < end; i++) bad |= (v[i] & exponent) == exponent;
        for (uint64_t i = at; bad && i < end; i++)
            if ((v[i] & exponent) == exponent) return i;
    }
    return n;
}

static uint64_t scan8(const uint8_t *v, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if ((v[i] & 0x7fu) == 0x7fu) return i;
    return n;
}

uint64_t tensor_first_not_finite(const struct tensor *t, enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F32: return scan32(t->data, t->elements, 0x7f800000u);
    case DTYPE_F16: return scan16(t->data, t->elements, 0x7c00u);
    case DTYPE_BF16: return scan16(t->data, t->elements, 0x7f80u);
    case DTYPE_F8E4M3: return scan8(t->data, t->elements);
    default: return t->elements;
    }
}

/* The scale of element (row, k) is value[row / rows * stride + k / columns]. */
struct scales {
    const struct tensor *t; /* NULL: all are one */
    enum dtype dtype;
    uint64_t rows, columns, stride;
};

static bool is_shape(const struct tensor *t, uint64_t d0, uint64_t d1) {
    return t->rank == 2 && t->shape[0] == d0 && t->shape[1] == d1;
}

/* The scales that stand beside a matrix, when there are any. */
static int find_scales(struct scales *s, const struct safetensors *st, const struct tensor *t,
                       const uint32_t block[2], char *err, size_t err_bytes) {
    uint64_t n = t->shape[0], k = t->shape[1];
    char name[272];
    *s = (struct scales){.rows = n, .columns = k};
    snprintf(name, sizeof name, "%.255s_scale_inv", t->name);
    s->t = safetensors_find(st, name);
    if (s->t && is_shape(s->t, (n + block[0] - 1) / block[0], (k + block[1] - 1) / block[1])) {
        s->rows = block[0];
        s->columns = block[1];
        s->stride = s->t->shape[1];
    } else if (!s->t) {
        snprintf(name, sizeof name, "%.255s_scale", t->name);
        s->t = safetensors_find(st, name);
    }
    if (!s->t) return 0;
    bool a_row = (s->t->rank == 1 && s->t->shape[0] == n) || is_shape(s->t, n, 1);
    if (s->stride == 0 && a_row) s->rows = s->stride = 1;
    if (s->stride == 0 && s->t->elements != 1)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: tensor %s: %" PRIu64
                       " scales fit neither the matrix, nor its rows, nor blocks of %u x %u",
                       safetensors_path(st, s->t), name, s->t->elements, block[0], block[1]);
    if (tensor_dtype(s->t, &s->dtype) != 0 || s->dtype == DTYPE_F8E4M3)
        return err_set(err, err_bytes, -ENOTSUP,
                       "%s: tensor %s: dtype %s; scales are F32, F16 or BF16",
                       safetensors_path(st, s->t), name, s->t->type);
    uint64_t bad = tensor_first_not_finite(s->t, s->dtype);
    if (bad == s->t->elements) return 0;
    return err_set(err, err_bytes, ERR_CORRUPT,
                   "%s: tensor %s: element %" PRIu64 " is a NaN or an infinity",
                   safetensors_path(st, s->t), name, bad);
}

int tensor_widen(float **out, const struct safetensors *st, const struct tensor *t,
                 const uint32_t block[2], char *err, size_t err_bytes) {
    uint64_t n = t->shape[0], k = t->shape[1];
    const uint8_t *from = t->data;
    struct scales s;
    int rc = find_scales(&s, st, t, block, err, err_bytes);
    if (rc != 0) return rc;
    float *to = *out = malloc(t->elements * sizeof *to);
    if (!to)
        return err_set(err, err_bytes, -ENOMEM, "no memory for %" PRIu64 " numbers of tensor %s",
                       t->elements, t->name);
    for (uint64_t row = 0; row < n; row++)
        for (uint64_t i = 0; i < k; i++, from++, to++) {
            *to = float_of_f8e4m3(*from);
            if (s.t)
                *to *= source_element(s.t->data, s.dtype, row / s.rows * s.stride + i / s.columns);
        }
    return 0;
}
