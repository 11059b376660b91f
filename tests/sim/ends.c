/* Ended jobs on the simulated disk: their order, which subscribers follow, the index that retention
 * walks, and what may be deleted of them. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "store/ended.h"
#include "tests/sim/world.h"

/* ---- the order ---- */

/* The same rule as the store's: a number once, and another one only with another time. */
void ends_put(struct cell *c, const struct job_record *r) {
    struct disk *d = &W->disk;
    if (!job_state_terminal(r->state) || c->end.finished_ms == r->finished_ms) return;
    if (d->n_ends == d->ends_cap) {
        d->ends_cap = d->ends_cap ? d->ends_cap * 2 : 256;
        d->ends = realloc(d->ends, d->ends_cap * sizeof *d->ends);
        CHECK(d->ends, "out of memory");
    }
    d->ends[d->n_ends++] = c->id;
    c->end = (struct ending){r->finished_ms, d->n_ends, r->state};
}

const struct cell *ends_at(uint64_t offset) {
    const struct disk *d = &W->disk;
    const struct cell *c = offset && offset <= d->n_ends ? disk_cell(d->ends[offset - 1]) : NULL;
    return c && c->end.offset == offset ? c : NULL;
}

int ended_after(struct store_read *t, uint64_t after, struct ended *out, uint32_t max,
                uint32_t *n) {
    (void)t;
    *n = 0;
    for (uint64_t o = after + 1; o <= W->disk.n_ends && *n < max; o++) {
        const struct cell *c = ends_at(o);
        if (c) out[(*n)++] = (struct ended){o, c->id};
    }
    return 0;
}

int ended_bounds(struct store_read *t, uint64_t *oldest, uint64_t *newest) {
    (void)t;
    *newest = W->disk.n_ends;
    for (*oldest = 1; *oldest <= *newest && !ends_at(*oldest);) ++*oldest;
    return 0;
}

/* ---- retention ---- */

