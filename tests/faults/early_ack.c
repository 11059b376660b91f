/* A bug, planted: the broker acknowledges before it commits. Linked around the store's calls in a
 * broker that is made for tests alone (--wrap), it says that a transaction is committed, lets the
 * acknowledgements go, and commits then. What finds it nowhere finds nothing. */
#include <stdbool.h>
#include <stddef.h>

#include "base/ring.h"
#include "store/store.h"

static _Thread_local struct store_write *open_write; /* acknowledged and not committed */
static _Thread_local bool serving;                   /* the store thread, once it waited for work */

int __real_store_commit(struct store_write *w);
int __real_store_write_begin(struct store *s, struct store_write **out);
bool __real_ring_wait(struct ring *r, int timeout_ms);
int __wrap_store_commit(struct store_write *w);
int __wrap_store_write_begin(struct store *s, struct store_write **out);
bool __wrap_ring_wait(struct ring *r, int timeout_ms);

static void commit_late(void) {
    if (open_write) __real_store_commit(open_write);
    open_write = NULL;
}

int __wrap_store_commit(struct store_write *w) {
    if (!serving) return __real_store_commit(w);
    open_write = w;
    return 0;
}

int __wrap_store_write_begin(struct store *s, struct store_write **out) {
    commit_late();
    return __real_store_write_begin(s, out);
}

bool __wrap_ring_wait(struct ring *r, int timeout_ms) {
    commit_late();
    serving = true;
    return __real_ring_wait(r, timeout_ms);
}
