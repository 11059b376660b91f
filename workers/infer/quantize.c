#include "workers/infer/quantize.h"

#include <assert.h>
#include <errno.h>
#include <float.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/half.h"
#include "kernels/source.h"

#define THREADS_MAX 64u
#define ROWS_A_THREAD 16u    /* fewer do not pay for starting one */
#define SPAN_LEAST 0x1p-100f /* a group that lies closer together around zero is zero */

/* Eight groups are searched at once, one a lane: one register or two, and nothing is summed across
 * lanes. */
typedef float lanes __attribute__((vector_size(32)));
typedef int32_t masks __attribute__((vector_size(32)));
enum { LANES = 8 };

struct batch {
    lanes w[QUANTIZE_GROUP_MAX], energy[QUANTIZE_GROUP_MAX], q[QUANTIZE_GROUP_MAX];
    lanes low, high;  /* of each group, zero included */
    lanes shrink;     /* to sizes around one, whose squares no float overflows at */
    uint32_t size;    /* of a group */
    float top, units; /* the largest q; what a q counts in the units of the zero point */
};
/* value = scale * (units * q - zero) */
struct step {
    lanes scale, zero;
};
#define BODY static inline __attribute__((always_inline))

BODY void keep_between(lanes *x, float least, float most) {
    const lanes zero = {0}, low = zero + least, high = zero + most;
    masks above = *x > high, below = *x < low;
    *x = (lanes)(((masks)high & above) | ((masks)low & below) | ((masks)*x & ~above & ~below));
}

/* To the nearest whole number, of what is below 2^22. */
BODY void round_whole(lanes *x) {
    *x = (*x + 12582912.0f) - 12582912.0f;
}

/* The step whose scale is nearest to `scale` and whose range has its middle at `middle`. */
BODY void make_step(const struct batch *b, struct step *s, const lanes *scale,
                    const lanes *middle) {
    masks bits = (masks)*scale;
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & ~0xffff;
    s->scale = (lanes)bits;
    masks some = s->scale > 0;
    s->zero = b->top * b->units / 2 - *middle / (lanes)(((masks)s->scale & some) | (~some & 1));
    s->zero = (lanes)((masks)s->zero & some);
    keep_between(&s->zero, 0, 255);
    round_whole(&s->zero);
}

/* The nearest q of each element; *error is the squared error that is left, column by column
 * weighted. */
BODY void assign(struct batch *b, const struct step *s, lanes *error) {
    const lanes none = {0};
    masks some = s->scale > 0;
    lanes inverse =
        (lanes)((masks)(1 / (lanes)(((masks)s->scale & some) | (~some & 0x3f800000))) & some);
    lanes sum = none, each = inverse / b->units, zero = s->zero / b->units;
    for (uint32_t i = 0; i < b->size; i++) {
        lanes q = b->w[i] * each + zero;
        keep_between(&q, 0, b->top);
        round_whole(&q);
        lanes off = (b->w[i] - s->scale * (q * b->units - s->zero)) * b->shrink;
        sum += off * off * b->energy[i];
        b->q[i] = q;
    }
    *error = sum;
}

/* The least-squares step for the q that stand there; scale 0 where they are all the same. Sums run
 * over distances from the middle, so that they cancel little. */
BODY void regress(const struct batch *b, struct step *s) {
    const lanes none = {0}, middle = (b->low + b->high) / 2;
    lanes n = none, q = none, w = none, qq = none, qw = none;
    for (uint32_t i = 0; i < b->size; i++) {
        lanes x = b->q[i] - b->top / 2, y = b->w[i] - middle, weighted = x * b->energy[i];
        n += b->energy[i];
        q += weighted;
        qq += weighted * x;
        w += y * b->energy[i];
        qw += weighted * y;
    }
    lanes spread = qq * n - q * q, slope = qw * n - q * w;
    masks some = (spread > 0) & (slope > 0) & (n > 0);
    lanes scale = slope / (lanes)(((masks)spread & some) | (~some & 0x3f800000));
    lanes center = (w - scale * q) / (lanes)(((masks)n & some) | (~some & 0x3f800000)) + middle;
    scale = (lanes)((masks)(scale / b->units) & some);
    make_step(b, s, &scale, &center);
}

