#include "kernels/ref/ref.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/source.h"

void ref_embed(struct ops *o, const struct embed_args *a) {
    (void)o;
    float *out = a->out;
    for (uint32_t r = 0; r < a->rows; r++)
        for (uint32_t i = 0; i < a->dim; i++) {
            float x = source_element(a->table, a->dtype, (size_t)a->id[r] * a->dim + i) * a->scale;
            if (a->positions)
                x += source_element(a->positions, a->dtype, (size_t)a->pos[r] * a->dim + i);
            if (a->type0) x += source_element(a->type0, a->dtype, i);
            out[(size_t)r * a->dim + i] = x;
        }
}

/* One row [dim]; out may be s. */
static void norm_row(const struct norm_args *a, const float *s, float *out) {
    double mean = 0, square = 0;
    if (a->kind == OPS_LAYERNORM) {
        for (uint32_t i = 0; i < a->dim; i++) mean += (double)s[i];
        mean /= a->dim;
    }
    for (uint32_t i = 0; i < a->dim; i++) square += ((double)s[i] - mean) * ((double)s[i] - mean);
    double scale = 1 / sqrt(square / a->dim + (double)a->eps);
    for (uint32_t i = 0; i < a->dim; i++) {
        double gain = (double)a->gamma[i];
        out[i] = (float)(((double)s[i] - mean) * scale * gain + (a->beta ? (double)a->beta[i] : 0));
    }
}

void ref_norm(struct ops *o, const struct norm_args *a) {
    (void)o;
    const float *x = a->x, *delta = a->delta;
    float *sum = a->sum, *out = a->out;
    for (size_t r = 0; r < a->rows; r++) {
        size_t at = r * a->dim;
        const float *s = x + at;
        if (delta || sum) { /* without a sum to keep, out holds it until it is normalized */
            float *to = sum ? sum + at : out + at;
            for (uint32_t i = 0; i < a->dim; i++)
                to[i] = delta ? x[at + i] + delta[at + i] : x[at + i];
            s = to;
        }
        norm_row(a, s, out + at);
    }
}

/* Component i of the pooled vector of rows x[0 .. rows-1][dim]. */
static double pooled(enum ops_pool kind, const float *x, uint32_t rows, uint32_t dim, uint32_t i) {
    double value = (double)x[i];
    switch (kind) {
    case OPS_POOL_FIRST: return value;
    case OPS_POOL_LAST: return (double)x[(size_t)(rows - 1) * dim + i];
    case OPS_POOL_MEAN:
        for (uint32_t r = 1; r < rows; r++) value += (double)x[(size_t)r * dim + i];
        return value / rows;
    case OPS_POOL_MAX:
        for (uint32_t r = 1; r < rows; r++) value = fmax(value, (double)x[(size_t)r * dim + i]);
        return value;
    }
    assert(0 && "a pooling that ops.h does not name");
    return value;
}

void ref_pool(struct ops *o, const struct pool_args *a) {
    (void)o;
    const struct ops_batch *b = a->batch;
    for (uint32_t s = 0; s < b->n_seq; s++) {
        const float *x = (const float *)a->x + (size_t)b->begin[s] * a->dim;
        float *out = a->out + (size_t)s * a->dim;
        uint32_t rows = b->begin[s + 1] - b->begin[s];
        assert(rows > 0);
        double square = 0;
        for (uint32_t i = 0; i < a->dim; i++) {
            out[i] = (float)pooled(a->kind, x, rows, a->dim, i);
            square += (double)out[i] * (double)out[i];
        }
        if (!a->normalize || square == 0) continue;
        for (uint32_t i = 0; i < a->dim; i++) out[i] = (float)((double)out[i] / sqrt(square));
    }
}

void ref_gather(struct ops *o, const struct gather_args *a) {
    (void)o;
    for (size_t i = 0; i < a->rows; i++)
        memcpy((float *)a->out + i * a->dim, (const float *)a->x + (size_t)a->row[i] * a->dim,
               a->dim * sizeof(float));
}
