#include "base/ring.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

/* The eventfd holds 1 exactly while the ring is not empty or is closed; it changes only under the
 * lock, so that the two never disagree. */
static void wake(struct ring *r) {
    eventfd_t ignored = 1;
    int rc = eventfd_write(r->fd, ignored);
    assert(rc == 0);
}

static void calm(struct ring *r) {
    eventfd_t ignored;
    int rc = eventfd_read(r->fd, &ignored);
    assert(rc == 0);
}

int ring_init(struct ring *r, uint32_t cap) {
    assert(cap > 0);
    *r = (struct ring){.cap = cap, .fd = -1};
    r->slot = calloc(cap, sizeof *r->slot);
    if (!r->slot) return -ENOMEM;
    r->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->fd < 0) {
        int rc = -errno;
        free(r->slot);
        r->slot = NULL;
        return rc;
    }
    pthread_mutex_init(&r->lock, NULL);
    return 0;
}

void ring_fini(struct ring *r) {
    if (!r->slot) return;
    pthread_mutex_destroy(&r->lock);
    close(r->fd);
    free(r->slot);
    *r = (struct ring){.fd = -1};
}

int ring_push(struct ring *r, void *item) {
    assert(item);
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    if (r->closed) {
        rc = ERR_CLOSED;
    } else if (r->len == r->cap) {
        rc = ERR_FULL;
    } else {
        uint64_t tail = (uint64_t)r->head + r->len;
        r->slot[tail % r->cap] = item;
        if (r->len++ == 0) wake(r);
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

uint32_t ring_pop_many(struct ring *r, void **items, uint32_t max) {
    pthread_mutex_lock(&r->lock);
    uint32_t n = r->len < max ? r->len : max;
    for (uint32_t i = 0; i < n; i++) {
        items[i] = r->slot[r->head];
        r->head = r->head + 1 == r->cap ? 0 : r->head + 1;
    }
    r->len -= n;
    if (n > 0 && r->len == 0 && !r->closed) calm(r);
    pthread_mutex_unlock(&r->lock);
    return n;
}

void *ring_pop(struct ring *r) {
    void *item;
    return ring_pop_many(r, &item, 1) ? item : NULL;
}

bool ring_wait(struct ring *r, int timeout_ms) {
    int64_t end_ms = timeout_ms < 0 ? 0 : clock_mono_ms() + timeout_ms;
    for (;;) {
        struct pollfd p = {.fd = r->fd, .events = POLLIN};
        int left = -1;
        if (timeout_ms >= 0) {
            int64_t left_ms = end_ms - clock_mono_ms();
            left = left_ms > 0 ? (int)left_ms : 0;
        }
        int n = poll(&p, 1, left);
        if (n > 0) return true;
        if (n == 0) return false;
        assert(errno == EINTR || errno == ENOMEM);
    }
}

void ring_close(struct ring *r) {
    pthread_mutex_lock(&r->lock);
    if (!r->closed) {
        r->closed = true;
        if (r->len == 0) wake(r); /* stays readable for ever */
    }
    pthread_mutex_unlock(&r->lock);
}

bool ring_done(struct ring *r) {
    pthread_mutex_lock(&r->lock);
    bool done = r->closed && r->len == 0;
    pthread_mutex_unlock(&r->lock);
    return done;
}

int ring_fd(const struct ring *r) {
    return r->fd;
}

uint32_t ring_len(struct ring *r) {
    pthread_mutex_lock(&r->lock);
    uint32_t len = r->len;
    pthread_mutex_unlock(&r->lock);
    return len;
}
