/* penstock.h - the C client: submit jobs to a Penstock broker, wait for them, read their results.
 *
 *   struct penstock *p;
 *   struct penstock_accepted a;
 *   struct penstock_result r;
 *   char err[PENSTOCK_ERR_BYTES];
 *   struct penstock_job j = {.kind = "text.embed", .body_json = "{\"texts\": [\"hello\"]}"};
 *   if (penstock_open(&p, NULL, err, sizeof err) < 0) return fail(err);
 *   if (penstock_submit(p, &j, &a, 5000, err, sizeof err) < 0) return fail(err);
 *   if (penstock_wait(p, a.job, 60000, &r, err, sizeof err) < 0) return fail(err);
 *   puts(r.json);
 *   penstock_result_free(&r);
 *   penstock_close(p);
 *
 * This header stands alone: compile with -lpenstock and nothing else. A call sends one request and
 * waits for its answer, at most timeout_ms. A lost connection is taken up again inside a call, and
 * requests that may be repeated are: all but a submit without an idempotency key.
 *
 * Units: milliseconds, bytes.
 * Owner: penstock_open gives a handle to penstock_close; what a call fills into a result is owned
 *   by that result until its _free, which accepts zeroed memory. Strings passed in are borrowed for
 *   the call.
 * Memory: results come from malloc; a handle holds one socket.
 * Errors: 0, or one of enum penstock_error with a sentence in err; after PENSTOCK_REFUSED,
 *   penstock_refusal says the same in parts.
 * Threads: a handle may be used by one thread at a time; handles do not share anything. */
#ifndef PENSTOCK_H
#define PENSTOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PENSTOCK_ERR_BYTES 640
#define PENSTOCK_JOB_BYTES 14 /* 13 characters and a NUL */
#define PENSTOCK_NAME_BYTES 65

enum penstock_error {
    PENSTOCK_UNREACHABLE = -1, /* no broker at the endpoint */
    PENSTOCK_TIMEOUT = -2,     /* no answer in time */
    PENSTOCK_REFUSED = -3,     /* the broker said no: penstock_refusal */
    PENSTOCK_INVALID = -4,     /* an argument that no broker would take */
    PENSTOCK_PROTOCOL = -5,    /* an answer that this build does not understand */
    PENSTOCK_MEMORY = -6,
    PENSTOCK_STOPPED = -7 /* a callback asked for it */
};

struct penstock;

/* endpoint NULL: $PENSTOCK_ENDPOINT, else the one `penstock up` uses. Does not wait for a
 * broker. */
int penstock_open(struct penstock **out, const char *endpoint, char *err, size_t err_bytes);
/* A broker with --curve lets in only who has a key; `penstock keys add` makes one. */
struct penstock_options {   /* zero what you do not need */
    const char *endpoint;   /* as above */
    const char *key;        /* NAME.cert_secret; NULL: $PENSTOCK_KEY, else a plain connection */
    const char *server_key; /* broker.cert, or the key itself; NULL: $PENSTOCK_SERVER_KEY */
};
int penstock_open_with(struct penstock **out, const struct penstock_options *options, char *err,
                       size_t err_bytes);
void penstock_close(struct penstock *p); /* NULL is fine */
const char *penstock_endpoint(const struct penstock *p);
const char *penstock_version(void); /* of this library */

/* Why the last call of this handle was refused; empty strings where nothing applies. */
struct penstock_refusal {
    char code[32]; /* a word for programs: "missing", "limit", "unknown_kind", "full", ... */
    char field[64];
    char limit[64]; /* "a string of 1 to 64 bytes" */
    char message[256];
    char fix[192];
    uint64_t retry_after_ms; /* 0: not as it is */
};
const struct penstock_refusal *penstock_refusal(const struct penstock *p);

/* ---- submit ---- */

