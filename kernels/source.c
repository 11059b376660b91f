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
