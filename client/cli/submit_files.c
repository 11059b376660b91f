/* penstock submit KIND FILE|DIR...: a job a file, known by its content.
 *
 * The idempotency key of a job is a hash of its kind, its pipeline, its seed and its body.
 * Repeated, a run finds its jobs by these keys, whatever they are called now; and what it wrote to
 * --out names the key, so that not even the broker is asked again.
 *
 * item: UNSEEN -> (its body is made) UNDER_WAY -> DONE | FAILED;  UNSEEN -> SKIPPED | FAILED.
 * With --again an earlier failure goes back to UNSEEN, with that job's id in its key. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/progress.h"
#include "base/term.h"
#include "client/cli/feed.h"
#include "client/cli/files.h"
#include "client/cli/missing.h"
#include "client/cli/outcome.h"
#include "client/cli/submit.h"
#include "client/cli/table.h"

#define SILENT_MS 60000              /* a broker that is restarted gets so long */
#define RESULT_BYTES_MAX (64u << 20) /* of a file in --out */
#define ROWS_MAX 20                  /* failures in the summary */
#define LOOK_EVERY_MS 10000
#define AGAIN_MAX 16 /* earlier failures of one file that --again steps over */

enum item_state { UNSEEN, UNDER_WAY, DONE, FAILED, SKIPPED };
struct item {
    enum item_state state;
    bool existing; /* the broker knew its key */
    uint8_t tries; /* of --again */
    char job[PENSTOCK_JOB_BYTES];
    char *key;       /* while its body is, and until it ended; owned */
    struct buf body; /* until it is accepted */
    char *said;      /* FAILED: why; DONE with a result: its gist; owned */
};
struct run {
    const struct submit *in;
    const struct body *set;
    struct files files;
    struct item *items;
    uint32_t next; /* of the files, and of those that came back: */
    uint32_t *again, n_again;
    struct progress progress;
    uint64_t existing, skipped;
    bool disk_full;                      /* nothing more can be written */
    int64_t began_ms, ended_ms, look_ms; /* look_ms: not before, for what is missing */
};

static volatile sig_atomic_t stopped;

static void on_signal(int signal) {
    (void)signal;
    stopped = 1;
}

/* ---- one file ---- */

static void count(struct run *r, struct item *it, enum item_state state) {
    it->state = state;
    r->progress.done++;
    r->progress.failed += state == FAILED;
    r->progress.free += state == SKIPPED;
    r->skipped += state == SKIPPED;
    buf_fini(&it->body);
    free(it->key);
    it->key = NULL;
}

static void fail(struct run *r, struct item *it, const char *why) {
    free(it->said);
    it->said = strdup(why);
    count(r, it, FAILED);
}

static void make_key(const struct submit *in, struct item *it, const char *job_before) {
    char hash[HASH_HEX_BYTES], seed[32] = "";
    if (in->job.has_seed) snprintf(seed, sizeof seed, "%" PRIu64, in->job.seed);
    const struct bytes parts[] = {bytes_str(in->job.kind), bytes_str(in->job.pipeline),
                                  bytes_str(seed), bytes_str(job_before), buf_bytes(&it->body)};
    hash_hex(parts, sizeof parts / sizeof *parts, hash);
    free(it->key);
    if (asprintf(&it->key, "%s%s%s", in->job.key ? in->job.key : "", in->job.key ? "/" : "", hash) <
        0)
        it->key = NULL;
}

static bool out_path(const struct run *r, const char *name, char out[PATH_MAX]) {
    int n = snprintf(out, PATH_MAX, "%s/%s.json", r->in->out, name);
    return n >= 0 && n < PATH_MAX;
}

/* Whether --out has this job's result from an earlier run. */
static bool is_there(const struct run *r, const struct file_named *f, struct item *it) {
    char path[PATH_MAX];
    struct json *j;
    if (!r->in->out || !out_path(r, f->name, path)) return false;
    if (json_load(&j, path, RESULT_BYTES_MAX, NULL, 0) < 0) return false;
    const char *key = json_str(json_get(j, "key")), *state = json_str(json_get(j, "state"));
    const char *job = json_str(json_get(j, "job"));
    bool there = key && state && strcmp(key, it->key) == 0 && strcmp(state, "done") == 0;
    if (there && job) snprintf(it->job, sizeof it->job, "%s", job);
    json_free(j);
    return there;
}

