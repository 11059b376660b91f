/* peer.h - OpenBLAS as it is installed here, found at run time.
 *
 * Units: elements.  Owner: the library stays loaded.  Memory: its own.  Errors: false.
 * Threads: one caller; the library has its own. */
#ifndef PENSTOCK_TESTS_BENCH_KERNELS_PEER_H
#define PENSTOCK_TESTS_BENCH_KERNELS_PEER_H

#include <stdbool.h>
#include <stdint.h>

/* $PEERS/libopenblas.so.0 or the system's; false, and on stderr how to get it, without one. */
bool peer_open(uint32_t threads);

/* y [m][n] = x [m][k] times w [n][k] transposed, in float32. */
void peer_gemm(uint32_t m, uint32_t n, uint32_t k, const float *x, const float *w, float *y);

#endif
