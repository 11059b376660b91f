/* broker.h - everything the loop owns, shared by the files that serve it.
 *
 * main.c opens it, loop.c turns it, dispatch.c routes messages to submit.c, dead.c and requests.c
 * (clients) and outcomes.c (workers), effects.c carries out what job_transition decided, disk.c
 * keeps what the store did not take, match.c leases,
 * recover.c reloads a store, reload.c the settings, versions.c the pipelines, status.c describes.
 *
 * Units: *_ms are monotonic unless a name says wall.  Owner: the loop thread.  Memory: bounded by
 * the caps of base/limits.h and the configuration.  Errors: as each call says.
 * Threads: the loop thread; the store thread sees commit operations only. */
#ifndef PENSTOCK_BROKER_BROKER_H
#define PENSTOCK_BROKER_BROKER_H

#include "base/notify.h"
#include "broker/auth.h"
#include "broker/commit.h"
#include "broker/config.h"
#include "broker/load.h"
#include "broker/owed.h"
#include "broker/packs.h"
#include "broker/peer.h"
#include "broker/ready.h"
#include "broker/retain.h"
#include "broker/stall.h"
#include "broker/stream.h"
#include "broker/table.h"
#include "broker/tally.h"
#include "broker/tenant.h"
#include "broker/upload.h"
#include "broker/versions.h"
#include "broker/watch.h"
#include "store/scrub.h"

/* Outputs that are handed from stage to stage in memory; beyond this they are committed instead. */
#define BROKER_HANDED_BYTES (256ull * 1024 * 1024)
/* Reading stops while this many commits are outstanding, so that every outcome still finds room.
 * Submits are refused long before: a broker that does not read takes its workers for dead. */
#define BROKER_OPS_MAX (COMMIT_OPS - 4096u)
#define BROKER_OPS_SUBMIT_MAX (COMMIT_OPS / 2u)
/* Bodies and outputs on their way to the disk; with more, submits are refused. */
#define BROKER_COMMIT_BYTES (256ull * 1024 * 1024)

struct commit_list { /* operations in the order in which they must reach the disk */
    struct commit_op *first, *last;
};

struct lease_plan { /* the last one that was packed */
    struct buf packed;
    const struct pipeline *of; /* NULL: none */
    uint32_t stage, span;
};

struct glance_box;

struct broker {
    struct config config;
    struct sock_ctx *ctx;
    struct sock *clients, *workers, *zap; /* zap: NULL without CURVE */
    struct auth auth;
    struct store *store;
    struct committer *committer;
    struct scrub *scrub;
    struct pipelines pipelines;
    uint32_t n_loaded; /* pipelines from files; behind them are versions that old jobs still run */
    struct versions versions;

    struct tenants tenants;
    struct job_table jobs;
    struct ready ready;
    struct workers peers;
    struct watches watches;
    struct uploads uploads;
    struct owed_list owed;
    struct packs packs;
    struct retain retain;
    struct streams streams;
    struct due_table leases, delays, expiries;
    uint64_t last_id, next_attempt;
    uint64_t handed_bytes, bodies_bytes;
    struct load load; /* what the live jobs add up to, and the settings that bound it */
    int settings_fd;  /* inotify of the settings' folder; -1: none */

    uint64_t commit_bytes;      /* held by operations that are not on disk yet */
    uint64_t op_seq;            /* operations made so far */
    struct commit_list outbox;  /* to push at the end of this turn */
    struct verdicts *verdicts;  /* answers that are being gathered (verdicts.h) */
    struct store_room coming;   /* the same, as what the store will need */
    struct commit_list retries; /* came back with a disk error: again after a reopen */
    struct commit_list no_room; /* outcomes that the store's cap has no room for: again by timer */
    int disk_error;             /* 0: the disk takes writes */
    bool reopening, store_full;
    int64_t reopen_at_ms, room_at_ms, sampled_ms;

    bool draining;
    int64_t drain_until_ms, started_ms;
    int64_t now_ms, now_wall_ms; /* of this turn */
    struct buf scratch;          /* headers and documents being built */
    struct buf payload;          /* payloads being read from the store */
    struct lease_plan plan;
    uint64_t finished[JOB_STATES];
    uint64_t accepted, refused, dropped;
    uint64_t set_aside; /* live jobs whose records could not be read at the start */
    struct tally tally;
    struct texts texts; /* of all workers, since the start */
    struct stall stall;
    struct notify notify;
    struct histogram accept_times; /* from the message to ACCEPTED */
    int64_t turn_ns;               /* when this turn began to read */
    struct glance_box *box;        /* NULL: nobody looks (glance.h) */
    int64_t probe_at_ms;           /* no history_probe before */
    int64_t refused_log_ms;        /* no line about a malformed message before */
    uint64_t crowded;              /* connections that were refused, of which the log knows */
};

/* ---- talking (reply.c) ---- */
/* Encodes and sends; a peer that is gone or too slow loses the message: 0 or -errno of
 * sock_send. */
