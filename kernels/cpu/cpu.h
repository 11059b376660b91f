/* cpu.h - the backend for processors: one level of instructions, a team of threads, packed weights.
 *
 * Levels, best first: avx512bf16, avx512, avx2, plain; "auto" takes the first that the processor
 * has (avx512bf16 only where its dots run at full rate). Each has its own bits and so its own
 * numerics_id. At avx512bf16 a weight stored as bf16 is multiplied with activations rounded to
 * bf16; elsewhere bf16 weights are widened.
 *
 * Units: elements.  Owner: cpu_open gives the table to ops->close.  Memory: packed copies of the
 * weights (sources are not kept), one struct scratch a thread.  Errors: as ops.h.
 * Threads: as ops.h; the operations share their work among a team. */
#ifndef PENSTOCK_KERNELS_CPU_CPU_H
#define PENSTOCK_KERNELS_CPU_CPU_H

#include "kernels/cpu/level.h"
#include "kernels/cpu/team.h"
#include "kernels/ops.h"

/* level NULL or "auto": the best here; threads 0: one a processor. */
int cpu_open(struct ops **out, const char *level, uint32_t threads, char *err, size_t err_bytes);

/* The rest is for the files of this directory. */
struct cpu {
    struct ops ops;
    const struct level *level;
    struct team *team;
    struct scratch *scratch; /* [threads] */
    float *partial;          /* [PARTIAL_FLOATS] of attention, which threads share */
};
static inline struct cpu *cpu_of(struct ops *o) {
    return (struct cpu *)o; /* ops is its first member */
}

/* Shares `part` among the team, or keeps it on the caller when `work` (multiply-adds, about) would
 * not pay for waking anybody. */
void cpu_run(struct cpu *c, uint64_t work, team_part part, void *arg);

/* memory.c */
void *cpu_alloc(struct ops *o, size_t bytes);
void cpu_free(struct ops *o, void *buffer);

/* pack.c */
int cpu_weight_pack(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *source,
                    enum dtype dtype, enum dtype want, char *err, size_t err_bytes);
int cpu_weight_pack_stack(struct ops *o, struct weight *w, uint32_t parts, const uint32_t *n,
                          uint32_t k, const void *const *source, enum dtype dtype, enum dtype want,
                          char *err, size_t err_bytes);
int cpu_weight_pack_pair(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *gate,
                         const void *up, enum dtype dtype, enum dtype want, char *err,
                         size_t err_bytes);
void cpu_weight_free(struct ops *o, struct weight *w);
int cpu_weight_borrow(struct ops *o, struct weight *w, const void *image, size_t bytes, char *err,
                      size_t err_bytes);

/* linear.c, rows.c, attend.c, sample.c: as in ops.h. */
void cpu_linear(struct ops *o, const struct linear_args *a);
void cpu_gated(struct ops *o, const struct gated_args *a);
void cpu_embed(struct ops *o, const struct embed_args *a);
void cpu_norm(struct ops *o, const struct norm_args *a);
void cpu_pool(struct ops *o, const struct pool_args *a);
void cpu_gather(struct ops *o, const struct gather_args *a);
void cpu_qkv(struct ops *o, const struct qkv_args *a);
void cpu_attend(struct ops *o, const struct attend_args *a);
size_t cpu_sample_bytes(struct ops *o, uint32_t vocab);
void cpu_sample(struct ops *o, const struct sample_args *a);

#endif
