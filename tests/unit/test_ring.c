#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/ring.h"
#include "base/thread.h"

static bool readable(struct ring *r) {
    struct pollfd p = {.fd = ring_fd(r), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

Test(ring, items_come_in_order_and_a_full_ring_refuses) {
    struct ring r;
    int item[5];
    cr_assert_eq(ring_init(&r, 4), 0);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 4; i++) cr_assert_eq(ring_push(&r, &item[i]), 0);
        cr_assert_eq(ring_push(&r, &item[4]), ERR_FULL);
        cr_assert_eq(ring_len(&r), 4);
        for (int i = 0; i < 3; i++) cr_assert_eq(ring_pop(&r), &item[i]);
        cr_assert_eq(ring_push(&r, &item[4]), 0);
        void *two[8];
        cr_assert_eq(ring_pop_many(&r, two, 8), 2);
        cr_assert_eq(two[0], &item[3]);
        cr_assert_eq(two[1], &item[4]);
        cr_assert_null(ring_pop(&r));
    }
    ring_fini(&r);
}

Test(ring, its_descriptor_is_readable_exactly_while_something_is_there) {
    struct ring r;
    int item;
    cr_assert_eq(ring_init(&r, 2), 0);
    cr_assert_not(readable(&r));
    cr_assert_not(ring_wait(&r, 0));
    ring_push(&r, &item);
    ring_push(&r, &item);
    cr_assert(readable(&r));
    ring_pop(&r);
    cr_assert(readable(&r));
    ring_pop(&r);
    cr_assert_not(readable(&r));
    ring_fini(&r);
}

Test(ring, a_closed_ring_refuses_pushes_and_still_drains) {
    struct ring r;
    int item;
    cr_assert_eq(ring_init(&r, 2), 0);
    ring_push(&r, &item);
    ring_close(&r);
    ring_close(&r);
    cr_assert_eq(ring_push(&r, &item), ERR_CLOSED);
    cr_assert_not(ring_done(&r));
    cr_assert_eq(ring_pop(&r), &item);
    cr_assert(ring_done(&r));
    cr_assert(readable(&r), "so that the consumer wakes up and sees it");
    ring_fini(&r);
}

Test(ring, a_wait_ends_at_its_time) {
    struct ring r;
    cr_assert_eq(ring_init(&r, 2), 0);
    int64_t start_ms = clock_mono_ms();
    cr_assert_not(ring_wait(&r, 30));
    cr_assert_geq(clock_mono_ms() - start_ms, 29);
    ring_fini(&r);
}

#define PRODUCERS 4
#define EACH 50000
struct producer {
    struct ring *ring;
    uintptr_t id;
};

static void *producer_thread_main(void *arg) {
    struct producer *p = arg;
    for (uintptr_t i = 1; i <= EACH; i++)
        while (ring_push(p->ring, (void *)(p->id << 32 | i)) == ERR_FULL) sched_yield();
    return NULL;
}

Test(ring, many_producers_lose_nothing_and_each_keeps_its_order) {
    struct ring r;
    pthread_t t[PRODUCERS];
    struct producer p[PRODUCERS];
    uintptr_t last[PRODUCERS] = {0};
    cr_assert_eq(ring_init(&r, 64), 0);
    for (uintptr_t i = 0; i < PRODUCERS; i++) {
        p[i] = (struct producer){&r, i};
        cr_assert_eq(thread_start(&t[i], "producer", producer_thread_main, &p[i]), 0);
    }
    for (size_t got = 0; got < (size_t)PRODUCERS * EACH;) {
        cr_assert(ring_wait(&r, 60000), "a wake-up was lost after %zu", got);
        void *items[16];
        uint32_t n = ring_pop_many(&r, items, 16);
        for (uint32_t i = 0; i < n; i++) {
            uintptr_t v = (uintptr_t)items[i], id = v >> 32;
            cr_assert_eq(v & UINT32_MAX, ++last[id]);
        }
        got += n;
    }
    for (int i = 0; i < PRODUCERS; i++) pthread_join(t[i], NULL);
    cr_assert_not(readable(&r));
    ring_fini(&r);
}

static void *quiet_thread_main(void *arg) {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    *(int *)arg = sigismember(&now, SIGTERM) && sigismember(&now, SIGUSR1);
    return NULL;
}

Test(thread, a_started_thread_takes_no_signals) {
    pthread_t t;
    int blocked = 0;
    sigset_t now;
    cr_assert_eq(thread_start(&t, "quiet", quiet_thread_main, &blocked), 0);
    pthread_join(t, NULL);
    cr_assert(blocked);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    cr_assert_not(sigismember(&now, SIGUSR1), "the caller's mask is as before");
}

Test(thread, signals_arrive_at_the_descriptor) {
    int fd = signals_init();
    cr_assert_geq(fd, 0);
    cr_assert_eq(signals_read(fd), 0);
    kill(getpid(), SIGTERM);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 5000), 1);
    cr_assert_eq(signals_read(fd), SIGTERM);
    cr_assert_eq(signals_read(fd), 0);
    close(fd);
}
