/* stage_generate.c - infer.generate: prompts to texts; jobs join while others are written.
 *
 * Each model has a loop (generate.h), and a step of the stage is a step of each. A job ends with
 * its last text.
 *
 * A job of n texts runs them side by side; the first is its text. Settings come from the job's
 * body, the prompt's ids from the stage before. Pieces of text are streamed as `token` events
 * {text, tokens} when the body asks for it, with {index} too when there are several texts: tokens
 * counts what the model has written of that text so far, and the pieces of one attempt with one
 * index together are exactly that text of its output. */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "schemas/json_schema.h"
#include "schemas/kinds.h"
#include "schemas/pack.h"
#include "workers/infer/generate.h"
#include "workers/infer/guides.h"
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

/* The loop of a model; opened with its first job. */
struct writer {
    struct model *model;
    struct gen_loop *loop;
    struct writer *next;
};
struct stage {
    struct models *models;
    struct stage_load *load; /* NULL: nobody asks */
    struct writer *writers;
    struct job *jobs; /* that have joined and not been handed back */
};
struct job {
    struct job *next;
    struct stage_item *item;
    struct model *model; /* NULL: it has failed */
    struct tokenizer *tokenizer;
    struct prompt_in in;
    struct kind_text_generate body;
    struct gen *gen;      /* [n], in the item's arena */
    struct guide **guide; /* [n], or NULL; in the item's arena too */
    uint32_t n, left;     /* texts, and those that are not at their ends */
};

static void on_end(struct gen *g) {
    struct job *j = g->user;
    j->left--;
}

static void on_text(struct gen *g, struct bytes piece) {
    struct job *j = g->user;
    struct buf data = {0};
    struct packer p = packer_of(&data);
    pack_map(&p, j->n > 1 ? 3 : 2);
    pack_str(&p, "text");
    pack_strn(&p, piece);
    pack_kv_u64(&p, "tokens", g->tokens);
    if (j->n > 1) pack_kv_u64(&p, "index", g->stream);
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
    return true;
}

/* The texts of a job: as its settings say, alike but for their streams. */
static bool make_texts(struct job *j, const struct gen *prompt) {
    const struct kind_text_generate *b = &j->body;
    struct arena *arena = j->item->arena;
    struct gen *gens = arena_calloc(arena, b->n, sizeof *gens);
    bool memory = gens != NULL;
    for (uint32_t i = 0; memory && i < b->n; i++) {
        struct gen *g = &gens[i];
        *g = *prompt;
        g->temperature = (float)b->temperature;
        g->top_k = (uint32_t)b->top_k;
        g->top_p = (float)b->top_p;
        g->min_p = (float)b->min_p;
        g->repetition = (float)b->repetition_penalty;
        g->presence = (float)b->presence_penalty;
        g->frequency = (float)b->frequency_penalty;
        g->seed = j->item->seed;
        g->stream = i;
        g->same_prompt = i > 0 ? gens : NULL;
        g->cancelled = j->item->cancelled;
        g->priority = j->item->priority;
        g->on_text = b->stream ? on_text : NULL;
        g->on_end = on_end;
        g->user = j;
        struct field_strs_it it = field_strs_begin(b->stop);
        while (g->n_stop < GEN_STOPS_MAX && field_strs_next(&it, &g->stop[g->n_stop])) g->n_stop++;
        g->ids = arena_calloc(arena, g->tokens_max, sizeof *g->ids);
        memory = g->ids != NULL;
        if (b->logprobs || b->top_logprobs) {
            g->logprob = arena_calloc(arena, g->tokens_max, sizeof *g->logprob);
            memory = memory && g->logprob;
        }
        if (b->top_logprobs) {
            g->top_n = (uint32_t)b->top_logprobs;
            g->top = arena_calloc(arena, (size_t)g->tokens_max * g->top_n, sizeof *g->top);
            memory = memory && g->top;
        }
    }
    j->gen = gens;
    j->n = memory ? (uint32_t)b->n : 0;
    return memory;
}

/* The schema of a body as text, copied to the arena; {NULL, 0} with err when it is none. */
static struct bytes schema_text(struct job *j, char *err, size_t err_bytes) {
    struct json *schema = NULL;
    struct bytes text = {0};
    if (json_from_pack(j->body.schema, &schema, err, err_bytes) != 0) return text;
    bool printed = json_kind(schema) != JSON_STR;
    char *own = printed ? json_text(schema, 0) : NULL;
    text = printed ? bytes_str(own ? own : "") : bytes_of(json_str(schema), json_str_len(schema));
    text.data = arena_copy(j->item->arena, text.data, text.len);
    free(own);
    json_free(schema);
    if (!text.data) err_set(err, err_bytes, -ENOMEM, "no memory for the schema");
    return text;
}

