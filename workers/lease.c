#include "workers/lease.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/pack.h"

static int take_name(const struct pack_val *stage, const char *key, bool required,
                     char out[LIMIT_NAME_BYTES + 1]) {
    const struct pack_val *v = pack_get(stage, key);
    out[0] = '\0';
    if (pack_kind(v) == PACK_NIL && !required) return 0;
    if (pack_kind(v) != PACK_STR) return ERR_FIELD;
    int code = bytes_to_cstr(pack_as_bytes(v), out, LIMIT_NAME_BYTES + 1);
    return code == 0 && required && out[0] == '\0' ? ERR_FIELD : code;
}

static int take_number(const struct pack_val *stage, const char *key, uint32_t otherwise,
                       uint32_t *out) {
    uint64_t v = pack_as_u64(pack_get(stage, key), otherwise);
    *out = v > INT32_MAX ? INT32_MAX : (uint32_t)v;
    return 0;
}

static int take_stage(const struct pack_val *v, struct lease_stage *s) {
    int code = take_name(v, "name", false, s->name);
    if (code == 0) code = take_name(v, "run", true, s->run);
    if (code == 0) code = take_name(v, "model", false, s->model);
    if (code == 0) code = take_name(v, "adapter", false, s->adapter);
    if (code == 0) code = take_number(v, "timeout_ms", 0, &s->timeout_ms);
    if (code == 0) code = take_number(v, "batch_max", 1, &s->batch_max);
    if (code == 0) code = take_number(v, "batch_delay_ms", 0, &s->batch_delay_ms);
    if (code == 0) code = take_number(v, "batch_slo_ms", 0, &s->batch_slo_ms);
    if (s->batch_max == 0) s->batch_max = 1;
    if (s->batch_max > LIMIT_SPAN_JOBS) s->batch_max = LIMIT_SPAN_JOBS;
    s->checkpoint = pack_as_bool(pack_get(v, "checkpoint"), false);
    return code;
}

static int take_plan(struct lease *l, struct bytes plan, struct refusal *why) {
    struct pack_doc *doc;
    char err[128];
    int code = pack_parse(&doc, plan, err, sizeof err);
    if (code != 0) {
        refusal_set(why, "malformed", "plan", "", "", "plan: %s", err);
        return code;
    }
    const struct pack_val *list = pack_root(doc);
    l->n_stages = pack_len(list);
    if (pack_kind(list) != PACK_ARRAY || l->n_stages == 0 || l->n_stages > LIMIT_STAGES)
        code = ERR_LIMIT;
    for (uint32_t i = 0; code == 0 && i < l->n_stages; i++)
        code = take_stage(pack_at(list, i), &l->stages[i]);
    pack_free(doc);
    if (code != 0)
        refusal_set(why, "limit", "plan", "1 to 16 stages", "send stages with a run each",
                    "plan: a stage list that this worker cannot read");
    return code;
}

/* A document in parts: one as it lies, several joined in the arena. */
static int join(struct arena *a, const struct bytes *part, uint32_t n, struct bytes *out) {
    size_t total = 0;
    *out = n ? part[0] : (struct bytes){NULL, 0};
    if (n <= 1) return 0;
    for (uint32_t i = 0; i < n; i++) total += part[i].len;
    uint8_t *at = arena_alloc(a, total);
    if (!at) return -ENOMEM;
    *out = bytes_of(at, total);
    for (uint32_t i = 0; i < n; i++) {
        if (part[i].len > 0) memcpy(at, part[i].data, part[i].len);
        at += part[i].len;
    }
    return 0;
}

/* The body's parts, then the input's. Frames that were copied are given back when nothing behind
 * them is still read where it lies. */
static int take_payload(struct lease *l, uint64_t body_parts, struct refusal *why) {
    struct sock_msg *m = &l->message;
    uint32_t n = m->frames - 2;
    if (body_parts > n) {
        refusal_set(why, "frames", "body_parts", "", "", "the body has %llu parts, %u frames came",
                    (unsigned long long)body_parts, n);
        return ERR_LIMIT;
    }
    uint32_t n_body = (uint32_t)body_parts, n_input = n - n_body;
    int code = join(&l->arena, m->frame + 2, n_body, &l->body);
    if (code == 0) code = join(&l->arena, m->frame + 2 + n_body, n_input, &l->input);
    if (code != 0)
        refusal_set(why, "memory", "", "", "", "the worker has no memory for the body and input");
    else if (n_input != 1)
        sock_msg_trim(m, n_body > 1 ? 2 : 3);
    return code;
}

int lease_new(struct lease **out, struct sock_msg *m, const struct msg_lease *header,
              int64_t now_ms, struct refusal *why) {
    struct lease *l = calloc(1, sizeof *l);
    if (!l) {
        sock_msg_fini(m);
        refusal_set(why, "memory", "", "", "", "the worker is out of memory");
        return -ENOMEM;
    }
    l->message = *m;
    m->frames = 0;
    l->job = header->job;
    l->attempt = header->attempt;
    l->seed = header->seed;
    l->priority = (uint32_t)header->priority;
    l->first = (uint32_t)header->stage;
    l->alone = header->alone;
    l->kind = header->kind;
    l->arrived_ms = now_ms;
    arena_init(&l->arena, LIMIT_ARENA_BYTES);
    int code = take_plan(l, header->plan, why);
    if (code == 0) code = take_payload(l, header->body_parts, why);
    if (code != 0) {
        lease_free(l);
        return code;
    }
    *out = l;
    return 0;
}

void lease_free(struct lease *l) {
    if (!l) return;
    sock_msg_fini(&l->message);
    arena_fini(&l->arena);
    free(l);
}

bool lease_matches(const struct lease *a, const struct lease *b) {
    if (a->alone || b->alone || a->n_stages != b->n_stages) return false;
    for (uint32_t i = 0; i < a->n_stages; i++)
        if (strcmp(a->stages[i].run, b->stages[i].run) != 0 ||
            strcmp(a->stages[i].model, b->stages[i].model) != 0)
            return false;
    return true;
}

struct outcome *outcome_new(enum outcome_type type, struct lease *l, uint32_t stage) {
    struct outcome *o = calloc(1, sizeof *o);
    if (!o) return NULL;
    o->type = type;
    o->lease = l;
    o->stage = stage;
    if (l) {
        o->job = l->job;
        o->attempt = l->attempt;
    }
    return o;
}

void outcome_free(struct outcome *o) {
    if (!o) return;
    buf_fini(&o->output);
    free(o);
}

void note_free(struct note *n) {
    if (!n) return;
    buf_fini(&n->data);
    free(n);
}
