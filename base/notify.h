/* notify.h - words to the service manager, as sd_notify(3) has them: one datagram each.
 *
 * Without $NOTIFY_SOCKET (nobody listens) nothing is sent. The watchdog is fed by the loop whose
 * life it watches, twice in the time that $WATCHDOG_USEC gives; a loop turns at least once a
 * second, so that less than four seconds are too few.
 *
 * Units: monotonic milliseconds, passed in.  Owner: the loop embeds a struct notify; zeroed feeds
 * nothing.  Memory: none.  Errors: none, there is nobody to tell.  Threads: one at a time. */
#ifndef PENSTOCK_BASE_NOTIFY_H
#define PENSTOCK_BASE_NOTIFY_H

#include <stdint.h>

struct notify {
    int64_t every_ms, next_ms; /* every_ms 0: no watchdog */
};
void notify_init(struct notify *n);                 /* reads $WATCHDOG_USEC */
void notify_say(const char *words);                 /* "READY=1\nSTATUS=...", "STOPPING=1" */
void notify_beat(struct notify *n, int64_t now_ms); /* WATCHDOG=1 when it is time */

#endif
