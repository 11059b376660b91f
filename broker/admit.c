#include "broker/admit.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"

static bool find_source(struct broker *b, const struct draft *d, struct admission *a,
                        struct refusal *why) {
    char limit[64];
    if (!d->m->source.len) return true;
    a->source = source_get(d->tenant, d->m->source, b->load.settings);
    if (a->source) return true;
    snprintf(limit, sizeof limit, "at most %u sources of one tenant", LIMIT_TENANT_SOURCES);
    refusal_set(why, "limit", "source", limit,
                "use the names of sources that are there; one is forgotten when nothing of it is",
                "there is no room for another source, or its name is none");
    return false;
}

static void makes_room(struct broker *b, struct admission *a, struct job *j, uint8_t why) {
    if (!j) return;
    load_untake(b, j);
    a->why[a->n] = why;
    a->out[a->n++] = j;
}

/* Everybody counts again, whether he is dropped or not. */
static void count_again(struct broker *b, const struct admission *a) {
    for (uint32_t i = a->n; i > 0; i--) load_take(b, a->out[i - 1]);
}

/* Of the jobs of the tenant that wait in this level, about the oldest: the first in its queue.
 * Parts of a job do not count in the level, so none would make room. */
static struct job *oldest_of_level(const struct tenant *t, uint32_t level) {
    struct job *oldest = NULL;
    for (const struct ready_flow *f = t->flows; f; f = f->also) {
        struct job *j = f->level == level ? f->head : NULL;
        while (j && (j->parent || !job_waits(j))) j = j->ready_next;
        if (j && (!oldest || j->id < oldest->id)) oldest = j;
    }
    return oldest;
}

static void room_in_level(struct broker *b, const struct draft *d, uint64_t bytes,
                          struct admission *a) {
    uint32_t priority = (uint32_t)d->m->priority;
    const struct settings_level *l = &b->load.settings->levels[priority];
    struct gauge now = b->load.level[priority];
    now.jobs -= b->load.leaving[priority];
    if (!l->drops || !gauge_full(&now, &l->bounds, bytes)) return;
    makes_room(b, a, oldest_of_level(d->tenant, priority), JOB_LEAVES_LEVEL);
}

bool admit_room(struct broker *b, const struct draft *d, uint64_t bytes, struct admission *a,
                struct refusal *why) {
    struct source *s;
    *a = (struct admission){.n = 0};
    if (!find_source(b, d, a, why)) return false;
    if ((s = a->source) && source_samples_out(s, b->now_ms)) {
        a->sampled = true;
        return false;
    }
    if (s && s->settings->policy == SOURCE_DROP_OLDEST && s->settings->depth &&
        s->live.jobs - s->leaving >= s->settings->depth)
        makes_room(b, a, source_oldest(s), JOB_LEAVES_SOURCE);
    room_in_level(b, d, bytes, a);
    bool refused = load_refuses(b, d, a->source, bytes, why);
    count_again(b, a);
    if (refused) a->n = 0;
    return !refused;
}

void admit_left(struct broker *b, struct job *j) {
    if (j->leaving & JOB_LEAVES_SOURCE) j->seat->source->leaving--;
    if (j->leaving & JOB_LEAVES_LEVEL) b->load.leaving[j->priority]--;
    j->leaving = 0;
}

/* ---- dropped ---- */

static void drop(struct broker *b, struct job *j, uint8_t why, struct commit_op *op,
                 struct commit_op *with) {
    struct job_event e = {.type = JOB_EV_CANCEL};
    op->with = with;
    j->leaving = why;
    if (why & JOB_LEAVES_SOURCE) j->seat->source->leaving++;
    if (why & JOB_LEAVES_LEVEL) b->load.leaving[j->priority]++;
    if (j->seat) {
        j->seat->source->dropped++;
        op->count = (struct source_record){.tenant = bytes_str(j->tenant->name),
                                           .name = bytes_str(j->seat->source->name),
                                           .dropped = 1};
    }
    job_set_reason(j, bytes_str("dropped"));
    uint32_t fx = effects_transition(b, j, &e, j->tenant->name, bytes_str(""));
    effects_apply(b, j, fx, op);
}