static int by_end(const void *a, const void *b) {
    const struct job_ended *x = a, *y = b;
    if (x->finished_ms != y->finished_ms) return x->finished_ms < y->finished_ms ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

int jobs_ended(struct store_read *t, int64_t after_ms, uint64_t after_id, struct job_ended *out,
               uint32_t max, uint32_t *n) {
    (void)t;
    const struct disk *d = &W->disk;
    struct job_ended after = {.id = after_id, .finished_ms = after_ms};
    struct job_ended *all = malloc((d->n + 1) * sizeof *all);
    uint32_t found = 0;
    CHECK(all, "out of memory");
    for (uint32_t i = 0; i < d->n; i++) {
        const struct cell *c = d->cells[i];
        struct job_ended e = {c->id, c->end.finished_ms, c->end.state};
        if (c->end.offset && by_end(&e, &after) > 0) all[found++] = e;
    }
    qsort(all, found, sizeof *all, by_end);
    *n = found < max ? found : max;
    memcpy(out, all, *n * sizeof *out);
    free(all);
    return 0;
}

uint64_t store_over(const struct store *s, uint32_t percent, uint64_t bytes) {
    (void)s, (void)percent;
    return bytes && W->disk.bytes > bytes ? W->disk.bytes - bytes : 0;
}

/* ---- what may go ---- */

/* As its owner is told: its own keep time, and whatever the need, the window of its key. */
static void check_age(const struct broker *b, const struct cell *c, const struct job_record *r) {
    int64_t window_ms = b->load.settings->dedupe_window_ms, age_ms = b->now_wall_ms;
    int64_t keep_ms = r->state == JOB_FAILED ? W->keep.retain_failed_ms : W->keep.retain_ms;
    age_ms -= r->finished_ms;
    CHECK(age_ms >= window_ms, "%s goes after %lld ms, within the window of its key",
          sim_name(c->id), (long long)age_ms);
    if (keep_ms && age_ms >= keep_ms) return;
    CHECK(W->keep.retain_bytes && W->disk.bytes > W->keep.retain_bytes,
          "%s goes after %lld ms, before its time, and there is no need", sim_name(c->id),
          (long long)age_ms);
    CHECK(age_ms >= RETAIN_GRACE_MS, "%s goes after %lld ms", sim_name(c->id), (long long)age_ms);
}

static bool is_live(uint64_t id) {
    return job_table_find(&W->b->jobs, id) != NULL;
}

/* What retention has chosen, on its way to the store thread for the first time. */
void ends_chosen(const struct commit_op *op) {
    if (op->seq <= W->chosen_seq) return;
    W->chosen_seq = op->seq;
    for (uint32_t i = 0; i < op->n_ids; i++) {
        struct cell *c = disk_cell(op->ids[i]);
        struct job_record r;
        if (!disk_record(c, &r, NULL)) continue;
        CHECK(job_state_terminal(r.state) && !is_live(c->id), "%s is %s, and is to be deleted",
              sim_name(c->id), job_state_name(r.state));
        for (uint32_t k = 0; k < r.n_children; k++)
            CHECK(!is_live(r.first_child + k), "%s is to be deleted, and its child %u is not over",
                  sim_name(c->id), k);
        check_age(W->b, c, &r);
        c->chosen = true;
    }
}

/* The record goes, if this transaction is committed. */
void ends_del(struct cell *c, const struct job_record *r) {
    struct disk *d = &W->disk;
    if (d->n_gone == d->gone_cap) {
        d->gone_cap = d->gone_cap ? d->gone_cap * 2 : 64;
        d->gone = realloc(d->gone, d->gone_cap * sizeof *d->gone);
        CHECK(d->gone, "out of memory");
    }
    bool left_out = r->source.len && r->state == JOB_CANCELLED && bytes_is(r->reason, "dropped");
    d->gone[d->n_gone++] = (struct gone){.cell = c,
                                         .state = r->state,
                                         .left_out = left_out,
                                         .source = (uint8_t)(left_out ? sim_source(r->source) : 0),
                                         .parent = r->parent,
                                         .first_child = r->first_child,
                                         .n_children = r->n_children};
    c->end = (struct ending){0};
}

static bool there(uint64_t id, struct job_record *r) {
    return disk_record(disk_cell(id), r, NULL);
}

/* A family goes together: no part before its parent, but one that was dropped by name, and none
 * that has ended after it. */
static void check_family(const struct gone *g) {
    struct job_record r;
    if (g->parent && !W->play && !g->cell->drop_asked && !W->drop_asked[g->cell->tenant])
        CHECK(!there(g->parent, &r), "%s goes, and its parent stays", sim_name(g->cell->id));
    for (uint32_t i = 0; i < g->n_children; i++)
        CHECK(!there(g->first_child + i, &r) || !job_state_terminal(r.state),
              "%s goes, and its child %u stays", sim_name(g->cell->id), i);
}

static void check_gone(const struct gone *g) {
    struct cell *c = g->cell;
    if (!c->accepted && !g->parent && !c->chosen) return; /* a submit that was taken back */
    const struct cell *parent = g->parent ? disk_cell(g->parent) : NULL;
    bool asked = W->play || c->drop_asked || W->drop_asked[c->tenant] ||
                 (parent && (parent->drop_asked || W->drop_asked[parent->tenant]));
    CHECK(job_state_terminal(g->state), "%s is %s and is deleted", sim_name(c->id),
          job_state_name(g->state));
    CHECK(c->chosen || (parent && parent->chosen) || asked, "%s is deleted, and nobody asked",
          sim_name(c->id));
    check_family(g);
    c->deleted = true;
    W->deleted++;
    W->ends[g->state]++;
    if (g->left_out) W->left_out[c->tenant][g->source]++;
}

/* The transaction is on disk, or may be. */
void ends_committed(void) {
    for (uint32_t i = 0; i < W->disk.n_gone; i++) check_gone(&W->disk.gone[i]);
    W->disk.n_gone = 0;
}
