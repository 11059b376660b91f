/* world.h - a whole Penstock in one thread: the real broker between a simulated disk, network and
 * clock, with clients and workers that misbehave.
 *
 * The program is linked with the broker's own code. What that code asks of the operating system is
 * answered here instead: net.c is base/sock, base/ring, base/thread, base/clock and base/log;
 * disk.c is the store. Everything random is drawn from one seed, so that a history can be run
 * again. What the broker sends and writes is checked at that moment against what it may (oracle.c).
 *
 * Units: milliseconds of simulated time.  Owner: one world at a time, in `W`: the functions that
 * are replaced have fixed signatures.  Memory: freed by world_fini.  Errors: a broken promise
 * prints the seed and the step, and aborts.  Threads: one. */
#ifndef PENSTOCK_TESTS_SIM_WORLD_H
#define PENSTOCK_TESTS_SIM_WORLD_H

#include <setjmp.h>

#include "broker/broker.h"
#include "schemas/pack.h"
#include "store/ended.h"

enum {
    STAGES_MAX = 3,
    FOLDERS = 2, /* what the pipeline files may be */
    CLIENTS = 4,
    TENANTS = 4,
    TENANT_ALL = TENANTS, /* all of them */
    USER_ADMIN = TENANTS, /* keys: one a tenant, then these */
    USER_WORKER,
    USERS,
    WORKERS = 5,
    CREDIT_MAX = 4,
    KEYS = 24,
    LEASE_MS = 400,
    BEAT_MS = 80,
    SOURCES = 3,
    UPLOAD_CHUNK = 640, /* bytes; small, so that there are several */
    UPLOAD_TTL_MS = 4000,
    WALL_OFF_MS = 1000 /* as far as somebody sets the clock */
};
#define WALL_BEGIN_MS INT64_C(1800000000000)

/* ---- the network ---- */
struct packet {
    struct packet *next;
    uint32_t frames;
    struct bytes frame[LIMIT_FRAMES]; /* behind the packet, in the same allocation */
};
struct queue {
    struct packet *first, *last;
    uint32_t len;
};
struct conn { /* one connection of one peer; never used again once it is closed */
    bool open, to_workers;
    uint32_t user;         /* whose key it has */
    bool quiet;            /* it was told that no lease follows */
    bool anew;             /* it offered itself again since, and was not answered yet */
    struct queue up, down; /* to the broker, to the peer */
};
struct sock {
    bool to_workers;
};

/* ---- the disk ---- */
struct ending {
    int64_t finished_ms;
    uint64_t offset;
    enum job_state state;
};
struct cell { /* one job: what is on disk, and what the oracle remembers of it */
    uint64_t id;
    struct bytes record, body, result, output[STAGES_MAX]; /* owned; {NULL, 0}: not there */
    struct bytes upload;           /* the job that is still being uploaded */
    uint64_t told_have;            /* of its upload: clients heard that so much is on disk */
    uint32_t tenant;               /* since it is known */
    struct ending end;             /* offset 0: none */
    bool known;                    /* a record of it was put once */
    bool of_one;                   /* its pipeline is `one` */
    bool accepted;                 /* ACCEPTED left the broker */
    bool chosen;                   /* retention took it */
    bool drop_asked, cancel_asked; /* by one who may */
    bool deleted;
    bool unsure; /* its last commit failed, and yet it is there: nobody was told */
    uint64_t seed;
    uint32_t body_crc, version, end_acks; /* version: of the pipeline that it was accepted with */
    int64_t not_before_ms;                /* monotonic */
    uint64_t leased_attempt;              /* the newest */
    uint64_t unsent_attempt;              /* of its last lease that could not be sent */
    uint64_t leased_was, leased_step; /* the attempt before the turn in which it was last leased */
    uint32_t leased_from;
    uint64_t delivered[STAGES_MAX]; /* the attempt whose output came while it was the current one */
};
struct undo {
    struct cell *cell;
    struct bytes *at, was;
    struct ending end_was;
};
struct gone { /* a record that this transaction deletes */
    struct cell *cell;
    enum job_state state;
    bool left_out; /* dropped by its source */
    uint8_t source;
    uint64_t parent, first_child;
    uint32_t n_children;
};
struct key {
    char text[16];
    uint32_t tenant;
    uint64_t id; /* 0: free */
};
struct disk {
    struct cell **cells; /* ascending ids */
    uint32_t n, cap;
    struct key keys[KEYS * TENANTS];
    uint64_t *ends, n_ends, n_ends_was, ends_cap; /* the jobs, by offset - 1 */
    uint64_t bytes;
    uint64_t epoch;
    bool poisoned;
    struct undo *log; /* of the open write transaction */
    uint32_t n_log, log_cap;
    struct gone *gone; /* of the open write transaction, too */
    uint32_t n_gone, gone_cap;
    struct key keys_was[KEYS * TENANTS];
    struct sieve {
        uint64_t dropped, sampled;
    } sieve[TENANTS][SOURCES], sieve_was[TENANTS][SOURCES];
};

