#include "workers/infer/encoder.h"

#include <string.h>

#include "base/err.h"

#define SEQS_MAX 512u /* of one step; shorter texts than rows_max / SEQS_MAX tokens are rare */

int encoder_init(struct encoder *e, struct ops *ops, const struct config *c,
                 const struct weights *w, uint32_t rows_max, char *err, size_t err_bytes) {
    *e = (struct encoder){0};
    if (rows_max < c->context) rows_max = c->context;
    uint32_t seqs_max = rows_max < SEQS_MAX ? rows_max : SEQS_MAX;
    int rc = forward_init(&e->forward, ops, c, w, rows_max, seqs_max, c->context, err, err_bytes);
    if (rc != 0) return rc;
    uint32_t scored = c->arch->of_tokens ? rows_max : seqs_max;
    e->pooled = ops->alloc(ops, (size_t)seqs_max * c->dim * sizeof(float));
    if (c->labels) e->scores = ops->alloc(ops, (size_t)scored * c->labels * sizeof(float));
    if (e->pooled && (e->scores || !c->labels)) return 0;
    encoder_fini(e);
    return err_set(err, err_bytes, -ENOMEM, "no memory for %u vectors", seqs_max);
}

void encoder_fini(struct encoder *e) {
    float *buffers[] = {e->pooled, e->scores};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i]) e->forward.ops->free(e->forward.ops, buffers[i]);
    e->pooled = e->scores = NULL;
    forward_fini(&e->forward);
}

/* Appends one sequence to the staged batch, as number n_seq. Padding inside a text takes the row
 * before the first position and does not count. */
static void stage_one(struct forward *f, uint32_t n_seq, uint32_t len, const uint32_t *ids) {
    uint32_t at = f->host.begin[n_seq];
    memcpy(f->host.ids + at, ids, len * sizeof *ids);
    int64_t padding = f->config->padding;
    uint32_t next = (uint32_t)(padding + 1);
    for (uint32_t i = 0; i < len; i++)
        f->host.pos[at + i] = ids[i] == padding ? (uint32_t)padding : next++;
    f->host.begin[n_seq + 1] = at + len;
}

static int check_lengths(const struct config *c, uint32_t n_seq, const uint32_t *begin, char *err,
                         size_t err_bytes) {
    for (uint32_t s = 0; s < n_seq; s++) {
        uint32_t len = begin[s + 1] - begin[s];
        if (begin[s + 1] <= begin[s])
            return err_set(err, err_bytes, ERR_FIELD, "sequence %u is empty", s);
        if (len > c->text_context)
            return err_set(err, err_bytes, ERR_LIMIT, "sequence %u has %u tokens, the limit is %u",
                           s, len, c->text_context);
    }
    return 0;
}

/* Runs as many sequences from s on as fit into one step; returns how many. */
static uint32_t run_some(struct forward *f, uint32_t s, uint32_t n_seq, const uint32_t *begin,
                         const uint32_t *ids, const struct adapter *const *adapter) {
    uint32_t n = 0;
    f->host.begin[0] = 0;
    while (s + n < n_seq && n < f->seqs_max) {
        uint32_t len = begin[s + n + 1] - begin[s + n];
        if (len > f->rows_max - f->host.begin[n]) break;
        stage_one(f, n, len, ids + begin[s + n]);
        f->adapter[n] = adapter ? adapter[s + n] : NULL;
        n++;
    }
    forward_run(f, n, NULL, 0);
    return n;
}

int encoder_embed(struct encoder *e, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                  const struct adapter *const *adapter, float *out, char *err, size_t err_bytes) {
    struct forward *f = &e->forward;
    const struct config *c = f->config;
    struct ops *o = f->ops;
    int rc = check_lengths(c, n_seq, begin, err, err_bytes);
    for (uint32_t s = 0, n; rc == 0 && s < n_seq; s += n) {
        n = run_some(f, s, n_seq, begin, ids, adapter);
        struct ops_batch batch = forward_last_batch(f, n, 0);
        o->pool(o, &(struct pool_args){.batch = &batch,
                                       .dim = c->dim,
                                       .kind = c->pool,
                                       .normalize = c->normalize,
                                       .x = forward_hidden(f, batch.rows),
                                       .out = e->pooled});
        o->sync(o);
        memcpy(out + (size_t)s * c->dim, e->pooled, (size_t)n * c->dim * sizeof *out);
    }
    return rc;
}

/* What the classes are read from: every row, or the first of each sequence through the pooler. */
static const void *head_input(struct forward *f, uint32_t n, uint32_t *rows) {
    const struct weights *w = f->weights;
    *rows = f->host.begin[n];
    if (f->config->arch->of_tokens) return forward_hidden(f, *rows);
    *rows = n;
    memcpy(f->host.gather, f->host.begin, n * sizeof *f->host.gather);
    const void *first = forward_gather(f, n);
    if (!w->pooler.n) return first;
    f->ops->linear(f->ops, &(struct linear_args){.rows = n,
                                                 .x = first,
                                                 .w = &w->pooler,
                                                 .bias = w->pooler_bias,
                                                 .act = OPS_ACT_TANH,
                                                 .y = f->attended});
    return f->attended;
}

int encoder_classify(struct encoder *e, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                     float *out, char *err, size_t err_bytes) {
    struct forward *f = &e->forward;
    const struct config *c = f->config;
    struct ops *o = f->ops;
    int rc = check_lengths(c, n_seq, begin, err, err_bytes);
    for (uint32_t s = 0, n, rows; rc == 0 && s < n_seq; s += n) {
        n = run_some(f, s, n_seq, begin, ids, NULL);
        const void *x = head_input(f, n, &rows);
        o->linear(o, &(struct linear_args){.rows = rows,
                                           .x = x,
                                           .w = &f->weights->classes,
                                           .bias = f->weights->classes_bias,
                                           .y_f32 = e->scores});
        o->download(o, out, e->scores, (size_t)rows * c->labels * sizeof *out);
        out += (size_t)rows * c->labels;
    }
    return rc;
}

int encoder_hidden(struct encoder *e, uint32_t rows, const uint32_t *ids, float *out, char *err,
                   size_t err_bytes) {
    struct forward *f = &e->forward;
    if (f->ops->act != DTYPE_F32)
        return err_set(err, err_bytes, -ENOTSUP,
                       "hidden states are read from float32 backends only");
    if (rows == 0 || rows > f->config->context)
        return err_set(err, err_bytes, ERR_LIMIT, "%u tokens, the limits are 1 and %u", rows,
                       f->config->context);
    f->host.begin[0] = 0;
    stage_one(f, 0, rows, ids);
    f->adapter[0] = NULL;
    forward_run(f, 1, NULL, 0);
    f->ops->download(f->ops, out, forward_hidden(f, rows),
                     (size_t)rows * f->config->dim * sizeof *out);
    return 0;
}
