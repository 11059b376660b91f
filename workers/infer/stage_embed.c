/* stage_embed.c - infer.embed: token sequences to vectors, all jobs of a batch together.
 *
 * The sequences of every job that uses a model run as ragged rows, in slices small enough that a
 * cancelled job is noticed between them. A job with a bad sequence fails alone, before anything
 * runs. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/field.h"
#include "schemas/pack.h"
#include "workers/infer/models.h"
#include "workers/infer/stages.h"

#define SLICE_ROWS 512u

struct tokens_in {
    struct bytes model, seqs, truncated, keep, adapter;
};
static const struct field tokens_fields[] = {
    {.name = "model",
     .type = FIELD_STR,
     .required = true,
     .min = 1,
     .max = LIMIT_NAME_BYTES,
     .offset = offsetof(struct tokens_in, model)},
    {.name = "seqs",
     .type = FIELD_PACK,
     .required = true,
     .max = LIMIT_OUTPUT_BYTES,
     .offset = offsetof(struct tokens_in, seqs)},
    {.name = "truncated",
     .type = FIELD_PACK,
     .max = LIMIT_OUTPUT_BYTES,
     .offset = offsetof(struct tokens_in, truncated)},
    {.name = "keep",
     .type = FIELD_PACK,
     .max = LIMIT_OUTPUT_BYTES,
     .offset = offsetof(struct tokens_in, keep)},
    {.name = "adapter",
     .type = FIELD_STR,
     .max = LIMIT_NAME_BYTES,
     .offset = offsetof(struct tokens_in, adapter)},
};

/* One item of the batch while it runs. */
struct job {
    struct stage_item *item;
    struct model *model; /* NULL: done or failed */
    const struct adapter *adapter;
    struct tokens_in in;
    uint32_t n_seq, done;
    uint32_t **ids; /* [n_seq], [len[s]] each */
    uint32_t *len;  /* [n_seq] */
    float *vectors; /* [n_seq][dim] */
};

static bool read_seqs(struct job *j, const struct pack_val *seqs) {
    const struct model_info *info = model_info(j->model);
    struct arena *a = j->item->arena;
    if (pack_kind(seqs) != PACK_ARRAY) {
        item_fail(j->item, JOB_ERROR_PERMANENT, "seqs is not a list");
        return false;
    }
    j->n_seq = pack_len(seqs);
    j->ids = arena_calloc(a, (size_t)j->n_seq + 1, sizeof *j->ids);
    j->len = arena_calloc(a, (size_t)j->n_seq + 1, sizeof *j->len);
    j->vectors = arena_calloc(a, (size_t)j->n_seq * info->dim + 1, sizeof *j->vectors);
    if (!j->ids || !j->len || !j->vectors) {
        item_fail(j->item, JOB_ERROR_TRANSIENT, "no memory for %u vectors", j->n_seq);
        return false;
    }
    for (uint32_t s = 0; s < j->n_seq; s++) {
        char what[32];
        snprintf(what, sizeof what, "sequence %u", s);
        j->ids[s] = infer_ids(j->item, j->model, pack_as_bytes(pack_at(seqs, s)), what, &j->len[s]);
        if (!j->ids[s]) return false;
        if (j->len[s] > info->text_context) {
            item_fail(j->item, JOB_ERROR_PERMANENT,
                      "sequence %u has %u tokens, the model's limit is %u", s, j->len[s],
                      info->text_context);
            return false;
        }
    }
    return true;
}

/* Reads and checks an item; its model stays NULL when it has failed. */
static void job_prepare(struct job *j, struct models *models) {
    struct refusal why;
    struct pack_doc *doc = NULL;
    char err[200];
    if (field_decode(tokens_fields, sizeof tokens_fields / sizeof *tokens_fields, j->item->input,
                     &j->in, &why) != 0) {
        item_fail(j->item, JOB_ERROR_PERMANENT, "tokens: %s: %s", why.field, why.message);
        return;
    }
    j->model = infer_model(models, j->item, j->in.model, MODEL_ENCODER);
    if (!j->model) return;
    if (!infer_adapter(models, j->item, j->model, &j->in.adapter, &j->adapter)) {
        j->model = NULL;
        return;
    }
    int rc = pack_parse(&doc, j->in.seqs, err, sizeof err);
    if (rc != 0) item_fail_rc(j->item, rc, err);
    if (rc != 0 || !read_seqs(j, pack_root(doc))) j->model = NULL;
    pack_free(doc);
}

