/* ring.h - a bounded queue of pointers between threads, with an eventfd to sleep on.
 *
 * Any number of producers, one consumer. A push to a full ring is refused (ERR_FULL): the caller
 * answers its own peer with back-pressure. The consumer polls ring_fd() next to its sockets and
 * then drains with ring_pop() until NULL.
 *
 * Units: entries.  Owner: the ring borrows the pointers; what they mean is the two sides' pact.
 * Memory: one allocation at init.  Errors: ERR_FULL, ERR_CLOSED, -errno at init.
 * Threads: push from any, pop from one. */
#ifndef PENSTOCK_BASE_RING_H
#define PENSTOCK_BASE_RING_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct ring {
    pthread_mutex_t lock;
    void **slot; /* [cap] */
    uint32_t head, len, cap;
    int fd; /* eventfd: readable while not empty or closed */
    bool closed;
};

int ring_init(struct ring *r, uint32_t cap); /* -ENOMEM, -EMFILE */
void ring_fini(struct ring *r);
int ring_push(struct ring *r, void *item); /* ERR_FULL, ERR_CLOSED */
void *ring_pop(struct ring *r);            /* NULL: empty now */
/* Pops up to max items at once; returns how many. */
uint32_t ring_pop_many(struct ring *r, void **items, uint32_t max);
/* Sleeps until an item is there, the ring is closed or timeout_ms has passed (-1: no limit);
 * returns true when there may be an item. Consumer only. */
bool ring_wait(struct ring *r, int timeout_ms);
void ring_close(struct ring *r); /* pushes fail from now on; the consumer still drains */
bool ring_done(struct ring *r);  /* closed and empty */
int ring_fd(const struct ring *r);
uint32_t ring_len(struct ring *r);

#endif
