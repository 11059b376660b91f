#include "broker/glance.h"

#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"

enum { FRESH = 4 };

struct glance_box *glance_new(void) {
    struct glance_box *box = calloc(1, sizeof *box);
    if (!box) return NULL;
    box->reading = 1;
    atomic_store(&box->between, 2);
    return box;
}

void glance_free(struct glance_box *box) {
    free(box);
}

struct glance *glance_begin(struct glance_box *box) {
    return &box->copy[box->writing];
}

void glance_publish(struct glance_box *box) {
    uint32_t was = atomic_exchange(&box->between, box->writing | FRESH);
    box->writing = was & (FRESH - 1);
}

const struct glance *glance_latest(struct glance_box *box) {
    if (atomic_load(&box->between) & FRESH)
        box->reading = atomic_exchange(&box->between, box->reading) & (FRESH - 1);
    return &box->copy[box->reading];
}

void glance_turn(struct glance_box *box, const struct broker *b) {
    atomic_store_explicit(&box->turned_ms, b->now_ms, memory_order_relaxed);
    int c = b->draining     ? GLANCE_DRAINING
            : b->disk_error ? GLANCE_DISK
            : b->store_full ? GLANCE_FULL
                            : GLANCE_ACCEPTING;
    atomic_store_explicit(&box->condition, c, memory_order_relaxed);
}

static void take_tally(const struct tally *t, struct glance *g) {
    g->n_rows = t->n;
    g->n_times = t->n_times;
    memcpy(g->row, t->row, t->n * sizeof *t->row);
    for (uint32_t i = 0; i < t->n_times; i++) {
        memcpy(g->times[i].run, t->times[i].run, sizeof g->times[i].run);
        histogram_copy(&g->times[i].wait, &t->times[i].wait);
        histogram_copy(&g->times[i].duration, &t->times[i].duration);
    }
}

void glance_take(struct broker *b, struct glance *g) {
    struct commit_stats commits = commit_stats(b->committer);
    g->at_ms = b->now_ms;
    g->started_ms = b->started_ms;
    g->started_wall_ms = b->now_wall_ms - (b->now_ms - b->started_ms);
    g->epoch = store_epoch(b->store);
    g->live_jobs = b->jobs.len;
    g->accepted = b->accepted;
    memcpy(g->finished, b->finished, sizeof g->finished);
    g->refused = b->refused;
    g->dropped = b->dropped;
    g->commits = commits.commits;
    g->commit_ops = commits.ops;
    g->commits_outstanding = commit_outstanding(b->committer);
    g->commit_bytes = b->commit_bytes;
    g->handed_bytes = b->handed_bytes;
    g->workers = b->peers.n;
    g->leases = g->credit = 0;
    g->texts = b->texts;
    for (const struct worker *w = b->peers.first; w; w = w->next) {
        g->leases += w->leases;
        g->credit += w->credit_jobs;
        texts_add_now(&g->texts, &w->texts);
    }
    g->watches = b->watches.n;
    g->uploads = b->uploads.n;
    g->upload_bytes_missing = uploads_missing_bytes(&b->uploads);
    g->owed = b->owed.n;
    g->stalls = b->stall.stalls;
    g->stalled = b->stall.since_ms != 0;
    store_usage(b->store, &g->usage);
    g->scrub = scrub_stats(b->scrub);
    g->set_aside = b->set_aside;
    g->crowded = b->crowded;
    g->draining = b->draining;
    g->store_full = b->store_full;
    g->disk_error = b->disk_error;
    histogram_copy(&g->accept, &b->accept_times);
    histogram_copy(&g->commit, commit_times(b->committer));
    take_tally(&b->tally, g);
}
