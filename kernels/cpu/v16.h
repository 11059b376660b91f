/* v16.h - sixteen floats, as the level that includes it can hold them.
 *
 * Included by level_*.c only, and nothing else depends on the instruction set: with AVX-512 a v16
 * is one register, with AVX2 two, and in plain C four of what every 64-bit machine has. All
 * levels compute the same operations in the same order; their bits differ because plain C rounds
 * the product of a multiply-add. max and min return the second operand when one is NaN.
 *
 * Units: floats; `part` operations touch the first n (0..16) and read the others as zero.
 * Owner, memory, errors: none.  Threads: any. */
#ifndef PENSTOCK_KERNELS_CPU_V16_H
#define PENSTOCK_KERNELS_CPU_V16_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/half.h"

#define V_INLINE static inline __attribute__((always_inline, unused))
#ifdef __clang__
#define V_UNROLL _Pragma("unroll")
#else
#define V_UNROLL _Pragma("GCC unroll 32")
#endif

#if defined(__AVX512F__)

#include <immintrin.h>

typedef __m512 v16;

V_INLINE __mmask16 v_first(uint32_t n) {
    return (__mmask16)((1u << n) - 1);
}
V_INLINE v16 v_zero(void) {
    return _mm512_setzero_ps();
}
V_INLINE v16 v_all(float x) {
    return _mm512_set1_ps(x);
}
V_INLINE v16 v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
V_INLINE v16 v_load_part(const float *p, uint32_t n) {
    return _mm512_maskz_loadu_ps(v_first(n), p);
}
V_INLINE void v_store(float *p, v16 a) {
    _mm512_storeu_ps(p, a);
}
V_INLINE void v_store_part(float *p, v16 a, uint32_t n) {
    _mm512_mask_storeu_ps(p, v_first(n), a);
}
V_INLINE v16 v_add(v16 a, v16 b) {
    return _mm512_add_ps(a, b);
}
V_INLINE v16 v_sub(v16 a, v16 b) {
    return _mm512_sub_ps(a, b);
}
V_INLINE v16 v_mul(v16 a, v16 b) {
    return _mm512_mul_ps(a, b);
}
V_INLINE v16 v_div(v16 a, v16 b) {
    return _mm512_div_ps(a, b);
}
V_INLINE v16 v_fma(v16 a, v16 b, v16 c) {
    return _mm512_fmadd_ps(a, b, c);
}
V_INLINE v16 v_max(v16 a, v16 b) {
    return _mm512_max_ps(a, b);
}
V_INLINE v16 v_min(v16 a, v16 b) {
    return _mm512_min_ps(a, b);
}
/* a where lane i is in begin <= i < end, else b. */
V_INLINE v16 v_between(v16 a, v16 b, uint32_t begin, uint32_t end) {
    return _mm512_mask_blend_ps((__mmask16)(v_first(end) & ~v_first(begin)), b, a);
}
/* a * 2^n for the integers n in (-127, 128), given as floats. */
V_INLINE v16 v_scale2(v16 a, v16 n) {
    return _mm512_scalef_ps(a, n);
}
/* a where x >= least, else 0; NaN counts as at least. */
V_INLINE v16 v_keep_from(v16 a, v16 x, v16 least) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ), a);
}
V_INLINE v16 v_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
V_INLINE v16 v_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
/* 32 bf16, pairs along k: the even and the odd ones. */
V_INLINE void v_load_pairs(const uint16_t *p, v16 *even, v16 *odd) {
    __m512i both = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000u)));
}
V_INLINE void v_transpose(v16 r[16]) {
    v16 t[16];
    V_UNROLL for (int i = 0; i < 16; i += 4) { /* 4x4 blocks inside each 128-bit lane */
        v16 ab_lo = _mm512_unpacklo_ps(r[i], r[i + 1]), ab_hi = _mm512_unpackhi_ps(r[i], r[i + 1]);
        v16 cd_lo = _mm512_unpacklo_ps(r[i + 2], r[i + 3]),
            cd_hi = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_shuffle_ps(ab_lo, cd_lo, 0x44);
        t[i + 1] = _mm512_shuffle_ps(ab_lo, cd_lo, 0xee);
        t[i + 2] = _mm512_shuffle_ps(ab_hi, cd_hi, 0x44);
        t[i + 3] = _mm512_shuffle_ps(ab_hi, cd_hi, 0xee);
    }
    V_UNROLL for (int i = 0; i < 4; i++) { /* then a 4x4 transpose of those blocks */
        v16 low01 = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88),
            high01 = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
        v16 low23 = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
        v16 high23 = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_f32x4(low01, low23, 0x88);
        r[i + 4] = _mm512_shuffle_f32x4(high01, high23, 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
        r[i + 12] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
    }
}

