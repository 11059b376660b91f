/* Power loss, many times over: reads what record.c and the clients logged, stops at seeded places,
 * makes there what a disk may hold (medium.h), opens that with the real store and asks it for all
 * that clients had been told by then.
 *
 * usage: replay LOG ROOT STORE SCRATCH SEED CUTS [CUT]
 *
 * ROOT is the folder that was recorded, STORE the store's below it ("/a/store").
 *
 * The last line is the total. Exits 1 when a promise was broken and 2 when it could not try. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "schemas/job.h"
#include "store/store.h"
#include "tests/faults/medium.h"

enum { STORE_CAP_BYTES = 512 << 20, ARENA_BYTES = 8 << 20, ERR_BYTES = 512, SHOWN_MAX = 10 };

struct told { /* what a client heard of one job; borrows from the log */
    uint64_t job;
    struct bytes body, state, result;
    bool ended;
};
struct replay {
    const char *scratch, *store; /* the store's folder, below the root */
    uint64_t seed;
    struct medium medium;
    struct told *told;
    uint32_t n_told, cap, ended;
    uint64_t cuts, broken, losses[LOSSES];
};

/* ---- the ledger ---- */

static struct told *told_of(struct replay *r, uint64_t job) {
    for (uint32_t i = r->n_told; i-- > 0;)
        if (r->told[i].job == job) return &r->told[i];
    if (r->n_told == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 1024;
        r->told = realloc(r->told, r->cap * sizeof *r->told);
        if (!r->told) abort();
    }
    r->told[r->n_told] = (struct told){.job = job};
    return &r->told[r->n_told++];
}

static int hear(struct replay *r, enum record_type type, const char *id, struct bytes data) {
    uint64_t job;
    int e = job_id_parse(bytes_str(id), &job);
    if (e) return e;
    struct told *t = told_of(r, job);
    if (type == RECORD_ACCEPTED) {
        t->body = data;
        return 0;
    }
    const char *nul = memchr(data.data, '\0', data.len);
    if (!nul) return -EINVAL;
    size_t len = (size_t)(nul - (const char *)data.data);
    r->ended += !t->ended;
    t->ended = true;
    t->state = bytes_of(data.data, len);
    t->result = bytes_of(nul + 1, data.len - len - 1);
    return 0;
}

/* ---- the question ---- */

static int payload_is(struct store_read *t, uint64_t job, uint32_t slot,
                      const struct job_payload *p, struct bytes want) {
    struct buf out = {0};
    int e = store_payload_get(t, job, slot, p, &out);
    if (e == 0 && !bytes_eq(buf_bytes(&out), want)) e = ERR_CORRUPT;
    buf_fini(&out);
    return e;
}

/* 0 when the store knows all that was told of this job. */
static const char *ask(struct store_read *t, const struct told *told, struct arena *a) {
    struct job_record r;
    arena_reset(a);
    if (jobs_get(t, told->job, &r, a) != 0) return "is lost";
    if (told->body.len && (r.body.bytes || !job_state_terminal(r.state)) &&
        payload_is(t, told->job, JOB_SLOT_BODY, &r.body, told->body) != 0)
        return "has another body";
    if (!told->ended) return NULL;
    if (!bytes_is(told->state, job_state_name(r.state))) return "ended otherwise";
    if (payload_is(t, told->job, JOB_SLOT_RESULT, &r.result, told->result) != 0)
        return "has another result";
    return NULL;
}

static void print_finding(void *arg, const char *finding) {
    (void)arg;
    printf("  store check: %s\n", finding);
}

static int examine(const struct replay *r, const char *copy) {
    char dir[ERR_BYTES], err[ERR_BYTES] = "", id[JOB_ID_CHARS + 1];
    struct store *s = NULL;
    struct arena arena;
    int broken = 0;
    snprintf(dir, sizeof dir, "%s%s", copy, r->store);
    const struct store_config c = {
        .dir = dir, .meta_cap_bytes = STORE_CAP_BYTES, .blob_cap_bytes = STORE_CAP_BYTES};
    arena_init(&arena, ARENA_BYTES);
    if (store_open(&s, &c, err, sizeof err) != 0) {
        printf("  the store does not open: %s\n", err);
        return 1;
    }
    struct store_read *t;
    if (store_read_begin(s, &t) != 0) return 1;
    for (uint32_t i = 0; i < r->n_told; i++) {
        const char *what = ask(t, &r->told[i], &arena);
        if (!what) continue;
        job_id_text(r->told[i].job, id);
        if (broken++ < SHOWN_MAX) printf("  job %s %s\n", id, what);
    }
    store_read_end(t);
    int problems = store_check(s, print_finding, NULL);
    store_close(s);
    arena_fini(&arena);
    return broken || problems;
}

static void remove_copy(const char *path) {
    char command[ERR_BYTES];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0) abort();
}