/* ---- actors ---- */
struct request_out {
    uint64_t req;
    uint64_t known; /* the job of its key when it was sent; 0: none */
    int key;        /* -1: none */
    int64_t sent_ms;
};
struct uploading {
    bool open;
    uint64_t n, req, have;                  /* n: its body */
    char name[LIMIT_UPLOAD_NAME_BYTES + 1]; /* empty: not begun */
    int64_t sent_ms;
};
struct following { /* the stream of ended jobs, as a client has it */
    bool wants, open, results;
    bool only_one; /* of all pipelines */
    uint32_t conn, begun;
    uint64_t req, last; /* all up to here was seen */
    int64_t heard_ms, away_until_ms;
};
struct told { /* one subscription, as the broker answers it */
    uint32_t conn, tenant;
    uint64_t req, from, offset;
    bool begun, results, only_one;
};
struct client {
    uint32_t conn, tenant;
    bool admin;
    uint64_t poked[16]; /* requests about jobs of others */
    uint32_t n_poked;
    struct following following;
    struct request_out open[8];
    uint32_t n_open;
    uint64_t known[64], req;
    uint32_t n_known, next_known;
    struct uploading uploading;
};
struct held { /* a lease as the worker sees it */
    uint64_t job, attempt;
    uint32_t stage, left;
    bool fans; /* its stage asks for further jobs */
};
struct fake_worker {
    uint32_t conn, kind;
    char session[24];
    bool registered;
    uint64_t epoch;
    int64_t beat_ms, frozen_until_ms, asked_ms;
    struct held held[CREDIT_MAX * 4];
    uint32_t n_held;
    bool quiet;         /* it leaves when it holds nothing */
    struct held before; /* an outcome that was sent already: it may be sent again */
};

/* What counted where when the oracle looked last. */
struct counts {
    struct {
        uint32_t jobs, submitted;       /* submitted: without those that a stage asked for */
        uint64_t of_jobs, of_submitted; /* bytes */
        uint32_t of_source[SOURCES];
    } tenant[TENANTS];
    uint32_t level[SETTINGS_LEVELS], at_stage[SETTINGS_STAGES_MAX][STAGES_MAX];
    uint64_t bytes[SETTINGS_STAGES_MAX][STAGES_MAX];
};

struct bucket { /* of a tenant's rate */
    double level;
    int64_t at_ms;
};
struct before { /* how it was before the broker took a message */
    uint32_t user, jobs;
    uint64_t bytes; /* of the user's tenant */
};
struct lane { /* a level of a queue: what its tenants were served, by weight */
    double served[TENANTS], since[TENANTS][TENANTS];
    double begun[TENANTS];  /* left of a turn that began with another weight */
    uint64_t last[TENANTS]; /* the newest job that waits */
    uint8_t on[TENANTS];    /* waits since it was looked at first */
};

struct world {
    uint64_t seed, rng, steps;
    int64_t mono_ms, wall_ms, wall_off_ms;
    bool faults, signalled, commit_fails; /* commit_fails: the next one */
    void (*play)(void);                   /* in place of fate and actors; NULL: theirs */
    uint32_t jobs_wanted, submitted;
    const struct pipelines *folders; /* an empty one ends them */
    uint64_t edited_id;              /* of the newest job when the files last changed */
    jmp_buf crash;
    struct broker *b;
    struct sock clients_sock, workers_sock;
    struct conn *conns;
    uint32_t n_conns, conns_cap;
    struct disk disk;
    const char *const *settings; /* files, one of which holds; NULL ends them */
    struct counts counts;
    struct client clients[CLIENTS];
    struct fake_worker workers[WORKERS];
    uint64_t told_sampled; /* refusals that left the broker */
    bool rush;             /* everybody wants the same at once */
    struct auth_key keys[USERS];
    struct bucket bucket[TENANTS];
    struct before before;
    struct lane (*lane)[READY_LEVELS]; /* [READY_QUEUES] */
    double cost_max;
    struct config keep;       /* retain_* alone */
    uint64_t chosen_seq;      /* of the newest choice of retention */
    bool drop_asked[TENANTS]; /* all dead letters of the tenant */
    uint64_t left_out[TENANTS][SOURCES];
    struct told *told;
    uint32_t n_told, told_cap;
    uint64_t contested, deleted, followed, gaps;
    bool gathers;  /* what is said while a play runs goes into MANY */
    uint64_t many; /* messages that were said in one */
    uint64_t kills, drains, disk_failures, stale, uploads, dropped, sampled, ends[JOB_STATES];
    uint64_t outlived; /* leases of a version that was no file any more */

    void *(*store_main)(void *arg); /* the broker's store thread, run a batch at a time */
    void *store_arg;
    uint32_t store_passes, store_batch, n_rings;
    struct ring *rings[2]; /* to the store thread, and back */
};
extern struct world *W;

