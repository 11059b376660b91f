#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/err.h"
#include "broker/broker.h"

enum { RETRY_FULL_MS = 500, RETRY_DRAIN_MS = 2000 };

static bool refuse_load(struct broker *b, const struct pipeline *p, uint32_t index,
                        struct refusal *why) {
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
    } else if (b->store_full) {
        refusal_set(why, "full", "", "80 % of the store",
                    "wait for retention, or raise the store's cap", "the store is over 80 %% full");
        why->retry_after_ms = RETRY_DRAIN_MS;
    } else if (b->jobs.len >= b->config.queue_max || b->queued[index] >= p->queue_max) {
        snprintf(limit, sizeof limit, "at most %u jobs",
                 b->queued[index] >= p->queue_max ? p->queue_max : b->config.queue_max);
        refusal_set(why, "full", "pipeline", limit, "submit again later",
                    "%s has as many live jobs as it may",
                    b->queued[index] >= p->queue_max ? p->name : "the broker");
        why->retry_after_ms = RETRY_FULL_MS;
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

static const struct pipeline *choose_pipeline(struct broker *b, const struct msg_submit *m,
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

/* Everything that a submit can be refused for before it is a job. */
static const struct pipeline *check_submit(struct broker *b, const struct request *r,
                                           uint32_t *index, const struct kind_desc **kind,
                                           struct refusal *why) {
    const struct msg_submit *m = r->header;
    *kind = kind_find(m->kind);
    if (!*kind) {
        refusal_set(why, "unknown_kind", "kind", "one of the kinds of this broker",
                    "`penstock schema` lists the kinds", "no kind is named %.*s", (int)m->kind.len,
                    (const char *)m->kind.data);
        return NULL;
    }
    const struct pipeline *p = choose_pipeline(b, m, *kind, index, why);
    if (!p || refuse_load(b, p, *index, why)) return NULL;
    return kind_decode(*kind, r->payload[0], NULL, why) == 0 ? p : NULL;
}

static uint64_t draw_seed(void) {
    uint64_t seed = (uint64_t)clock_mono_ns(); /* what is left without an entropy pool */
    ssize_t n = getrandom(&seed, sizeof seed, GRND_NONBLOCK);
    (void)n;
    return seed >> 1; /* fits the signed integers of every client language */
}

static struct job *make_job(struct broker *b, const struct request *r, const struct pipeline *p,
                            const struct kind_desc *kind) {
    const struct msg_submit *m = r->header;
    struct job *j = job_new(p);
    if (!j) return NULL;
    j->id = b->last_id = job_id_next(b->last_id, b->now_wall_ms);
    j->kind = kind;
    j->tenant = r->tenant;
    j->seed = m->has_seed ? m->seed : draw_seed();
    j->priority = (uint32_t)m->priority;
    j->accepted_ms = b->now_wall_ms;
    j->ready_ms = b->now_wall_ms + (int64_t)m->delay_ms;
    j->expires_ms = m->ttl_ms ? b->now_wall_ms + (int64_t)m->ttl_ms : 0;
    if (m->key.len) {
        void *key = malloc(m->key.len);
        if (!key) goto fail;
        memcpy(key, m->key.data, m->key.len);
        j->key = bytes_of(key, m->key.len);
    }
    if (job_payload_set(&j->body, r->payload, 1) != 0) goto fail;
    return j;
fail:
    job_free(j);
    return NULL;
}

void on_submit(struct broker *b, const struct request *r) {
    const struct msg_submit *m = r->header;
    struct refusal why;
    const struct kind_desc *kind;
    uint32_t index;
    const struct pipeline *p = check_submit(b, r, &index, &kind, &why);
    if (!p) {
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    struct job *j = make_job(b, r, p, kind);
    struct commit_op *op = commit_op_new(COMMIT_ADD);
    if (!j || !op || effects_keep_parts(op, JOB_SLOT_BODY, r->payload, 1) ||
        job_table_insert(&b->jobs, j)) {
        job_free(j);
        commit_op_free(op);
        refusal_set(&why, "full", "", "memory", "submit again later",
                    "the broker is out of memory");
        why.retry_after_ms = RETRY_FULL_MS;
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    b->queued[index]++;
    op->peer = r->peer;
    op->req = m->req;
    op->answer = true;
    effects_apply(b, j, JOB_FX_COMMIT, op);
}
