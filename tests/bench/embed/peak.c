#include "tests/bench/embed/peak.h"

#include <pthread.h>

#include "base/clock.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { CHAINS = 12, STEPS = 2000000, THREADS_MAX = 256 };

/* Independent chains hide the latency of one multiply-add behind the others. Each returns the
 * operations of one step of all chains; the sum keeps the compiler from dropping them. */
#if defined(__x86_64__)
__attribute__((target("avx512f"))) static double run_avx512(volatile float *sink) {
    __m512 sum[CHAINS], x = _mm512_set1_ps(0.25f), y = _mm512_set1_ps(0.5f);
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_set1_ps((float)c);
    for (int s = 0; s < STEPS; s++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_fmadd_ps(sum[c], x, y);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
    *sink = _mm512_reduce_add_ps(sum[0]);
    return 2.0 * 16 * CHAINS;
}

__attribute__((target("avx2,fma"))) static double run_avx2(volatile float *sink) {
    __m256 sum[CHAINS], x = _mm256_set1_ps(0.25f), y = _mm256_set1_ps(0.5f);
    float lanes[8];
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_set1_ps((float)c);
    for (int s = 0; s < STEPS; s++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_fmadd_ps(sum[c], x, y);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm256_add_ps(sum[0], sum[c]);
    _mm256_storeu_ps(lanes, sum[0]);
    *sink = lanes[0];
    return 2.0 * 8 * CHAINS;
}
#endif

static double run_plain(volatile float *sink) {
    typedef float v4 __attribute__((vector_size(16)));
    v4 sum[CHAINS], x = {0.25f, 0.25f, 0.25f, 0.25f}, y = {0.5f, 0.5f, 0.5f, 0.5f};
    for (int c = 0; c < CHAINS; c++) sum[c] = (v4){(float)c};
    for (int s = 0; s < STEPS; s++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = sum[c] * x + y;
    }
    for (int c = 1; c < CHAINS; c++) sum[0] += sum[c];
    *sink = sum[0][0];
    return 2.0 * 4 * CHAINS;
}

static void *peak_thread_main(void *arg) {
    float sink;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        *(double *)arg = run_avx512(&sink);
        return NULL;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        *(double *)arg = run_avx2(&sink);
        return NULL;
    }
#endif
    *(double *)arg = run_plain(&sink);
    return NULL;
}

double peak_gflops(uint32_t threads) {
    pthread_t thread[THREADS_MAX];
    double flops[THREADS_MAX], total = 0;
    uint32_t n = threads < THREADS_MAX ? threads : THREADS_MAX, started = 0;
    int64_t began = clock_mono_ns();
    while (started < n &&
           pthread_create(&thread[started], NULL, peak_thread_main, &flops[started]) == 0)
        started++;
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
        total += flops[i] * STEPS;
    }
    return total / (double)(clock_mono_ns() - began);
}
