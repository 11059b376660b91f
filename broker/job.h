/* job.h - a job in the broker's memory, and the one function that changes its state.
 *
 *   accepted --COMMITTED--> ready, or delayed until its not-before
 *   delayed  --DUE--------> ready
 *   ready    --LEASED-----> leased
 *   leased   --STAGE_DONE-> ready (next stage) | leased (the span goes on) | done (last stage)
 *   leased   --FAILED-----> delayed (backoff) | failed (permanent, or tries used up)
 *   leased   --LOST-------> ready, to run alone | failed (quarantine, class worker_died)
 *   leased   --RETURNED---> ready, not counted as a try
 *   leased   --STAGE_DONE-> waiting, when the stage fans out
 *   waiting  --CHILD------> (JOIN, when it was the last one)
 *   waiting  --JOINED-----> ready (the stage that joins) | failed
 *   any live --CANCEL-----> cancelled          any live --EXPIRE--> expired
 *   cancelled --KEPT------> ready, or delayed: it was to make room for a job that was not accepted,
 *                           and its end was never written
 *
 * job_transition is pure: it reads the job, the event and now, writes the job and says in an effect
 * what the caller must do (commit, queue, set a timer, end the lease). A seeded simulator drives
 * it through random histories (tests/sim).
 *
 * A million of them may wait, so a job that waits is small: what is known of its stages is
 * allocated when it is leased first (job_begin), and a short body may be left to the store alone,
 * where the job's record has it (job_body_leave).
 *
 * Units: *_ms on the wall clock where a record keeps them.  Owner: the broker's table (table.h).
 * Memory: one allocation a job, plus the buffers it names.  Errors: -ENOMEM.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_JOB_H
#define PENSTOCK_BROKER_JOB_H

#include "base/bytes.h"
#include "broker/due.h"
#include "pipelines/pipeline.h"
#include "schemas/kinds.h"
#include "store/jobs.h"

struct seat;
struct tenant;
struct worker;
struct watch;

struct job_stage { /* what is known of one stage */
    char worker[LIMIT_NAME_BYTES + 1];
    uint64_t attempt, run_us, output_bytes;
    int64_t queued_ms, started_ms, done_ms;
    const char *numerics_id; /* owned, or NULL */
};
struct job_try { /* an attempt that did not succeed */
    uint32_t stage;
    enum job_error error;
    uint64_t attempt;
    int64_t started_ms, ended_ms;
    char worker[LIMIT_NAME_BYTES + 1];
    char *reason; /* owned */
};

struct job_line { /* of its history */
    uint64_t seq, attempt;
    int64_t at_ms;
    uint8_t type, state, error, stage; /* enum job_note_type, job_state, job_error */
    char by[LIMIT_NAME_BYTES + 1];
};

enum { JOB_LEAVES_SOURCE = 1, JOB_LEAVES_LEVEL = 2 };

struct job {
    uint64_t id, seed, attempt; /* attempt: the current fencing token while leased, else the last */
    const struct kind_desc *kind;
    const struct pipeline *pipeline;
    struct tenant *tenant; /* tenant.h: borrowed for the broker's life */
    struct seat *seat;     /* source.h: owned; NULL: it names no source */
    struct bytes key;      /* owned with the job */
    enum job_state state : 8;
    enum job_error error : 8;
    uint8_t input_stage;    /* whose output `input` is */
    uint8_t durable_stage;  /* where a restart goes on: what `input` feeds */
    uint8_t priority, span; /* span: stages leased */
    uint8_t n_stages, n_tries;
    uint32_t stage;
    uint32_t commits; /* of this job, on their way to the disk */
    uint32_t no_room; /* of these, kept until the store has room */
    uint16_t tries, timeouts, deaths;
    uint16_t n_lines, lines_cap;
    uint16_t tally_row;             /* + 1; 0: nowhere */
    uint8_t tally_state;            /* tally.h: where it is counted, and as what */
    uint8_t counts_from, counts_to; /* caps.h: the stages at which it counts */
    uint8_t leaving;                /* JOB_LEAVES_*: it is being dropped, and why (admit.h) */
    bool counted;                   /* load.h */
    bool in_memory;                 /* `handed` feeds `stage`; else `input` does */
    uint16_t child, n_children, n_expected; /* family.h; n_expected: children that have not ended */
    int64_t accepted_ms, ready_ms, expires_ms, finished_ms; /* wall clock */
    int64_t queued_ms;                                      /* the same: it waits for `stage` */
    char *reason;                                           /* owned, or NULL */
    struct job_payload body, input, result;                 /* `inlined` is owned with the job */
    struct bytes handed;          /* owned: output of stage - 1 that is in memory only */
    uint64_t last_seq;            /* of its history and events */
    uint64_t told_seq;            /* the newest line of its history that followers may know */
    uint64_t origin;              /* the dead letter that it was made of; 0: none */
    uint64_t parent, first_child; /* family.h; 0: none */

