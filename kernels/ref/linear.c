#include "kernels/ref/ref.h"

#include <assert.h>
#include <math.h>

#include "kernels/source.h"

enum {
    ROWS_AT_ONCE = 4
}; /* four independent sums keep the adder busy; each is in the order of k */

static double activate(enum ops_act act, double x) {
    switch (act) {
    case OPS_ACT_NONE: return x;
    case OPS_ACT_GELU: return 0.5 * x * (1 + erf(x * M_SQRT1_2));
    case OPS_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(M_SQRT1_2 * M_2_SQRTPI * (x + 0.044715 * x * x * x)));
    case OPS_ACT_RELU: return x > 0 ? x : 0;
    case OPS_ACT_SILU: return x / (1 + exp(-x));
    case OPS_ACT_TANH: return tanh(x);
    }
    assert(0 && "an activation that ops.h does not name");
    return x;
}

/* sum[r] = x[r] . w[n] for up to four rows of x [rows][k]. */
static void dots(double *sum, const float *x, uint32_t rows, const struct weight *w, size_t n) {
    if (dtype_quantized(w->dtype)) {
        ref_quant_dots(sum, x, rows, w, n);
        return;
    }
    const float *row[ROWS_AT_ONCE];
    for (uint32_t r = 0; r < ROWS_AT_ONCE; r++) {
        row[r] = x + (size_t)(r < rows ? r : 0) * w->k;
        sum[r] = 0;
    }
    for (uint32_t k = 0; k < w->k; k++) {
        double element = (double)source_element(w->data, w->dtype, n * w->k + k);
        for (uint32_t r = 0; r < ROWS_AT_ONCE; r++) sum[r] += (double)row[r][k] * element;
    }
}

void ref_linear(struct ops *o, const struct linear_args *a) {
    (void)o;
    const float *x = a->x, *residual = a->residual, *add = a->add;
    float *y = a->y_f32 ? a->y_f32 : a->y;
    uint32_t n = a->w->n, k = a->w->k;
    assert((const float *)y != x);
    for (uint32_t m = 0; m < a->rows; m += ROWS_AT_ONCE) {
        uint32_t rows = a->rows - m < ROWS_AT_ONCE ? a->rows - m : ROWS_AT_ONCE;
        for (uint32_t i = 0; i < n; i++) {
            double sum[ROWS_AT_ONCE];
            dots(sum, x + (size_t)m * k, rows, a->w, i);
            for (uint32_t r = 0; r < rows; r++) {
                size_t at = (size_t)(m + r) * n + i;
                double value = sum[r] + (a->bias ? (double)a->bias[i] : 0);
                if (add && m + r >= a->add_from)
                    value += (double)add[(size_t)(m + r - a->add_from) * n + i];
                value = activate(a->act, value);
                y[at] = (float)(value + (residual ? (double)residual[at] : 0));
            }
        }
    }
}

void ref_gated(struct ops *o, const struct gated_args *a) {
    (void)o;
    const float *x = a->x, *add = a->add;
    float *y = a->y;
    uint32_t n = a->gate_up->n, k = a->gate_up->k;
    assert((const float *)y != x);
    for (uint32_t m = 0; m < a->rows; m += ROWS_AT_ONCE) {
        uint32_t rows = a->rows - m < ROWS_AT_ONCE ? a->rows - m : ROWS_AT_ONCE;
        for (uint32_t i = 0; i < n; i++) {
            double gate[ROWS_AT_ONCE], up[ROWS_AT_ONCE];
            dots(gate, x + (size_t)m * k, rows, a->gate_up, i);
            dots(up, x + (size_t)m * k, rows, a->gate_up, (size_t)n + i);
            for (uint32_t r = 0; r < rows; r++) {
                if (add && m + r >= a->add_from) {
                    size_t at = (size_t)(m + r - a->add_from) * 2 * n + i;
                    gate[r] += (double)add[at];
                    up[r] += (double)add[at + n];
                }
                y[(size_t)(m + r) * n + i] = (float)(activate(a->act, gate[r]) * up[r]);
            }
        }
    }
}
