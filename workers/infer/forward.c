#include "workers/infer/forward.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* cos and sin of position * theta^(-2i / head_dim), in double and rounded once. Su et al. 2021,
 * "RoFormer", section 3.2.2. */
static int rope_init(struct forward *f, uint32_t positions) {
    uint32_t half = f->config->head_dim / 2;
    size_t n = (size_t)positions * half;
    float *host = malloc(n * sizeof *host);
    float *cosines = f->ops->alloc(f->ops, n * sizeof *host);
    float *sines = f->ops->alloc(f->ops, n * sizeof *host);
    f->rope = (struct rope){cosines, sines};
    for (int which = 0; host && cosines && sines && which < 2; which++) {
        for (uint32_t i = 0; i < half; i++) {
            double frequency = pow(f->config->rope_theta, -2.0 * i / f->config->head_dim);
            for (uint32_t p = 0; p < positions; p++)
                host[(size_t)p * half + i] =
                    (float)(which ? sin(p * frequency) : cos(p * frequency));
        }
        f->ops->upload(f->ops, which ? sines : cosines, host, n * sizeof *host);
    }
    int rc = host && cosines && sines ? 0 : -ENOMEM;
    free(host);
    return rc;
}

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
    if (c->arch->kind == MODEL_DECODER) f->seq_pages_max = kvpool_pages_for(positions);
    struct {
        void **at;
        size_t width;
    } buffers[] = {{&f->h, c->dim},
                   {&f->normed, c->dim},
                   {&f->qkv, (size_t)(c->heads + 2 * c->kv_heads) * c->head_dim},
                   {&f->attended, (size_t)c->heads * c->head_dim},
                   {&f->inner, c->inner}};
    int rc = batch_init(&f->host, NULL, f);
    if (rc == 0) rc = batch_init(&f->device, ops, f);
    for (size_t i = 0; rc == 0 && i < sizeof buffers / sizeof *buffers; i++) {
        *buffers[i].at = ops->alloc(ops, rows_max * buffers[i].width * ops->act_bytes);
        if (!*buffers[i].at) rc = -ENOMEM;
    }
    if (rc == 0 && c->arch->rope) rc = rope_init(f, positions);
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
    void *device[] = {f->device.ids,
                      f->device.pos,
                      f->device.begin,
                      f->device.kv_len,
                      f->device.pages,
                      f->device.gather,
                      f->h,
                      f->normed,
                      f->qkv,
                      f->attended,
                      f->inner,
                      (void *)(uintptr_t)f->rope.cos,
                      (void *)(uintptr_t)f->rope.sin};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        if (device[i]) f->ops->free(f->ops, device[i]);
    *f = (struct forward){0};
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

/* h += attention(x). */
static void attention(struct forward *f, const struct weights_layer *w,
                      const struct ops_batch *batch, const struct ops_kv *kv, const void *x) {
    const struct config *c = f->config;
    struct ops *o = f->ops;
    o->linear(o, &(struct linear_args){
                     .rows = batch->rows, .x = x, .w = &w->qkv, .bias = w->qkv_bias, .y = f->qkv});
    if (kv->pool || c->arch->rope)
        o->qkv(o, &(struct qkv_args){.batch = batch,
                                     .heads = c->heads,
                                     .kv_heads = c->kv_heads,
                                     .head_dim = c->head_dim,
                                     .qkv = f->qkv,
                                     .rope = f->rope,
                                     .eps = (float)c->eps,
                                     .kv = *kv});
    o->attend(o, &(struct attend_args){.batch = batch,
                                       .heads = c->heads,
                                       .kv_heads = c->kv_heads,
                                       .head_dim = c->head_dim,
                                       .qkv = f->qkv,
                                       .kv = *kv,
                                       .causal = c->arch->kind == MODEL_DECODER,
                                       .scale = (float)(1.0 / sqrt((double)c->head_dim)),
                                       .out = f->attended});
    o->linear(o, &(struct linear_args){.rows = batch->rows,
                                       .x = f->attended,
                                       .w = &w->o,
                                       .bias = w->o_bias,
                                       .residual = f->h,
                                       .y = f->h});
}

/* h += mlp(x). */
static void mlp(struct forward *f, const struct weights_layer *w, uint32_t rows, const void *x) {
    struct ops *o = f->ops;
    if (f->config->arch->gated)
        o->gated(
            o, &(struct gated_args){
                   .rows = rows, .x = x, .gate_up = &w->up, .act = f->config->act, .y = f->inner});
    else
        o->linear(o, &(struct linear_args){.rows = rows,
                                           .x = x,
                                           .w = &w->up,
                                           .bias = w->up_bias,
                                           .act = f->config->act,
                                           .y = f->inner});
    o->linear(o, &(struct linear_args){.rows = rows,
                                       .x = f->inner,
                                       .w = &w->down,
                                       .bias = w->down_bias,
                                       .residual = f->h,
                                       .y = f->h});
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
                                     .scale = 1.0f,
                                     .out = f->h});
    if (w->embed_norm.gamma) norm(f, batch.rows, &w->embed_norm, f->h, f->h);

    bool post = f->config->arch->post_norm;
    for (uint32_t i = 0; i < w->layers; i++) {
        const struct weights_layer *l = &w->layer[i];
        struct ops_kv kv = pool ? kvpool_layer(pool, i) : (struct ops_kv){0};
        void *x = post ? f->h : f->normed;
        if (!post) norm(f, batch.rows, &l->attn_norm, f->h, x);
        attention(f, l, &batch, &kv, x);
        norm(f, batch.rows, post ? &l->attn_norm : &l->mlp_norm, f->h, x);
        mlp(f, l, batch.rows, x);
        if (post) norm(f, batch.rows, &l->mlp_norm, f->h, f->h);
    }
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
