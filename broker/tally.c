#include "broker/tally.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "broker/ready.h"

/* What does not fit is counted together. */
#define OTHER "other"
enum { RATE_OVER_MS = 30000, HEADS_MAX = 4096, BEHIND_HEAD = 16 };

static void name(char to[LIMIT_NAME_BYTES + 1], const char *from) {
    snprintf(to, LIMIT_NAME_BYTES + 1, "%s", from);
}

static bool is_row(const struct tally_row *row, const struct pipeline *p, uint32_t stage) {
    return row->index == stage && strcmp(row->pipeline, p->name) == 0 &&
           strcmp(row->stage, p->stages[stage].name) == 0;
}

static uint16_t find_row(struct tally *t, const struct pipeline *p, uint32_t stage) {
    for (uint32_t i = 0; i < t->n; i++)
        if (is_row(&t->row[i], p, stage)) return (uint16_t)i;
    if (t->n == TALLY_ROWS) return TALLY_ROWS - 1;
    struct tally_row *row = &t->row[t->n];
    bool last = t->n == TALLY_ROWS - 1;
    name(row->pipeline, last ? OTHER : p->name);
    name(row->stage, last ? OTHER : p->stages[stage].name);
    name(row->run, last ? OTHER : p->stages[stage].run);
    row->index = last ? 0 : stage;
    return (uint16_t)t->n++;
}

/* Names are compared all the same: a pipeline may lie where another one was. */
static uint16_t row_of(struct tally *t, const struct pipeline *p, uint32_t stage) {
    uint32_t h = (uint32_t)((uintptr_t)p >> 5) * 2654435761u;
    uint32_t at = h >> 26; /* TALLY_CACHE is 2^6 */
    if (t->cache[at].pipeline != p) {
        memset(&t->cache[at], 0, sizeof t->cache[at]);
        t->cache[at].pipeline = p;
    }
    uint16_t *known = &t->cache[at].row[stage];
    if (*known == 0 || !is_row(&t->row[*known - 1], p, stage))
        *known = (uint16_t)(find_row(t, p, stage) + 1);
    return (uint16_t)(*known - 1);
}

static uint64_t *count_of(struct tally_row *row, enum job_state state) {
    return state == JOB_READY ? &row->ready : state == JOB_LEASED ? &row->leased : &row->delayed;
}

static void uncount(struct tally *t, struct job *j) {
    struct tally_row *row = &t->row[j->tally_row - 1];
    uint64_t *n = count_of(row, (enum job_state)j->tally_state);
    assert(*n > 0 && row->bytes >= j->body.bytes);
    --*n;
    row->bytes -= j->body.bytes;
}

void tally_place(struct tally *t, struct job *j) {
    bool waits = j->state == JOB_READY || j->state == JOB_LEASED || j->state == JOB_DELAYED;
    if (!waits) {
        tally_remove(t, j);
        return;
    }
    uint16_t row = (uint16_t)(row_of(t, j->pipeline, j->stage) + 1);
    if (j->tally_row) uncount(t, j);
    if (j->tally_row != row) {
        if (j->tally_row) t->row[j->tally_row - 1].out++;
        t->row[row - 1].in++;
    }
    j->tally_row = row;
    j->tally_state = (uint8_t)j->state;
    ++*count_of(&t->row[row - 1], j->state);
    t->row[row - 1].bytes += j->body.bytes;
}

void tally_forget_pipelines(struct tally *t) {
    memset(t->cache, 0, sizeof t->cache);
}

void tally_remove(struct tally *t, struct job *j) {
    if (!j->tally_row) return;
    uncount(t, j);
    t->row[j->tally_row - 1].out++;
    j->tally_row = 0;
}

struct tally_times *tally_times_of(struct tally *t, const char *run) {
    for (uint32_t i = 0; i < t->n_times; i++)
        if (strcmp(t->times[i].run, run) == 0) return &t->times[i];
    if (t->n_times == TALLY_RUNS) return &t->times[TALLY_RUNS - 1];
    bool last = t->n_times == TALLY_RUNS - 1;
    name(t->times[t->n_times].run, last ? OTHER : run);
    return &t->times[t->n_times++];
}

/* ---- once a second ---- */

static void note_age(struct tally *t, const struct job *j, int64_t now_wall_ms) {
    if (!j->tally_row) return;
    int64_t ms = now_wall_ms - j->queued_ms;
    struct tally_row *row = &t->row[j->tally_row - 1];
    if (ms > row->oldest_ms) row->oldest_ms = ms;
}

static void sample_ages(struct tally *t, const struct ready *r, int64_t now_wall_ms) {
    uint32_t heads = 0;
    for (uint32_t i = 0; i < t->n; i++) t->row[i].oldest_ms = 0;
    for (uint32_t i = 0; i < r->n; i++)
        for (uint32_t level = 0; level < READY_LEVELS; level++) {
            const struct ready_flow *first = r->queue[i].turn[level], *f = first;
            if (!f) continue;
            do {
                const struct job *j = f->head;
                for (uint32_t n = 0; j && n < BEHIND_HEAD; n++, j = j->ready_next)
                    note_age(t, j, now_wall_ms);
                f = f->next;
            } while (f != first && ++heads < HEADS_MAX);
        }
}

static double approach(double rate, uint64_t now, uint64_t before, int64_t ms) {
    double seen = (double)(now - before) * 1000.0 / (double)ms;
    return rate + (seen - rate) * (double)ms / (double)(ms + RATE_OVER_MS);
}

void tally_sample(struct tally *t, const struct ready *r, int64_t now_ms, int64_t now_wall_ms) {
    int64_t ms = now_ms - t->sampled_ms;
    sample_ages(t, r, now_wall_ms);
    for (uint32_t i = 0; i < t->n && ms > 0; i++) {
        struct tally_row *row = &t->row[i];
        row->in_rate = approach(row->in_rate, row->in, row->seen_in, ms);
        row->out_rate = approach(row->out_rate, row->out, row->seen_out, ms);
        row->seen_in = row->in;
        row->seen_out = row->out;
    }
    t->sampled_ms = now_ms;
}
