#include "kernels/cpu/team.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"

/* Looks at the awaited word before a thread goes to sleep: 20 to 100 microseconds, by processor. */
enum { SPINS = 1500 };

struct member {
    struct team *team;
    uint32_t index;
    pthread_t thread;
};

/* A run is numbered by `round`; a worker that sees a new round does its part and counts `left`
 * down, and the last one wakes the caller. Whoever is about to sleep on a word says so in its
 * `sleepers` first and is woken only then. All accesses are sequentially consistent: a waker
 * changes the word before it reads sleepers, a sleeper announces itself before the kernel
 * compares the word, so a wake-up cannot be lost between them. */
struct word {
    _Atomic uint32_t value, sleepers;
} __attribute__((aligned(64)));

struct team {
    struct word round, left;
    uint32_t threads, started;
    bool stop;
    team_part part;
    void *arg;
    struct member member[];
};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_while(struct word *w, uint32_t value) {
    atomic_fetch_add(&w->sleepers, 1);
    syscall(SYS_futex, &w->value, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    atomic_fetch_sub(&w->sleepers, 1);
}

static void wake(struct word *w) {
    if (atomic_load(&w->sleepers))
        syscall(SYS_futex, &w->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void wait_for_change(struct word *w, uint32_t from) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&w->value) != from) return;
        pause_briefly();
    }
    while (atomic_load(&w->value) == from) sleep_while(w, from);
}

static void *team_thread_main(void *arg) {
    struct member *m = arg;
    struct team *t = m->team;
    for (uint32_t seen = 0;;) {
        wait_for_change(&t->round, seen);
        seen++;
        if (t->stop) return NULL;
        t->part(t->arg, m->index, t->threads);
        if (atomic_fetch_sub(&t->left.value, 1) == 1) wake(&t->left);
    }
}

static void next_round(struct team *t) {
    atomic_fetch_add(&t->round.value, 1);
    wake(&t->round);
}

void team_run(struct team *t, team_part part, void *arg) {
    if (t->threads == 1) {
        part(arg, 0, 1);
        return;
    }
    t->part = part;
    t->arg = arg;
    atomic_store(&t->left.value, t->threads - 1);
    next_round(t);
    part(arg, 0, t->threads);
    for (uint32_t left; (left = atomic_load(&t->left.value)) != 0;) wait_for_change(&t->left, left);
}

uint32_t team_threads(const struct team *t) {
    return t->threads;
}

int team_new(struct team **out, uint32_t threads) {
    assert(threads >= 1 && threads <= TEAM_THREADS_MAX);
    size_t bytes = sizeof(struct team) + threads * sizeof(struct member);
    struct team *t = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!t) return -ENOMEM;
    *t = (struct team){.threads = threads, .started = 1};
    for (; t->started < threads; t->started++) {
        struct member *m = &t->member[t->started];
        char name[24];
        *m = (struct member){.team = t, .index = t->started};
        snprintf(name, sizeof name, "kernel-%u", t->started);
        int rc = thread_start(&m->thread, name, team_thread_main, m);
        if (rc) {
            team_free(t);
            return rc;
        }
    }
    *out = t;
    return 0;
}

void team_free(struct team *t) {
    if (!t) return;
    t->stop = true;
    next_round(t);
    for (uint32_t i = 1; i < t->started; i++) pthread_join(t->member[i].thread, NULL);
    free(t);
}

uint32_t team_processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > (int)TEAM_THREADS_MAX ? TEAM_THREADS_MAX : (uint32_t)n;
}