int reply(struct broker *b, struct sock *s, const struct sock_peer *to, enum msg_type type,
          const void *header, const struct bytes *payload, uint32_t n);
int reply_client(struct broker *b, const struct sock_peer *to, enum msg_type type,
                 const void *header);
void reply_refused(struct broker *b, struct sock *s, const struct sock_peer *to, uint64_t req,
                   const struct refusal *why);
void reply_stage_ack(struct broker *b, const struct sock_peer *to, uint64_t job, uint64_t stage,
                     uint64_t attempt, bool recorded);
/* RESULT from the store, with the payload; REFUSED when it cannot be read. It and STATE are owed to
 * a client whose queue is full (owed.h). */
void reply_result(struct broker *b, const struct sock_peer *to, uint64_t req, uint64_t job);
/* The same of a job that is still in memory and whose end is on disk. */
void reply_ended(struct broker *b, const struct sock_peer *to, uint64_t req, const struct job *j);
void reply_state(struct broker *b, const struct sock_peer *to, uint64_t req, const struct job *j);
/* The answer about this job found no room: it is given later. */
void reply_owe(struct broker *b, const struct sock_peer *to, uint64_t req, uint64_t job);
/* ACCEPTED of a job whose record is on disk; owed like these. */
void reply_accepted(struct broker *b, const struct sock_peer *to, const struct msg_accepted *m);
void reply_owed(struct broker *b); /* tries again what is owed */

/* ---- effects (effects.c) ---- */
/* job_transition, with what its effects have to say about the job kept in its history. by: the
 * worker or tenant that made it happen; reason: of a try that failed. */
uint32_t effects_transition(struct broker *b, struct job *j, const struct job_event *e,
                            const char *by, struct bytes reason);
/* Carries out fx of one transition. op: a commit that the caller prepared (parts, whom to answer),
 * or NULL; it is completed and sent off when fx asks for a commit, else freed. */
void effects_apply(struct broker *b, struct job *j, uint32_t fx, struct commit_op *op);
/* The same for events that carry no payload and no answer. */
void effects_event(struct broker *b, struct job *j, const struct job_event *e);
/* Completes the operation that writes j, which outbox_add then sends off. */
void effects_prepare(struct broker *b, struct job *j, struct commit_op *op);
/* Takes a lease away from its worker and tells it, when the job ends or moves without it. */
void effects_revoke(struct broker *b, struct job *j);
void effects_committed(struct broker *b,
                       struct commit_op *op); /* takes op back from the store thread */
/* Answers the submit that op is, or gives its place in a batch this verdict. */
void effects_refuse(struct broker *b, const struct commit_op *op, const struct refusal *why);
/* The operation no longer counts as on its way to the disk. */
void effects_release(struct broker *b, struct commit_op *op);
/* Leaves j's body to the store, which has it, when enough bodies are in memory. */
void effects_body_leave(struct broker *b, struct job *j);
/* Frees the output that was to be handed to the next stage in memory. */
void effects_drop_handed(struct broker *b, struct job *j);
/* Drops a job from memory: the store, or nobody, answers for it from now on. */
void effects_forget(struct broker *b, struct job *j);
/* The same for a live job whose record the store cannot take; who follows it is told. */
void effects_abandon(struct broker *b, struct job *j);
/* Copies the frames of a payload into the operation. -ENOMEM. */
int effects_keep_parts(struct commit_op *op, uint32_t slot, const struct bytes *parts, uint32_t n);

/* ---- operations on their way to the disk, and those that came back (disk.c) ---- */
void outbox_add(struct broker *b, struct commit_op *op);
void outbox_flush(struct broker *b);
/* op came back with an error. A submit is refused in turn; everything else must not be lost. */
void disk_refused(struct broker *b, struct commit_op *op);
void disk_reopened(struct broker *b, struct commit_op *op);
void disk_retry(struct broker *b); /* by timer */
/* Whether the store can take one more body beside what is on its way to it. */
bool disk_has_room(const struct broker *b, uint64_t body_bytes);

/* ---- the rest ---- */
struct request { /* one message, decoded */
    struct sock *sock;
    struct sock_peer peer;
    struct tenant *tenant; /* on whose behalf it is made */
    uint32_t rights;       /* of enum cert_right */
    const char *stages;    /* that it may run as a worker */
    const struct msg_desc *desc;
    const void *header; /* its struct */
    const struct bytes *payload;
    uint32_t n;
};
/* The rights of which one is needed for this message of a client or worker; 0: nobody may. */
uint32_t dispatch_right(enum msg_type type);
/* Returns how many messages it was. */
uint32_t dispatch(struct broker *b, struct sock *s, enum msg_direction from,
                  const struct sock_msg *m);

