#include <math.h>

#include "base/rng.h"
#include "kernels/cpu/cpu.h"

/* The ranking of ref/sample.c without sorting the vocabulary. Candidates fall into buckets by how
 * far they lie below the best one; the mass of each bucket tells which one a draw or a cut ends in,
 * and only that one is put in order, as far as it has to be. */
enum {
    BUCKETS = 256,
    BUCKETS_PER_E =
        8,          /* a bucket spans a factor of e^(1/8) in weight; the last one takes the rest */
    STRETCH = 1024, /* candidates weighed at a time */
    SORTED_FIRST = 64 /* of a bucket; then four times as many */
};

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

/* Splits c [n], n > 1, by a pivot: the first ones returned all rank before the others, and there
 * are at least one and at most n - 1 of them (Hoare's partition, the middle of three as pivot). */
static uint32_t partition(struct candidate *c, uint32_t n) {
    struct candidate *first = c, *middle = c + n / 2, *last = c + n - 1;
    if (before(*middle, *first)) swap(middle, first);
    if (before(*last, *middle)) swap(last, middle);
    if (before(*middle, *first)) swap(middle, first);
    struct candidate pivot = *middle;
    uint32_t i = 0, j = n - 1;
    for (;;) {
        while (before(c[i], pivot)) i++;
        while (before(pivot, c[j])) j--;
        if (i >= j) break;
        swap(&c[i++], &c[j--]);
    }
    return j + 1 < n ? j + 1 : n - 1;
}

/* Moves the first `want` in rank order to the front of c, in any order. All candidates differ, so
 * the choice of pivots changes nothing. */
static void select_first(struct candidate *c, uint32_t n, uint32_t want) {
    while (n > 1 && want > 0 && want < n) {
        uint32_t front = partition(c, n);
        if (want <= front) {
            n = front;
        } else {
            c += front;
            n -= front;
            want -= front;
        }
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

struct ranking {
    const struct level *level;
    struct candidate *c; /* [n], in no order but that of select_first */
    uint32_t n;
    float high, temperature;
    double mass[BUCKETS];
};

static uint32_t collect(struct candidate *c, const float *logits, uint32_t vocab,
                        const struct sample_row *row) {
    const uint32_t *mask = row->mask;
    uint32_t n = 0, i = 0;
    for (uint32_t s = 0; s <= row->n_seen; s++) {
        bool last = s == row->n_seen;
        for (uint32_t end = last ? vocab : row->seen[s].id; i < end; i++) {
            c[n] = (struct candidate){logits[i], i};
            n += (!mask || (mask[i / 32] >> (i % 32) & 1)) && logits[i] > -INFINITY;
        }
        if (last) break;
        float logit = sample_penalized(logits[i], row->seen[s], row->repetition, row->presence,
                                       row->frequency);
        c[n] = (struct candidate){logit, i};
        n += (!mask || (mask[i / 32] >> (i % 32) & 1)) && logit > -INFINITY;
        i++;
    }
    return n;
}

/* Subtraction and multiplication round monotonically, so buckets never contradict the rank. */
static uint32_t bucket_of(const struct ranking *r, float logit) {
    float steps = (r->high - logit) * ((float)BUCKETS_PER_E / r->temperature);
    return steps < (float)(BUCKETS - 1) ? (uint32_t)steps : BUCKETS - 1;
}

static double weigh_buckets(struct ranking *r) {
    float logit[STRETCH], weight[STRETCH];
    double sum = 0;
    for (uint32_t b = 0; b < BUCKETS; b++) r->mass[b] = 0;
    for (uint32_t from = 0; from < r->n; from += STRETCH) {
        uint32_t count = r->n - from < STRETCH ? r->n - from : STRETCH;
        for (uint32_t i = 0; i < count; i++) logit[i] = r->c[from + i].logit;
        r->level->weights(logit, count, r->high, r->temperature, weight);
        for (uint32_t i = 0; i < count; i++) r->mass[bucket_of(r, logit[i])] += (double)weight[i];
    }
    for (uint32_t b = 0; b < BUCKETS; b++) sum += r->mass[b];
    return sum;
}

/* The candidate at which the mass, summed in rank order, first reaches `least`, or exceeds it. */
static struct candidate walk(struct ranking *r, double least, bool exceed) {
    uint32_t bucket = 0, last = 0, members = 0, sorted = 0, i = 0;
    double sum = 0;
    for (uint32_t b = 0; b < BUCKETS; b++)
        if (r->mass[b] > 0) last = b;
    for (; bucket < last; sum += r->mass[bucket++])
        if (exceed ? sum + r->mass[bucket] > least : sum + r->mass[bucket] >= least) break;
    for (uint32_t j = 0; j < r->n; j++)
        if (bucket_of(r, r->c[j].logit) == bucket) swap(&r->c[j], &r->c[members++]);
    for (;; i++) {
        if (i == sorted) {
            uint32_t step = sorted ? 3 * sorted : SORTED_FIRST;
            if (step > members - sorted) step = members - sorted;
            select_first(r->c + sorted, members - sorted, step);
            sort(r->c + sorted, step);
            sorted += step;
        }
        sum += exp(((double)r->c[i].logit - (double)r->high) / (double)r->temperature);
        if (i + 1 == members || (exceed ? sum > least : sum >= least)) return r->c[i];
    }
}

/* Drops what ranks behind the candidate at which `least` is reached; returns the mass kept. */
static double cut(struct ranking *r, double least) {
    struct candidate last = walk(r, least, false);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < r->n; i++)
        if (!before(last, r->c[i])) swap(&r->c[i], &r->c[kept++]);
    r->n = kept;
    return weigh_buckets(r);
}

/* Drops what is less likely than min_p of the best; returns the mass kept. */
static double cut_rare(struct ranking *r, double min_p) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        double below = (double)r->c[i].logit - (double)r->high;
        if (below == 0 || exp(below / (double)r->temperature) >= min_p)
            swap(&r->c[i], &r->c[kept++]);
    }
    r->n = kept;
    return weigh_buckets(r);
}