    struct job *ready_prev, *ready_next; /* ready.h */
    struct ready_flow *flow;             /* NULL: not queued */
    struct worker *worker;               /* peer.h: who holds the lease */
    struct job *lease_prev, *lease_next;
    int64_t leased_ms;    /* wall clock */
    uint64_t lease_bytes; /* of credit */
    struct due lease_due, delay_due, expiry_due;
    struct watch *watches; /* watch.h: waits and event streams */
    struct job *hash_next; /* table.h */

    struct job_try *try_log;  /* [LIMIT_ATTEMPTS], allocated at the first */
    struct job_line *lines;   /* [n_lines], allocated at the first, at most LIMIT_NOTES */
    struct job_stage *stages; /* [n_stages]; NULL before job_begin */
};

enum job_event_type {
    JOB_EV_COMMITTED,
    JOB_EV_DUE,
    JOB_EV_LEASED,
    JOB_EV_STAGE_DONE,
    JOB_EV_FAILED,
    JOB_EV_LOST,
    JOB_EV_RETURNED,
    JOB_EV_CHILD,  /* one of its children has ended */
    JOB_EV_JOINED, /* their results are its input; or not, with an error */
    JOB_EV_CANCEL,
    JOB_EV_EXPIRE,
    JOB_EV_KEPT
};
struct job_event {
    enum job_event_type type;
    uint64_t attempt;     /* LEASED, STAGE_DONE, FAILED, LOST, RETURNED: the token */
    uint32_t stage;       /* STAGE_DONE, FAILED, RETURNED */
    uint32_t span;        /* LEASED */
    bool more;            /* STAGE_DONE: the lease goes on with the next stage */
    enum job_error error; /* FAILED, JOINED */
};

enum {
    JOB_FX_COMMIT = 1,  /* the record must be written; nothing is acknowledged before */
    JOB_FX_READY = 2,   /* put it into its ready queue (once no commit is pending) */
    JOB_FX_DELAY = 4,   /* set the timer to ready_ms */
    JOB_FX_UNLEASE = 8, /* the lease is over: take it from its worker */
    JOB_FX_TERMINAL = 16,
    JOB_FX_STALE = 32,   /* the token is not current: nothing was changed */
    JOB_FX_UNQUEUE = 64, /* take it out of its queue and timers */
    JOB_FX_TRY = 128,    /* record the attempt that failed */
    JOB_FX_JOIN = 256    /* all children have ended: put their results together */
};

/* Returns the effects; 0 when the event means nothing in this state. */
uint32_t job_transition(struct job *j, const struct job_event *e, int64_t now_wall_ms);

struct job *
job_new(const struct pipeline *p); /* zeroed but for pipeline and n_stages; NULL: no memory */
void job_free(struct job *j);      /* NULL is fine */
int job_begin(struct job *j);      /* before it is LEASED; fine when it was. -ENOMEM */
/* Frees the bytes of a short body once the job's record is on disk and has them. */
void job_body_leave(struct job *j);
static inline bool job_payload_left(const struct job_payload *p) {
    return p->bytes && !p->in_blob && !p->inlined.data;
}
void job_set_reason(struct job *j, struct bytes reason); /* copies, cut to LIMIT_REASON_BYTES */
/* Keeps one failed attempt, the newest LIMIT_ATTEMPTS of them. */
void job_log_try(struct job *j, const char *worker, uint32_t stage, enum job_error error,
                 struct bytes reason, int64_t now_wall_ms);
/* Adds a line to the history; when it is full the oldest goes. Without memory nothing is kept. */
void job_note(struct job *j, const struct job_line *line);
void job_unnote(struct job *j); /* takes its end back */
/* Waits for a worker or its time, and nothing of it is on its way to the disk: it may be dropped.
 */
static inline bool job_waits(const struct job *j) {
    return j->counted && !j->commits && (j->flow || j->state == JOB_DELAYED);
}
/* The durable form: borrows what does not change while there is the job, and copies the rest into
 * a. The bytes of the body come with the first one, which adds the job; the later ones leave them
 * as they are (jobs_put). -ENOMEM. */
int job_record_make(const struct job *j, struct arena *a, struct job_record *out);
/* And back at a restart: a leased job is not a thing on disk. */
int job_from_record(const struct job_record *r, const struct kind_desc *kind,
                    const struct pipeline *p, struct job **out);
/* What others may be told: an end that is not on disk yet has not happened. */
static inline enum job_state job_seen_state(const struct job *j) {
    if (j->leaving) return JOB_READY;
    return job_state_terminal(j->state) && j->commits ? JOB_LEASED : j->state;
}
/* Describes a payload as the store will keep it: its bytes, its CRC32C, and a copy when it is short
 * enough to sit in the record. Frees what *p held. -ENOMEM. */
int job_payload_set(struct job_payload *p, const struct bytes *parts, uint32_t n);
/* Delay behind so many failed tries. */
int64_t job_backoff_ms(const struct pipeline *p, uint32_t tries);

#endif
