#include <assert.h>

#include "kernels/cpu/cpu.h"

struct job {
    struct cpu *cpu;
    const struct gemm *gemm;
    uint32_t row_parts; /* divides the number of threads */
};

static void gemm_part(void *arg, uint32_t part, uint32_t parts) {
    const struct job *j = arg;
    uint32_t row_parts = parts == 1 ? 1 : j->row_parts, panel_parts = parts / row_parts;
    uint32_t row_begin, row_end, panel_begin, panel_end;
    team_share(j->gemm->rows, part / panel_parts, row_parts, &row_begin, &row_end);
    team_share(panels_of(j->gemm->n), part % panel_parts, panel_parts, &panel_begin, &panel_end);
    const struct level *level = j->cpu->level;
    (dtype_quantized(j->gemm->dtype) ? level->gemm_quant : level->gemm)(
        j->gemm, row_begin, row_end, panel_begin, panel_end, &j->cpu->scratch[part]);
}

/* Threads split the panels of N, and rows too only when each would get too few panels; or, of
 * activations that each thread has to quantize for itself, wherever there are rows enough. */
static uint32_t split_rows(uint32_t rows, uint32_t panels, uint32_t threads, bool quantized) {
    uint32_t row_parts = 1;
    for (uint32_t i = 2; i <= threads; i++)
        if (threads % i == 0 && rows / i >= 48 &&
            (quantized || panels / (threads / row_parts) < 2 * GROUP_PANELS))
            row_parts = i;
    return row_parts;
}

static void multiply(struct cpu *c, const struct gemm *g) {
    uint64_t work = (uint64_t)g->rows * g->n * g->k * (g->gated ? 2 : 1);
    struct job j = {
        c, g, split_rows(g->rows, panels_of(g->n), c->ops.threads, dtype_quantized(g->dtype))};
    if (g->rows) cpu_run(c, work, gemm_part, &j);
}

void cpu_linear(struct ops *o, const struct linear_args *a) {
    struct gemm g = {
        .rows = a->rows,
        .n = a->w->n,
        .k = a->w->k,
        .x = a->x,
        .w = a->w->data,
        .dtype = a->w->dtype,
        .group = a->w->group,
        .zeros = a->w->zeros,
        .act = a->act,
        .bias = a->bias,
        .add = a->add,
        .add_from = a->add_from,
        .residual = a->residual,
        .y = a->y_f32 ? a->y_f32 : a->y,
    };
    assert((const float *)g.y != g.x);
    multiply(cpu_of(o), &g);
}

void cpu_gated(struct ops *o, const struct gated_args *a) {
    struct gemm g = {
        .rows = a->rows,
        .n = a->gate_up->n,
        .k = a->gate_up->k,
        .x = a->x,
        .w = a->gate_up->data,
        .dtype = a->gate_up->dtype,
        .group = a->gate_up->group,
        .zeros = a->gate_up->zeros,
        .gated = true,
        .add = a->add,
        .add_from = a->add_from,
        .act = a->act,
        .y = a->y,
    };
    assert((const float *)g.y != g.x);
    multiply(cpu_of(o), &g);
}
