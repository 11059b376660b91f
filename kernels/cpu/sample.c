#include <math.h>

#include "base/rng.h"
#include "kernels/cpu/cpu.h"

/* The ranking of ref/sample.c without sorting the vocabulary: candidates are put in order as far as
 * the draw walks, in stretches that grow fourfold. */
enum { STRETCH = 64 };

struct candidate {
    float logit;
    uint32_t id;
};

struct job {
    struct cpu *cpu;
    const struct sample_args *args;
};

static bool before(struct candidate a, struct candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void swap(struct candidate *a, struct candidate *b) {
    struct candidate kept = *a;
    *a = *b;
    *b = kept;
}

/* Moves the first `want` of c in rank order to the front of it, in any order (Hoare's selection,
 * the middle of three as pivot). All candidates differ, so no pivot changes the result. */
static void select_first(struct candidate *c, uint32_t n, uint32_t want) {
    uint32_t low = 0, high = n; /* the boundary at `want` lies in low .. high */
    while (high - low > 1 && low < want && want < high) {
        struct candidate *first = &c[low], *middle = &c[low + (high - low) / 2],
                         *last = &c[high - 1];
        if (before(*middle, *first)) swap(middle, first);
        if (before(*last, *middle)) swap(last, middle);
        if (before(*middle, *first)) swap(middle, first);
        struct candidate pivot = *middle;
        uint32_t i = low, j = high - 1;
        for (;;) {
            while (before(c[i], pivot)) i++;
            while (before(pivot, c[j])) j--;
            if (i >= j) break;
            swap(&c[i++], &c[j--]);
        }
        uint32_t split = j + 1; /* low .. split-1 rank before split .. high-1 */
        if (split == high) split--;
        if (want <= split)
            high = split;
        else
            low = split;
    }
}

/* Heapsort: in place, and never slower than n log n. */
static void sort(struct candidate *c, uint32_t n) {
    for (uint32_t built = n / 2, end = n; end > 1;) {
        if (built)
            built--;
        else
            swap(&c[0], &c[--end]);
        for (uint32_t at = built, kid; (kid = 2 * at + 1) < end; at = kid) {
            if (kid + 1 < end && before(c[kid], c[kid + 1])) kid++;
            if (!before(c[at], c[kid])) break;
            swap(&c[at], &c[kid]);
        }
    }
}

/* Candidates in rank order, as far as they have been asked for. */
struct ranking {
    struct candidate *c;
    uint32_t n, sorted;
    float temperature, high;
};

static double mass_at(struct ranking *r, uint32_t i) {
    while (i >= r->sorted) {
        uint32_t left = r->n - r->sorted, step = r->sorted ? 3 * r->sorted : STRETCH;
        if (step > left) step = left;
        select_first(r->c + r->sorted, left, step);
        sort(r->c + r->sorted, step);
        r->sorted += step;
    }
    return exp(((double)r->c[i].logit - (double)r->high) / (double)r->temperature);
}

static uint32_t collect(struct candidate *c, const float *logits, uint32_t vocab,
                        const uint32_t *mask) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++)
        if ((!mask || (mask[i / 32] >> (i % 32) & 1)) && logits[i] > -INFINITY)
            c[n++] = (struct candidate){logits[i], i};
    return n;
}

/* The mass of the candidates that top_k leaves. */
static double mass_of(struct ranking *r, const struct level *level, const float *logits,
                      uint32_t vocab, const struct sample_row *row) {
    double mass = 0;
    if (row->top_k && r->n > row->top_k) {
        select_first(r->c, r->n, row->top_k);
        r->n = row->top_k;
    } else if (!row->mask) {
        mass = level->mass(logits, vocab, r->high, row->temperature);
        if (mass >= 1) return mass; /* not so when a logit is NaN */
        mass = 0;
    }
    for (uint32_t i = 0; i < r->n; i++) mass += mass_at(r, i);
    return mass;
}

static uint32_t draw(const struct level *level, struct candidate *c, const float *logits,
                     uint32_t vocab, const struct sample_row *row) {
    struct ranking r = {
        .c = c, .n = collect(c, logits, vocab, row->mask), .temperature = row->temperature};
    if (r.n == 0) return OPS_NO_TOKEN;
    struct candidate best = c[0];
    for (uint32_t i = 1; i < r.n; i++)
        if (c[i].logit > best.logit) best = c[i]; /* ids ascend, so equals keep the lowest */
    if (!(row->temperature > 0) || isinf(best.logit)) return best.id;
    r.high = best.logit;
    double mass = mass_of(&r, level, logits, vocab, row), sum = 0;
    uint32_t kept = r.n;
    if (row->top_p < 1) {
        double least = (double)row->top_p * mass;
        kept = 0;
        do sum += mass_at(&r, kept++);
        while (kept < r.n && sum < least);
        mass = sum;
        sum = 0;
    }
    double at = (double)rng_unit(row->seed, row->stream, row->position) * mass;
    for (uint32_t i = 0; i < kept; i++) {
        sum += mass_at(&r, i);
        if (sum > at) return c[i].id;
    }
    return c[kept - 1].id;
}

static float logprob_of(const struct level *level, const float *logits, uint32_t vocab,
                        uint32_t token) {
    float high = level->most(logits, vocab);
    return (float)((double)logits[token] - (double)high - log(level->mass(logits, vocab, high, 1)));
}

static void sample_part(void *arg, uint32_t part, uint32_t parts) {
    const struct job *j = arg;
    const struct sample_args *a = j->args;
    struct candidate *c = (struct candidate *)a->workspace + (size_t)part * a->vocab;
    uint32_t begin, end;
    team_share(a->rows, part, parts, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        const float *logits = a->logits + (size_t)r * a->vocab;
        uint32_t token = draw(j->cpu->level, c, logits, a->vocab, &a->row[r]);
        a->token[r] = token;
        if (a->logprob)
            a->logprob[r] =
                token == OPS_NO_TOKEN ? 0 : logprob_of(j->cpu->level, logits, a->vocab, token);
    }
}

size_t cpu_sample_bytes(struct ops *o, uint32_t vocab) {
    return (size_t)o->threads * vocab * sizeof(struct candidate);
}

void cpu_sample(struct ops *o, const struct sample_args *a) {
    struct job j = {cpu_of(o), a};
    cpu_run(j.cpu, a->rows > 1 ? (uint64_t)a->rows * a->vocab * 4 : 0, sample_part, &j);
}
