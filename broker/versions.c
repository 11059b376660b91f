#include "broker/versions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"
#include "pipelines/plan.h"
#include "schemas/pack.h"

/* ---- live jobs of each version ---- */

struct census {
    const struct pipelines *set;
    uint32_t *jobs; /* [set->n] */
    uint32_t last;  /* where the last one was found */
};

static void count_one(void *arg, struct job *j) {
    struct census *c = arg;
    const struct pipelines *set = c->set;
    if (set->items[c->last] != j->pipeline)
        for (c->last = 0; set->items[c->last] != j->pipeline;) c->last++;
    c->jobs[c->last]++;
}

/* free() it. NULL: no memory, or no pipelines. */
static uint32_t *live_jobs(const struct broker *b) {
    struct census c = {.set = &b->pipelines};
    c.jobs = calloc(b->pipelines.n ? b->pipelines.n : 1, sizeof *c.jobs);
    if (c.jobs) job_table_each(&b->jobs, count_one, &c);
    return c.jobs;
}

/* Retired ones that nobody runs any more. */
static void forget_unused(struct broker *b) {
    uint32_t *jobs = live_jobs(b), kept = b->n_loaded;
    if (!jobs) return;
    for (uint32_t i = b->n_loaded; i < b->pipelines.n; i++) {
        struct pipeline *p = b->pipelines.items[i];
        if (jobs[i])
            b->pipelines.items[kept++] = p;
        else
            plan_free(p);
    }
    b->pipelines.n = kept;
    tally_forget_pipelines(&b->tally);
    free(jobs);
}

int versions_settle(struct broker *b, struct pipelines *fresh) {
    uint32_t n = fresh->n;
    int e = pipelines_replace(&b->pipelines, fresh);
    if (e) return e;
    b->n_loaded = n;
    forget_unused(b);
    load_recount(b);
    return 0;
}

/* ---- files ---- */

static void watch(struct broker *b) {
    struct versions *v = &b->versions;
    uint32_t what = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE;
    char dirs[sizeof v->dirs], *rest = dirs;
    strcpy(dirs, v->dirs);
    v->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    for (char *dir; v->fd >= 0 && (dir = strsep(&rest, ":"));)
        if (inotify_add_watch(v->fd, dir, what) < 0)
            log_warn("pipelines_not_watched",
                     "dir=%s error=\"%s\" fix=\"send SIGHUP after a change\"", dir,
                     strerror(errno));
}

static int load(struct broker *b, char *err, size_t err_bytes) {
    struct pipelines fresh;
    int e = pipelines_load(&fresh, b->versions.dirs, err, err_bytes);
    if (e) return e;
    e = versions_settle(b, &fresh);
    if (e) {
        pipelines_free(&fresh);
        return err_set(err, err_bytes, e, "%s: %s", b->versions.dirs, err_text(e));
    }
    b->versions.loaded_ms = b->now_wall_ms;
    b->versions.refused[0] = '\0';
    return 0;
}

int versions_open(struct broker *b, char *err, size_t err_bytes) {
    struct versions *v = &b->versions;
    v->fd = -1;
    int e = pipelines_dir(b->config.pipelines, v->dirs, sizeof v->dirs, err, err_bytes);
    if (!e) watch(b);
    return e ? e : load(b, err, err_bytes);
}

void versions_close(struct broker *b) {
    if (b->versions.dirs[0] && b->versions.fd >= 0) close(b->versions.fd);
    pipelines_free(&b->pipelines);
}

void versions_reload(struct broker *b) {
    char err[sizeof b->versions.refused], quoted[700];
    if (!b->versions.dirs[0]) return;
    if (load(b, err, sizeof err) == 0) {
        log_info("pipelines_loaded", "pipelines=%u retired=%u", b->n_loaded,
                 b->pipelines.n - b->n_loaded);
        return;
    }
    strcpy(b->versions.refused, err);
    log_error("pipelines_refused", "kept=\"the pipelines from before\" reason=%s",
              log_quote(quoted, sizeof quoted, err));
}

/* Kubernetes swaps a link whose name begins with two dots in place of the files. */
static bool is_about(const char *name) {
    size_t len = strlen(name);
    if (strncmp(name, "..", 2) == 0) return true;
    return name[0] != '.' && len > 5 && strcmp(name + len - 5, ".yaml") == 0;
}

bool versions_changed(struct broker *b) {
    char events[4096] __attribute__((aligned(8)));
    bool changed = false;
    ssize_t n;
    while (b->versions.fd >= 0 && (n = read(b->versions.fd, events, sizeof events)) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *e = (const void *)(events + at);
            changed |= (e->mask & IN_Q_OVERFLOW) || (e->len > 0 && is_about(e->name));
            at += (ssize_t)(sizeof *e + e->len);
        }
    return changed;
}

/* ---- what is shown ---- */

static void pack_version(struct packer *p, const struct pipeline *pl, uint32_t jobs) {
    char version[9];
    pipeline_version_text(pl->version, version);
    pack_map(p, 6);
    pack_kv_str(p, "name", pl->name);
    pack_kv_str(p, "kind", pl->kind);
    pack_kv_str(p, "version", version);
    pack_kv_bool(p, "retired", pl->retired);
    pack_kv_u64(p, "stages", pl->n_stages);
    pack_kv_u64(p, "jobs", jobs);
}

void versions_pack(struct broker *b, struct buf *out) {
    struct packer p = packer_of(out);
    uint32_t *jobs = live_jobs(b), n = 0;
    for (uint32_t i = 0; i < b->pipelines.n; i++) n += i < b->n_loaded || (jobs && jobs[i]);
    if (n > VERSIONS_SHOWN_MAX) n = VERSIONS_SHOWN_MAX;
    pack_array(&p, n);
    for (uint32_t i = 0; n > 0; i++) {
        if (i >= b->n_loaded && !(jobs && jobs[i])) continue;
        pack_version(&p, b->pipelines.items[i], jobs ? jobs[i] : 0);
        n--;
    }
    free(jobs);
}