static int next(void *arg, struct penstock_job *job, uint64_t *tag) {
    struct run *r = arg;
    for (uint32_t i; r->n_again || r->next < r->files.n;) {
        i = r->n_again ? r->again[--r->n_again] : r->next++;
        struct item *it = &r->items[i];
        char err[PENSTOCK_ERR_BYTES];
        if (feed_body(r->set, r->files.at[i].path, &it->body, err, sizeof err) < 0) {
            fail(r, it, err);
            continue;
        }
        make_key(r->in, it, it->tries ? it->job : "");
        if (!it->key) return -1;
        if (!it->tries && is_there(r, &r->files.at[i], it)) {
            count(r, it, SKIPPED);
            continue;
        }
        it->state = UNDER_WAY;
        *job = r->in->job;
        job->body = it->body.data;
        job->body_bytes = it->body.len;
        job->key = it->key;
        *tag = i;
        return 1;
    }
    return 0;
}

static void accepted(void *arg, uint64_t tag, const struct penstock_accepted *a) {
    struct run *r = arg;
    struct item *it = &r->items[tag];
    memcpy(it->job, a->job, sizeof it->job);
    it->existing = a->existing;
    buf_fini(&it->body);
}

/* ---- results ---- */

static struct json *to_json(const struct file_named *f, const struct item *it,
                            const struct penstock_result *res, const char *why) {
    struct json *j = json_new_object();
    if (!j) return NULL;
    int rc = json_set(j, "file", json_new_str(f->name, strlen(f->name))) |
             json_set(j, "key", json_new_str(it->key, strlen(it->key)));
    if (res) rc |= outcome_json(res, j);
    if (!res)
        rc |= json_set(j, "state", json_new_str("failed", 6)) |
              json_set(j, "reason", json_new_str(why, strlen(why)));
    if (res && !res->terminal) rc |= json_set(j, "existing", json_new_bool(it->existing));
    if (rc == 0) return j;
    json_free(j);
    return NULL;
}

static int write_out(const struct run *r, const struct file_named *f, const struct json *j,
                     char *err, size_t err_bytes) {
    char path[PATH_MAX], folder[PATH_MAX];
    if (!out_path(r, f->name, path)) return cli_fail(PENSTOCK_INVALID, "the path is too long");
    memcpy(folder, path, sizeof folder);
    *strrchr(folder, '/') = '\0';
    int rc = file_mkdirs(folder);
    char *text = json_text(j, 2);
    if (rc < 0)
        snprintf(err, err_bytes, "cannot make %s: %s", folder, strerror(-rc));
    else if (!text)
        snprintf(err, err_bytes, "out of memory");
    else
        rc = file_replace(path, text, strlen(text), err, err_bytes);
    rc = text ? rc : -ENOMEM;
    free(text);
    return rc;
}

static void give_out(struct run *r, uint64_t tag, const struct penstock_result *res,
                     const char *why) {
    const struct file_named *f = &r->files.at[tag];
    struct item *it = &r->items[tag];
    if (!r->in->out && !r->in->c.json) return;
    struct json *j = to_json(f, it, res, why);
    char err[PENSTOCK_ERR_BYTES] = "out of memory", *text = NULL;
    if (j && r->in->c.json && (text = json_text(j, 0))) {
        progress_clear(&r->progress);
        puts(text);
        r->disk_full |= fflush(stdout) != 0;
    }
    if (!j || (r->in->out && write_out(r, f, j, err, sizeof err) < 0)) {
        progress_clear(&r->progress);
        fprintf(stderr, "penstock: %s\n", err);
        r->disk_full = true;
    }
    free(text);
    json_free(j);
}

static void ended(void *arg, uint64_t tag, int rc, const struct penstock_result *res,
                  const char *why) {
    struct run *r = arg;
    struct item *it = &r->items[tag];
    bool waited = r->in->wait, done = rc == 0 && (!waited || strcmp(res->state, "done") == 0);
    if (!done && rc == 0 && r->in->again && it->existing && it->tries < AGAIN_MAX) {
        it->tries++;
        it->state = UNSEEN;
        r->again[r->n_again++] = (uint32_t)tag;
        return;
    }
    if (rc == 0 && !done) why = res->reason[0] ? res->reason : res->state;
    give_out(r, tag, rc == 0 ? res : NULL, why);
    r->existing += done && it->existing;
    r->ended_ms = clock_mono_ms();
    if (done && waited && !r->in->out && !r->in->c.json) it->said = outcome_gist(res);
    if (done)
        count(r, it, DONE);
    else
        fail(r, it, why);
}

