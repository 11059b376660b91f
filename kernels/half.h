/* half.h - 16-bit floats to float32 and back, and 8-bit ones to float32, one number at a time.
 *
 * bf16 is the upper half of a float32, so widening is exact; narrowing rounds to nearest, ties to
 * even, and keeps NaN a NaN. f16 (IEEE binary16) and f8 (E4M3) only ever widen: they are formats of
 * files here.
 *
 * Units: none.  Owner, memory: none (pure functions).  Errors: none.  Threads: any. */
#ifndef PENSTOCK_KERNELS_HALF_H
#define PENSTOCK_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t bits_of_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float float_of_bf16(uint16_t h) {
    return float_of_bits((uint32_t)h << 16);
}

static inline uint16_t bf16_of_float(float f) {
    uint32_t bits = bits_of_float(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float float_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 1023u;
    if (exponent == 31) return float_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float small = (float)fraction * 0x1p-24f; /* subnormal: exact in float32 */
    return sign ? -small : small;
}

/* Four bits of exponent, three of fraction, no infinities; all ones is a NaN. */
static inline float float_of_f8e4m3(uint8_t h) {
    uint32_t sign = (uint32_t)(h & 0x80u) << 24, exponent = (h >> 3) & 15u, fraction = h & 7u;
    if ((h & 0x7fu) == 0x7fu) return float_of_bits(sign | 0x7fc00000u);
    if (exponent != 0) return float_of_bits(sign | (exponent + 120) << 23 | fraction << 20);
    float small = (float)fraction * 0x1p-9f;
    return sign ? -small : small;
}

#endif
