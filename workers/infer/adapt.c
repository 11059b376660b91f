#include "workers/infer/adapt.h"

static const struct adapter_pair *pair_of(const struct forward *f, uint32_t seq, uint32_t layer,
                                          enum adapter_block block) {
    const struct adapter *a = f->adapter[seq];
    return a && a->layer[layer][block].a.n ? &a->layer[layer][block] : NULL;
}

static const void *rows_at(const struct forward *f, const void *x, uint32_t row, uint32_t width) {
    return (const char *)x + (size_t)row * width * f->ops->act_bytes;
}

/* Every run of the batch: added to y, or put into it. */
static void each_run(struct forward *f, uint32_t n_seq, uint32_t layer, enum adapter_block block,
                     const void *x, void *y, bool add) {
    struct ops *o = f->ops;
    for (uint32_t s = 0, end; s < n_seq; s = end) {
        const struct adapter_pair *p = pair_of(f, s, layer, block);
        for (end = s + 1; end < n_seq && f->adapter[end] == f->adapter[s];) end++;
        if (!p) continue;
        uint32_t row = f->host.begin[s], rows = f->host.begin[end] - row;
        void *to = (char *)y + (size_t)row * p->b.n * o->act_bytes;
        o->linear(o, &(struct linear_args){
                         .rows = rows, .x = rows_at(f, x, row, p->a.k), .w = &p->a, .y = f->low});
        o->linear(o,
                  &(struct linear_args){
                      .rows = rows, .x = f->low, .w = &p->b, .residual = add ? to : NULL, .y = to});
    }
}

void adapt_add(struct forward *f, uint32_t n_seq, uint32_t layer, enum adapter_block block,
               const void *x, void *y) {
    each_run(f, n_seq, layer, block, x, y, true);
}

void adapt_collect(struct forward *f, uint32_t n_seq, uint32_t layer, enum adapter_block block,
                   const void *x) {
    each_run(f, n_seq, layer, block, x, f->added, false);
}

bool adapt_next(const struct forward *f, uint32_t n_seq, uint32_t layer, enum adapter_block block,
                struct adapt_span *s) {
    if (s->seq == n_seq) return false;
    s->begin = f->host.begin[s->seq];
    while (s->seq < n_seq && !pair_of(f, s->seq, layer, block)) s->seq++;
    s->with = f->host.begin[s->seq];
    while (s->seq < n_seq && pair_of(f, s->seq, layer, block)) s->seq++;
    s->end = f->host.begin[s->seq];
    return true;
}
