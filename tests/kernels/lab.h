/* lab.h - what the kernel tests share: levels, random numbers, guarded buffers, comparisons.
 *
 * A guarded buffer ends at a page that may not be touched and begins behind canaries, so that one
 * element too many is a crash or a failed check.
 *
 * Units: elements.  Owner: buffers live until lab_free.  Memory: mmap.  Errors: a failed test.
 * Threads: one. */
#ifndef PENSTOCK_TESTS_KERNELS_LAB_H
#define PENSTOCK_TESTS_KERNELS_LAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

/* Backends under test, "ref" first, then the levels of cpu that this processor has. */
#define LAB_LEVELS_MAX 8
extern const char *lab_level[LAB_LEVELS_MAX];
extern uint32_t lab_levels; /* set by lab_start */
void lab_start(void);       /* the .init of a suite: starts the same random sequence each time */
void lab_free(void);        /* the .fini: checks canaries, frees all buffers */
uint32_t lab_mark(void);    /* for loops: what was made since the mark is checked and freed by */
void lab_release(uint32_t mark);

struct ops *lab_open(const char *level, uint32_t threads); /* "ref" or a level of cpu */

void *lab_bytes(size_t bytes);
float *lab_floats(size_t n);              /* zero */
float *lab_random(size_t n, float scale); /* about normal, standard deviation scale */
uint32_t *lab_ids(size_t n, uint32_t below);
uint32_t lab_below(uint32_t n);
uint16_t *lab_bf16(const float *from, size_t n);

/* Fails unless |got - want| <= tolerance * (1 + magnitude), magnitude NULL for |want|. */
void lab_near(const char *what, const float *got, const float *want, const float *magnitude,
              size_t n, double tolerance);
bool lab_same_bits(const float *a, const float *b, size_t n);

/* A batch of sequences with the given new tokens each, cached[s] of them already there, and a
 * shuffled block table over its own pages. */
struct lab_batch {
    struct ops_batch b;
    uint32_t pool_pages;
};
struct lab_batch lab_batch(uint32_t n_seq, const uint32_t *fresh, const uint32_t *cached,
                           uint32_t page_tokens, uint32_t pages_max);

#endif
