#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* Best first: "auto" takes the first one that the processor has. */
static const struct level *const LEVELS[] = {
#if defined(__x86_64__)
    &LEVEL_AVX512BF16,
    &LEVEL_AVX512,
    &LEVEL_AVX2,
#endif
    &LEVEL_PLAIN,
};
enum { LEVEL_COUNT = sizeof LEVELS / sizeof *LEVELS };

void cpu_run(struct cpu *c, uint64_t work, team_part part, void *arg) {
    if (work < 65536)
        part(arg, 0, 1);
    else
        team_run(c->team, part, arg);
}

static void cpu_copy(struct ops *o, void *to, const void *from, size_t bytes) {
    (void)o;
    if (bytes) memcpy(to, from, bytes);
}

static void cpu_sync(struct ops *o) {
    (void)o;
}

static void cpu_close(struct ops *o) {
    struct cpu *c = cpu_of(o);
    team_free(c->team);
    cpu_free(o, c->scratch);
    cpu_free(o, c->partial);
    free(c);
}

static const struct ops CPU_OPS = {
    .backend = "cpu",
    .host = true,
    .layout = "cpu-panel16-1",
    .act = DTYPE_F32,
    .act_bytes = sizeof(float),
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .sync = cpu_sync,
    .weight_pack = cpu_weight_pack,
    .weight_pack_stack = cpu_weight_pack_stack,
    .weight_pack_pair = cpu_weight_pack_pair,
    .weight_free = cpu_weight_free,
    .weight_borrow = cpu_weight_borrow,
    .embed = cpu_embed,
    .norm = cpu_norm,
    .linear = cpu_linear,
    .gated = cpu_gated,
    .qkv = cpu_qkv,
    .attend = cpu_attend,
    .pool = cpu_pool,
    .gather = cpu_gather,
    .sample_bytes = cpu_sample_bytes,
    .sample = cpu_sample,
    .close = cpu_close,
};

static int choose_level(const struct level **out, const char *name, char *err, size_t err_bytes) {
    bool best = !name || strcmp(name, "auto") == 0;
    for (size_t i = 0; i < LEVEL_COUNT; i++) {
        if (!best && strcmp(name, LEVELS[i]->name) != 0) continue;
        if (best && LEVELS[i]->preferred && !LEVELS[i]->preferred()) continue;
        if (LEVELS[i]->supported()) {
            *out = LEVELS[i];
            return 0;
        }
        if (!best)
            return err_set(err, err_bytes, -ENOTSUP,
                           "this processor lacks the instructions of level %s: use auto", name);
    }
    return err_set(err, err_bytes, -EINVAL,
                   "no cpu level is called \"%s\": use auto, avx512bf16, avx512, avx2 or plain",
                   name);
}

int cpu_open(struct ops **out, const char *level, uint32_t threads, char *err, size_t err_bytes) {
    const struct level *chosen = NULL;
    int rc = choose_level(&chosen, level, err, err_bytes);
    if (rc) return rc;
    if (threads > TEAM_THREADS_MAX)
        return err_set(err, err_bytes, -EINVAL, "%u kernel threads are too many: use %u at most",
                       threads, TEAM_THREADS_MAX);
    if (threads == 0) threads = team_processors();
    struct cpu *c = calloc(1, sizeof *c);
    if (!c) return err_set(err, err_bytes, -ENOMEM, "no memory for the cpu backend");
    c->ops = CPU_OPS;
    c->ops.numerics_id = chosen->numerics_id;
    c->ops.threads = threads;
    c->level = chosen;
    c->scratch = cpu_alloc(&c->ops, threads * sizeof *c->scratch);
    c->partial = cpu_alloc(&c->ops, PARTIAL_FLOATS * sizeof *c->partial);
    if (!c->scratch || !c->partial) {
        rc = err_set(err, err_bytes, -ENOMEM,
                     "no memory for the scratch of %u kernel threads (%zu bytes)", threads,
                     threads * sizeof *c->scratch);
        goto fail;
    }
    rc = team_new(&c->team, threads);
    if (rc) {
        err_set(err, err_bytes, rc, "cannot start %u kernel threads: %s", threads, err_text(rc));
        goto fail;
    }
    *out = &c->ops;
    return 0;
fail:
    cpu_close(&c->ops);
    return rc;
}
