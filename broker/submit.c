#include "broker/submit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/err.h"
#include "broker/admit.h"
#include "broker/broker.h"
#include "broker/verdicts.h"
#include "schemas/batch.h"

enum { RETRY_FULL_MS = 500, RETRY_DRAIN_MS = 2000 };

static void refuse_full(struct refusal *why) {
    refusal_set(why, "full", "", "80 % of the store",
                "wait for retention, or raise the store's cap", "the store is over 80 %% full");
    why->retry_after_ms = RETRY_DRAIN_MS;
}

bool refuse_writes(struct broker *b, struct refusal *why) {
    char limit[64];
    if (b->draining) {
        refusal_set(why, "draining", "", "", "submit again when the broker is back",
                    "the broker is stopping");
        why->retry_after_ms = RETRY_DRAIN_MS;
    } else if (b->disk_error) {
        refusal_set(why, "disk", "", "",
                    "free space or repair the disk; the broker tries again by itself",
                    "the store takes no writes: %s", err_text(b->disk_error));
        why->retry_after_ms = RETRY_FULL_MS;
    } else if (b->store_full || !disk_has_room(b, 0)) {
        refuse_full(why);
    } else if (commit_outstanding(b->committer) >= BROKER_OPS_SUBMIT_MAX ||
               b->commit_bytes >= BROKER_COMMIT_BYTES) {
        snprintf(limit, sizeof limit, "at most %u jobs or %u MiB on their way to the disk",
                 BROKER_OPS_SUBMIT_MAX, (uint32_t)(BROKER_COMMIT_BYTES >> 20));
        refusal_set(why, "full", "", limit, "submit again later", "the disk is behind");
        why->retry_after_ms = RETRY_FULL_MS;
    } else {
        return false;
    }
    return true;
}

static bool refuse_draft(struct broker *b, const struct draft *d, struct admission *a,
                         struct refusal *why) {
    *a = (struct admission){.n = 0};
    if (refuse_writes(b, why)) return true;
    if (disk_has_room(b, d->body.len))
        return !admit_room(b, d, d->upload ? d->upload->bytes : d->body.len, a, why);
    refuse_full(why);
    return true;
}

static const struct pipeline *choose_pipeline(const struct broker *b, const struct msg_submit *m,
                                              const struct kind_desc *kind, uint32_t *index,
                                              struct refusal *why) {
    struct bytes name = m->pipeline.len ? m->pipeline : m->kind;
    for (uint32_t i = 0; i < b->n_loaded; i++) {
        const struct pipeline *p = b->pipelines.items[i];
        if (!bytes_is(name, p->name)) continue;
        if (strcmp(p->kind, kind->name) == 0) {
            *index = i;
            return p;
        }
        refusal_set(why, "unknown_pipeline", "pipeline", "a loaded pipeline of the kind",
                    "name a pipeline of this kind", "pipeline %s is for kind %s, not %s", p->name,
                    p->kind, kind->name);
        return NULL;
    }
    refusal_set(why, "unknown_pipeline", "pipeline", "a loaded pipeline of the kind",
                "add a pipeline file, or name one that is loaded", "no pipeline is named %.*s",
                (int)name.len, (const char *)name.data);
    return NULL;
}

int draft_choose(struct broker *b, struct draft *d, struct refusal *why) {
    d->kind = kind_find(d->m->kind);
    if (!d->kind) {
        refusal_set(why, "unknown_kind", "kind", "one of the kinds of this broker",
                    "`penstock schema` lists the kinds", "no kind is named %.*s",
                    (int)d->m->kind.len, (const char *)d->m->kind.data);
        return ERR_UNKNOWN;
    }
    d->pipeline = choose_pipeline(b, d->m, d->kind, &d->index, why);
    return d->pipeline ? 0 : ERR_UNKNOWN;
}

static uint64_t draw_seed(void) {
    uint64_t seed = (uint64_t)clock_mono_ns(); /* what is left without an entropy pool */
    ssize_t n = getrandom(&seed, sizeof seed, GRND_NONBLOCK);
    (void)n;
    return seed >> 1; /* fits the signed integers of every client language */
}

static struct job *make_job(struct broker *b, const struct draft *d) {
    const struct msg_submit *m = d->m;
    struct job *j = job_new(d->pipeline);
    if (!j) return NULL;
    j->id = d->upload ? d->upload->id : (b->last_id = job_id_next(b->last_id, b->now_wall_ms));
    j->kind = d->kind;
    j->tenant = d->tenant;
    j->origin = d->origin;
    j->seed = m->has_seed ? m->seed : draw_seed();
    j->priority = (uint8_t)m->priority;
    j->accepted_ms = b->now_wall_ms;
    j->ready_ms = b->now_wall_ms + (int64_t)m->delay_ms;
    j->expires_ms = m->ttl_ms ? b->now_wall_ms + (int64_t)m->ttl_ms : 0;
    if (d->key.len) {
        void *key = malloc(d->key.len);
        if (!key) goto fail;
        memcpy(key, d->key.data, d->key.len);
        j->key = bytes_of(key, d->key.len);
    }
    if (d->upload)
        j->body = upload_payload(d->upload);
    else if (job_payload_set(&j->body, &d->body, 1) != 0)
        goto fail;
    return j;
fail:
    job_free(j);
    return NULL;
}