void on_submit(struct broker *b, const struct request *r);
void on_submit_many(struct broker *b, const struct request *r);
void on_requeue(struct broker *b, const struct request *r); /* dead.c */
void on_drop(struct broker *b, const struct request *r);
void on_wait(struct broker *b, const struct request *r);
void on_result_get(struct broker *b, const struct request *r);
void on_show(struct broker *b, const struct request *r);
void on_cancel(struct broker *b, const struct request *r);
void on_events(struct broker *b, const struct request *r);
void on_events_stop(struct broker *b, const struct request *r);
void on_list(struct broker *b, const struct request *r);
void on_workers(struct broker *b, const struct request *r);
void on_drain(struct broker *b, const struct request *r);
void on_ping(struct broker *b, const struct request *r);
void on_queues(struct broker *b, const struct request *r);
void on_status(struct broker *b, const struct request *r);
/* Whether nothing new can be written just now, and why. */
bool refuse_writes(struct broker *b, struct refusal *why);

/* ---- uploads (upload_serve.c) ---- */
void on_upload_begin(struct broker *b, const struct request *r);
void on_upload_chunk(struct broker *b, const struct request *r);
void on_upload_get(struct broker *b, const struct request *r);
void on_upload_drop(struct broker *b, const struct request *r);
/* The whole upload that a SUBMIT names, NULL when its body is the payload. 1: its job is there or
 * on its way, and will be answered; negative with why. */
int upload_for_submit(struct broker *b, const struct request *r, struct upload **out,
                      struct refusal *why);
/* Reads it into b->payload. Negative with why. */
int upload_read(struct broker *b, const struct upload *u, struct bytes *body, struct refusal *why);
struct job_payload upload_payload(const struct upload *u); /* of the job that it becomes */
/* Its job's ADD is on the way: what op must know of it. -ENOMEM. */
int upload_submit(struct broker *b, struct upload *u, struct commit_op *op);
void upload_submitted(struct broker *b, uint64_t id);               /* it is a job */
void upload_restored(struct broker *b, const struct commit_op *op); /* or not after all */
void upload_committed(struct broker *b, struct commit_op *op);
/* The disk refused; true: op must be kept and written later. */
bool upload_failed(struct broker *b, struct commit_op *op);
void upload_expired(struct broker *b, struct upload *u);
int upload_recover(struct broker *b, struct store_read *t);
bool broker_accepting(const struct broker *b);

void on_register(struct broker *b, const struct request *r);
void on_heartbeat(struct broker *b, const struct request *r);
void on_progress(struct broker *b, const struct request *r);
void on_stage_done(struct broker *b, const struct request *r);
void on_stage_failed(struct broker *b, const struct request *r);
void on_return(struct broker *b, const struct request *r);
void on_goodbye(struct broker *b, const struct request *r);
/* Every lease of the worker is lost (counted) or merely taken back; then it is forgotten. */
void worker_lost(struct broker *b, struct worker *w, const char *why);
/* The key of this number is worth nothing any more: what its connections wait for is forgotten, the
 * leases of its workers are taken back and not counted, and reply sends them nothing more. */
void user_gone(void *broker, uint32_t user);

/* ---- the settings file (reload.c) ---- */
int reload_open(struct broker *b, char *err, size_t err_bytes);
void reload_close(struct broker *b);
bool reload_wanted(struct broker *b); /* the file has changed since the last call */
/* Reads it again; when it is bad the settings stay as they were, and a line in the log says so. */
void reload(struct broker *b);

/* ---- jobs that a stage fans out to (family.c) ---- */
struct family { /* children that are not on their way to the disk yet */
    struct job *child[LIMIT_CHILDREN];
    struct bytes body[LIMIT_CHILDREN]; /* borrowed from the message or b->payload */
    uint32_t n;
    struct bytes keep; /* what the stage wants to see again at the join */
};
/* Makes the jobs that the output of j's stage asks for; on failure there are none, and why. */
enum job_error family_make(struct broker *b, const struct job *j, const struct request *r,
                           struct family *f, char *why, size_t why_bytes);
void family_drop(struct broker *b, struct family *f);
/* They will be written with op, the outcome of their parent's stage. -ENOMEM. */
int family_attach(struct broker *b, struct job *j, struct commit_op *op, struct family *f);
void family_born(struct broker *b, struct job *j, const struct commit_op *op); /* on disk */
void family_lost(struct broker *b, const struct commit_op *op);                /* never will be */
void family_child_ended(struct broker *b, const struct job *child);            /* on disk */
void family_join(struct broker *b, struct job *j); /* all have ended: j goes on, or fails */
void family_ends(struct broker *b, struct job *j); /* j has ended: its children are cancelled */
void family_recover(struct broker *b);             /* after a restart */
/* Whether r or a part of it is still in memory, so that its record is not to be deleted. */
bool family_lives(const struct broker *b, const struct job_record *r);

void match(struct broker *b);
int recover(struct broker *b, char *err, size_t err_bytes);
int loop_run(struct broker *b, int signal_fd);

#endif
