#include <assert.h>
#include <stdatomic.h>

#include "kernels/cpu/cpu.h"

/* A task is one sequence, one kv head and up to ATTEND_QUERIES of its queries. Threads take the
 * next one when they are free: causal tasks differ in length, and which thread runs a task changes
 * nothing. */
struct job {
    struct cpu *cpu;
    const struct attend_args *args;
    _Atomic uint32_t next;
};

static uint32_t queries_of(const struct attend_args *a, uint32_t seq) {
    return (a->batch->begin[seq + 1] - a->batch->begin[seq]) * (a->heads / a->kv_heads);
}

static void attend_part(void *arg, uint32_t part, uint32_t parts) {
    struct job *j = arg;
    const struct attend_args *a = j->args;
    uint32_t first = 0, mine = atomic_fetch_add(&j->next, 1);
    (void)parts;
    for (uint32_t s = 0; s < a->batch->n_seq; s++) {
        uint32_t queries = queries_of(a, s), cuts = (queries + ATTEND_QUERIES - 1) / ATTEND_QUERIES;
        for (; mine < first + cuts * a->kv_heads; mine = atomic_fetch_add(&j->next, 1)) {
            uint32_t head = (mine - first) / cuts, cut = (mine - first) % cuts, begin, end;
            team_share(queries, cut, cuts, &begin, &end);
            j->cpu->level->attend(a, s, head, begin, end, &j->cpu->scratch[part]);
        }
        first += cuts * a->kv_heads;
    }
}

void cpu_attend(struct ops *o, const struct attend_args *a) {
    const struct ops_batch *b = a->batch;
    struct job j = {.cpu = cpu_of(o), .args = a};
    uint64_t work = 0;
    assert(a->head_dim <= OPS_HEAD_DIM_MAX && a->heads % a->kv_heads == 0);
    assert(!a->kv.pool || a->kv.dtype == DTYPE_F32 || a->kv.dtype == DTYPE_BF16);
    for (uint32_t s = 0; s < b->n_seq; s++)
        work += (uint64_t)queries_of(a, s) * a->kv_heads * a->head_dim *
                (a->kv.pool ? b->kv_len[s] : b->begin[s + 1] - b->begin[s]);
    cpu_run(j.cpu, work, attend_part, &j);
}
