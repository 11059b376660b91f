/* due.h - what falls due when: leases, delays, expiries and client waits, each in a table of its
 * own.
 *
 * A table orders its entries by deadline, so the loop can ask two questions: how long may I sleep,
 * and who is late?
 *
 * Units:   int64 milliseconds of the monotonic clock, passed in; this module never reads a clock.
 * Owner:   what falls due embeds its entry and owns it; the table borrows it from due_set() to
 *          due_drop(). Zero-fill an entry before first use.
 * Memory:  one array that doubles up to cap, which is a hard limit.
 * Errors:  0 or -errno; misuse asserts.      Threads: the loop thread only. */
#ifndef PENSTOCK_BROKER_DUE_H
#define PENSTOCK_BROKER_DUE_H

#include <stdint.h>

struct due {
    int64_t at_ms;
    uint32_t slot; /* 0: not in a table */
};
struct due_table {
    struct due **heap; /* heap[1..len], the earliest first */
    uint32_t len, room, cap;
};

void due_init(struct due_table *t, uint32_t cap);               /* allocates nothing yet */
void due_fini(struct due_table *t);                             /* accepts zeroed memory */
int due_set(struct due_table *t, struct due *d, int64_t at_ms); /* -ENOSPC at the cap, -ENOMEM */
void due_drop(struct due_table *t, struct due *d);              /* fine when it is in none */

/* The most overdue entry, left in the table; NULL when nobody is late. */
struct due *due_late(const struct due_table *t, int64_t now_ms);

/* Time until somebody is late: 0 already, -1 never (as poll reads it). */
int64_t due_wait_ms(const struct due_table *t, int64_t now_ms);

#endif