/* Has the texts of a job keep to its schema; false when the item has failed. */
static bool guide_texts(struct job *j, struct models *models) {
    struct bytes raw = j->body.schema;
    char err[LIMIT_REASON_BYTES] = "";
    struct guides *guides;
    if (!raw.data || (raw.len == 1 && ((const uint8_t *)raw.data)[0] == 0xC0))
        return true; /* nil */
    struct bytes text = schema_text(j, err, sizeof err);
    int rc = text.data ? models_guides(models, j->in.model, &guides, err, sizeof err) : ERR_FIELD;
    j->guide = arena_calloc(j->item->arena, j->n, sizeof(struct guide *));
    if (rc == 0 && !j->guide) rc = -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < j->n; i++) {
        struct gen *g = &j->gen[i];
        rc = guide_new(guides, text, g->tokens_max, &j->guide[i], err, sizeof err);
        if (rc == 0) g->guide = guide_of(j->guide[i]);
    }
    if (rc != 0) item_fail_rc(j->item, rc, err);
    return rc == 0;
}

/* Frees what is not in the arena. */
static void job_fini(struct job *j) {
    for (uint32_t t = 0; t < j->n; t++) {
        if (j->guide) guide_free(j->guide[t]);
        gen_fini(&j->gen[t]);
    }
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
    struct gen prompt = {.tokens_max = (uint32_t)j->body.max_tokens};
    if (!infer_adapter(models, i, m, &j->body.adapter, &prompt.adapter)) return;
    prompt.prompt = infer_ids(i, m, j->in.ids, "prompt", &prompt.prompt_tokens);
    if (!prompt.prompt) return;
    uint32_t context = model_info(m)->context; /* ids never hold more than a context and one */
    uint32_t room = prompt.prompt_tokens <= context ? context + 1 - prompt.prompt_tokens : 1;
    if (prompt.tokens_max > room) prompt.tokens_max = room;
    if (!make_texts(j, &prompt))
        item_fail(i, JOB_ERROR_TRANSIENT, "no memory for %u texts of %u tokens",
                  (unsigned)j->body.n, prompt.tokens_max);
    else if (guide_texts(j, models))
        j->model = m;
}

static void pack_tops(struct packer *p, const struct gen *g) {
    pack_array(p, g->tokens);
    for (uint32_t k = 0; k < g->tokens; k++) {
        const struct sample_top *top = g->top + (size_t)k * g->top_n;
        uint32_t n = 0;
        while (n < g->top_n && top[n].id != OPS_NO_TOKEN) n++;
        pack_array(p, n);
        for (uint32_t i = 0; i < n; i++) {
            pack_array(p, 2);
            pack_u64(p, top[i].id);
            pack_f64(p, (double)top[i].logprob);
        }
    }
}

/* {ids, finish, text (, logprobs) (, top_logprobs)} */
static void pack_text(struct packer *p, const struct gen *g) {
    struct buf ids = {0};
    for (uint32_t k = 0; k < g->tokens; k++) buf_u32le(&ids, g->ids[k]);
    pack_map(p, 3u + (g->logprob != NULL) + (g->top != NULL));
    pack_str(p, "ids");
    pack_bin(p, buf_bytes(&ids));
    pack_kv_str(p, "finish", gen_finish_name(g->finish));
    pack_str(p, "text");
    pack_strn(p, buf_bytes(&g->text));
    if (g->logprob) {
        pack_str(p, "logprobs");
        pack_array(p, g->tokens);
        for (uint32_t k = 0; k < g->tokens; k++) pack_f64(p, (double)g->logprob[k]);
    }
    if (g->top) {
        pack_str(p, "top_logprobs");
        pack_tops(p, g);
    }
    if (ids.error && !p->out->error) p->out->error = ids.error;
    buf_fini(&ids);
}

static void job_finish(struct job *j) {
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    for (uint32_t i = 0; i < j->n; i++)
        if (j->gen[i].finish == GEN_FAILED) {
            item_fail_rc(j->item, j->gen[i].error, j->gen[i].err);
            return;
        }
    pack_map(&p, j->body.adapter.len > 0 ? 4 : 3);
    pack_str(&p, "model");
    pack_strn(&p, j->in.model);
    if (j->body.adapter.len > 0) {
        pack_str(&p, "adapter");
        pack_strn(&p, j->body.adapter);
    }
    pack_kv_u64(&p, "prompt_tokens", j->gen->prompt_tokens);
    pack_str(&p, "texts");
    pack_array(&p, j->n);
    for (uint32_t i = 0; i < j->n; i++) pack_text(&p, &j->gen[i]);
    item_done_buf(j->item, &out);
    buf_fini(&out);
}

