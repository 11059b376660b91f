/* q16.h - sixteen sums of bytes times bytes, as the level that includes it can hold them.
 *
 * A quad is four inputs: of 16 weights (unsigned) 64 bytes, of a row of activations (signed)
 * QUAD_BYTES. With VNNI those are multiplied as they lie. Below there is no such instruction that
 * is exact (vpmaddubsw saturates at 32767, two products reach 64770), so there activations lie as
 * 16 bits, inputs 0 and 2 beside each other and then 1 and 3, and weights are split into even and
 * odd bytes. All sums are exact, so every level has the same.
 *
 * Units: bytes.  Owner, memory, errors: none.  Threads: any. */
#ifndef PENSTOCK_KERNELS_CPU_Q16_H
#define PENSTOCK_KERNELS_CPU_Q16_H

#include "kernels/cpu/v16.h"

#if defined(__AVX512VNNI__)

enum { QUAD_BYTES = 4 };
typedef __m512i q16, q16_weights, q16_row;

V_INLINE q16_weights q_load(const uint8_t *p) {
    return _mm512_loadu_si512(p);
}
/* The 16 weights of two quads from their nibbles, times 16. */
V_INLINE void q_load_nibbles(const uint8_t *p, q16_weights *even, q16_weights *odd) {
    __m512i both = _mm512_loadu_si512(p), high = _mm512_set1_epi8((char)0xf0);
    *even = _mm512_and_si512(_mm512_slli_epi16(both, 4), high);
    *odd = _mm512_and_si512(both, high);
}
V_INLINE void q_store(uint8_t *p, q16_weights a) {
    _mm512_storeu_si512(p, a);
}
V_INLINE q16_row q_row(const uint8_t *p) {
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm512_set1_epi32(quad);
}
V_INLINE q16 q_dot(q16 sum, q16_weights w, q16_row x) {
    /* As assembly, because gcc 12 copies and spills the sums of a large tile around intrinsics. */
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}
V_INLINE q16 q_all(int32_t a) {
    return _mm512_set1_epi32(a);
}
/* Each of 16 zero points times a; |a| is below 2^15. */
V_INLINE q16 q_zeros(const uint8_t *zero, int32_t a) {
    return _mm512_madd_epi16(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)zero)),
                             _mm512_set1_epi32(a & 0xffff));
}
V_INLINE v16 q_float(q16 a) {
    return _mm512_cvtepi32_ps(a);
}
/* a * b + c in one rounding. */
V_INLINE v16 q_fma(v16 a, v16 b, v16 c) {
    return _mm512_fmadd_ps(a, b, c);
}
/* The largest |x| of `parts` vectors; a NaN is the largest. */
V_INLINE float q_most(const v16 *x, uint32_t parts) {
    const __m512i size = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    for (uint32_t i = 0; i < parts; i++)
        most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(x[i]), size));
    return float_of_bits(_mm512_reduce_max_epu32(most));
}
/* x * unit to the nearest, as q_row reads it, for `count` x and up to 7 zeros behind them. Returns
 * the sum, which is none where a product is not finite. */
V_INLINE uint32_t q_round(uint8_t *to, const v16 *x, uint32_t count, float unit) {
    const v16 by = v_all(unit);
    __m512i sum = _mm512_setzero_si512();
    uint32_t bytes = (count + 7) / 8 * 8;
    for (uint32_t i = 0; i < bytes; i += 16, to += 16) {
        __m512i whole = _mm512_cvtps_epi32(v_mul(x[i / 16], by));
        sum = _mm512_add_epi32(sum, whole);
        if (bytes - i < 16)
            _mm_storel_epi64((void *)to, _mm512_cvtepi32_epi8(whole));
        else
            _mm_storeu_si128((void *)to, _mm512_cvtepi32_epi8(whole));
    }
    return (uint32_t)_mm512_reduce_add_epi32(sum);
}

#elif defined(__AVX2__)

enum { QUAD_BYTES = 8 };
typedef struct {
    __m256i lo, hi;
} q16;
typedef struct {
    __m256i even[2], odd[2];
} q16_weights;
typedef struct {
    __m256i even, odd;
} q16_row;

