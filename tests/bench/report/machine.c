#include "tests/bench/report/machine.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static uint32_t sharers; /* 0: wall time */

void machine_clock(bool processor, uint32_t threads) {
    sharers = processor ? threads : 0;
}

int64_t machine_ns(void) {
    struct timespec t;
    clock_gettime(sharers ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    int64_t ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    return sharers ? ns / sharers : ns;
}

enum { CHAINS = 12, STEPS = 1500000, THREADS = TEAM_THREADS_MAX };

/* Runs CHAINS x STEPS independent multiply-adds; returns how many operations those were. */
typedef double (*flops_loop)(float *sink);

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static double loop_avx512(float *sink) {
    __m512 sum[CHAINS], x = _mm512_set1_ps(*sink), y = _mm512_set1_ps(0.5f);
    for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_set1_ps((float)i);
    for (int s = 0; s < STEPS; s++)
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sum[i] =
            _mm512_fmadd_ps(sum[i], x, y);
    for (int i = 1; i < CHAINS; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
    *sink += _mm512_reduce_add_ps(sum[0]) * 1e-30f;
    return 2.0 * 16 * CHAINS * STEPS;
}
__attribute__((target("avx512f,avx512bf16"))) static double loop_dots(float *sink) {
    __m512 sum[CHAINS];
    __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f003f00), y = (__m512bh)_mm512_set1_ps(*sink);
    for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_set1_ps((float)i);
    for (int s = 0; s < STEPS; s++)
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sum[i] =
            _mm512_dpbf16_ps(sum[i], x, y);
    for (int i = 1; i < CHAINS; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
    *sink += _mm512_reduce_add_ps(sum[0]) * 1e-30f;
    return 2.0 * 32 * CHAINS * STEPS;
}
__attribute__((target("avx2,fma"))) static double loop_avx2(float *sink) {
    __m256 sum[CHAINS], x = _mm256_set1_ps(*sink), y = _mm256_set1_ps(0.5f);
    for (int i = 0; i < CHAINS; i++) sum[i] = _mm256_set1_ps((float)i);
    for (int s = 0; s < STEPS; s++)
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sum[i] =
            _mm256_fmadd_ps(sum[i], x, y);
    for (int i = 1; i < CHAINS; i++) sum[0] = _mm256_add_ps(sum[0], sum[i]);
    float lanes[8];
    _mm256_storeu_ps(lanes, sum[0]);
    for (int i = 0; i < 8; i++) *sink += lanes[i] * 1e-30f;
    return 2.0 * 8 * CHAINS * STEPS;
}
__attribute__((target("avx512f,avx512vnni"))) static double loop_bytes_avx512(float *sink) {
    __m512i sum[CHAINS], x = _mm512_set1_epi32((int)*sink + 0x01020301);
    for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_set1_epi32(i);
    for (int s = 0; s < STEPS; s++)
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sum[i] =
            _mm512_dpbusd_epi32(sum[i], x, x);
    for (int i = 1; i < CHAINS; i++) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    *sink += (float)_mm512_reduce_add_epi32(sum[0]) * 1e-30f;
    return 2.0 * 64 * CHAINS * STEPS;
}
/* Without the fused instruction: pairs of bytes to int16, pairs of those to int32, and a sum. */
__attribute__((target("avx2"))) static double loop_bytes_avx2(float *sink) {
    __m256i sum[CHAINS], one = _mm256_set1_epi16(1), x = _mm256_set1_epi32((int)*sink + 0x01020301);
    for (int i = 0; i < CHAINS; i++) sum[i] = _mm256_set1_epi32(i);
    for (int s = 0; s < STEPS; s++) _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) {
            __m256i pairs = _mm256_maddubs_epi16(_mm256_xor_si256(x, sum[i]), x);
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs, one));
        }
    int lanes[8];
    for (int i = 1; i < CHAINS; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    _mm256_storeu_si256((__m256i *)(void *)lanes, sum[0]);
    for (int i = 0; i < 8; i++) *sink += (float)lanes[i] * 1e-30f;
    return 2.0 * 32 * CHAINS * STEPS;
}
#endif