#elif defined(__AVX2__)

#include <immintrin.h>

typedef struct {
    __m256 lo, hi;
} v16;

/* Lanes i < n of eight, all bits set. */
V_INLINE __m256i v_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
V_INLINE v16 v_all(float x) {
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
V_INLINE v16 v_zero(void) {
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
V_INLINE v16 v_load(const float *p) {
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
V_INLINE v16 v_load_part(const float *p, uint32_t n) {
    return (v16){_mm256_maskload_ps(p, v_first((int)n)),
                 _mm256_maskload_ps(p + 8, v_first((int)n - 8))};
}
V_INLINE void v_store(float *p, v16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
V_INLINE void v_store_part(float *p, v16 a, uint32_t n) {
    _mm256_maskstore_ps(p, v_first((int)n), a.lo);
    _mm256_maskstore_ps(p + 8, v_first((int)n - 8), a.hi);
}
V_INLINE v16 v_add(v16 a, v16 b) {
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
V_INLINE v16 v_sub(v16 a, v16 b) {
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
V_INLINE v16 v_mul(v16 a, v16 b) {
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
V_INLINE v16 v_div(v16 a, v16 b) {
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
V_INLINE v16 v_fma(v16 a, v16 b, v16 c) {
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
V_INLINE v16 v_max(v16 a, v16 b) {
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
V_INLINE v16 v_min(v16 a, v16 b) {
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
V_INLINE v16 v_between(v16 a, v16 b, uint32_t begin, uint32_t end) {
    int from = (int)begin, to = (int)end;
    __m256i lo = _mm256_andnot_si256(v_first(from), v_first(to));
    __m256i hi = _mm256_andnot_si256(v_first(from - 8), v_first(to - 8));
    return (v16){_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(lo)),
                 _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(hi))};
}
V_INLINE __m256 v_scale2_half(__m256 a, __m256 n) {
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
V_INLINE v16 v_scale2(v16 a, v16 n) {
    return (v16){v_scale2_half(a.lo, n.lo), v_scale2_half(a.hi, n.hi)};
}
V_INLINE v16 v_keep_from(v16 a, v16 x, v16 least) {
    return (v16){_mm256_and_ps(a.lo, _mm256_cmp_ps(x.lo, least.lo, _CMP_NLT_UQ)),
                 _mm256_and_ps(a.hi, _mm256_cmp_ps(x.hi, least.hi, _CMP_NLT_UQ))};
}
V_INLINE __m256 v_load_bf16_half(const uint16_t *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
V_INLINE v16 v_load_bf16(const uint16_t *p) {
    return (v16){v_load_bf16_half(p), v_load_bf16_half(p + 8)};
}
V_INLINE __m256 v_load_i8_half(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}
V_INLINE v16 v_load_i8(const int8_t *p) {
    return (v16){v_load_i8_half(p), v_load_i8_half(p + 8)};
}
V_INLINE void v_load_pairs(const uint16_t *p, v16 *even, v16 *odd) {
    __m256i lo = _mm256_loadu_si256((const void *)p),
            hi = _mm256_loadu_si256((const void *)(p + 16));
    __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    even->lo = _mm256_castsi256_ps(_mm256_slli_epi32(lo, 16));
    even->hi = _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16));
    odd->lo = _mm256_castsi256_ps(_mm256_and_si256(lo, upper));
    odd->hi = _mm256_castsi256_ps(_mm256_and_si256(hi, upper));
}
V_INLINE void v_transpose8(__m256 r[8]) {
    __m256 t[8];
    V_UNROLL for (int i = 0; i < 8; i += 4) { /* 4x4 blocks inside each 128-bit lane */
        __m256 ab_lo = _mm256_unpacklo_ps(r[i], r[i + 1]),
               ab_hi = _mm256_unpackhi_ps(r[i], r[i + 1]);
        __m256 cd_lo = _mm256_unpacklo_ps(r[i + 2], r[i + 3]),
               cd_hi = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(ab_lo, cd_lo, 0x44);
        t[i + 1] = _mm256_shuffle_ps(ab_lo, cd_lo, 0xee);
        t[i + 2] = _mm256_shuffle_ps(ab_hi, cd_hi, 0x44);
        t[i + 3] = _mm256_shuffle_ps(ab_hi, cd_hi, 0xee);
    }
    V_UNROLL for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
V_INLINE void v_transpose(v16 r[16]) {
    __m256 block[8], other[8];
    V_UNROLL for (int i = 0; i < 8; i++) block[i] = r[i].lo;
    v_transpose8(block);
    V_UNROLL for (int i = 0; i < 8; i++) other[i] = r[i].hi, r[i].lo = block[i],
                                         block[i] = r[i + 8].lo;
    v_transpose8(block);
    v_transpose8(other);
    V_UNROLL for (int i = 0; i < 8; i++) r[i].hi = block[i], r[i + 8].lo = other[i],
                                         block[i] = r[i + 8].hi;
    v_transpose8(block);
    V_UNROLL for (int i = 0; i < 8; i++) r[i + 8].hi = block[i];
}

#else

/* Four vectors of four: what every 64-bit machine has (SSE2, NEON), through the compiler's own. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4_bits __attribute__((vector_size(16)));
typedef struct {
    v4 q[4];
} v16;

/* Each quarter i of the result is `expression`; each lane is, with V_LANES. */
#define V_QUARTERS(expression)                                                                     \
    do {                                                                                           \
        v16 result;                                                                                \
        V_UNROLL for (int i = 0; i < 4; i++) result.q[i] = (expression);                           \
        return result;                                                                             \
    } while (0)
#define V_LANES(expression)                                                                        \
    do {                                                                                           \
        float lanes[16];                                                                           \
        for (uint32_t i = 0; i < 16; i++) lanes[i] = (expression);                                 \
        return v_load(lanes);                                                                      \
    } while (0)

/* a where the mask is all ones, b where it is zero. */
V_INLINE v4 v_pick(v4_bits mask, v4 a, v4 b) {
    return (v4)((mask & (v4_bits)a) | (~mask & (v4_bits)b));
}
V_INLINE v16 v_all(float x) {
    V_QUARTERS(((v4){x, x, x, x}));
}
V_INLINE v16 v_zero(void) {
    return v_all(0);
}
V_INLINE v16 v_load(const float *p) {
    v16 a;
    memcpy(&a, p, sizeof a);
    return a;
}
V_INLINE v16 v_load_part(const float *p, uint32_t n) {
    if (n == 16) return v_load(p);
    V_LANES(i < n ? p[i] : 0);
}
V_INLINE void v_store(float *p, v16 a) {
    memcpy(p, &a, sizeof a);
}
V_INLINE void v_store_part(float *p, v16 a, uint32_t n) {
    memcpy(p, &a, n * sizeof *p);
}
V_INLINE v16 v_add(v16 a, v16 b) {
    V_QUARTERS(a.q[i] + b.q[i]);
}
V_INLINE v16 v_sub(v16 a, v16 b) {
    V_QUARTERS(a.q[i] - b.q[i]);
}
V_INLINE v16 v_mul(v16 a, v16 b) {
    V_QUARTERS(a.q[i] * b.q[i]);
}
V_INLINE v16 v_div(v16 a, v16 b) {
    V_QUARTERS(a.q[i] / b.q[i]);
}
V_INLINE v16 v_fma(v16 a, v16 b, v16 c) {
    V_QUARTERS(a.q[i] * b.q[i] + c.q[i]);
}
V_INLINE v16 v_max(v16 a, v16 b) {
    V_QUARTERS(v_pick(a.q[i] > b.q[i], a.q[i], b.q[i]));
}
V_INLINE v16 v_min(v16 a, v16 b) {
    V_QUARTERS(v_pick(a.q[i] < b.q[i], a.q[i], b.q[i]));
}
V_INLINE v16 v_between(v16 a, v16 b, uint32_t begin, uint32_t end) {
    if (begin == 0 && end == 16) return a;
    float left[16], right[16];
    v_store(left, a);
    v_store(right, b);
    V_LANES(i >= begin && i < end ? left[i] : right[i]);
}
V_INLINE v16 v_scale2(v16 a, v16 n) {
    V_QUARTERS(a.q[i] * (v4)((__builtin_convertvector(n.q[i], v4_bits) + 127) << 23));
}
V_INLINE v16 v_keep_from(v16 a, v16 x, v16 least) {
    V_QUARTERS((v4)((v4_bits)a.q[i] & ~(x.q[i] < least.q[i])));
}
V_INLINE v16 v_load_bf16(const uint16_t *p) {
    V_LANES(float_of_bf16(p[i]));
}
V_INLINE v16 v_load_i8(const int8_t *p) {
    V_LANES((float)p[i]);
}
V_INLINE void v_load_pairs(const uint16_t *p, v16 *even, v16 *odd) {
    float lanes[2][16];
    for (uint32_t i = 0; i < 16; i++) {
        lanes[0][i] = float_of_bf16(p[2 * i]);
        lanes[1][i] = float_of_bf16(p[2 * i + 1]);
    }
    *even = v_load(lanes[0]);
    *odd = v_load(lanes[1]);
}
V_INLINE void v_transpose(v16 r[16]) {
    float from[16][16], to[16][16];
    memcpy(from, r, sizeof from);
    for (uint32_t i = 0; i < 16; i++)
        for (uint32_t j = 0; j < 16; j++) to[i][j] = from[j][i];
    memcpy(r, to, sizeof to);
}

#endif

#if defined(__AVX2__)

/* The sum and the maximum of the lanes, by halving: 8, 4, 2, 1. */
V_INLINE float v_sum8(__m256 a) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
V_INLINE float v_most8(__m256 a) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
#if defined(__AVX512F__)
V_INLINE float v_sum(v16 a) {
    return v_sum8(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}
V_INLINE float v_most(v16 a) {
    return v_most8(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}
#else
V_INLINE float v_sum(v16 a) {
    return v_sum8(_mm256_add_ps(a.lo, a.hi));
}
V_INLINE float v_most(v16 a) {
    return v_most8(_mm256_max_ps(a.lo, a.hi));
}
#endif

#else

V_INLINE float v_sum(v16 a) {
    v4 four = (a.q[0] + a.q[2]) + (a.q[1] + a.q[3]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}
V_INLINE float v_most(v16 a) {
    float f[16];
    v_store(f, a);
    for (uint32_t i = 1; i < 16; i++) f[0] = f[0] > f[i] ? f[0] : f[i];
    return f[0];
}

#endif

/* So many bytes as they are, the others zero: for what is moved and not computed with. */
V_INLINE v16 v_load_bytes(const void *p, size_t bytes) {
    v16 all;
    if (bytes == sizeof all) {
        memcpy(&all, p, sizeof all);
        return all;
    }
    memset(&all, 0, sizeof all);
    memcpy(&all, p, bytes);
    return all;
}
V_INLINE v16 v_load_i8_part(const int8_t *p, uint32_t n) {
    int8_t b[16] = {0};
    memcpy(b, p, n);
    return v_load_i8(b);
}
V_INLINE v16 v_load_bf16_part(const uint16_t *p, uint32_t n) {
    uint16_t h[16] = {0};
    memcpy(h, p, n * sizeof *h);
    return v_load_bf16(h);
}
/* Rounded to nearest even, as bf16_of_float does. */
V_INLINE void v_store_bf16_part(uint16_t *p, v16 a, uint32_t n) {
#if defined(__AVX512F__)
    __m512i bits = _mm512_castps_si512(a), high = _mm512_srli_epi32(bits, 16);
    __m512i half =
        _mm512_add_epi32(_mm512_set1_epi32(0x7fff), _mm512_and_si512(high, _mm512_set1_epi32(1)));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
    _mm256_mask_storeu_epi16(p, v_first(n), _mm512_cvtepi32_epi16(rounded));
#else
    float f[16];
    v_store(f, a);
    for (uint32_t i = 0; i < n; i++) p[i] = bf16_of_float(f[i]);
#endif
}

/* exp: x = n ln 2 + r, a minimax polynomial of degree 6 in r (its error is 1.9e-9), times 2^n.
 * Within 2 units in the last place; 0 below -87.33, saturated above 88.37; NaN stays NaN. */
V_INLINE v16 v_exp(v16 x) {
    const v16 least = v_all(-87.33f), magic = v_all(0x1.8p23f);
    v16 t = v_max(least, v_min(v_all(88.37f), x));
    v16 n = v_sub(v_fma(t, v_all(0x1.715476p0f), magic), magic);
    v16 r = v_fma(n, v_all(-0x1.62e4p-1f), t); /* ln 2 in two parts: n times the first is exact */
    r = v_fma(n, v_all(-0x1.7f7d1cp-20f), r);
    v16 p = v_fma(v_all(0.001383658076f), r, v_all(0.008374814308f));
    p = v_fma(p, r, v_all(0.04166823031f));
    p = v_fma(p, r, v_all(0.1666642019f));
    p = v_fma(p, r, v_all(0.4999999206f));
    p = v_fma(p, r, v_all(1));
    p = v_fma(p, r, v_all(1));
    return v_keep_from(v_scale2(p, n), x, least);
}

/* x P(x^2) / Q(x^2), fitted by weighted least squares until its relative error was even: 1.8e-8 up
 * to |x| = 3.9, beyond which erf is 1 in float32. */
V_INLINE v16 v_erf(v16 x) {
    x = v_max(v_all(-3.9f), v_min(v_all(3.9f), x));
    v16 t = v_mul(x, x);
    v16 p = v_fma(v_all(2.06680576e-6f), t, v_all(0.0002849062234f));
    p = v_fma(p, t, v_all(0.003733156931f));
    p = v_fma(p, t, v_all(0.05265175518f));
    p = v_fma(p, t, v_all(0.189551168f));
    p = v_fma(p, t, v_all(1.128379149f));
    v16 q = v_fma(v_all(3.826540976e-5f), t, v_all(0.001156049107f));
    q = v_fma(q, t, v_all(0.01490384891f));
    q = v_fma(q, t, v_all(0.1137702286f));
    q = v_fma(q, t, v_all(0.5013181545f));
    q = v_fma(q, t, v_all(1));
    return v_div(v_mul(x, p), q);
}

/* As erf: 2.3e-8 up to |x| = 9.1. */
V_INLINE v16 v_tanh(v16 x) {
    x = v_max(v_all(-9.1f), v_min(v_all(9.1f), x));
    v16 t = v_mul(x, x);
    v16 p = v_fma(v_all(1.31798032e-8f), t, v_all(2.048330434e-5f));
    p = v_fma(p, t, v_all(0.003487961377f));
    p = v_fma(p, t, v_all(0.133746093f));
    p = v_fma(p, t, v_all(0.9999999774f));
    v16 q = v_fma(v_all(7.705116882e-7f), t, v_all(0.0003273150573f));
    q = v_fma(q, t, v_all(0.02584798373f));
    q = v_fma(q, t, v_all(0.4670792337f));
    q = v_fma(q, t, v_all(1));
    return v_div(v_mul(x, p), q);
}

#endif