/* How much of a long body is on the broker's disk. Returns 0 to go on, anything else to stop. */
typedef int penstock_upload_fn(void *arg, uint64_t have, uint64_t bytes);
struct penstock_job {      /* zero what you do not need */
    const char *kind;      /* "text.embed" */
    const void *body;      /* a msgpack map of the kind's fields, */
    size_t body_bytes;     /* or NULL and: */
    const char *body_json; /* the same as JSON text */
    const char *pipeline;  /* NULL: the one named like the kind */
    const char *key;       /* idempotency key; NULL: none */
    const char *source;    /* where it comes from, such as a camera; NULL: not said */
    bool has_priority;
    uint32_t priority; /* 0 (first) to 9; without has_priority 4 */
    uint64_t delay_ms; /* not before */
    uint64_t ttl_ms;   /* expire when not done; 0: never */
    bool has_seed;
    uint64_t seed;
    penstock_upload_fn *progress; /* called while a body of more than 1 MiB is uploaded; NULL */
    void *progress_arg;
};
struct penstock_accepted {
    char job[PENSTOCK_JOB_BYTES];
    char state[17];
    uint64_t seed;
    bool existing; /* the key was known: this is the earlier job */
};
/* 0 means: the job is on disk. With a key the request is repeated when the connection is lost.
 * A body of more than 1 MiB, up to 16 MiB, is uploaded first, in chunks: a lost connection, or a
 * broker that is restarted meanwhile, costs no more than the chunk that was on its way; with a key
 * another call, also of another process, goes on where this one ended. */
int penstock_submit(struct penstock *p, const struct penstock_job *job,
                    struct penstock_accepted *out, int timeout_ms, char *err, size_t err_bytes);

struct penstock_item { /* one of many jobs; the rest is common to them */
    const void *body;  /* as in struct penstock_job */
    size_t body_bytes;
    const char *body_json;
    const char *key;
};
struct penstock_verdict {
    bool refused;
    struct penstock_accepted accepted; /* unless refused */
    struct penstock_refusal refusal;   /* when refused */
    char origin[PENSTOCK_JOB_BYTES];   /* penstock_requeue: the dead letter */
};
/* Submits n jobs with the kind, pipeline, priority, times and seed of `common` (whose body and key
 * do not count; each further job has a seed one higher), in as few messages as the frames allow, up
 * to 1024 jobs each: one commit a message. 0: out[0..n) has a verdict for each. On failure the
 * messages that were answered count: *answered jobs have theirs. Repeated on a lost connection only
 * when every job of the message has a key. */
int penstock_submit_many(struct penstock *p, const struct penstock_job *common,
                         const struct penstock_item *items, size_t n, struct penstock_verdict *out,
                         size_t *answered, int timeout_ms, char *err, size_t err_bytes);

/* ---- dead letters: jobs that failed ---- */

#define PENSTOCK_DEAD_PAGE 256
struct penstock_dead { /* zero: all */
    const char *job;   /* this one alone */
    const char *kind, *error_class;
    const char *before; /* the `next` of the page before */
};
/* Makes new jobs of dead letters, at most PENSTOCK_DEAD_PAGE a call, the newest first; out has room
 * for so many. next: empty at the end. One that was requeued before gives the same job again. */
int penstock_requeue(struct penstock *p, const struct penstock_dead *which,
                     struct penstock_verdict *out, size_t *n, char next[PENSTOCK_JOB_BYTES],
                     int timeout_ms, char *err, size_t err_bytes);
/* Deletes dead letters, at most so many a call. */
int penstock_drop(struct penstock *p, const struct penstock_dead *which, size_t *dropped,
                  char next[PENSTOCK_JOB_BYTES], int timeout_ms, char *err, size_t err_bytes);

/* ---- results ---- */

struct penstock_result {
    char job[PENSTOCK_JOB_BYTES];
    char state[17]; /* done, failed, cancelled, expired; else where it stands */
    bool terminal;
    uint32_t stage; /* not terminal: the stage it is in or waits for */
    char kind[PENSTOCK_NAME_BYTES];
    char error_class[33]; /* failed: permanent, transient, worker_died, timeout */
    char reason[513];     /* why it is not done */
    char numerics_id[129];
    uint64_t attempt;
    void *body; /* done: the result, a msgpack map; else NULL */
    size_t body_bytes;
    char *json; /* done: the same as JSON text; else NULL */
};
void penstock_result_free(struct penstock_result *r);
/* Waits until the job is terminal, at most timeout_ms (0: looks once). 0 in both cases: see
 * r->terminal. */
