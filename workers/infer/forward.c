#include "workers/infer/forward.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "workers/infer/adapt.h"

/* The six staging arrays, on the host or on the backend. */
static int batch_init(struct forward_batch *b, struct ops *ops, const struct forward *f) {
    struct {
        uint32_t **at;
        size_t n;
    } arrays[] = {{&b->ids, f->rows_max},
                  {&b->pos, f->rows_max},
                  {&b->begin, (size_t)f->seqs_max + 1},
                  {&b->kv_len, f->seqs_max},
                  {&b->pages, (size_t)f->seqs_max * f->seq_pages_max},
                  {&b->gather, f->seqs_max}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        size_t n = arrays[i].n ? arrays[i].n : 1;
        *arrays[i].at = ops ? ops->alloc(ops, n * sizeof(uint32_t)) : calloc(n, sizeof(uint32_t));
        if (!*arrays[i].at) return -ENOMEM;
    }
    return 0;
}

int forward_init(struct forward *f, struct ops *ops, const struct config *c,
                 const struct weights *w, uint32_t rows_max, uint32_t seqs_max, uint32_t positions,
                 char *err, size_t err_bytes) {
    *f = (struct forward){
        .ops = ops, .config = c, .weights = w, .rows_max = rows_max, .seqs_max = seqs_max};
    f->sandwich = c->arch->names.attn_out && !c->arch->post_norm;
    if (c->arch->kind == MODEL_DECODER) f->seq_pages_max = kvpool_pages_for(positions);
    struct {
        void **at;
        size_t width;
    } buffers[] = {{&f->h, c->dim},
                   {&f->normed, c->dim},
                   {&f->qkv, (size_t)(c->heads + 2 * c->kv_heads) * c->head_dim},
                   {&f->attended, (size_t)c->heads * c->head_dim},
                   {&f->inner, c->inner},
                   {&f->branch, f->sandwich ? c->dim : 0}};
    int rc = batch_init(&f->host, NULL, f);
    if (rc == 0) rc = batch_init(&f->device, ops, f);
    f->adapter = calloc(seqs_max ? seqs_max : 1, sizeof(struct adapter *));
    if (!f->adapter) rc = -ENOMEM;
    for (size_t i = 0; rc == 0 && i < sizeof buffers / sizeof *buffers; i++) {
        *buffers[i].at = ops->alloc(ops, rows_max * buffers[i].width * ops->act_bytes);
        if (!*buffers[i].at) rc = -ENOMEM;
    }
    for (int local = 0; rc == 0 && c->arch->rope && local < (c->arch->local_theta_key ? 2 : 1);
         local++)
        rc = rope_tables(&f->rope[local], ops, &c->rope[local], c->head_dim, positions);
    if (rc != 0) {
        forward_fini(f);
        err_set(err, err_bytes, rc, "no memory for a workspace of %u rows", rows_max);
    }
    return rc;
}

void forward_fini(struct forward *f) {
    if (!f->ops) return;
    uint32_t *host[] = {f->host.ids,    f->host.pos,   f->host.begin,
                        f->host.kv_len, f->host.pages, f->host.gather};
    void *device[] = {
        f->device.ids,    f->device.pos, f->device.begin, f->device.kv_len, f->device.pages,
        f->device.gather, f->h,          f->normed,       f->qkv,           f->attended,
        f->inner,         f->branch,     f->low,          f->added};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        if (device[i]) f->ops->free(f->ops, device[i]);
    free(f->adapter);
    for (int local = 0; local < 2; local++) rope_drop(&f->rope[local], f->ops);
    *f = (struct forward){0};
}

int forward_adapt(struct forward *f, const struct adapter *a, char *err, size_t err_bytes) {
    struct ops *o = f->ops;
    size_t row = f->rows_max * o->act_bytes;
    uint32_t width = f->config->inner * (f->config->arch->gated ? 2 : 1);
    if (!f->added) f->added = o->alloc(o, row * width);
    if (f->added && a->rank_max > f->low_width) {
        void *low = o->alloc(o, row * a->rank_max);
        if (low && f->low) o->free(o, f->low);
        if (low) {
            f->low = low;
            f->low_width = a->rank_max;
        }
    }
    if (f->added && f->low_width >= a->rank_max) return 0;
    return err_set(err, err_bytes, -ENOMEM, "no memory for an adapter of rank %u on %u rows",
                   a->rank_max, f->rows_max);
}

