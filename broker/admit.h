/* admit.h - may this draft become a job, and who makes room for it.
 *
 * The policy of its source comes first (sample, or drop the oldest that waits), then that of a full
 * priority level, then every other limit (load.h). Whoever makes room ends in the commit that
 * accepts the new job, and lives on when that one turns out to be known already or is refused after
 * all. Until then he counts as before, so that nobody else takes his place, but for the source or
 * the level that drops him: there the new one has it.
 *
 * Units: jobs, bytes.  Owner: the broker.  Memory: none, but operations.  Errors: a refusal;
 * -ENOMEM.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_ADMIT_H
#define PENSTOCK_BROKER_ADMIT_H

#include "broker/submit.h"

struct admission {
    struct source *source; /* NULL: the draft names none */
    struct job *out[2];    /* who makes room */
    uint8_t why[2];        /* JOB_LEAVES_SOURCE, JOB_LEAVES_LEVEL */
    uint32_t n;
    bool sampled; /* refused by sampling, which is to be counted */
};

/* false, and why: it may not. */
bool admit_room(struct broker *b, const struct draft *d, uint64_t bytes, struct admission *a,
                struct refusal *why);
void admit_left(struct broker *b, struct job *j); /* no longer being dropped: gone, or kept */
/* Those who make room end together with the commit of op. -ENOMEM: nothing is done. */
int admit_drop(struct broker *b, struct admission *a, struct commit_op *op);
/* The drop that op is was not written, since the new job was not: its job goes on. */
void admit_kept(struct broker *b, struct commit_op *op);

/* An operation that counts one job of the source as sampled out, and is then answered with a
 * refusal. NULL: no memory. */
struct commit_op *admit_count(struct source *s);
/* The draft is refused, and yet its key may be that of a job which is there, or on its way: op (of
 * admit_count; NULL: a new one, answered with why) looks behind all that was written before it. */
struct commit_op *admit_look(const struct draft *d, struct commit_op *op,
                             const struct refusal *why);
void admit_counted(struct broker *b, struct commit_op *op); /* its key is not known */
/* It was not written: nothing was counted, and whoever asks is told why by the caller. */
void admit_uncount(struct broker *b, const struct commit_op *op);

#endif
