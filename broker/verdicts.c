#include "broker/verdicts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "schemas/pack.h"

struct verdict {
    uint64_t job, seed, origin;
    enum job_state state;
    bool existing, refused;
    struct refusal *why; /* owned; NULL: there was no memory for it */
};
struct verdicts {
    struct verdicts *next, **at_prev; /* of the broker's, which forgets them at its end */
    struct sock_peer peer;
    uint64_t req, next_id;
    uint32_t n, open, refused;
    struct verdict at[];
};

struct verdicts *verdicts_new(struct broker *b, const struct sock_peer *peer, uint64_t req,
                              uint32_t n) {
    struct verdicts *v = calloc(1, sizeof *v + n * sizeof v->at[0]);
    if (!v) return NULL;
    v->peer = *peer;
    v->req = req;
    v->n = v->open = n;
    v->next = b->verdicts;
    v->at_prev = &b->verdicts;
    if (v->next) v->next->at_prev = &v->next;
    b->verdicts = v;
    return v;
}

static void verdicts_free(struct verdicts *v) {
    *v->at_prev = v->next;
    if (v->next) v->next->at_prev = v->at_prev;
    for (uint32_t i = 0; i < v->n; i++) free(v->at[i].why);
    free(v);
}

void verdict_accepted(struct verdicts *v, uint32_t i, const struct msg_accepted *m) {
    assert(i < v->n && v->open);
    v->open--;
    v->at[i].job = m->job;
    v->at[i].seed = m->seed;
    v->at[i].existing = m->existing;
    int e = job_state_parse(m->state, &v->at[i].state);
    assert(e == 0);
    (void)e;
}

void verdict_origin(struct verdicts *v, uint32_t i, uint64_t origin) {
    v->at[i].origin = origin;
}

void verdicts_next(struct verdicts *v, uint64_t next) {
    v->next_id = next;
}

void verdict_refused(struct verdicts *v, uint32_t i, const struct refusal *why) {
    assert(i < v->n && v->open);
    v->open--;
    v->refused++;
    v->at[i].refused = true;
    v->at[i].why = malloc(sizeof *why);
    if (v->at[i].why) *v->at[i].why = *why;
}

static void pack_origin(struct packer *p, const struct verdict *at) {
    char id[JOB_ID_CHARS + 1];
    if (!at->origin) return;
    job_id_text(at->origin, id);
    pack_kv_str(p, "origin", id);
}

static void pack_accepted(struct packer *p, const struct verdict *at) {
    char id[JOB_ID_CHARS + 1];
    job_id_text(at->job, id);
    pack_map(p, at->origin ? 5 : 4);
    pack_origin(p, at);
    pack_kv_str(p, "job", id);
    pack_kv_str(p, "state", job_state_name(at->state));
    pack_kv_u64(p, "seed", at->seed);
    pack_kv_bool(p, "existing", at->existing);
}

static void pack_refused(struct packer *p, const struct verdict *at) {
    const struct refusal *why = at->why;
    static const struct refusal no_memory = {.code = "full",
                                             .limit = "memory",
                                             .message = "the broker is out of memory",
                                             .fix = "submit again later",
                                             .retry_after_ms = 500};
    if (!why) why = &no_memory;
    pack_map(p, at->origin ? 7 : 6);
    pack_origin(p, at);
    pack_kv_str(p, "code", why->code);
    pack_kv_str(p, "field", why->field);
    pack_kv_str(p, "limit", why->limit);
    pack_kv_str(p, "message", why->message);
    pack_kv_str(p, "fix", why->fix);
    pack_kv_u64(p, "retry_after_ms", why->retry_after_ms);
}

static int say(struct broker *b, struct verdicts *v) {
    struct buf list = {.max_bytes = LIMIT_FRAME_BYTES - 4096};
    struct packer p = packer_of(&list);
    pack_array(&p, v->n);
    for (uint32_t i = 0; i < v->n; i++)
        if (v->at[i].refused)
            pack_refused(&p, &v->at[i]);
        else
            pack_accepted(&p, &v->at[i]);
    struct msg_accepted_many m = {.req = v->req,
                                  .accepted = v->n - v->refused,
                                  .refused = v->refused,
                                  .jobs = buf_bytes(&list),
                                  .next = v->next_id};
    int e = reply_client(b, &v->peer, MSG_ACCEPTED_MANY, &m);
    buf_fini(&list);
    return e;
}

void verdicts_answer(struct broker *b, struct verdicts *v) {
    if (v->open) return;
    b->refused += v->refused;
    if (say(b, v) == -EAGAIN &&
        owed_notice(&b->owed, &v->peer, v->req, OWED_VERDICTS, 0, 0, b->now_ms) == 0)
        return;
    verdicts_free(v);
}

int verdicts_say(struct broker *b, const struct sock_peer *to, uint64_t req) {
    struct verdicts *v = b->verdicts;
    while (v && (v->open || v->req != req || !sock_peer_eq(&v->peer, to))) v = v->next;
    int e = v ? say(b, v) : 0;
    if (v && e != -EAGAIN) verdicts_free(v);
    return e;
}

void verdicts_fini(struct broker *b) {
    while (b->verdicts) verdicts_free(b->verdicts);
}