/* NULL: the job has failed. */
static struct gen_loop *loop_of(struct stage *s, struct job *j) {
    struct gen_loop_config c = {0};
    char err[LIMIT_REASON_BYTES] = "no memory for a loop of texts";
    for (struct writer *w = s->writers; w; w = w->next)
        if (w->model == j->model) return w->loop;
    struct writer *w = calloc(1, sizeof *w);
    int rc = w ? models_guessing(s->models, j->in.model, &c, err, sizeof err) : -ENOMEM;
    if (rc == 0) rc = gen_loop_open(&w->loop, j->model, j->tokenizer, &c);
    if (rc != 0) {
        item_fail_rc(j->item, rc, err);
        j->model = NULL;
        free(w);
        return NULL;
    }
    w->model = j->model;
    w->next = s->writers;
    s->writers = w;
    return w->loop;
}

static int join(void *self, struct stage_item *item) {
    struct stage *s = self;
    struct job *j = calloc(1, sizeof *j);
    if (!j) return -ENOMEM;
    j->item = item;
    j->next = s->jobs;
    s->jobs = j;
    job_prepare(j, s->models);
    struct gen_loop *l = j->model ? loop_of(s, j) : NULL;
    for (uint32_t i = 0; l && i < j->n; i++) {
        j->left++;
        if (gen_loop_add(l, &j->gen[i]) == 0) continue;
        j->left--; /* those before it are written; the job fails with it */
        j->gen[i].finish = GEN_FAILED;
        j->gen[i].error = -ENOMEM;
    }
    return 0;
}

/* What all loops together do and have done. */
static void tell_load(const struct stage *s) {
    struct gen_loop_stats all = {0};
    if (!s->load) return;
    for (const struct writer *w = s->writers; w; w = w->next) {
        struct gen_loop_stats one = gen_loop_stats(w->loop);
        all.running += one.running;
        all.waiting += one.waiting;
        all.kv_pages += one.kv_pages;
        all.kv_pages_max += one.kv_pages_max;
        all.steps += one.steps;
        all.step_ns += one.step_ns;
        all.tokens += one.tokens;
        all.pauses += one.pauses;
    }
    atomic_store(&s->load->running, all.running);
    atomic_store(&s->load->waiting, all.waiting);
    atomic_store(&s->load->kv_pages, all.kv_pages);
    atomic_store(&s->load->kv_pages_max, all.kv_pages_max);
    atomic_store(&s->load->steps, all.steps);
    atomic_store(&s->load->steps_us, all.step_ns / 1000);
    atomic_store(&s->load->tokens, all.tokens);
    atomic_store(&s->load->pauses, all.pauses);
}

static uint32_t step(void *self, struct stage_item **ended, uint32_t max) {
    struct stage *s = self;
    uint32_t n = 0;
    for (struct writer *w = s->writers; w; w = w->next) gen_loop_step(w->loop);
    tell_load(s);
    for (struct job **at = &s->jobs; *at && n < max;) {
        struct job *j = *at;
        for (uint32_t i = 0; i < j->n && j->item->waits; i++) j->item->waits = !j->gen[i].begun;
        if (j->left > 0) {
            at = &j->next;
            continue;
        }
        *at = j->next;
        if (j->model) job_finish(j);
        job_fini(j);
        ended[n++] = j->item;
        free(j);
    }
    return n;
}

static int stage_open(void **self, const struct stage_context *c, char *err, size_t err_bytes) {
    struct stage *s = calloc(1, sizeof *s);
    void *models = NULL;
    int rc = s ? infer_open(&models, c, err, err_bytes) : -ENOMEM;
    if (rc != 0) {
        free(s);
        return rc;
    }
    s->models = models;
    s->load = c->load;
    *self = s;
    return 0;
}

static void stage_close(void *self) {
    struct stage *s = self;
    for (struct writer *w; (w = s->writers);) {
        struct gen_loop_stats told = gen_loop_stats(w->loop);
        log_info("texts_written",
                 "architecture=%s tokens=%" PRIu64 " steps=%" PRIu64 " pauses=%" PRIu64
                 " guesses=%" PRIu64 " guesses_right=%" PRIu64,
                 model_info(w->model)->architecture, told.tokens, told.steps, told.pauses,
                 told.guesses, told.guesses_right);
        s->writers = w->next;
        gen_loop_close(w->loop);
        free(w);
    }
    free(s);
}

const struct stage_program stage_infer_generate = {.run = "infer.generate",
                                                   .needs_model = true,
                                                   .open = stage_open,
                                                   .join = join,
                                                   .step = step,
                                                   .close = stage_close};