/* When nothing has ended for a while: may be no worker can run them. Told once. */
static void look_missing(struct run *r, int64_t now_ms) {
    if (!r->in->wait || now_ms < r->look_ms || now_ms - r->ended_ms < MISSING_AFTER_MS) return;
    const struct penstock_options o = {r->in->c.endpoint, r->in->c.key, r->in->c.server_key};
    struct penstock *p;
    uint32_t i = 0;
    r->look_ms = now_ms + LOOK_EVERY_MS;
    while (i < r->next && (r->items[i].state != UNDER_WAY || !r->items[i].job[0])) i++;
    if (i == r->next || penstock_open_with(&p, &o, NULL, 0) < 0) return;
    progress_clear(&r->progress);
    if (missing_tell(p, r->items[i].job)) r->look_ms = INT64_MAX;
    penstock_close(p);
}

static int tick(void *arg) {
    struct run *r = arg;
    int64_t now_ms = clock_mono_ms();
    look_missing(r, now_ms);
    progress_show(&r->progress, now_ms);
    bool late = r->in->c.timeout_ms >= 0 && now_ms - r->began_ms > r->in->c.timeout_ms;
    return stopped || r->disk_full || late;
}

/* ---- the summary ---- */

static void print_jobs(const struct run *r) {
    static const char *const heads[] = {"job", "file", NULL};
    static const char *const waited[] = {"job", "file", "result", NULL};
    struct table t;
    table_init(&t, r->in->wait ? waited : heads);
    for (uint32_t i = 0; i < r->files.n; i++) {
        const struct item *it = &r->items[i];
        if (it->state != DONE && it->state != SKIPPED) continue;
        table_cell(&t, "%s", it->job);
        table_cell(&t, "%s", r->files.at[i].name);
        if (r->in->wait) table_cell(&t, "%s", it->said ? it->said : "done");
    }
    table_print(&t);
    table_fini(&t);
}

static void print_failures(const struct run *r) {
    uint32_t left = ROWS_MAX;
    for (uint32_t i = 0; i < r->files.n && left; i++) {
        const struct item *it = &r->items[i];
        if (it->state != FAILED) continue;
        fprintf(stderr, "%sfailed%s  ", term_on(stderr, TERM_RED), term_off(stderr));
        term_put(stderr, r->files.at[i].name);
        fputs(": ", stderr);
        term_put(stderr, it->said ? it->said : "");
        fprintf(stderr, "%s%s\n", it->job[0] ? "; job " : "", it->job);
        left--;
    }
    if (r->progress.failed > ROWS_MAX)
        fprintf(stderr, "        and %" PRIu64 " more\n", r->progress.failed - ROWS_MAX);
}

static void print_totals(const struct run *r, int64_t now_ms) {
    const struct progress *p = &r->progress;
    const char *end = r->in->wait ? "done" : "accepted";
    fprintf(stderr, "%" PRIu32 " file%s: %s%" PRIu64 " %s%s", r->files.n,
            r->files.n == 1 ? "" : "s", term_on(stderr, TERM_GREEN),
            p->done - p->failed - r->skipped, end, term_off(stderr));
    if (r->existing) fprintf(stderr, " (%" PRIu64 " submitted before)", r->existing);
    if (r->skipped) fprintf(stderr, ", %" PRIu64 " skipped (in %s)", r->skipped, r->in->out);
    if (p->failed)
        fprintf(stderr, ", %s%" PRIu64 " failed%s", term_on(stderr, TERM_RED), p->failed,
                term_off(stderr));
    if (p->done < p->total) fprintf(stderr, ", %" PRIu64 " not finished", p->total - p->done);
    fprintf(stderr, ", %.1f s", (double)(now_ms - r->began_ms) / 1000);
    if (p->done > p->free + p->failed) fprintf(stderr, ", %.1f/s", progress_rate(p, now_ms));
    fputc('\n', stderr);
}

