#include "kernels/ref/ref.h"

#include <assert.h>
#include <math.h>

#include "kernels/kv.h"
#include "kernels/source.h"

/* Normalizes (RMSNorm, where gamma is given) and rotates one head x [head_dim] at position pos. */
static void turn_head(const struct qkv_args *a, float *x, const float *gamma, uint32_t pos) {
    uint32_t half = a->head_dim / 2;
    if (gamma) {
        double square = 0;
        for (uint32_t i = 0; i < a->head_dim; i++) square += (double)x[i] * (double)x[i];
        double scale = 1 / sqrt(square / a->head_dim + (double)a->eps);
        for (uint32_t i = 0; i < a->head_dim; i++)
            x[i] = (float)((double)x[i] * scale * (double)gamma[i]);
    }
    if (!a->rope.cos) return;
    for (uint32_t i = 0; i < half; i++) {
        double c = (double)a->rope.cos[(size_t)pos * half + i];
        double s = (double)a->rope.sin[(size_t)pos * half + i];
        double left = (double)x[i], right = (double)x[i + half];
        x[i] = (float)(left * c - right * s);
        x[i + half] = (float)(right * c + left * s);
    }
}

void ref_qkv(struct ops *o, const struct qkv_args *a) {
    (void)o;
    const struct ops_batch *b = a->batch;
    size_t row_floats = (size_t)(a->heads + 2 * a->kv_heads) * a->head_dim;
    assert(!a->rope.cos || a->head_dim % 2 == 0);
    assert(!a->kv.pool || kv_dtype_known(a->kv.dtype));
    for (uint32_t s = 0; s < b->n_seq; s++)
        for (uint32_t r = b->begin[s]; r < b->begin[s + 1]; r++) {
            float *q = (float *)a->qkv + r * row_floats;
            float *k = q + (size_t)a->heads * a->head_dim,
                  *v = k + (size_t)a->kv_heads * a->head_dim;
            for (uint32_t h = 0; h < a->heads; h++)
                turn_head(a, q + (size_t)h * a->head_dim, a->q_gamma, b->pos[r]);
            for (uint32_t h = 0; h < a->kv_heads; h++) {
                turn_head(a, k + (size_t)h * a->head_dim, a->k_gamma, b->pos[r]);
                if (!a->kv.pool) continue;
                kv_write(&a->kv, b, s, b->pos[r], false, h, k + (size_t)h * a->head_dim);
                kv_write(&a->kv, b, s, b->pos[r], true, h, v + (size_t)h * a->head_dim);
            }
        }
}

/* The keys of one sequence and kv head: in the cache, or beside q in the rows of the sequence. */
struct keys {
    const struct attend_args *a;
    uint32_t seq, head;
};

/* Component i of a key, or of a value. */
static double component(const struct keys *k, uint32_t j, bool value, uint32_t i) {
    const struct attend_args *a = k->a;
    if (a->kv.pool) {
        char *page = kv_page(&a->kv, a->batch, k->seq, j);
        size_t row = kv_row(&a->kv, j, value, k->head), at = row * a->head_dim + i;
        if (a->kv.dtype == DTYPE_I8)
            return (double)((const int8_t *)page)[at] * (double)kv_scale(&a->kv, page, row);
        return (double)source_element(page, a->kv.dtype, at);
    }
    size_t row_heads = a->heads + 2 * (size_t)a->kv_heads;
    size_t head = a->heads + k->head + (value ? a->kv_heads : 0);
    size_t row = (a->batch->begin[k->seq] + (size_t)j) * row_heads + head;
    return (double)((const float *)a->qkv)[row * a->head_dim + i];
}

static double score(const struct keys *k, const float *q, uint32_t j) {
    const struct attend_args *a = k->a;
    double sum = 0;
    for (uint32_t i = 0; i < a->head_dim; i++) sum += (double)q[i] * component(k, j, false, i);
    sum *= (double)a->scale;
    return a->softcap > 0 ? (double)a->softcap * tanh(sum / (double)a->softcap) : sum;
}

/* out [head_dim] for the query q over the keys begin .. end-1. */
static void attend_head(const struct keys *k, const float *q, uint32_t begin, uint32_t end,
                        float *out) {
    const struct attend_args *a = k->a;
    double most = -INFINITY, total = 0, sum[OPS_HEAD_DIM_MAX] = {0};
    for (uint32_t j = begin; j < end; j++) most = fmax(most, score(k, q, j));
    for (uint32_t j = begin; j < end; j++) {
        double p = exp(score(k, q, j) - most);
        total += p;
        for (uint32_t i = 0; i < a->head_dim; i++) sum[i] += p * component(k, j, true, i);
    }
    for (uint32_t i = 0; i < a->head_dim; i++) out[i] = (float)(sum[i] / total);
}

void ref_attend(struct ops *o, const struct attend_args *a) {
    (void)o;
    const struct ops_batch *b = a->batch;
    size_t row_floats = (size_t)(a->heads + 2 * a->kv_heads) * a->head_dim;
    assert(a->head_dim <= OPS_HEAD_DIM_MAX && a->heads % a->kv_heads == 0);
    assert(!a->kv.pool || kv_dtype_known(a->kv.dtype));
    for (uint32_t s = 0; s < b->n_seq; s++)
        for (uint32_t r = b->begin[s]; r < b->begin[s + 1]; r++) {
            uint32_t at = a->kv.pool ? b->pos[r] : r - b->begin[s];
            uint32_t length = a->kv.pool ? b->kv_len[s] : b->begin[s + 1] - b->begin[s];
            uint32_t end = a->causal ? at + 1 : length;
            uint32_t begin = a->window && at + 1 > a->window ? at + 1 - a->window : 0;
            assert(begin < end && end <= length);
            for (uint32_t h = 0; h < a->heads; h++) {
                struct keys keys = {a, s, h / (a->heads / a->kv_heads)};
                attend_head(&keys, (const float *)a->qkv + r * row_floats + (size_t)h * a->head_dim,
                            begin, end, (float *)a->out + ((size_t)r * a->heads + h) * a->head_dim);
            }
        }
}
