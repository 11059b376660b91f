#include "pipelines/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/limits.h"
#include "schemas/pack.h"

#define ARENA_BYTES (256u * 1024u)

struct owned {
    struct pipeline pipeline; /* first, so that plan_free finds the rest */
    struct arena arena;
};

static void encode_stage(struct packer *p, const struct pipeline_stage *s) {
    pack_map(p, 6u + (s->batch_slo_ms ? 1u : 0u) + (s->model ? 1u : 0u) + (s->adapter ? 1u : 0u) +
                    (s->fan_out ? 2u : 0u));
    pack_kv_str(p, "name", s->name);
    pack_kv_str(p, "run", s->run);
    if (s->model) pack_kv_str(p, "model", s->model);
    if (s->adapter) pack_kv_str(p, "adapter", s->adapter);
    pack_kv_u64(p, "timeout_ms", s->timeout_ms);
    pack_kv_u64(p, "batch_max", s->batch_max);
    pack_kv_u64(p, "batch_delay_ms", s->batch_delay_ms);
    if (s->batch_slo_ms) pack_kv_u64(p, "batch_slo_ms", s->batch_slo_ms);
    pack_kv_bool(p, "checkpoint", s->checkpoint);
    if (s->fan_out) pack_kv_str(p, "fan_out", s->fan_out);
    if (s->fan_out) pack_kv_bool(p, "partial", s->partial);
}

static int encode(const struct pipeline *in, struct buf *out) {
    struct packer p = packer_of(out);
    bool timeouts = in->timeouts_max != in->tries_max; /* absent: a plan of before it was there */
    pack_map(&p, timeouts ? 9 : 8);
    pack_kv_str(&p, "name", in->name);
    pack_kv_str(&p, "kind", in->kind);
    pack_kv_u64(&p, "tries_max", in->tries_max);
    if (timeouts) pack_kv_u64(&p, "timeouts_max", in->timeouts_max);
    pack_kv_u64(&p, "deaths_max", in->deaths_max);
    pack_kv_u64(&p, "backoff_ms", in->backoff_ms);
    pack_kv_u64(&p, "backoff_max_ms", in->backoff_max_ms);
    pack_kv_u64(&p, "queue_max", in->queue_max);
    pack_str(&p, "stages");
    pack_array(&p, in->n_stages);
    for (uint32_t i = 0; i < in->n_stages; i++) encode_stage(&p, &in->stages[i]);
    return out->error;
}

static const char *copy_text(struct arena *a, const char *text, bool *failed) {
    if (!text) return NULL;
    const char *copy = arena_strndup(a, text, strlen(text));
    if (!copy) *failed = true;
    return copy;
}

int plan_copy(struct pipeline **out, const struct pipeline *p) {
    struct buf plan = {0};
    bool failed = false;
    struct owned *o = calloc(1, sizeof *o);
    if (!o) return -ENOMEM;
    arena_init(&o->arena, ARENA_BYTES);
    struct pipeline_stage *stages = arena_calloc(&o->arena, p->n_stages, sizeof *stages);
    if (!stages || encode(p, &plan) != 0) goto fail;
    o->pipeline = *p;
    o->pipeline.name = copy_text(&o->arena, p->name, &failed);
    o->pipeline.kind = copy_text(&o->arena, p->kind, &failed);
    for (uint32_t i = 0; i < p->n_stages; i++) {
        stages[i] = p->stages[i];
        stages[i].name = copy_text(&o->arena, p->stages[i].name, &failed);
        stages[i].run = copy_text(&o->arena, p->stages[i].run, &failed);
        stages[i].model = copy_text(&o->arena, p->stages[i].model, &failed);
        stages[i].adapter = copy_text(&o->arena, p->stages[i].adapter, &failed);
        stages[i].fan_out = copy_text(&o->arena, p->stages[i].fan_out, &failed);
    }
    o->pipeline.stages = stages;
    o->pipeline.plan = bytes_of(arena_copy(&o->arena, plan.data, plan.len), plan.len);
    o->pipeline.version = crc32c(0, plan.data, plan.len);
    if (failed || !o->pipeline.plan.data) goto fail;
    buf_fini(&plan);
    *out = &o->pipeline;
    return 0;

fail:
    buf_fini(&plan);
    plan_free(&o->pipeline);
    return -ENOMEM;
}

