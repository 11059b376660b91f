/* fixture.h - a store in a folder of its own, and records with random contents.
 *
 * Units: bytes.  Owner: fixture_open gives, fixture_close takes and removes the folder.  Memory: an
 * arena.  Errors: asserts.  Threads: one. */
#ifndef PENSTOCK_TESTS_STORE_FIXTURE_H
#define PENSTOCK_TESTS_STORE_FIXTURE_H

#include "store/store.h"

struct fixture {
    char dir[128];
    struct store_config config;
    struct store *store;
    struct arena arena;
    char err[256];
};
void fixture_open(struct fixture *f); /* small caps: 16 MiB of meta, 64 MiB of blob */
void fixture_open_caps(struct fixture *f, uint64_t meta_cap_bytes, uint64_t blob_cap_bytes);
void fixture_make(struct fixture *f); /* the folder and the config, not opened */
void fixture_close(struct fixture *f);
int fixture_reopen(struct fixture *f); /* closes and opens again: another process's start */

/* A live job with every field drawn from *rng, its strings in the arena, no payloads. */
struct job_record random_record(struct arena *a, uint64_t *rng, uint64_t id);
struct bytes random_bytes(struct arena *a, uint64_t *rng, size_t len);
void expect_same_record(const struct job_record *a, const struct job_record *b);
/* One transaction around a put or add. */
int commit_put(struct fixture *f, const struct job_record *r);
int commit_add(struct fixture *f, const struct job_record *r, uint64_t *existing);
/* Adds a job whose body is `body`. */
int commit_job(struct fixture *f, uint64_t id, struct bytes body);
/* Reads a job's body back and compares. */
int read_body(struct fixture *f, uint64_t id, struct buf *out);
int check_prints_nothing(struct fixture *f);
/* $PENSTOCK_SEED, or the clock; printed, so that a failure can be run again. */
uint64_t test_seed(void);

#endif
