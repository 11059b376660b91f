#include "tests/bench/kernels/peer.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* The Fortran interface has the same shape in every build: everything by address, columns first. */
typedef void (*sgemm_call)(const char *trans_a, const char *trans_b, const int32_t *m,
                           const int32_t *n, const int32_t *k, const float *alpha, const float *a,
                           const int32_t *lda, const float *b, const int32_t *ldb,
                           const float *beta, float *c, const int32_t *ldc);

static sgemm_call sgemm;

/* A library older than the processor takes it for the oldest one it knows; tell it (unless somebody
 * did) which of its kernels fit. */
static void name_the_core(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
    else if (__builtin_cpu_supports("avx2"))
        setenv("OPENBLAS_CORETYPE", "Haswell", 0);
#endif
}

bool peer_open(uint32_t threads) {
    char path[512];
    const char *peers = getenv("PEERS");
    void *library = NULL;
    name_the_core();
    if (peers) {
        snprintf(path, sizeof path, "%s/libopenblas.so.0", peers);
        library = dlopen(path, RTLD_NOW);
    }
    if (!library) library = dlopen("libopenblas.so.0", RTLD_NOW);
    if (library) {
        void (*set_threads)(int);
        *(void **)&sgemm = dlsym(library, "sgemm_");
        *(void **)&set_threads = dlsym(library, "openblas_set_num_threads");
        if (set_threads) set_threads((int)threads);
    }
    if (!sgemm)
        fprintf(
            stderr,
            "no peer: apt-get install libopenblas0-pthread, or PEERS=DIR with libopenblas.so.0\n");
    return sgemm != NULL;
}

void peer_gemm(uint32_t m, uint32_t n, uint32_t k, const float *x, const float *w, float *y) {
    const float one = 1, zero = 0;
    const int32_t rows = (int32_t)m, columns = (int32_t)n, inner = (int32_t)k;
    /* Row-major y is column-major y transposed: w transposed, times x as it lies. */
    sgemm("T", "N", &columns, &rows, &inner, &one, w, &inner, x, &inner, &zero, y, &columns);
}