struct totals {
    uint64_t jobs, steps, kills, drains, disk_failures, stale, uploads;
    uint64_t dropped, sampled, outlived, contested, deleted, followed, gaps, many, ends[JOB_STATES];
};
/* One history: some hundred jobs, then the faults stop and everything must end. */
void world_run(uint64_t seed, uint32_t jobs, const struct pipelines *folders,
               const char *const *settings, struct totals *sum);

/* A history without fate or actors: while the broker sleeps `play` is called, until it calls
 * world_end. Messages that no real peer would send are no broken promise. */
void world_play(const struct pipelines *folder, void (*play)(void));
void world_kill(void) __attribute__((noreturn)); /* kill -9; the broker starts again */
void world_end(void) __attribute__((noreturn));
/* Loads those of this world, by way of files in dir; the last one stays empty. */
int world_pipelines(struct pipelines folders[FOLDERS + 1], const char *dir, char *err,
                    size_t err_bytes);
void world_pipelines_free(struct pipelines folders[FOLDERS + 1]);

void world_fate(void); /* while the broker sleeps: is it killed, drained, or is this the end? */

uint64_t draw(uint64_t below);
bool chance(uint32_t in_thousand); /* only while faults are on */
bool toss(uint32_t in_thousand);

#define CHECK(what, ...)                                                                           \
    do {                                                                                           \
        if (!(what)) world_broken(#what, __VA_ARGS__);                                             \
    } while (0)
void world_broken(const char *what, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

/* net.c */
uint32_t net_connect(bool to_workers);
void net_close(uint32_t conn); /* what was on its way is lost in part */
void net_reset(void);          /* the broker died: all connections with it */
void net_send(uint32_t conn, enum msg_type type, const void *header, const struct bytes *payload,
              uint32_t n);
void net_send_frames(uint32_t conn, const struct bytes *frame, uint32_t n); /* as they are */
struct packet *net_receive(uint32_t conn);                                  /* free() it */
void net_run_store(uint32_t batch); /* lets the store thread commit up to so many */
void net_drop_store(void);          /* the broker died: what was not committed is lost */
void net_fini(void);

const char *sim_name(uint64_t job); /* until the next call */

/* disk.c */
struct cell *disk_cell(uint64_t id); /* NULL: never seen */
/* Decodes the record; its stages and attempts are left out without an arena. */
bool disk_record(const struct cell *c, struct job_record *out, struct arena *a);
struct bytes disk_payload(const struct cell *c, const struct job_record *r, uint32_t slot);
void disk_fini(void);

/* An upload as the disk has it; its key is copied into `key`. */
bool disk_upload(const struct cell *c, struct upload_record *out, char key[LIMIT_KEY_BYTES + 1]);
/* oracle.c */
void oracle_unsent(const struct sock_msg *m);    /* the broker hears that it cannot be sent */
void oracle_delivered(const struct sock_msg *m); /* a worker's message reaches the broker */
void oracle_sent(struct conn *c, const struct sock_msg *m);
void oracle_put(struct cell *c, const struct job_record *r, const struct job_record *was);
void oracle_end(void);

/* tenants.c */
uint32_t sim_tenant(struct bytes name); /* its index */
const char *sim_tenant_name(uint32_t tenant);
void tenants_begin(void);
void tenants_keys(struct broker *b);
void tenants_settled(const struct settings *s);
void tenants_message(uint32_t user);
void tenants_sent(const struct conn *to, enum msg_type type, const void *header);

/* ends.c */
void ends_put(struct cell *c, const struct job_record *r);
const struct cell *ends_at(uint64_t offset); /* NULL: none, or not any more */
void ends_chosen(const struct commit_op *op);
void ends_del(struct cell *c, const struct job_record *r);
void ends_committed(void);

/* follow.c */
void follow_step(struct client *c);
void follow_hears(struct client *c, const struct msg_desc *d, const struct packet *p);
void follow_sent_ended(uint32_t conn, const struct msg_ended *m, const struct sock_msg *raw);
void follow_sent_stream(uint32_t conn, const struct msg_stream *m);
bool follow_done(void);

/* audit.c */
void oracle_broker(const struct broker *b); /* its own invariants, between two turns */

/* actors.c */
extern const char *const sim_source_names[SOURCES];
uint32_t sim_source(struct bytes name); /* its index */
void actors_step(void);
void actors_heal(void);
/* The body of job n; the same n gives the same body, as a key needs it. */
void actors_body(struct packer *p, uint64_t n, size_t padding);
/* uploader.c */
void uploader_step(struct client *c);
void uploader_hears(struct client *c, const struct msg_desc *d, const struct packet *p);
/* What a stage makes: it names the job, the stage and the attempt. */
#define OUTPUT_BYTES 24
struct output {
    uint64_t job, stage, attempt;
};
bool output_read(struct bytes data, struct output *out);

#endif