int admit_drop(struct broker *b, struct admission *a, struct commit_op *op) {
    struct commit_op *drops[2] = {NULL};
    for (uint32_t i = 0; i < a->n; i++)
        if (!(drops[i] = commit_op_new(COMMIT_UPDATE))) {
            commit_op_free(drops[0]);
            return -ENOMEM;
        }
    for (uint32_t i = 0; i < a->n; i++) drop(b, a->out[i], a->why[i], drops[i], op);
    return 0;
}

void admit_kept(struct broker *b, struct commit_op *op) {
    struct job *j = job_table_find(&b->jobs, op->job);
    struct job_event e = {.type = JOB_EV_KEPT};
    assert(j && j->commits == 1);
    j->commits--;
    if (j->seat) j->seat->source->dropped--;
    job_set_reason(j, bytes_str(""));
    job_unnote(j);
    admit_left(b, j);
    if (j->expires_ms)
        due_set(&b->expiries, &j->expiry_due, b->now_ms + (j->expires_ms - b->now_wall_ms));
    effects_apply(b, j, effects_transition(b, j, &e, "", bytes_str("")), NULL);
    effects_release(b, op);
    commit_op_free(op);
}

/* ---- sampled out ---- */

struct commit_op *admit_count(struct source *s) {
    struct commit_op *op = commit_op_new(COMMIT_COUNT);
    if (!op) return NULL;
    op->answer = true;
    op->count = (struct source_record){
        .tenant = bytes_str(s->tenant->name), .name = bytes_str(s->name), .sampled = 1};
    s->sampled++;
    return op;
}

struct commit_op *admit_look(const struct draft *d, struct commit_op *op,
                             const struct refusal *why) {
    if (!op && !(op = commit_op_new(COMMIT_COUNT))) return NULL;
    void *key = arena_copy(&op->arena, d->key.data, d->key.len);
    if (!op->count.name.len) op->why = arena_copy(&op->arena, why, sizeof *why);
    if (!key || (!op->count.name.len && !op->why)) {
        commit_op_free(op);
        return NULL;
    }
    op->answer = true;
    op->record.kind = bytes_str(d->kind->name);
    op->record.tenant = bytes_str(d->tenant->name);
    op->record.key = bytes_of(key, d->key.len);
    op->record.body.bytes = d->upload ? d->upload->bytes : d->body.len;
    op->record.body.crc = d->upload ? d->upload->crc : crc32c(0, d->body.data, d->body.len);
    return op;
}

static struct source *counted_source(struct broker *b, const struct commit_op *op) {
    struct tenant *t = tenant_get(&b->tenants, op->count.tenant);
    return t ? source_get(t, op->count.name, b->load.settings) : NULL;
}

void admit_counted(struct broker *b, struct commit_op *op) {
    struct refusal why;
    char limit[64] = "";
    if (op->why) {
        effects_refuse(b, op, op->why);
        return;
    }
    const struct source *s = counted_source(b, op);
    if (s && s->settings->keep_one_of)
        snprintf(limit, sizeof limit, "one of %u with %u live jobs", s->settings->keep_one_of,
                 s->settings->above);
    else if (s)
        snprintf(limit, sizeof limit, "one in %u ms with %u live jobs", s->settings->interval_ms,
                 s->settings->above);
    refusal_set(&why, "sampled", "source", limit, "send the next one when it is there",
                "source %.64s has %u live jobs, and this one is left out", s ? s->name : "",
                s ? s->live.jobs : 0);
    effects_refuse(b, op, &why);
}

void admit_uncount(struct broker *b, const struct commit_op *op) {
    struct source *s = op->count.name.len ? counted_source(b, op) : NULL;
    if (s) s->sampled--;
}