V_INLINE q16_weights q_split(__m256i lo, __m256i hi) {
    const __m256i low = _mm256_set1_epi16(255);
    return (q16_weights){{_mm256_and_si256(lo, low), _mm256_and_si256(hi, low)},
                         {_mm256_srli_epi16(lo, 8), _mm256_srli_epi16(hi, 8)}};
}
V_INLINE q16_weights q_load(const uint8_t *p) {
    return q_split(_mm256_loadu_si256((const void *)p), _mm256_loadu_si256((const void *)(p + 32)));
}
V_INLINE void q_load_nibbles(const uint8_t *p, q16_weights *even, q16_weights *odd) {
    const __m256i high = _mm256_set1_epi8((char)0xf0);
    __m256i lo = _mm256_loadu_si256((const void *)p),
            hi = _mm256_loadu_si256((const void *)(p + 32));
    *even = q_split(_mm256_and_si256(_mm256_slli_epi16(lo, 4), high),
                    _mm256_and_si256(_mm256_slli_epi16(hi, 4), high));
    *odd = q_split(_mm256_and_si256(lo, high), _mm256_and_si256(hi, high));
}
V_INLINE void q_store(uint8_t *p, q16_weights a) {
    for (int i = 0; i < 2; i++)
        _mm256_storeu_si256((void *)(p + 32 * i),
                            _mm256_or_si256(a.even[i], _mm256_slli_epi16(a.odd[i], 8)));
}
V_INLINE q16_row q_row(const uint8_t *p) {
    int32_t pair[2];
    memcpy(pair, p, sizeof pair);
    return (q16_row){_mm256_set1_epi32(pair[0]), _mm256_set1_epi32(pair[1])};
}
V_INLINE __m256i q_dot_half(__m256i sum, __m256i even, __m256i odd, q16_row x) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even, x.even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(odd, x.odd));
}
V_INLINE q16 q_dot(q16 sum, q16_weights w, q16_row x) {
    return (q16){q_dot_half(sum.lo, w.even[0], w.odd[0], x),
                 q_dot_half(sum.hi, w.even[1], w.odd[1], x)};
}
V_INLINE q16 q_all(int32_t a) {
    return (q16){_mm256_set1_epi32(a), _mm256_set1_epi32(a)};
}
V_INLINE q16 q_zeros(const uint8_t *zero, int32_t a) {
    __m128i z = _mm_loadu_si128((const void *)zero);
    __m256i all = _mm256_set1_epi32(a);
    return (q16){_mm256_mullo_epi32(_mm256_cvtepu8_epi32(z), all),
                 _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(z, 8)), all)};
}
V_INLINE v16 q_float(q16 a) {
    return (v16){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
V_INLINE v16 q_fma(v16 a, v16 b, v16 c) {
    return v_fma(a, b, c);
}
V_INLINE float q_most(const v16 *x, uint32_t parts) {
    const __m256i size = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (uint32_t i = 0; i < parts; i++) {
        most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(x[i].lo), size));
        most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(x[i].hi), size));
    }
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    __m128i two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
    __m128i one = _mm_max_epu32(two, _mm_srli_epi64(two, 32));
    return float_of_bits((uint32_t)_mm_cvtsi128_si32(one));
}
V_INLINE uint32_t q_round(uint8_t *to, const v16 *x, uint32_t count, float unit) {
    const __m256 by = _mm256_set1_ps(unit);
    __m256i sum = _mm256_setzero_si256();
    uint32_t bytes = (count + 7) / 8 * 8;
    /* From 0 1 2 3 to 0 2 1 3, in both halves. */
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0,
                                           1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    for (uint32_t i = 0; i < bytes; i += 16, to += 32) {
        __m256i lo = _mm256_cvtps_epi32(_mm256_mul_ps(x[i / 16].lo, by));
        __m256i hi = _mm256_cvtps_epi32(_mm256_mul_ps(x[i / 16].hi, by));
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(lo, hi));
        __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
        both = _mm256_shuffle_epi8(both, order);
        if (bytes - i < 16)
            _mm_storeu_si128((void *)to, _mm256_castsi256_si128(both));
        else
            _mm256_storeu_si256((void *)to, both);
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_srli_epi64(two, 32)));
}

#else