static void norm(struct forward *f, uint32_t rows, const struct weights_norm *w, const void *x,
                 void *out) {
    f->ops->norm(f->ops, &(struct norm_args){.rows = rows,
                                             .dim = f->config->dim,
                                             .kind = f->config->arch->norm,
                                             .eps = (float)f->config->eps,
                                             .x = x,
                                             .out = out,
                                             .gamma = w->gamma,
                                             .beta = w->beta});
}

/* What a block reads: the stream as it is, or normed. `add`: the branch joins the stream first. */
static const void *block_input(struct forward *f, uint32_t rows, const struct weights_norm *w,
                               bool add) {
    if (!w->gamma) return f->h;
    f->ops->norm(f->ops, &(struct norm_args){.rows = rows,
                                             .dim = f->config->dim,
                                             .kind = f->config->arch->norm,
                                             .eps = (float)f->config->eps,
                                             .x = f->h,
                                             .delta = add ? f->branch : NULL,
                                             .sum = add ? f->h : NULL,
                                             .out = f->normed,
                                             .gamma = w->gamma,
                                             .beta = w->beta});
    return f->normed;
}

/* The last product of a block: into the stream, or into a branch that has a norm of its own. */
static void block_output(struct forward *f, const struct ops_batch *batch, uint32_t layer,
                         enum adapter_block block, const void *x) {
    const struct weights_layer *l = &f->weights->layer[layer];
    bool o = block == ADAPTER_O;
    const struct weights_norm *out = o ? &l->attn_out : &l->mlp_out;
    uint32_t rows = batch->rows;
    void *y = f->sandwich ? f->branch : f->h;
    f->ops->linear(f->ops, &(struct linear_args){.rows = rows,
                                                 .x = x,
                                                 .w = o ? &l->o : &l->down,
                                                 .bias = o ? l->o_bias : l->down_bias,
                                                 .residual = f->sandwich ? NULL : f->h,
                                                 .y = y});
    adapt_add(f, batch->n_seq, layer, block, x, y);
    if (out->gamma) norm(f, rows, out, y, y);
}

static void attention(struct forward *f, uint32_t layer, const struct ops_batch *batch,
                      const struct ops_kv *kv, const void *x) {
    const struct config *c = f->config;
    const struct weights_layer *w = &f->weights->layer[layer];
    struct ops *o = f->ops;
    o->linear(o, &(struct linear_args){
                     .rows = batch->rows, .x = x, .w = &w->qkv, .bias = w->qkv_bias, .y = f->qkv});
    adapt_add(f, batch->n_seq, layer, ADAPTER_QKV, x, f->qkv);
    if (kv->pool || c->arch->rope)
        o->qkv(o, &(struct qkv_args){
                      .batch = batch,
                      .heads = c->heads,
                      .kv_heads = c->kv_heads,
                      .head_dim = c->head_dim,
                      .qkv = f->qkv,
                      .rope = f->rope[c->windowed[layer] && c->arch->local_theta_key ? 1 : 0],
                      .q_gamma = w->q_gamma,
                      .k_gamma = w->k_gamma,
                      .eps = (float)c->eps,
                      .kv = *kv});
    o->attend(o, &(struct attend_args){.batch = batch,
                                       .heads = c->heads,
                                       .kv_heads = c->kv_heads,
                                       .head_dim = c->head_dim,
                                       .qkv = f->qkv,
                                       .kv = *kv,
                                       .causal = c->arch->kind == MODEL_DECODER,
                                       .window = c->windowed[layer] ? c->window : 0,
                                       .scale = c->score_scale,
                                       .softcap = c->softcap,
                                       .out = f->attended});
    block_output(f, batch, layer, ADAPTER_O, f->attended);
}

/* A span of rows through the first product of the MLP. */
static void mlp_up(struct forward *f, uint32_t layer, const struct adapt_span *s, const void *x) {
    const struct weights_layer *w = &f->weights->layer[layer];
    struct ops *o = f->ops;
    bool gated = f->config->arch->gated;
    uint32_t inner = f->config->inner, rows = s->end - s->begin;
    const void *from = (const char *)x + (size_t)s->begin * f->config->dim * o->act_bytes;
    void *to = (char *)f->inner + (size_t)s->begin * inner * o->act_bytes;
    const void *add = NULL;
    if (s->with < s->end)
        add = (const char *)f->added + (size_t)s->with * inner * (gated ? 2 : 1) * o->act_bytes;
    if (gated)
        o->gated(o, &(struct gated_args){.rows = rows,
                                         .x = from,
                                         .gate_up = &w->up,
                                         .add = add,
                                         .add_from = s->with - s->begin,
                                         .act = f->config->act,
                                         .y = to});
    else
        o->linear(o, &(struct linear_args){.rows = rows,
                                           .x = from,
                                           .w = &w->up,
                                           .bias = w->up_bias,
                                           .add = add,
                                           .add_from = s->with - s->begin,
                                           .act = f->config->act,
                                           .y = to});
}

