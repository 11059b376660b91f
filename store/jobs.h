/* jobs.h - the durable record of a job and its place in LMDB.
 *
 * One record a job, keyed by its id (big-endian: ids grow with time, so writes append). Payloads up
 * to LIMIT_INLINE_BYTES sit in the record; larger ones are blobs under (job, slot). The record is
 * versioned bytes written through base/bytes.h; an older version is read, a newer one refused.
 *
 * Units: milliseconds since 1970, bytes.  Owner: a record's strings and payloads are borrowed: from
 * the caller when put, from the transaction when got (copy what outlives it).  Memory: decode takes
 * attempts and stages from an arena.  Errors: ERR_CORRUPT, ERR_VERSION, -ENOENT, store errors.
 * Threads: as the transaction. */
#ifndef PENSTOCK_STORE_JOBS_H
#define PENSTOCK_STORE_JOBS_H

#include "base/arena.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "schemas/job.h"

struct store_read;
struct store_write;

/* Where a payload lies. bytes 0: absent. */
struct job_payload {
    uint64_t bytes;
    uint32_t crc; /* CRC32C of the whole payload */
    bool in_blob; /* else `inlined` holds it */
    struct bytes inlined;
};

enum job_slot {
    JOB_SLOT_BODY = 0,
    JOB_SLOT_RESULT = 1,
    JOB_SLOT_STAGE = 16 /* + stage index: its output */
};

struct job_stage_record { /* one for each stage of the pipeline */
    struct bytes name;    /* as in the pipeline version that the job runs */
    struct bytes worker;  /* who finished it; empty before */
    struct bytes numerics_id;
    uint64_t attempt; /* that finished it; 0 before */
    int64_t queued_ms, started_ms, done_ms;
    uint64_t run_us, output_bytes;
};

struct job_attempt { /* one that did not succeed, newest last, at most LIMIT_ATTEMPTS */
    uint32_t stage;
    enum job_error error;
    uint64_t attempt;
    int64_t started_ms, ended_ms;
    struct bytes worker, reason;
};

enum job_note_type {                  /* what happened to a job */
                     JOB_NOTE_LEASED, /* to `by` */
                     JOB_NOTE_STAGE,  /* a stage is done, by `by` */
                     JOB_NOTE_FAILED, /* an attempt failed at `by`; the reason is in attempts */
                     JOB_NOTE_BACK,   /* a lease came back from `by` unrun, and does not count */
                     JOB_NOTE_ENDED,  /* in its terminal state; cancelled: by `by` */
                     JOB_NOTE_JOINED, /* what became of its parts is the next stage's input */
                     JOB_NOTES
};
struct job_note { /* one line of a job's history */
    uint64_t seq; /* grows within a job, over restarts too */
    enum job_note_type type;
    enum job_state state; /* that it led to */
    enum job_error error; /* FAILED */
    uint32_t stage;
    uint64_t attempt;
    int64_t at_ms;
    struct bytes by; /* a worker's name, or a tenant's */
};

struct job_record {
    uint64_t id, seed;
    struct bytes kind, tenant, key; /* key: idempotency key, empty without */
    struct bytes pipeline;          /* name */
    /* the pipeline's stages as a msgpack document, frozen at accept */
    struct bytes plan;
    enum job_state state; /* never JOB_LEASED on disk: leases do not survive the broker */
    enum job_error error;
    uint32_t priority, stage; /* stage: index it waits for or ended in */
    /* of this stage: transient failures and timeouts; of the job: workers that died with it */
    uint32_t tries, timeouts, deaths;
    uint64_t attempt;              /* that recorded the last outcome */
    int64_t accepted_ms, ready_ms; /* ready_ms: not before */
    int64_t expires_ms;            /* 0: never */
    int64_t finished_ms;
    struct bytes reason;
    /* input: the last checkpoint, what stage `stage` reads */
    struct job_payload body, input, result;
    /* the stage whose output `input` is; its slot is JOB_SLOT_STAGE + it */
    uint32_t input_stage;
    uint32_t n_stages, n_attempts;
    const struct job_stage_record *stages; /* [n_stages] */
    const struct job_attempt *attempts;    /* [n_attempts] */
    uint64_t origin;                       /* the dead letter that it was made of; 0: none */
    uint64_t heir;                         /* and, in that one, the job that was made of it */
    struct bytes source;                   /* the camera that it came from; empty: none */
    uint64_t parent;                       /* the job whose stage asked for this one; 0: none */
    uint32_t child;                        /* its place among the parent's children */
    uint32_t n_children;                   /* of the last stage that fanned out */
    uint64_t first_child;                  /* their ids follow one another */
    uint32_t n_notes;
    const struct job_note *notes; /* [n_notes], the newest last */
};

/* Writes or replaces the record, its idempotency entry and its indexes; frees the payloads that the
 * old record named and the new one does not. A short body without its bytes stays as it was.
 * -EINVAL: the old one is terminal and the new one is not, or tenant or key differ. */
int jobs_put(struct store_write *w, const struct job_record *r);
/* A new id appends; also -EEXIST when the idempotency key of (tenant, key) is taken: *existing is
 * its job. */
int jobs_add(struct store_write *w, const struct job_record *r, uint64_t *existing);
int jobs_del(struct store_write *w, uint64_t id); /* record, key, blobs */

int jobs_get(struct store_read *t, uint64_t id, struct job_record *out, struct arena *a);
/* -ENOENT */
int jobs_by_key(struct store_read *t, struct bytes tenant, struct bytes key, uint64_t *id);
/* Walks ids upwards (or downwards) from `from`, which is included; fn returns nonzero to stop,
 * which is returned. What cannot be read is left out and counted (store_read_damaged). live_only
 * walks the jobs that are not terminal (their own index: a restart reads only those). The arena is
 * reset before each record, so that a walk of any length stays under its cap; fn copies what it
 * keeps and writes nothing. */
int jobs_walk(struct store_read *t, uint64_t from, bool down, bool live_only, struct arena *a,
              int (*fn)(void *arg, const struct job_record *r), void *arg);
/* The same downwards over the jobs of one tenant (not "default", whose jobs have no such index). */
int jobs_walk_tenant(struct store_read *t, struct bytes tenant, uint64_t from, struct arena *a,
                     int (*fn)(void *arg, const struct job_record *r), void *arg);
int jobs_last_id(struct store_read *t, uint64_t *id); /* 0 in an empty store */
/* Retention: the jobs that ended after (after_ms, after_id), the earliest first, at most max. */
struct job_ended {
    uint64_t id;
    int64_t finished_ms;
    enum job_state state; /* JOB_STATES: its record cannot be read */
};
int jobs_ended(struct store_read *t, int64_t after_ms, uint64_t after_id, struct job_ended *out,
               uint32_t max, uint32_t *n);

#endif
