/* rng.h - numbers that depend only on their key: (seed, stream, position).
 *
 * Philox 4x32-10 (Salmon et al., SC'11): a counter-based generator, so that token 57 of sample 2
 * draws the same number in any batch, on any thread, after any restart.
 *
 * Units: none.  Owner, memory: none (pure functions).  Errors: none.  Threads: any. */
#ifndef PENSTOCK_BASE_RNG_H
#define PENSTOCK_BASE_RNG_H

#include <stdint.h>

/* 32 bits of block (seed, stream, position), word 0..3. */
uint32_t rng_u32(uint64_t seed, uint64_t stream, uint64_t position, uint32_t word);
/* Uniform in [0, 1) with 24 bits, exactly representable in float. */
float rng_unit(uint64_t seed, uint64_t stream, uint64_t position);
/* A sequence for simulators and tests: state is any number; splitmix64. */
uint64_t rng_next(uint64_t *state);

#endif
