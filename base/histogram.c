#include "base/histogram.h"

#define MS 1000u
#define S 1000000u
const uint64_t histogram_bound_us[HISTOGRAM_BOUNDS] = {
    100,      250,      500,    1 * MS,  2500,   5 * MS,  10 * MS, 25 * MS, 50 * MS,  100 * MS,
    250 * MS, 500 * MS, 1u * S, 2500000, 5u * S, 10u * S, 30u * S, 60u * S, 300u * S, 1800u * S};

static void add(_Atomic uint64_t *to, uint64_t n) {
    atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

void histogram_add(struct histogram *h, uint64_t us) {
    uint32_t i = 0;
    while (i < HISTOGRAM_BOUNDS && us > histogram_bound_us[i]) i++;
    add(&h->count[i], 1);
    add(&h->sum_us, us);
}

static void copy(_Atomic uint64_t *to, const _Atomic uint64_t *from) {
    atomic_store_explicit(to, atomic_load_explicit(from, memory_order_relaxed),
                          memory_order_relaxed);
}

void histogram_copy(struct histogram *to, const struct histogram *from) {
    for (uint32_t i = 0; i <= HISTOGRAM_BOUNDS; i++) copy(&to->count[i], &from->count[i]);
    copy(&to->sum_us, &from->sum_us);
}

uint64_t histogram_count(const struct histogram *h) {
    uint64_t n = 0;
    for (uint32_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
        n += atomic_load_explicit(&h->count[i], memory_order_relaxed);
    return n;
}
