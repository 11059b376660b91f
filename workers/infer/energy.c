#include "workers/infer/energy.h"

#include <stdlib.h>

struct column_sums {
    float *sum; /* [width] */
    uint32_t width;
    uint64_t rows;
};
struct energy {
    uint32_t layers;
    struct column_sums at[]; /* [layers][ENERGY_HEAD], and the head's */
};

static struct column_sums *find(const struct energy *e, uint32_t layer, enum energy_of of) {
    size_t i = of == ENERGY_HEAD ? (size_t)e->layers * ENERGY_HEAD
                                 : (size_t)layer * ENERGY_HEAD + (size_t)of;
    return (struct column_sums *)(uintptr_t)&e->at[i];
}

static uint32_t width_of(const struct config *c, enum energy_of of) {
    return of == ENERGY_O ? c->heads * c->head_dim : of == ENERGY_DOWN ? c->inner : c->dim;
}

struct energy *energy_new(const struct config *c) {
    size_t n = (size_t)c->layers * ENERGY_HEAD + 1;
    struct energy *e = calloc(1, sizeof *e + n * sizeof *e->at);
    if (!e) return NULL;
    e->layers = c->layers;
    for (size_t i = 0; i < n; i++) {
        enum energy_of of = i + 1 == n ? ENERGY_HEAD : (enum energy_of)(i % ENERGY_HEAD);
        e->at[i].width = width_of(c, of);
        e->at[i].sum = calloc(e->at[i].width, sizeof *e->at[i].sum);
        if (e->at[i].sum) continue;
        energy_free(e);
        return NULL;
    }
    return e;
}

void energy_free(struct energy *e) {
    if (!e) return;
    for (size_t i = 0; i < (size_t)e->layers * ENERGY_HEAD + 1; i++) free(e->at[i].sum);
    free(e);
}

void energy_add(struct energy *e, uint32_t layer, enum energy_of of, uint32_t rows,
                const float *x) {
    struct column_sums *s = find(e, layer, of);
    for (uint32_t r = 0; r < rows; r++, x += s->width)
        for (uint32_t i = 0; i < s->width; i++) s->sum[i] += x[i] * x[i];
    s->rows += rows;
}

uint64_t energy_rows(const struct energy *e) {
    return find(e, 0, ENERGY_QKV)->rows;
}

const float *energy_for(const struct energy *e, const struct config *c, uint32_t layer,
                        const char *pattern) {
    const struct arch_names *n = &c->arch->names;
    enum energy_of of = pattern == n->o                             ? ENERGY_O
                        : pattern == n->gate || pattern == n->up    ? ENERGY_UP
                        : pattern == n->down                        ? ENERGY_DOWN
                        : pattern == n->head || pattern == n->embed ? ENERGY_HEAD
                                                                    : ENERGY_QKV;
    const struct column_sums *s = find(e, layer, of);
    return s->rows ? s->sum : NULL;
}
