/* stage_generate.c - infer.generate: prompts to texts, all jobs of a batch together.
 *
 * Settings come from the job's body, the prompt's ids from the stage before. Pieces of text are
 * streamed as `token` events {text, tokens} when the body asks for it: tokens counts what the
 * model has written so far, and the pieces of one attempt together are exactly the text of its
 * output. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/kinds.h"
#include "schemas/pack.h"
#include "workers/infer/generate.h"
#include "workers/infer/models.h"
#include "workers/infer/stages.h"

struct prompt_in {
    struct bytes model, ids;
};
static const struct field prompt_fields[] = {
    {.name = "model",
     .type = FIELD_STR,
     .required = true,
     .min = 1,
     .max = LIMIT_NAME_BYTES,
     .offset = offsetof(struct prompt_in, model)},
    {.name = "ids",
     .type = FIELD_BIN,
     .required = true,
     .max = LIMIT_OUTPUT_BYTES,
     .offset = offsetof(struct prompt_in, ids)},
};

struct job {
    struct stage_item *item;
    struct model *model; /* NULL: done or failed */
    struct tokenizer *tokenizer;
    struct prompt_in in;
    struct kind_text_generate body;
    struct gen gen;
};

static void on_text(struct gen *g, struct bytes piece) {
    struct job *j = g->user;
    struct buf data = {0};
    struct packer p = packer_of(&data);
    pack_map(&p, 2);
    pack_str(&p, "text");
    pack_strn(&p, piece);
    pack_kv_u64(&p, "tokens", g->tokens);
    if (!data.error) item_emit(j->item, "token", buf_bytes(&data));
    buf_fini(&data);
}

/* The job's settings as those of a text; false when the item has failed. */
static bool read_settings(struct job *j) {
    const struct kind_desc *kind = kind_find(j->item->kind);
    struct refusal why;
    if (!kind || strcmp(kind->name, "text.generate") != 0) {
        item_fail(j->item, JOB_ERROR_PERMANENT, "infer.generate runs text.generate jobs, not %.*s",
                  (int)j->item->kind.len, (const char *)j->item->kind.data);
        return false;
    }
    if (kind_decode(kind, j->item->body, &j->body, &why) != 0) {
        item_fail(j->item, JOB_ERROR_PERMANENT, "body: %s: %s", why.field, why.message);
        return false;
    }
    struct gen *g = &j->gen;
    g->tokens_max = (uint32_t)j->body.max_tokens;
    g->temperature = (float)j->body.temperature;
    g->top_k = (uint32_t)j->body.top_k;
    g->top_p = (float)j->body.top_p;
    g->seed = j->item->seed;
    g->cancelled = j->item->cancelled;
    g->on_text = j->body.stream ? on_text : NULL;
    g->user = j;
    struct field_strs_it it = field_strs_begin(j->body.stop);
    while (g->n_stop < GEN_STOPS_MAX && field_strs_next(&it, &g->stop[g->n_stop])) g->n_stop++;
    return true;
}

/* Reads and checks an item; its model stays NULL when it has failed. */
static void job_prepare(struct job *j, struct models *models) {
    struct stage_item *i = j->item;
    struct refusal why;
    char err[LIMIT_REASON_BYTES];
    if (field_decode(prompt_fields, sizeof prompt_fields / sizeof *prompt_fields, i->input, &j->in,
                     &why) != 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "prompt: %s: %s", why.field, why.message);
        return;
    }
    struct model *m = infer_model(models, i, j->in.model, MODEL_DECODER);
    if (!m || !read_settings(j)) return;
    int rc = models_tokenizer(models, j->in.model, &j->tokenizer, err, sizeof err);
    if (rc != 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    j->gen.prompt = infer_ids(i, m, j->in.ids, "prompt", &j->gen.prompt_tokens);
    if (!j->gen.prompt) return;
    uint32_t context = model_info(m)->context; /* ids never hold more than a context and one */
    if (j->gen.tokens_max > context) j->gen.tokens_max = context;
    j->gen.ids = arena_calloc(i->arena, j->gen.tokens_max, sizeof *j->gen.ids);
    if (j->gen.ids)
        j->model = m;
    else
        item_fail(i, JOB_ERROR_TRANSIENT, "no memory for %u tokens", j->gen.tokens_max);
}

static void job_finish(struct job *j) {
    struct gen *g = &j->gen;
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES}, ids = {0};
    struct packer p = packer_of(&out);
    if (g->finish == GEN_FAILED) {
        item_fail_rc(j->item, g->error, g->err);
        return;
    }
    for (uint32_t k = 0; k < g->tokens; k++) buf_u32le(&ids, g->ids[k]);
    pack_map(&p, 5);
    pack_str(&p, "model");
    pack_strn(&p, j->in.model);
    pack_kv_u64(&p, "prompt_tokens", g->prompt_tokens);
    pack_str(&p, "ids");
    pack_bin(&p, buf_bytes(&ids));
    pack_kv_str(&p, "finish", gen_finish_name(g->finish));
    pack_str(&p, "text");
    pack_strn(&p, buf_bytes(&g->text));
    if (ids.error && !out.error) out.error = ids.error;
    item_done_buf(j->item, &out);
    buf_fini(&out);
    buf_fini(&ids);
}

/* Runs every job of the batch that uses the model of the first. */
static void run_model(struct job *jobs, uint32_t n, struct gen **gens) {
    struct model *m = jobs[0].model;
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++)
        if (jobs[i].model == m) gens[k++] = &jobs[i].gen;
    generate(m, jobs[0].tokenizer, gens, k);
    for (uint32_t i = 0; i < n; i++) {
        if (jobs[i].model != m) continue;
        job_finish(&jobs[i]);
        jobs[i].model = NULL;
    }
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    struct job *jobs = calloc(n, sizeof *jobs);
    struct gen **gens = calloc(n, sizeof(struct gen *));
    bool memory = jobs && gens;
    for (uint32_t i = 0; i < n; i++) {
        if (!memory) {
            item_fail(items[i], JOB_ERROR_TRANSIENT, "no memory for a batch of %u", n);
            continue;
        }
        jobs[i].item = items[i];
        job_prepare(&jobs[i], self);
    }
    for (uint32_t i = 0; memory && i < n; i++)
        if (jobs[i].model) run_model(jobs + i, n - i, gens);
    for (uint32_t i = 0; memory && i < n; i++) gen_fini(&jobs[i].gen);
    free(gens);
    free(jobs);
}

const struct stage_program stage_infer_generate = {
    .run = "infer.generate", .needs_model = true, .open = infer_open, .run_batch = run_batch};