static void mlp(struct forward *f, uint32_t layer, const struct ops_batch *batch, const void *x) {
    struct adapt_span span = {0};
    adapt_collect(f, batch->n_seq, layer, ADAPTER_UP, x);
    while (adapt_next(f, batch->n_seq, layer, ADAPTER_UP, &span)) mlp_up(f, layer, &span, x);
    block_output(f, batch, layer, ADAPTER_DOWN, f->inner);
}

struct ops_batch forward_last_batch(const struct forward *f, uint32_t n_seq, uint32_t pages_max) {
    return (struct ops_batch){.n_seq = n_seq,
                              .rows = f->host.begin[n_seq],
                              .begin = f->device.begin,
                              .pos = f->device.pos,
                              .kv_len = f->device.kv_len,
                              .pages = f->device.pages,
                              .pages_max = pages_max};
}

void forward_run(struct forward *f, uint32_t n_seq, const struct kvpool *pool, uint32_t pages_max) {
    struct ops *o = f->ops;
    const struct weights *w = f->weights;
    struct ops_batch batch = forward_last_batch(f, n_seq, pages_max);
    assert(n_seq > 0 && n_seq <= f->seqs_max && batch.rows > 0 && batch.rows <= f->rows_max);
    assert(!pool || pages_max <= f->seq_pages_max);
    size_t word = sizeof(uint32_t);
    o->upload(o, f->device.ids, f->host.ids, batch.rows * word);
    o->upload(o, f->device.pos, f->host.pos, batch.rows * word);
    o->upload(o, f->device.begin, f->host.begin, ((size_t)n_seq + 1) * word);
    if (pool) {
        o->upload(o, f->device.kv_len, f->host.kv_len, n_seq * word);
        o->upload(o, f->device.pages, f->host.pages, (size_t)n_seq * pages_max * word);
    }
    o->embed(o, &(struct embed_args){.rows = batch.rows,
                                     .dim = f->config->dim,
                                     .id = f->device.ids,
                                     .pos = w->positions ? f->device.pos : NULL,
                                     .table = w->embed,
                                     .positions = w->positions,
                                     .type0 = w->types,
                                     .dtype = w->embed_dtype,
                                     .scale = f->config->embed_scale,
                                     .out = f->h});
    if (w->embed_norm.gamma) norm(f, batch.rows, &w->embed_norm, f->h, f->h);

    for (uint32_t i = 0; i < w->layers; i++) {
        const struct weights_layer *l = &w->layer[i];
        struct ops_kv kv = pool ? kvpool_layer(pool, i) : (struct ops_kv){0};
        bool open = f->sandwich && i > 0;
        attention(f, i, &batch, &kv, block_input(f, batch.rows, &l->attn_in, open));
        mlp(f, i, &batch, block_input(f, batch.rows, &l->mlp_in, f->sandwich));
    }
    if (f->sandwich) block_input(f, batch.rows, &w->final_norm, true);
}

const void *forward_gather(struct forward *f, uint32_t n) {
    struct ops *o = f->ops;
    assert(n <= f->seqs_max && n <= f->rows_max);
    o->upload(o, f->device.gather, f->host.gather, n * sizeof(uint32_t));
    o->gather(o, &(struct gather_args){.rows = n,
                                       .dim = f->config->dim,
                                       .row = f->device.gather,
                                       .x = f->h,
                                       .out = f->normed});
    if (f->weights->final_norm.gamma) norm(f, n, &f->weights->final_norm, f->normed, f->normed);
    return f->normed;
}

const void *forward_hidden(struct forward *f, uint32_t rows) {
    if (!f->weights->final_norm.gamma) return f->h;
    norm(f, rows, &f->weights->final_norm, f->h, f->normed);
    return f->normed;
}