/* Vectors of eight 16-bit numbers: what every 64-bit machine has, as in v16.h. A byte times a
 * signed byte fits 16 bits; neighbours are widened to 32 before they are added. */
enum { QUAD_BYTES = 8 };
typedef int16_t q8_pairs __attribute__((vector_size(16)));
typedef uint16_t q8_bits __attribute__((vector_size(16)));
typedef struct {
    v4_bits q[4];
} q16;
typedef struct {
    q8_bits even[4], odd[4];
} q16_weights;
typedef struct {
    q8_pairs even, odd;
} q16_row;

V_INLINE q16_weights q_load(const uint8_t *p) {
    q16_weights w;
    memcpy(w.even, p, sizeof w.even);
    V_UNROLL for (int i = 0; i < 4; i++) w.odd[i] = w.even[i] >> 8, w.even[i] &= 255;
    return w;
}
V_INLINE void q_load_nibbles(const uint8_t *p, q16_weights *even, q16_weights *odd) {
    *odd = q_load(p);
    V_UNROLL for (int i = 0; i < 4; i++) {
        even->even[i] = odd->even[i] << 4 & 0xf0, odd->even[i] &= 0xf0;
        even->odd[i] = odd->odd[i] << 4 & 0xf0, odd->odd[i] &= 0xf0;
    }
}
V_INLINE void q_store(uint8_t *p, q16_weights a) {
    V_UNROLL for (int i = 0; i < 4; i++) a.even[i] |= a.odd[i] << 8;
    memcpy(p, a.even, sizeof a.even);
}
V_INLINE q16_row q_row(const uint8_t *p) {
    int32_t x[2];
    memcpy(x, p, sizeof x);
    return (q16_row){(q8_pairs)(v4_bits){x[0], x[0], x[0], x[0]},
                     (q8_pairs)(v4_bits){x[1], x[1], x[1], x[1]}};
}
V_INLINE q16 q_dot(q16 sum, q16_weights w, q16_row x) {
    V_UNROLL for (int i = 0; i < 4; i++) {
        v4_bits even = (v4_bits)((q8_pairs)w.even[i] * x.even);
        v4_bits odd = (v4_bits)((q8_pairs)w.odd[i] * x.odd);
        sum.q[i] += (even >> 16) + (odd >> 16) + (even << 16 >> 16) + (odd << 16 >> 16);
    }
    return sum;
}
V_INLINE q16 q_all(int32_t a) {
    q16 all;
    V_UNROLL for (int i = 0; i < 4; i++) all.q[i] = (v4_bits){a, a, a, a};
    return all;
}
V_INLINE q16 q_zeros(const uint8_t *zero, int32_t a) {
    q16 all;
    for (int i = 0; i < 16; i++) all.q[i / 4][i % 4] = zero[i] * a;
    return all;
}
V_INLINE v16 q_float(q16 a) {
    V_QUARTERS(__builtin_convertvector(a.q[i], v4));
}
V_INLINE v16 q_fma(v16 a, v16 b, v16 c) {
    float x[16], y[16], z[16];
    v_store(x, a);
    v_store(y, b);
    v_store(z, c);
    V_LANES(fmaf(x[i], y[i], z[i]));
}
V_INLINE float q_most(const v16 *x, uint32_t parts) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < parts * 16; i++) {
        uint32_t size = bits_of_float(x[i / 16].q[i / 4 % 4][i % 4]) & 0x7fffffffu;
        if (size > most) most = size;
    }
    return float_of_bits(most);
}
V_INLINE uint32_t q_round(uint8_t *to, const v16 *x, uint32_t count, float unit) {
    int32_t sum = 0; /* 1.5 * 2^23 has no bits for fractions: adding it rounds, ties to even */
    for (uint32_t i = 0; i < (count + 7) / 8 * 8; i += 4) {
        v4 whole = x[i / 16].q[i / 4 % 4] * unit + 0x1.8p23f;
        int16_t quad[4];
        for (int j = 0; j < 4; j++) {
            quad[j / 2 + j % 2 * 2] = (int8_t)bits_of_float(whole[j]);
            sum += (int8_t)bits_of_float(whole[j]);
        }
        memcpy(to + (size_t)i * 2, quad, sizeof quad);
    }
    return (uint32_t)sum;
}

#endif

#endif