static int sum_up(struct run *r, int rc, const char *err) {
    progress_clear(&r->progress);
    if (!r->in->out && !r->in->c.json) print_jobs(r);
    fflush(stdout);
    print_failures(r);
    print_totals(r, clock_mono_ms());
    int code = r->progress.failed || r->progress.done < r->progress.total ? CLI_FAILED : CLI_OK;
    if (rc == PENSTOCK_STOPPED && r->disk_full) return CLI_FAILED;
    if (rc == PENSTOCK_STOPPED)
        fprintf(stderr, "penstock: stopped; what was accepted goes on in the engine, and the same "
                        "command takes up from here\n");
    else if (rc < 0)
        code = cli_fail(rc, err);
    return code;
}

/* ---- the run ---- */

static int find_files(struct run *r) {
    const struct submit *in = r->in;
    const char *one[] = {in->glob, NULL};
    struct files_how how = {.patterns = in->glob ? one : feed_patterns(in->job.kind),
                            .recursive = in->recursive};
    struct stat st;
    char err[PENSTOCK_ERR_BYTES];
    if (in->out) {
        int rc = file_mkdirs(in->out);
        if (rc < 0) return cli_usage("cannot make %s: %s", in->out, strerror(-rc));
        if (stat(in->out, &st) == 0) how.skip_dev = st.st_dev, how.skip_ino = st.st_ino;
    }
    for (int i = 1; i < in->c.n; i++)
        if (files_add(&r->files, in->c.args[i], &how, err, sizeof err) < 0)
            return cli_usage("%s", err);
    const char *twice = files_sort(&r->files);
    if (in->out && twice)
        return cli_usage("two of the files would be written to %s/%s.json; submit them apart, or "
                         "name the folder above both with --recursive",
                         in->out, twice);
    if (r->files.n == 0)
        return cli_usage("no file of that kind is there%s; name others with --glob '*.txt'",
                         in->recursive ? "" : " (see --recursive)");
    return CLI_OK;
}

/* What is wrong with all of them is said once, before any is submitted. */
static int check_first(struct run *r) {
    struct buf body = {0};
    struct refusal why = {0};
    int code = CLI_OK;
    if (!r->set->kind)
        return cli_usage("this program does not know the kind %s; `penstock schema` lists those it "
                         "does",
                         r->in->job.kind);
    if (feed_body(r->set, r->files.at[0].path, &body, NULL, 0) == 0 &&
        kind_decode(r->set->kind, buf_bytes(&body), NULL, &why) != 0 &&
        strcmp(why.code, "missing") == 0)
        code = cli_usage("%s; give it for all of them with --set %s=VALUE (see `penstock schema "
                         "%s`)",
                         why.message, why.field, r->in->job.kind);
    buf_fini(&body);
    return code;
}

static int run(struct run *r, struct penstock *p) {
    const struct sigaction catch = {.sa_handler = on_signal};
    struct penstock_bulk how = {.next = next,
                                .accepted = accepted,
                                .ended = ended,
                                .tick = tick,
                                .arg = r,
                                .window = r->in->window,
                                .results = r->in->wait};
    struct penstock_pong pong;
    char err[PENSTOCK_ERR_BYTES];
    int rc = penstock_ping(p, &pong, CLI_ANSWER_MS, err, sizeof err);
    if (rc < 0) return cli_fail(rc, err);
    sigaction(SIGINT, &catch, NULL);
    sigaction(SIGTERM, &catch, NULL);
    r->began_ms = r->ended_ms = clock_mono_ms();
    progress_init(&r->progress, r->files.n, r->in->quiet, r->began_ms);
    rc = penstock_bulk(p, &how, SILENT_MS, err, sizeof err);
    return sum_up(r, rc, err);
}

int submit_files(const struct submit *given, const struct body *set) {
    struct submit in = *given;
    if (in.out) in.wait = true;
    struct run r = {.in = &in, .set = set};
    struct penstock *p = NULL;
    int code = find_files(&r);
    if (code == CLI_OK) code = check_first(&r);
    if (code == CLI_OK) {
        r.items = calloc(r.files.n, sizeof *r.items);
        r.again = calloc(r.files.n, sizeof *r.again);
        if (!r.items || !r.again) code = cli_fail(PENSTOCK_MEMORY, "out of memory");
    }
    if (code == CLI_OK) code = cli_open(&in.c, &p);
    if (code == CLI_OK) code = run(&r, p);
    penstock_close(p);
    for (uint32_t i = 0; r.items && i < r.files.n; i++) {
        buf_fini(&r.items[i].body);
        free(r.items[i].key);
        free(r.items[i].said);
    }
    free(r.items);
    free(r.again);
    files_fini(&r.files);
    return code;
}
