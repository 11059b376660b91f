#include <assert.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/kv.h"

/* What every operation of this file hands to its parts. */
struct job {
    const struct level *level;
    const void *args;
};

static void embed_part(void *arg, uint32_t part, uint32_t parts) {
    const struct job *j = arg;
    const struct embed_args *a = j->args;
    uint32_t begin, end;
    team_share(a->rows, part, parts, &begin, &end);
    j->level->embed(a, begin, end);
}

void cpu_embed(struct ops *o, const struct embed_args *a) {
    struct job j = {cpu_of(o)->level, a};
    cpu_run(cpu_of(o), (uint64_t)a->rows * a->dim * 2, embed_part, &j);
}

static void norm_part(void *arg, uint32_t part, uint32_t parts) {
    const struct job *j = arg;
    const struct norm_args *a = j->args;
    uint32_t begin, end;
    team_share(a->rows, part, parts, &begin, &end);
    j->level->norm(a, begin, end);
}

void cpu_norm(struct ops *o, const struct norm_args *a) {
    struct job j = {cpu_of(o)->level, a};
    cpu_run(cpu_of(o), (uint64_t)a->rows * a->dim * 4, norm_part, &j);
}

static void pool_part(void *arg, uint32_t part, uint32_t parts) {
    const struct job *j = arg;
    const struct pool_args *a = j->args;
    uint32_t begin, end;
    team_share(a->batch->n_seq, part, parts, &begin, &end);
    for (uint32_t s = begin; s < end; s++) {
        assert(a->batch->begin[s + 1] > a->batch->begin[s]);
        j->level->pool(a, s);
    }
}

void cpu_pool(struct ops *o, const struct pool_args *a) {
    struct job j = {cpu_of(o)->level, a};
    cpu_run(cpu_of(o), (uint64_t)a->batch->rows * a->dim, pool_part, &j);
}

static void gather_part(void *arg, uint32_t part, uint32_t parts) {
    const struct gather_args *a = ((const struct job *)arg)->args;
    uint32_t begin, end;
    team_share(a->rows, part, parts, &begin, &end);
    for (size_t i = begin; i < end; i++)
        memcpy((float *)a->out + i * a->dim, (const float *)a->x + (size_t)a->row[i] * a->dim,
               a->dim * sizeof(float));
}

void cpu_gather(struct ops *o, const struct gather_args *a) {
    struct job j = {cpu_of(o)->level, a};
    cpu_run(cpu_of(o), (uint64_t)a->rows * a->dim, gather_part, &j);
}

static void qkv_part(void *arg, uint32_t part, uint32_t parts) {
    const struct job *j = arg;
    const struct qkv_args *a = j->args;
    const struct ops_batch *b = a->batch;
    uint32_t begin, end;
    team_share(b->rows, part, parts, &begin, &end);
    for (uint32_t s = 0; s < b->n_seq; s++) {
        uint32_t from = begin > b->begin[s] ? begin : b->begin[s];
        uint32_t to = end < b->begin[s + 1] ? end : b->begin[s + 1];
        if (from < to) j->level->qkv(a, s, from, to);
    }
}

void cpu_qkv(struct ops *o, const struct qkv_args *a) {
    struct job j = {cpu_of(o)->level, a};
    assert(!a->rope.cos || a->head_dim % 2 == 0);
    assert(!a->kv.pool || kv_dtype_known(a->kv.dtype));
    if (!a->kv.pool && !a->rope.cos && !a->q_gamma && !a->k_gamma) return;
    cpu_run(cpu_of(o), (uint64_t)a->batch->rows * (a->heads + 2 * a->kv_heads) * a->head_dim * 4,
            qkv_part, &j);
}
