#include "base/rng.h"

#include <assert.h>

#define PHILOX_ROUNDS 10

/* Philox 4x32 as published: counter c[0..3], key k[0..1]. The counter is (position, stream), low
 * words first, the key is the seed. */
static void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c[1] = (uint32_t)p1;
        c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

uint32_t rng_u32(uint64_t seed, uint64_t stream, uint64_t position, uint32_t word) {
    assert(word < 4);
    uint32_t c[4] = {(uint32_t)position, (uint32_t)(position >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
    return c[word];
}

float rng_unit(uint64_t seed, uint64_t stream, uint64_t position) {
    return (float)(rng_u32(seed, stream, position, 0) >> 8) * 0x1p-24f;
}

uint64_t rng_next(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