int penstock_wait(struct penstock *p, const char *job, int timeout_ms, struct penstock_result *out,
                  char *err, size_t err_bytes);
/* What is there now. */
int penstock_result(struct penstock *p, const char *job, struct penstock_result *out,
                    int timeout_ms, char *err, size_t err_bytes);
/* Cancels a job that is not terminal; state is where it stands after that. reason may be NULL. */
int penstock_cancel(struct penstock *p, const char *job, const char *reason, char state[17],
                    int timeout_ms, char *err, size_t err_bytes);

/* ---- many at once ---- */

/* How penstock_bulk is fed and what it tells; the functions are called from within it, and make no
 * call on its handle. A tag is the caller's word for a job. */
struct penstock_bulk {
    /* Fills in the next job: 1; 0 when there is none just now (while others are under way it is
     * asked again); negative stops. What it fills in is borrowed until `accepted` or `ended` is
     * called with its tag. Each job needs a key: what a lost connection swallowed is said again. */
    int (*next)(void *arg, struct penstock_job *job, uint64_t *tag);
    /* The job is on disk; NULL: not told. */
    void (*accepted)(void *arg, uint64_t tag, const struct penstock_accepted *a);
    /* Once for each job: rc 0 and what became of it (without `results`, where it stands), borrowed
     * for the call; or one of enum penstock_error, and why. */
    void (*ended)(void *arg, uint64_t tag, int rc, const struct penstock_result *r,
                  const char *why);
    int (*tick)(void *arg); /* several times a second; other than 0 stops. NULL: none */
    void *arg;
    uint32_t window; /* jobs under way at a time; 0: 64, at most 256 */
    bool results;    /* wait for the results too */
};
/* Submits all that `next` gives, many under way at a time. What the broker refuses for now (it is
 * full, it restarts) is submitted again when it says. Returns when all have ended; after
 * PENSTOCK_STOPPED and others what was accepted goes on in the engine. silent_ms: a broker unheard
 * for so long is PENSTOCK_UNREACHABLE. */
int penstock_bulk(struct penstock *p, const struct penstock_bulk *how, int silent_ms, char *err,
                  size_t err_bytes);

/* ---- events ---- */

struct penstock_event {
    uint64_t seq;
    const char *type; /* state, progress, token, notice */
    uint32_t stage;
    uint64_t attempt; /* when it changes, drop what the earlier one streamed */
    bool last;
    const void *data; /* msgpack map, borrowed for the call */
    size_t data_bytes;
    const char *json; /* the same as JSON text, borrowed for the call */
    const char *text; /* token: the text; state: the state; else NULL */
};
/* Returns 0 to go on, anything else to stop (PENSTOCK_STOPPED). */
typedef int penstock_event_fn(void *arg, const struct penstock_event *event);
/* Calls fn for each event of the job until its last one; timeout_ms -1: as long as it takes. */
int penstock_events(struct penstock *p, const char *job, penstock_event_fn *fn, void *arg,
                    int timeout_ms, char *err, size_t err_bytes);

/* The same, beginning with the lines of the job's history whose seq is greater than `from`: 0 for
 * all of it, the last seq that was seen to go on from there, UINT64_MAX for none. Without follow it
 * ends with where the job stands. */
int penstock_events_from(struct penstock *p, const char *job, uint64_t from, bool follow,
                         penstock_event_fn *fn, void *arg, int timeout_ms, char *err,
                         size_t err_bytes);

/* ---- jobs as they end ---- */