static struct candidate best_of(const struct candidate *c, uint32_t n) {
    struct candidate best = c[0];
    for (uint32_t i = 1; i < n; i++)
        if (c[i].logit > best.logit) best = c[i]; /* ids ascend, so equals keep the lowest */
    return best;
}

static uint32_t draw(const struct level *level, struct candidate *c, const float *logits,
                     uint32_t vocab, const struct sample_row *row) {
    struct ranking r = {.level = level, .c = c, .temperature = row->temperature};
    r.n = collect(c, logits, vocab, row);
    if (r.n == 0) return OPS_NO_TOKEN;
    struct candidate best = best_of(c, r.n);
    if (!(row->temperature > 0) || isinf(best.logit)) return best.id;
    r.high = best.logit;
    if (row->top_k && r.n > row->top_k) {
        select_first(c, r.n, row->top_k);
        r.n = row->top_k;
    }
    double mass = weigh_buckets(&r);
    if (row->top_p < 1) mass = cut(&r, (double)row->top_p * mass);
    if (row->min_p > 0) mass = cut_rare(&r, (double)row->min_p);
    double unit = (double)rng_unit(row->seed, row->stream, row->position);
    return walk(&r, unit * mass, true).id;
}

/* Without a mask the greedy token needs no list of candidates. */
static uint32_t greedy(const struct level *level, const float *logits, uint32_t vocab) {
    float high = level->most(logits, vocab);
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] == high && high > -INFINITY) return i;
    return OPS_NO_TOKEN;
}

/* The logarithm of the mass of all, which a logit has to be less by to be a logprob. */
static double mass_log(const struct level *level, const float *logits, uint32_t vocab) {
    float weight[STRETCH], high = level->most(logits, vocab);
    double sum = 0;
    for (uint32_t from = 0; from < vocab; from += STRETCH) {
        uint32_t count = vocab - from < STRETCH ? vocab - from : STRETCH;
        level->weights(logits + from, count, high, 1, weight);
        for (uint32_t i = 0; i < count; i++) sum += weight[i] > 0 ? (double)weight[i] : 0;
    }
    return (double)high + log(sum);
}

static void top_of(struct candidate *c, const float *logits, uint32_t vocab, uint32_t top_n,
                   double all, struct sample_top *top) {
    uint32_t n = collect(c, logits, vocab, &(struct sample_row){0});
    uint32_t kept = n < top_n ? n : top_n;
    select_first(c, n, kept);
    sort(c, kept);
    for (uint32_t i = 0; i < top_n; i++)
        top[i] = i < kept ? (struct sample_top){c[i].id, (float)((double)c[i].logit - all)}
                          : (struct sample_top){OPS_NO_TOKEN, 0};
}

static void sample_part(void *arg, uint32_t part, uint32_t parts) {
    const struct job *j = arg;
    const struct sample_args *a = j->args;
    const struct level *level = j->cpu->level;
    struct candidate *c = (struct candidate *)a->workspace + (size_t)part * (a->vocab + 1);
    uint32_t begin, end;
    team_share(a->rows, part, parts, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        const float *logits = a->logits + (size_t)(a->at ? a->at[r] : r) * a->vocab;
        const struct sample_row *row = &a->row[r];
        bool simple = !row->mask && row->n_seen == 0 && !(row->temperature > 0);
        uint32_t token =
            simple ? greedy(level, logits, a->vocab) : draw(level, c, logits, a->vocab, row);
        a->token[r] = token;
        if (!a->logprob && !(a->top && row->top_n)) continue;
        double all = mass_log(level, logits, a->vocab);
        if (a->logprob)
            a->logprob[r] = token == OPS_NO_TOKEN ? 0 : (float)((double)logits[token] - all);
        if (a->top)
            top_of(c, logits, a->vocab, row->top_n, all, a->top + (size_t)r * a->top_stride);
    }
}

size_t cpu_sample_bytes(struct ops *o, uint32_t vocab) {
    return (size_t)o->threads * (vocab + (size_t)1) * sizeof(struct candidate); /* one is scratch */
}

void cpu_sample(struct ops *o, const struct sample_args *a) {
    struct job j = {cpu_of(o), a};
    cpu_run(j.cpu, a->rows > 1 ? (uint64_t)a->rows * a->vocab * 4 : 0, sample_part, &j);
}