static struct commit_op *count_sampled(struct source *s, struct refusal *why) {
    struct commit_op *op = admit_count(s);
    if (op) return op;
    refusal_set(why, "full", "", "memory", "submit again later", "the broker is out of memory");
    why->retry_after_ms = RETRY_FULL_MS;
    return NULL;
}

/* Whether the store thread will answer soon. */
static bool may_look(const struct broker *b) {
    return !b->draining && !b->disk_error &&
           commit_outstanding(b->committer) < BROKER_OPS_SUBMIT_MAX &&
           b->commit_bytes < BROKER_COMMIT_BYTES;
}

struct commit_op *draft_admit(struct broker *b, const struct draft *d, struct refusal *why) {
    struct bytes body = d->body;
    struct admission a;
    if (refuse_draft(b, d, &a, why)) {
        struct commit_op *count = a.sampled ? count_sampled(a.source, why) : NULL;
        bool look = d->key.len && may_look(b) && (count || !a.sampled);
        return look ? admit_look(d, count, why) : count;
    }
    if ((d->upload && upload_read(b, d->upload, &body, why) != 0) ||
        kind_decode(d->kind, body, NULL, why) != 0)
        return NULL;
    struct job *j = make_job(b, d);
    struct commit_op *op = commit_op_new(COMMIT_ADD);
    if (!j || !op || (a.source && source_join(a.source, j)) ||
        (j->body.in_blob && !d->upload && effects_keep_parts(op, JOB_SLOT_BODY, &d->body, 1)) ||
        job_table_insert(&b->jobs, j) || (d->upload && upload_submit(b, d->upload, op)) ||
        admit_drop(b, &a, op)) {
        if (j) job_table_remove(&b->jobs, j);
        job_free(j);
        commit_op_free(op);
        refusal_set(why, "full", "", "memory", "submit again later", "the broker is out of memory");
        why->retry_after_ms = RETRY_FULL_MS;
        return NULL;
    }
    load_take(b, j);
    b->bodies_bytes += j->body.inlined.len;
    load_spend(b, d->tenant);
    op->answer = true;
    op->begun_ns = b->turn_ns;
    effects_prepare(b, j, op);
    return op;
}

void on_submit(struct broker *b, const struct request *r) {
    const struct msg_submit *m = r->header;
    struct draft d = {.m = m, .tenant = r->tenant, .key = m->key};
    struct refusal why;
    int e = upload_for_submit(b, r, &d.upload, &why);
    if (e > 0) return;
    if (r->n) d.body = r->payload[0];
    if (!e) e = draft_choose(b, &d, &why);
    struct commit_op *op = e ? NULL : draft_admit(b, &d, &why);
    if (!op) {
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    op->peer = r->peer;
    op->req = m->req;
    outbox_add(b, op);
}

/* ---- many in one message ---- */

static bool count_items(const struct request *r, uint32_t *n, struct refusal *why) {
    *n = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        struct batch_it it;
        if (batch_begin(&it, r->payload[i], why) != 0) return false;
        *n += it.left;
    }
    if (*n > 0 && *n <= LIMIT_BATCH_JOBS) return true;
    char limit[64];
    snprintf(limit, sizeof limit, "1 to %u jobs", LIMIT_BATCH_JOBS);
    refusal_set(why, "limit", "payload", limit, "send several messages", "the message has %u jobs",
                *n);
    return false;
}

/* What all jobs of the message have in common, as the header of one submit. */
static struct msg_submit common(const struct msg_submit_many *m) {
    return (struct msg_submit){.kind = m->kind,
                               .pipeline = m->pipeline,
                               .priority = m->priority,
                               .delay_ms = m->delay_ms,
                               .ttl_ms = m->ttl_ms,
                               .has_seed = m->has_seed,
                               .seed = m->seed,
                               .source = m->source};
}

void on_submit_many(struct broker *b, const struct request *r) {
    const struct msg_submit_many *m = r->header;
    struct msg_submit one = common(m);
    struct draft d = {.m = &one, .tenant = r->tenant};
    struct refusal why;
    uint32_t n, i = 0;
    if (!count_items(r, &n, &why) || draft_choose(b, &d, &why) != 0) {
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    struct verdicts *v = verdicts_new(b, &r->peer, m->req, n);
    if (!v) {
        refusal_set(&why, "full", "", "memory", "submit again later",
                    "the broker is out of memory");
        why.retry_after_ms = RETRY_FULL_MS;
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    struct commit_op *first = NULL, **last = &first;
    for (uint32_t frame = 0; frame < r->n; frame++) {
        struct batch_it it;
        struct batch_item item;
        batch_begin(&it, r->payload[frame], &why);
        for (int e; (e = batch_next(&it, &item, &why)) != 0; i++, one.seed++) {
            d.key = item.key;
            d.body = item.body;
            struct commit_op *op = e > 0 ? draft_admit(b, &d, &why) : NULL;
            if (!op) {
                verdict_refused(v, i, &why);
                continue;
            }
            op->verdicts = v;
            op->index = i;
            *last = op;
            last = commit_op_end(op);
        }
    }
    if (first) outbox_add(b, first); /* one operation to the store thread: one commit */
    verdicts_answer(b, v);
}