/* Takes what is better, lane by lane; says whether any was. */
BODY bool improve(struct step *best, lanes *least, const struct step *s, const lanes *error) {
    masks better = (*error < *least) & (s->scale > 0);
    best->scale = (lanes)(((masks)s->scale & better) | ((masks)best->scale & ~better));
    best->zero = (lanes)(((masks)s->zero & better) | ((masks)best->zero & ~better));
    *least = (lanes)(((masks)*error & better) | ((masks)*least & ~better));
    bool any = false;
    for (int i = 0; i < LANES; i++) any = any || better[i];
    return any;
}

/* Leaves the best q in the batch. */
BODY void search_body(struct batch *b, struct step *best) {
    static const float narrow4[] = {1, 0.95f, 0.9f, 0.85f, 0.8f, 0.75f, 0.7f};
    static const float narrow8[] = {1.004f, 1, 0.996f, 0.99f, 0.98f, 0.96f, 0.93f};
    const float *narrow = b->units > 1 ? narrow4 : narrow8;
    const lanes none = {0}, middle = (b->low + b->high) / 2, span = b->high - b->low;
    lanes least = none + FLT_MAX, error;
    struct step s;
    *best = (struct step){none, none};
    for (uint32_t i = 0; i < 7; i++) {
        masks some = span > SPAN_LEAST;
        lanes scale = (lanes)((masks)(span * narrow[i] / (b->top * b->units)) & some);
        make_step(b, &s, &scale, &middle);
        assign(b, &s, &error);
        improve(best, &least, &s, &error);
    }
    assign(b, best, &error);
    for (uint32_t i = 0; i < 3; i++) {
        regress(b, &s);
        assign(b, &s, &error);
        if (!improve(best, &least, &s, &error)) break;
    }
    assign(b, best, &error);
}

