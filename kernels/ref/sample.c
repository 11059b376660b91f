#include "kernels/ref/ref.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

struct candidate {
    float logit;
    uint32_t id;
};

/* Highest logit first, lowest id among equals: a total order, so every sort agrees. */
static int by_rank(const void *left, const void *right) {
    const struct candidate *a = left, *b = right;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Legal tokens with a finite or +inf logit, in order of id; NaN and -inf are never drawn. */
static uint32_t collect(struct candidate *c, const float *logits, uint32_t vocab,
                        const struct sample_row *row) {
    uint32_t n = 0, seen = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        float logit = logits[i];
        if (seen < row->n_seen && row->seen[seen].id == i)
            logit = sample_penalized(logit, row->seen[seen++], row->repetition, row->presence,
                                     row->frequency);
        if ((!row->mask || (row->mask[i / 32] >> (i % 32) & 1)) && logit > -INFINITY)
            c[n++] = (struct candidate){logit, i};
    }
    return n;
}

static double mass_of(const struct candidate *c, uint32_t i, float temperature) {
    return exp(((double)c[i].logit - (double)c[0].logit) / (double)temperature);
}

/* Cuts what is less likely than min_p of the best; returns the mass that is left. */
static double cut_rare(const struct candidate *c, uint32_t *n, const struct sample_row *row) {
    double mass = 0;
    uint32_t i = 0;
    for (; i < *n && (i == 0 || mass_of(c, i, row->temperature) >= (double)row->min_p); i++)
        mass += mass_of(c, i, row->temperature);
    *n = i;
    return mass;
}

/* Cuts the ranked candidates to top_k, then to the smallest prefix whose share of what is left
 * reaches top_p, then by min_p; returns the mass of that prefix. */
static double cut(const struct candidate *c, uint32_t *n, const struct sample_row *row) {
    double mass = 0, kept = 0;
    if (row->top_k && *n > row->top_k) *n = row->top_k;
    for (uint32_t i = 0; i < *n; i++) mass += mass_of(c, i, row->temperature);
    if (row->top_p < 1) {
        uint32_t i = 0;
        do kept += mass_of(c, i++, row->temperature);
        while (i < *n && kept < (double)row->top_p * mass);
        *n = i;
        mass = kept;
    }
    return row->min_p > 0 ? cut_rare(c, n, row) : mass;
}

static uint32_t draw(struct candidate *c, const float *logits, uint32_t vocab,
                     const struct sample_row *row) {
    uint32_t n = collect(c, logits, vocab, row);
    if (n == 0) return OPS_NO_TOKEN;
    qsort(c, n, sizeof *c, by_rank);
    if (!(row->temperature > 0) || isinf(c[0].logit)) return c[0].id;
    double mass = cut(c, &n, row), sum = 0;
    double at = (double)rng_unit(row->seed, row->stream, row->position) * mass;
    for (uint32_t i = 0; i < n; i++) {
        sum += mass_of(c, i, row->temperature);
        if (sum > at) return c[i].id;
    }
    return c[n - 1].id;
}

static float logprob_of(const float *logits, uint32_t vocab, uint32_t token) {
    double most = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < vocab; i++) most = fmax(most, (double)logits[i]);
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] > -INFINITY) sum += exp((double)logits[i] - most);
    return (float)((double)logits[token] - most - log(sum));
}

static void top_of(struct candidate *c, const float *logits, uint32_t vocab, uint32_t top_n,
                   struct sample_top *top) {
    uint32_t n = collect(c, logits, vocab, &(struct sample_row){0});
    qsort(c, n, sizeof *c, by_rank);
    for (uint32_t i = 0; i < top_n; i++)
        top[i] = i < n ? (struct sample_top){c[i].id, logprob_of(logits, vocab, c[i].id)}
                       : (struct sample_top){OPS_NO_TOKEN, 0};
}

size_t ref_sample_bytes(struct ops *o, uint32_t vocab) {
    (void)o;
    return vocab * sizeof(struct candidate);
}

void ref_sample(struct ops *o, const struct sample_args *a) {
    (void)o;
    for (uint32_t r = 0; r < a->rows; r++) {
        const float *logits = a->logits + (size_t)(a->at ? a->at[r] : r) * a->vocab;
        uint32_t token = draw(a->workspace, logits, a->vocab, &a->row[r]);
        a->token[r] = token;
        if (a->logprob)
            a->logprob[r] = token == OPS_NO_TOKEN ? 0 : logprob_of(logits, a->vocab, token);
        if (a->top)
            top_of(a->workspace, logits, a->vocab, a->row[r].top_n,
                   a->top + (size_t)r * a->top_stride);
    }
}