enum penstock_ended_what {
    PENSTOCK_ENDED_JOB,
    PENSTOCK_ENDED_LIVE, /* all that had ended were passed on; said again every few seconds */
    PENSTOCK_ENDED_GAP   /* ends up to `offset` are kept no longer and were not passed on */
};
struct penstock_ended { /* borrowed for the call */
    enum penstock_ended_what what;
    uint64_t offset; /* keep it: a subscription from it goes on behind it */
    uint64_t lost;   /* GAP: how many ends at most, of all tenants */
    char job[PENSTOCK_JOB_BYTES], state[17];
    char kind[PENSTOCK_NAME_BYTES], pipeline[PENSTOCK_NAME_BYTES];
    char key[257], error_class[33], reason[513];
    int64_t accepted_ms, finished_ms;
    const void *doc; /* JOB, with `results`, when it is done: its result as msgpack */
    size_t doc_bytes;
    const char *json; /* the same as JSON text; else NULL */
};
/* Returns 0 to go on, anything else to stop (PENSTOCK_STOPPED). */
typedef int penstock_ended_fn(void *arg, const struct penstock_ended *e);
struct penstock_subscription {
    uint64_t
        from; /* the last offset that was seen; 0: all that are kept; UINT64_MAX: from now on */
    const char *kind, *pipeline; /* NULL: any */
    bool results, follow;        /* follow: go on for ever; else until the first LIVE */
};
/* Calls fn for each job that ended behind `from`, in the order of their ends, each once; a lost
 * connection, a broker that restarts and a stream that was dropped because this client read too
 * slowly are taken up again behind the last offset. timeout_ms -1: as long as it takes. */
int penstock_results(struct penstock *p, const struct penstock_subscription *how,
                     penstock_ended_fn *fn, void *arg, int timeout_ms, char *err, size_t err_bytes);

/* ---- looking ---- */

/* A document: `doc` as msgpack, `json` as text (README of schemas/ says its members). */
struct penstock_doc {
    void *doc;
    size_t doc_bytes;
    char *json;
};
void penstock_doc_free(struct penstock_doc *d);
int penstock_show(struct penstock *p, const char *job, struct penstock_doc *out, int timeout_ms,
                  char *err, size_t err_bytes);
int penstock_workers(struct penstock *p, struct penstock_doc *out, int timeout_ms, char *err,
                     size_t err_bytes);
/* Lets the worker of this name, or of this session, finish what it runs and leave; out is a list
 * with its row alone. Needs the right `admin`. */
int penstock_drain(struct penstock *p, const char *worker, struct penstock_doc *out, int timeout_ms,
                   char *err, size_t err_bytes);
int penstock_status(struct penstock *p, struct penstock_doc *out, int timeout_ms, char *err,
                    size_t err_bytes);
/* What stands at each stage of each pipeline; takes the right admin. */
int penstock_queues(struct penstock *p, struct penstock_doc *out, int timeout_ms, char *err,
                    size_t err_bytes);

struct penstock_row {
    char job[PENSTOCK_JOB_BYTES];
    char kind[PENSTOCK_NAME_BYTES];
    char state[17];
    uint32_t stage;
    int64_t accepted_ms, finished_ms; /* since 1970; 0: not yet */
    char reason[513];
    char error_class[33]; /* failed: why */
    bool requeued;        /* failed: another job was made of it */
};
struct penstock_list {
    struct penstock_row *rows;
    size_t n;
    char next[PENSTOCK_JOB_BYTES]; /* pass as `before` for the next page; empty at the end */
    struct penstock_doc raw;
    uint64_t damaged; /* jobs of this page that are left out: their records cannot be read */
};
void penstock_list_free(struct penstock_list *l);
struct penstock_filter { /* zero: all, newest first, 50 rows */
    const char *state, *kind, *before;
    uint32_t limit;
};
int penstock_list(struct penstock *p, const struct penstock_filter *filter,
                  struct penstock_list *out, int timeout_ms, char *err, size_t err_bytes);

struct penstock_pong {
    char version[33];
    uint64_t epoch; /* counts the broker's starts on its store */
    bool accepting; /* false while it drains or its disk fails */
    double round_trip_ms;
};
int penstock_ping(struct penstock *p, struct penstock_pong *out, int timeout_ms, char *err,
                  size_t err_bytes);

#ifdef __cplusplus
}
#endif
#endif