typedef void (*search_fn)(struct batch *b, struct step *best);
static void search_plain(struct batch *b, struct step *best) {
    search_body(b, best);
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void search_avx2(struct batch *b, struct step *best) {
    search_body(b, best);
}
#endif

static search_fn search_best(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return search_avx2;
#endif
    return search_plain;
}

/* The arrays of a result while it is filled. */
struct target {
    uint32_t k, group, groups;
    enum dtype dtype;
    uint8_t *q, *zero;
    uint16_t *scale;
};
/* What every thread needs, and its rows. */
struct share {
    const struct target *to;
    const void *source;
    enum dtype dtype;
    const float *energy;
    search_fn search;
    uint32_t begin, end;
    float *row; /* [k] of its own */
    pthread_t thread;
};

/* Group `from + lane` of a row into each lane; lanes and elements beyond the row count nothing. */
static void load_batch(struct batch *b, const struct share *s, uint32_t from) {
    for (uint32_t lane = 0; lane < LANES; lane++) {
        uint32_t at = (from + lane) * b->size, k = s->to->k;
        uint32_t n = at >= k ? 0 : k - at < b->size ? k - at : b->size;
        float low = 0, high = 0, total = 0;
        for (uint32_t i = 0; i < n; i++) {
            float w = s->row[at + i];
            b->w[i][lane] = w;
            if (w < low) low = w;
            if (w > high) high = w;
            b->energy[i][lane] = s->energy ? s->energy[at + i] : 1;
            total += b->energy[i][lane];
        }
        for (uint32_t i = 0; i < n && !(total > 0); i++) b->energy[i][lane] = 1; /* never seen */
        for (uint32_t i = n; i < b->size; i++) b->w[i][lane] = b->energy[i][lane] = 0;
        b->low[lane] = low;
        b->high[lane] = high;
        b->shrink[lane] = high - low > SPAN_LEAST ? 1 / (high - low) : 0;
    }
}

static void store_batch(const struct batch *b, const struct target *to, const struct step *s,
                        uint32_t row, uint32_t from) {
    uint8_t *bytes = to->q + row * quantized_row_bytes(to->k, to->dtype);
    for (uint32_t lane = 0; lane < LANES && from + lane < to->groups; lane++) {
        uint32_t at = (from + lane) * b->size, n = to->k - at < b->size ? to->k - at : b->size;
        to->scale[(size_t)row * to->groups + from + lane] = bf16_of_float(s->scale[lane]);
        to->zero[(size_t)row * to->groups + from + lane] = (uint8_t)s->zero[lane];
        for (uint32_t i = 0; i < n; i++) {
            uint8_t q = (uint8_t)b->q[i][lane];
            if (to->dtype == DTYPE_W8)
                bytes[at + i] = q;
            else if (i % 2 == 0) /* groups are even */
                bytes[(at + i) / 2] = q;
            else
                bytes[(at + i) / 2] |= (uint8_t)(q << 4);
        }
    }
}

static void *quantize_thread_main(void *arg) {
    const struct share *s = arg;
    const struct target *to = s->to;
    bool four = to->dtype == DTYPE_W4;
    struct batch b = {.size = to->group, .top = four ? 15 : 255, .units = four ? 16 : 1};
    for (uint32_t row = s->begin; row < s->end; row++) {
        source_row_f32(s->row, s->source, s->dtype, row, to->k);
        for (uint32_t from = 0; from < to->groups; from += LANES) {
            struct step step;
            load_batch(&b, s, from);
            s->search(&b, &step);
            store_batch(&b, to, &step, row, from);
        }
    }
    return NULL;
}

/* The rows among threads; false without memory. */
static bool fill(const struct share *all, uint32_t n, uint32_t threads) {
    struct share share[THREADS_MAX];
    bool started[THREADS_MAX] = {false}, fits = true;
    if (threads > THREADS_MAX) threads = THREADS_MAX;
    if (threads > n / ROWS_A_THREAD) threads = n / ROWS_A_THREAD;
    if (threads == 0) threads = 1;
    for (uint32_t i = 0; i < threads; i++) {
        share[i] = *all;
        share[i].begin = (uint32_t)((uint64_t)n * i / threads);
        share[i].end = (uint32_t)((uint64_t)n * (i + 1) / threads);
        share[i].row = malloc(all->to->k * sizeof(float));
        fits = fits && share[i].row;
    }
    for (uint32_t i = 1; fits && i < threads; i++)
        started[i] =
            thread_start(&share[i].thread, "quantize", quantize_thread_main, &share[i]) == 0;
    for (uint32_t i = 0; fits && i < threads; i++)
        if (!started[i]) quantize_thread_main(&share[i]);
    for (uint32_t i = 0; i < threads; i++) {
        if (started[i]) pthread_join(share[i].thread, NULL);
        free(share[i].row);
    }
    return fits;
}

int quantize_matrix(struct quantized *out, uint32_t n, uint32_t k, const void *source,
                    enum dtype dtype, struct quantize_as as, const float *energy,
                    uint32_t threads) {
    assert(dtype_quantized(as.dtype));
    assert(as.group == 32 || as.group == 64 || as.group == QUANTIZE_GROUP_MAX);
    uint32_t groups = quantized_groups(k, as.group);
    size_t scales = (size_t)n * groups, bytes = n * quantized_row_bytes(k, as.dtype);
    char *owned = calloc(1, scales * 3 + bytes);
    *out = (struct quantized){.n = n, .k = k, .dtype = as.dtype, .owned = owned};
    if (!owned) return -ENOMEM;
    struct target to = {.k = k, .group = as.group, .groups = groups, .dtype = as.dtype};
    to.scale = (uint16_t *)(void *)owned;
    to.zero = (uint8_t *)owned + 2 * scales;
    to.q = to.zero + scales;
    out->quant = (struct quant){.group = as.group, .q = to.q, .scale = to.scale, .zero = to.zero};
    const struct share all = {
        .to = &to, .source = source, .dtype = dtype, .energy = energy, .search = search_best()};
    if (fill(&all, n, threads)) return 0;
    quantized_fini(out);
    return -ENOMEM;
}

void quantized_fini(struct quantized *q) {
    free(q->owned);
    *q = (struct quantized){0};
}

void quantized_row_f32(float *to, const struct quantized *q, uint32_t row) {
    const uint8_t *bytes = q->quant.q + row * quantized_row_bytes(q->k, q->dtype);
    size_t first = (size_t)row * quantized_groups(q->k, q->quant.group);
    for (uint32_t i = 0; i < q->k; i++) {
        int32_t v = q->dtype == DTYPE_W8 ? bytes[i] : 16 * (bytes[i / 2] >> (i % 2 ? 4 : 0) & 15);
        size_t at = first + i / q->quant.group;
        int32_t zero = q->quant.zero ? q->quant.zero[at] : 128;
        to[i] = float_of_bf16(q->quant.scale[at]) * (float)(v - zero);
    }
}