typedef float v4 __attribute__((vector_size(16)));
static double loop_plain(float *sink) {
    v4 sum[CHAINS], x = {*sink, *sink, *sink, *sink}, y = {0.5f, 0.5f, 0.5f, 0.5f};
    for (int i = 0; i < CHAINS; i++) sum[i] = (v4){(float)i};
    for (int s = 0; s < STEPS; s++)
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sum[i] = sum[i] * x + y;
    for (int i = 1; i < CHAINS; i++) sum[0] += sum[i];
    *sink += sum[0][0] * 1e-30f;
    return 2.0 * 4 * CHAINS * STEPS;
}

static flops_loop loop_of(const char *level, enum machine_unit unit) {
#if defined(__x86_64__)
    bool avx512 = strncmp(level, "avx512", 6) == 0, avx2 = strcmp(level, "avx2") == 0;
    if (unit == MACHINE_I8 && avx512 && __builtin_cpu_supports("avx512vnni"))
        return loop_bytes_avx512;
    if (unit == MACHINE_I8 && (avx512 || avx2)) return loop_bytes_avx2;
    if (unit == MACHINE_BF16 && strcmp(level, "avx512bf16") == 0) return loop_dots;
    if (avx512) return loop_avx512;
    if (avx2) return loop_avx2;
#endif
    (void)level, (void)unit;
    return loop_plain;
}

struct run {
    flops_loop loop;
    double flops[THREADS];
    float sink[THREADS][16]; /* a cache line each */
    const char *from;
    size_t bytes;
};

static void peak_part(void *arg, uint32_t part, uint32_t parts) {
    struct run *r = arg;
    (void)parts;
    r->flops[part] = r->loop(r->sink[part]);
}

double machine_peak(struct team *team, const char *level, enum machine_unit unit) {
    static struct run r;
    r.loop = loop_of(level, unit);
    for (uint32_t i = 0; i < THREADS; i++) r.sink[i][0] = 0.25f, r.flops[i] = 0;
    int64_t began = machine_ns();
    team_run(team, peak_part, &r);
    double ns = (double)(machine_ns() - began), flops = 0;
    for (uint32_t i = 0; i < team_threads(team); i++) flops += r.flops[i];
    return flops / ns;
}

/* Adds up 16 vectors a step. The wider the loads, the more cache lines are in flight at once, so
 * the widest that the processor has measure the memory and not the core. */
#define READ_LOOP(vector)                                                                          \
    const vector *p = from;                                                                        \
    vector sum[16] = {{0}};                                                                        \
    size_t steps = bytes / sizeof sum;                                                             \
    for (size_t i = 0; i < steps; i++, p += 16)                                                    \
        _Pragma("GCC unroll 16") for (int j = 0; j < 16; j++) sum[j] += p[j];                      \
    for (int j = 1; j < 16; j++) sum[0] += sum[j];                                                 \
    return sum[0][0]

static float read_narrow(const void *from, size_t bytes) {
    READ_LOOP(v4);
}
#if defined(__x86_64__)
typedef float wide __attribute__((vector_size(64)));
__attribute__((target("avx512f"))) static float read_wide(const void *from, size_t bytes) {
    READ_LOOP(wide);
}
typedef float middle __attribute__((vector_size(32)));
__attribute__((target("avx2"))) static float read_middle(const void *from, size_t bytes) {
    READ_LOOP(middle);
}
#endif

static void read_part(void *arg, uint32_t part, uint32_t parts) {
    struct run *r = arg;
    size_t share = r->bytes / parts / 4096 * 4096;
    const void *from = r->from + part * share;
#if defined(__x86_64__)
    bool is_wide = __builtin_cpu_supports("avx512f"), is_middle = __builtin_cpu_supports("avx2");
    r->sink[part][0] = is_wide     ? read_wide(from, share)
                       : is_middle ? read_middle(from, share)
                                   : read_narrow(from, share);
#else
    r->sink[part][0] = read_narrow(from, share);
#endif
}

double machine_read(struct team *team, const void *buffer, size_t bytes) {
    static struct run r;
    r.from = buffer;
    r.bytes = bytes;
    int64_t began = machine_ns();
    team_run(team, read_part, &r);
    return (double)bytes / (double)(machine_ns() - began);
}