/* A store that a crash left unreadable may kill who reads it: that is a process of its own. */
static int cut(struct replay *r, uint64_t number, uint64_t record) {
    char copy[ERR_BYTES / 2];
    uint64_t seed = r->seed * 1000003 + number;
    enum medium_loss loss = (enum medium_loss)(rng_u32(seed, 0, 0, 3) % LOSSES);
    snprintf(copy, sizeof copy, "%s/cut", r->scratch);
    int e = medium_crash(&r->medium, copy, loss, seed), status = 0;
    if (e) {
        fprintf(stderr, "replay: %s: %s\n", copy, err_text(e));
        return e;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int broken = examine(r, copy);
        fflush(NULL);
        _exit(broken ? 1 : 0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) return -EIO;
    if (status != 0) {
        printf("  cut %llu after record %llu, loss %d%s\n", (unsigned long long)number,
               (unsigned long long)record, (int)loss,
               WIFSIGNALED(status) ? ": who read it was killed" : "");
        r->broken++;
    }
    r->cuts++;
    r->losses[loss]++;
    remove_copy(copy);
    return 0;
}

/* ---- the log ---- */

static bool next(struct reader *in, enum record_type *type, char *path, size_t path_bytes,
                 uint64_t *number, struct bytes *data) {
    if (read_left(in) == 0) return false;
    *type = (enum record_type)read_u32le(in);
    uint32_t path_len = read_u32le(in);
    *number = read_u64le(in);
    uint64_t data_len = read_u64le(in);
    struct bytes name = read_bytes(in, path_len);
    *data = read_bytes(in, data_len);
    return !in->bad && *type < RECORD_TYPES && bytes_to_cstr(name, path, path_bytes) == 0;
}

static uint64_t count(struct bytes log) {
    struct reader in = reader_of(log);
    enum record_type type;
    char path[ERR_BYTES];
    uint64_t n = 0, number;
    struct bytes data;
    while (next(&in, &type, path, sizeof path, &number, &data)) n++;
    return n;
}

/* Cut k of n lies somewhere in the k-th part of the log, and the last one at its end. */
static uint64_t place(const struct replay *r, uint64_t k, uint64_t cuts, uint64_t records) {
    uint64_t from = k * records / cuts, to = (k + 1) * records / cuts;
    if (k + 1 == cuts || to <= from) return to;
    return from + rng_u32(r->seed, k, 1, 0) % (to - from);
}

static int play(struct replay *r, struct bytes log, uint64_t cuts, int64_t only) {
    struct reader in = reader_of(log);
    enum record_type type;
    char path[ERR_BYTES], err[ERR_BYTES] = "";
    uint64_t records = count(log), at = 0, k = 0, number;
    struct bytes data;
    int e = 0;
    while (e == 0 && next(&in, &type, path, sizeof path, &number, &data)) {
        if (type == RECORD_ACCEPTED || type == RECORD_ENDED)
            e = hear(r, type, path, data);
        else
            e = medium_apply(&r->medium, type, path, number, data, err, sizeof err);
        at++;
        for (; e == 0 && k < cuts && place(r, k, cuts, records) <= at; k++)
            if (only < 0 || (uint64_t)only == k) e = cut(r, k, at);
    }
    if (e == 0 && read_left(&in) > 0) e = err_set(err, sizeof err, ERR_CORRUPT, "a torn log");
    if (e == 0) e = medium_compare(&r->medium, err, sizeof err);
    if (e) fprintf(stderr, "replay: %s: %s\n", err_text(e), err);
    return e;
}

int main(int argc, char **argv) {
    char err[ERR_BYTES] = "";
    struct file_map log;
    if (argc < 7) {
        fprintf(stderr, "usage: replay LOG ROOT STORE SCRATCH SEED CUTS [CUT]\n");
        return 2;
    }
    struct replay r = {.store = argv[3], .scratch = argv[4], .seed = strtoull(argv[5], NULL, 10)};
    if (file_map(argv[1], &log, err, sizeof err) != 0) {
        fprintf(stderr, "replay: %s\n", err);
        return 2;
    }
    log_init("replay", LOG_ERROR);
    medium_init(&r.medium, argv[2]);
    int e = play(&r, bytes_of(log.data, log.bytes), strtoull(argv[6], NULL, 10),
                 argc > 7 ? atoll(argv[7]) : -1);
    printf("%llu cuts (%llu lost all that was not flushed, %llu nothing, %llu writes, %llu pages, "
           "%llu sectors) of %llu writes with %llu flushes; %u jobs accepted, %u ended; %llu cuts "
           "with a broken promise\n",
           (unsigned long long)r.cuts, (unsigned long long)r.losses[LOSS_ALL],
           (unsigned long long)r.losses[LOSS_NONE], (unsigned long long)r.losses[LOSS_WRITES],
           (unsigned long long)r.losses[LOSS_PAGES], (unsigned long long)r.losses[LOSS_SECTORS],
           (unsigned long long)r.medium.records, (unsigned long long)r.medium.flushes, r.n_told,
           r.ended, (unsigned long long)r.broken);
    medium_fini(&r.medium);
    free(r.told);
    file_unmap(&log);
    return e ? 2 : r.broken > 0;
}