static void job_finish(struct job *j) {
    const struct model_info *info = model_info(j->model);
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    pack_map(&p, j->in.adapter.len > 0 ? 7 : 6);
    pack_str(&p, "model");
    pack_strn(&p, j->in.model);
    if (j->in.adapter.len > 0) {
        pack_str(&p, "adapter");
        pack_strn(&p, j->in.adapter);
    }
    pack_kv_u64(&p, "dim", info->dim);
    pack_str(&p, "vectors");
    pack_bin(&p, bytes_of(j->vectors, (size_t)j->n_seq * info->dim * sizeof *j->vectors));
    pack_str(&p, "tokens");
    pack_array(&p, j->n_seq);
    for (uint32_t s = 0; s < j->n_seq; s++) pack_u64(&p, j->len[s]);
    pack_str(&p, "truncated");
    if (j->in.truncated.len > 0) {
        pack_raw(&p, j->in.truncated);
    } else {
        pack_array(&p, j->n_seq);
        for (uint32_t s = 0; s < j->n_seq; s++) pack_bool(&p, false);
    }
    pack_str(&p, "keep");
    if (j->in.keep.len > 0)
        pack_raw(&p, j->in.keep);
    else
        pack_nil(&p);
    item_done_buf(j->item, &out);
    buf_fini(&out);
    j->model = NULL;
}

/* A slice of the work: sequences of several jobs, end to end. */
struct slice {
    uint32_t n, rows;
    uint32_t begin[SLICE_ROWS + 1];
    const struct adapter *adapter[SLICE_ROWS];
    uint32_t *ids;  /* [the longest context, at least SLICE_ROWS] */
    float *vectors; /* [SLICE_ROWS][dim] */
    struct {
        struct job *job;
        uint32_t seq;
    } of[SLICE_ROWS];
};

static void slice_fill(struct slice *s, struct model *m, struct job *jobs, uint32_t n) {
    s->n = s->rows = s->begin[0] = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct job *j = &jobs[i];
        if (j->model != m) continue;
        if (item_cancelled(j->item)) {
            item_fail(j->item, JOB_ERROR_CANCELLED, "cancelled after %u of %u texts", j->done,
                      j->n_seq);
            j->model = NULL;
            continue;
        }
        for (; j->done < j->n_seq && s->n < SLICE_ROWS; j->done++) {
            uint32_t len = j->len[j->done];
            if (s->n > 0 && s->rows + len > SLICE_ROWS) return;
            memcpy(s->ids + s->rows, j->ids[j->done], len * sizeof *s->ids);
            s->of[s->n].job = j;
            s->of[s->n].seq = j->done;
            s->adapter[s->n] = j->adapter;
            s->rows += len;
            s->begin[++s->n] = s->rows;
        }
    }
}

/* Runs every job of the batch that uses m, whatever its adapter. */
static void run_model(struct model *m, struct job *jobs, uint32_t n) {
    const struct model_info *info = model_info(m);
    uint32_t rows = info->text_context > SLICE_ROWS ? info->text_context : SLICE_ROWS;
    struct slice *s = calloc(1, sizeof *s);
    char err[LIMIT_REASON_BYTES] = "no memory for a batch";
    int rc = -ENOMEM;
    if (s) s->ids = malloc(rows * sizeof *s->ids);
    if (s) s->vectors = malloc((size_t)SLICE_ROWS * info->dim * sizeof *s->vectors);
    if (s && s->ids && s->vectors) rc = 0;
    while (rc == 0) {
        slice_fill(s, m, jobs, n);
        if (s->n == 0) break;
        rc = model_embed_with(m, s->n, s->begin, s->ids, s->adapter, s->vectors, err, sizeof err);
        for (uint32_t k = 0; rc == 0 && k < s->n; k++)
            memcpy(s->of[k].job->vectors + (size_t)s->of[k].seq * info->dim,
                   s->vectors + (size_t)k * info->dim, info->dim * sizeof(float));
    }
    for (uint32_t i = 0; i < n; i++) {
        if (jobs[i].model != m) continue;
        if (rc == 0)
            job_finish(&jobs[i]);
        else
            item_fail_rc(jobs[i].item, rc, err);
        jobs[i].model = NULL;
    }
    if (s) {
        free(s->ids);
        free(s->vectors);
    }
    free(s);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    struct job *jobs = calloc(n, sizeof *jobs);
    for (uint32_t i = 0; i < n; i++) {
        if (!jobs) {
            item_fail(items[i], JOB_ERROR_TRANSIENT, "no memory for a batch of %u", n);
            continue;
        }
        jobs[i].item = items[i];
        job_prepare(&jobs[i], self);
    }
    for (uint32_t i = 0; jobs && i < n; i++)
        if (jobs[i].model) run_model(jobs[i].model, jobs + i, n - i);
    free(jobs);
}

const struct stage_program stage_infer_embed = {
    .run = "infer.embed", .needs_model = true, .open = infer_open, .run_batch = run_batch};
