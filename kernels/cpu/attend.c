#include <assert.h>
#include <stdatomic.h>

#include "kernels/cpu/cpu.h"
#include "kernels/kv.h"

/* A task is one sequence, one kv head and up to ATTEND_QUERIES of its queries. Threads take the
 * next one when they are free: causal tasks differ in length, and which thread runs a task changes
 * nothing. Where there are few tasks, as when one long text is decoded, threads share them split
 * by split, and the one that ends the last split of a task merges them. */
enum { SHARED_TASKS = 64 };
struct job {
    struct cpu *cpu;
    const struct attend_args *args;
    bool shared;
    _Atomic uint32_t next, done[SHARED_TASKS]; /* splits of each task */
};

struct task {
    uint32_t index, seq, cut; /* cut counts through the heads of a sequence */
    uint32_t head, begin, end, split, splits;
    size_t partial; /* where its splits go: floats from cpu->partial */
};

static size_t partial_floats(const struct attend_args *a, const struct task *t) {
    return (size_t)(t->end - t->begin) * (panels_of(a->head_dim) * PANEL + PARTIAL_HEAD);
}

/* The task at t->seq, t->cut; false behind the last one. */
static bool task_find(const struct attend_args *a, struct task *t) {
    const struct ops_batch *b = a->batch;
    for (; t->seq < b->n_seq; t->seq++, t->cut = 0) {
        uint32_t group = a->heads / a->kv_heads;
        uint32_t queries = (b->begin[t->seq + 1] - b->begin[t->seq]) * group;
        uint32_t cuts = (queries + ATTEND_QUERIES - 1) / ATTEND_QUERIES, begin, end, none;
        if (t->cut == cuts * a->kv_heads) continue;
        t->head = t->cut / cuts;
        team_share(queries, t->cut % cuts, cuts, &t->begin, &t->end);
        attend_visible(a, t->seq, t->begin / group, &begin, &none);
        attend_visible(a, t->seq, (t->end - 1) / group, &none, &end);
        t->split = begin / ATTEND_SPLIT;
        t->splits = (end - 1) / ATTEND_SPLIT + 1 - t->split;
        return true;
    }
    return false;
}

static void task_next(const struct attend_args *a, struct task *t) {
    t->partial += partial_floats(a, t) * t->splits;
    t->index++;
    t->cut++;
}

static void attend_part(void *arg, uint32_t part, uint32_t parts) {
    struct job *j = arg;
    const struct attend_args *a = j->args;
    const struct level *level = j->cpu->level;
    uint32_t first = 0, mine = atomic_fetch_add(&j->next, 1);
    (void)parts;
    for (struct task t = {0}; task_find(a, &t); task_next(a, &t)) {
        uint32_t units = j->shared ? t.splits : 1;
        for (; mine < first + units; mine = atomic_fetch_add(&j->next, 1)) {
            float *all = j->shared ? j->cpu->partial + t.partial : NULL;
            float *to = all ? all + partial_floats(a, &t) * (mine - first) : NULL;
            level->attend(a, t.seq, t.head, t.begin, t.end, t.split + mine - first, to,
                          &j->cpu->scratch[part]);
            if (all && atomic_fetch_add(&j->done[t.index], 1) + 1 == t.splits)
                level->attend_merge(a, t.seq, t.head, t.begin, t.end, all, t.splits);
        }
        first += units;
    }
}

void cpu_attend(struct ops *o, const struct attend_args *a) {
    const struct ops_batch *b = a->batch;
    struct job j = {.cpu = cpu_of(o), .args = a};
    struct task t = {0};
    uint64_t work = 0;
    assert(a->head_dim <= OPS_HEAD_DIM_MAX && a->heads % a->kv_heads == 0);
    assert(!a->kv.pool || kv_dtype_known(a->kv.dtype));
    for (uint32_t s = 0; s < b->n_seq; s++)
        work += (uint64_t)(b->begin[s + 1] - b->begin[s]) * a->heads * a->head_dim *
                (a->kv.pool ? b->kv_len[s] : b->begin[s + 1] - b->begin[s]);
    while (t.index <= SHARED_TASKS && task_find(a, &t)) task_next(a, &t);
    j.shared = o->threads > 1 && t.index <= SHARED_TASKS && t.index < 4 * o->threads &&
               t.partial <= PARTIAL_FLOATS;
    cpu_run(j.cpu, work, attend_part, &j);
}
