/* commit.h - the store thread: the only writer of the store.
 *
 * The loop pushes operations; the thread drains what has gathered into one transaction, commits,
 * and hands them all back with their outcome. While a flush runs the next batch grows by itself:
 * that is the whole of group commit.
 *
 * An operation that fails by itself (no room under the store's cap, a damaged record, memory) comes
 * back alone with its error; the others of its batch are committed. When an update found no room,
 * so do those of the same job that were pushed before the loop knew of it: they never overtake it.
 *
 * When the disk fails every operation of the batch comes back with the error and the store takes no
 * more writes until a COMMIT_REOPEN succeeds; the loop keeps what must not be lost and hands it in
 * again.
 *
 * Units: bytes.  Owner: an operation belongs to the thread between commit_push and the moment the
 * loop pops it from `done`; everything it names lives in its own arena.  Memory: the rings hold
 * COMMIT_OPS; the loop stops reading its sockets before they are full.
 * Errors: in op->error.  Threads: loop and store thread. */
#ifndef PENSTOCK_BROKER_COMMIT_H
#define PENSTOCK_BROKER_COMMIT_H

#include "base/arena.h"
#include "base/histogram.h"
#include "base/ring.h"
#include "base/sock.h"
#include "store/sources.h"
#include "store/store.h"
#include "store/uploads.h"

#define COMMIT_OPS 65536u
#define COMMIT_BATCH 4096u
/* A transaction ends when it holds so much: what waits behind it waits no longer than its flush. */
#define COMMIT_BATCH_BYTES (64ull * 1024 * 1024)

struct refusal;
struct verdicts;

enum commit_type {
    COMMIT_ADD,    /* a new job with its body */
    COMMIT_UPDATE, /* a changed record, maybe with a stage output or a result */
    COMMIT_BURY,   /* dead letters go, by their ids */
    COMMIT_DELETE, /* the ended jobs ids[n_ids] */
    COMMIT_COUNT,  /* a submit that is refused, unless its key is known: then nothing is written */
    COMMIT_FORGET, /* an ADD that was refused after all leaves no trace */
    COMMIT_UPLOAD, /* a new upload */
    COMMIT_CHUNK,  /* a part of it, parts[0] at offset */
    COMMIT_DROP,   /* an upload and its bytes go */
    COMMIT_LOOK,   /* is upload.id a job by now? */
    COMMIT_REOPEN
};
struct commit_child { /* a new job that is written with the outcome that asked for it */
    struct job_record record;
    struct bytes body; /* when it is too long for the record */
};
struct commit_op {
    struct commit_op *next; /* in a list of the loop */
    struct commit_op *also; /* written in the same transaction as this one; NULL: no more */
    enum commit_type type;
    struct arena arena;
    struct job_record record;
    uint32_t slot; /* of the payload, when n_parts > 0 */
    uint32_t n_parts;
    struct bytes parts[LIMIT_PARTS];
    /* ADD, FORGET: where the body comes from, id 0 when it comes with the job. Afterwards, of a
     * CHUNK: what is there; of a FORGET: the upload that is there again; bytes 0: none is. */
    struct upload_record upload;
    uint64_t offset; /* CHUNK */

    struct source_record count; /* COUNT; UPDATE, of a job that is dropped; name empty: nothing */
    const struct refusal *why;  /* COUNT: the answer; NULL: it was sampled out */
    /* UPDATE: the ADD before it, for which its job makes room. It is left out (ERR_CANCELLED) when
     * the other is not written. Afterwards it says no more than that. */
    struct commit_op *with;

    struct commit_child *children; /* UPDATE: [n_children] */
    uint32_t n_children;
    uint64_t *ids; /* BURY, DELETE: [n_ids]; BURY says in n_dropped how many were there */
    uint32_t n_ids, n_dropped;

    int error;         /* 0: on disk */
    uint64_t existing; /* ADD, COUNT: the idempotency key's job, 0 when this one is new */
    bool conflict;     /* and that job has another kind or body */
    bool behind;       /* CHUNK: nothing was written, for something else is there */
    bool not_dead;     /* ADD: what it was made of is no dead letter any more */
    enum job_state existing_state;
    uint64_t existing_seed;

    /* The loop's own: whom to answer afterwards. */
    uint64_t seq;     /* in which order operations were made */
    int64_t begun_ns; /* ADD: monotonic, of the turn that read the message */
    struct sock_peer peer;
    uint64_t req, job, attempt, next_id;
    uint64_t held;          /* bytes of parts that the loop counts as on their way to the disk */
    struct store_room room; /* the same as what the store will need */
    uint64_t seen;          /* committer: refusals for room that the loop knew of when it pushed */
    bool refused; /* committer: it has its error, the others of its batch go on without it */
    uint32_t stage;
    struct verdicts *verdicts; /* ADD: the answer goes to place `index` there, not by itself */
    uint32_t index;
    bool answer; /* ADD: ACCEPTED; UPDATE: STAGE_ACK or STATE, by for_worker */
    bool for_worker;
    bool terminal;
};
struct commit_op *commit_op_new(enum commit_type type); /* NULL: no memory */
void commit_op_free(struct commit_op *op);              /* with those that hang on it */
struct commit_op **commit_op_end(struct commit_op *op); /* where more may hang */
uint64_t commit_op_bytes(const struct commit_op *op);   /* of its parts and its short body */

/* The share of a transaction that is about op->upload (upload_commit.c); upload_restore when an ADD
 * is taken back: the upload is there again. */
int upload_apply(struct store_write *w, struct commit_op *op);
int upload_restore(struct store_write *w, struct commit_op *op);
/* Whether the operation is at fault, or the room it needs, and not the disk. */
bool commit_fault_is_own(int error);
/* Of those: may the same operation succeed later? */
bool commit_fault_passes(int error);

struct committer;
int committer_start(struct committer **out, struct store *s);
void committer_stop(struct committer *c); /* finishes what was pushed, then joins */
void commit_push(struct committer *c,
                 struct commit_op *op);            /* never more than COMMIT_OPS outstanding */
struct commit_op *commit_pop(struct committer *c); /* NULL: none is done */
uint32_t commit_outstanding(const struct committer *c);
int commit_fd(const struct committer *c); /* readable when something is done */

struct commit_stats {
    uint64_t commits, ops, last_us;
};
/* How long transactions take with their flush; borrowed until committer_stop, read at any time. */
const struct histogram *commit_times(const struct committer *c);
struct commit_stats commit_stats(const struct committer *c);

#endif