void plan_free(struct pipeline *p) {
    if (!p) return;
    struct owned *o = (struct owned *)p;
    arena_fini(&o->arena);
    free(o);
}

/* ---- reading: a plan was checked when it was made, so what does not fit is damage ---- */

struct plan_reader {
    char names[2 + 5 * LIMIT_STAGES][LIMIT_NAME_BYTES + 1];
    uint32_t used;
    bool bad;
};

static const char *text(struct plan_reader *r, const struct pack_val *map, const char *key,
                        bool required) {
    const struct pack_val *v = pack_get(map, key);
    if (!v && !required) return NULL;
    char *into = r->names[r->used];
    if (pack_kind(v) != PACK_STR ||
        bytes_to_cstr(pack_as_bytes(v), into, sizeof r->names[0]) != 0 || into[0] == '\0') {
        r->bad = true;
        return "";
    }
    r->used++;
    return into;
}

static uint32_t number(struct plan_reader *r, const struct pack_val *map, const char *key,
                       uint32_t min, uint32_t max) {
    const struct pack_val *v = pack_get(map, key);
    uint64_t n = pack_as_u64(v, UINT64_MAX);
    if (pack_kind(v) != PACK_U64 || n < min || n > max) {
        r->bad = true;
        return min;
    }
    return (uint32_t)n;
}

static struct pipeline_stage stage(struct plan_reader *r, const struct pack_val *v) {
    return (struct pipeline_stage){
        .name = text(r, v, "name", true),
        .run = text(r, v, "run", true),
        .model = text(r, v, "model", false),
        .adapter = text(r, v, "adapter", false),
        .timeout_ms = number(r, v, "timeout_ms", 1, PIPELINE_TIMEOUT_MAX_MS),
        .batch_max = number(r, v, "batch_max", 1, LIMIT_SPAN_JOBS),
        .batch_delay_ms = number(r, v, "batch_delay_ms", 0, PIPELINE_BATCH_DELAY_MAX_MS),
        .batch_slo_ms =
            pack_get(v, "batch_slo_ms") ? number(r, v, "batch_slo_ms", 1, PIPELINE_SLO_MAX_MS) : 0,
        .checkpoint = pack_as_bool(pack_get(v, "checkpoint"), false),
        .fan_out = text(r, v, "fan_out", false),
        .partial = pack_as_bool(pack_get(v, "partial"), false)};
}

int plan_decode(struct bytes plan, struct pipeline **out, char *err, size_t err_bytes) {
    struct pack_doc *doc = NULL;
    struct pipeline_stage stages[LIMIT_STAGES];
    struct plan_reader *r = calloc(1, sizeof *r);
    if (!r) return err_set(err, err_bytes, -ENOMEM, "a job's plan: out of memory");
    int code = pack_parse(&doc, plan, err, err_bytes);
    if (code != 0) goto end;
    const struct pack_val *root = pack_root(doc), *list = pack_get(root, "stages");
    struct pipeline p = {.stages = stages, .n_stages = pack_len(list)};
    if (pack_kind(list) != PACK_ARRAY || p.n_stages == 0 || p.n_stages > LIMIT_STAGES)
        r->bad = true;
    else
        for (uint32_t i = 0; i < p.n_stages && !r->bad; i++) stages[i] = stage(r, pack_at(list, i));
    p.name = text(r, root, "name", true);
    p.kind = text(r, root, "kind", true);
    p.tries_max = number(r, root, "tries_max", 1, LIMIT_ATTEMPTS);
    p.timeouts_max = pack_get(root, "timeouts_max")
                         ? number(r, root, "timeouts_max", 1, LIMIT_ATTEMPTS)
                         : p.tries_max;
    p.deaths_max = number(r, root, "deaths_max", 1, LIMIT_ATTEMPTS);
    p.backoff_ms = number(r, root, "backoff_ms", 1, PIPELINE_BACKOFF_MAX_MS);
    p.backoff_max_ms = number(r, root, "backoff_max_ms", 1, PIPELINE_BACKOFF_MAX_MS);
    p.queue_max = number(r, root, "queue_max", 1, LIMIT_JOBS_QUEUED);
    code = r->bad ? err_set(err, err_bytes, ERR_CORRUPT,
                            "a job's plan: a field is missing or out of its bounds")
                  : plan_copy(out, &p);
end:
    pack_free(doc);
    free(r);
    return code;
}
