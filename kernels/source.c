#include "kernels/source.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "kernels/half.h"

int source_check(uint32_t parts, const uint32_t *n, uint32_t k, enum dtype dtype, enum dtype want,
                 char *err, size_t err_bytes) {
    uint64_t rows = 0;
    for (uint32_t i = 0; i < parts; i++) {
        if (n[i] == 0)
            return err_set(err, err_bytes, -EINVAL, "part %u of the weight has no rows", i);
        rows += n[i];
    }
    if (rows == 0 || k == 0)
        return err_set(err, err_bytes, -EINVAL, "a weight of %llu x %u has no elements",
                       (unsigned long long)rows, k);
    if (rows > INT32_MAX || k > INT32_MAX)
        return err_set(err, err_bytes, -EINVAL, "a weight of %llu x %u is too large (2^31 a side)",
                       (unsigned long long)rows, k);
    if (dtype_quantized(dtype) && want != dtype)
        return err_set(err, err_bytes, -ENOTSUP,
                       "a quantized weight is stored as it is, not as element type %d", (int)want);
    if (dtype_quantized(dtype)) return 0;
    if (dtype != DTYPE_F32 && dtype != DTYPE_F16 && dtype != DTYPE_BF16)
        return err_set(err, err_bytes, -ENOTSUP,
                       "weights of element type %d cannot be read: convert the model to float32, "
                       "float16 or bfloat16",
                       (int)dtype);
    if (want != DTYPE_F32 && want != DTYPE_BF16)
        return err_set(err, err_bytes, -ENOTSUP,
                       "weights cannot be stored as element type %d: ask for f32 or bf16",
                       (int)want);
    return 0;
}

int source_check_quant(uint32_t parts, const void *const *source, uint32_t *group, bool *zeros,
                       char *err, size_t err_bytes) {
    *group = ((const struct quant *)source[0])->group;
    *zeros = false;
    for (uint32_t i = 0; i < parts; i++) {
        const struct quant *s = source[i];
        if (s->group != 32 && s->group != 64 && s->group != 128)
            return err_set(err, err_bytes, -ENOTSUP,
                           "weights in groups of %u cannot be multiplied: use 32, 64 or 128",
                           s->group);
        if (s->group != *group)
            return err_set(err, err_bytes, -EINVAL,
                           "parts of one weight are in groups of %u and of %u: quantize them alike",
                           *group, s->group);
        if (s->zero) *zeros = true;
    }
    return 0;
}

int source_check_image(const struct weight *w, const void *image, size_t bytes, size_t expected,
                       char *err, size_t err_bytes) {
    const uint32_t rows[2] = {w->n, w->n};
    const struct quant like = {.group = w->group};
    const void *const likes[1] = {&like};
    uint32_t group;
    bool zeros;
    int rc = source_check(w->pair ? 2 : 1, rows, w->k, w->dtype, w->dtype, err, err_bytes);
    if (rc == 0 && dtype_quantized(w->dtype))
        rc = source_check_quant(1, likes, &group, &zeros, err, err_bytes);
    if (rc) return rc;
    if ((uintptr_t)image % 64 != 0)
        return err_set(err, err_bytes, -EINVAL, "a packed weight must be aligned to 64 bytes");
    if (bytes != expected)
        return err_set(err, err_bytes, -EINVAL,
                       "a packed weight of %u x %u has %zu bytes here, not %zu: pack it again",
                       w->n, w->k, expected, bytes);
    return 0;
}

void source_quant(uint8_t *to, const struct quant *s, enum dtype dtype, size_t row, uint32_t k,
                  uint32_t k0, uint32_t count) {
    assert(dtype_quantized(dtype) && k0 % 2 == 0);
    if (dtype == DTYPE_W8) {
        memcpy(to, s->q + row * k + k0, count);
        return;
    }
    const uint8_t *from = s->q + row * (((size_t)k + 1) / 2) + k0 / 2;
    for (uint32_t i = 0; i < count; i++)
        to[i] = (uint8_t)(i % 2 ? from[i / 2] & 0xf0 : from[i / 2] << 4);
}

float source_element(const void *source, enum dtype dtype, size_t i) {
    if (dtype == DTYPE_F32) return ((const float *)source)[i];
    uint16_t h = ((const uint16_t *)source)[i];
    return dtype == DTYPE_BF16 ? float_of_bf16(h) : float_of_f16(h);
}

void source_row_f32(float *to, const void *source, enum dtype dtype, size_t row, uint32_t k) {
    assert(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16);
    if (dtype == DTYPE_F32) {
        memcpy(to, (const float *)source + row * k, k * sizeof *to);
        return;
    }
    for (uint32_t i = 0; i < k; i++) to[i] = source_element(source, dtype, row * k + i);
}

void source_row_bf16(uint16_t *to, const void *source, enum dtype dtype, size_t row, uint32_t k) {
    assert(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16);
    if (dtype == DTYPE_BF16) {
        memcpy(to, (const uint16_t *)source + row * k, k * sizeof *to);
        return;
    }
    for (uint32_t i = 0; i < k; i++)
        to[i] = bf16_of_float(source_element(source, dtype, row * k + i));
}
