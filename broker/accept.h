/* accept.h - connections beyond the files that this process may have are closed at once.
 *
 * Every connection is a file. When there is none left libzmq ends the process (ipc) or asks again
 * and again without a pause (tcp). So accept4 is ours: a connection that would leave fewer than
 * ACCEPT_RESERVE files for the store, the log and the rest is closed and counted, and the listener
 * is told that the peer went away; peers connect anew after a while.
 *
 * Units: files.  Owner: the process.  Memory: none.  Errors: none.  Threads: any. */
#ifndef PENSTOCK_BROKER_ACCEPT_H
#define PENSTOCK_BROKER_ACCEPT_H

#include <stdint.h>

#define ACCEPT_RESERVE 32

/* Raises the limit as far as it goes; says so when that is not far. */
void accept_init(void);
uint64_t accept_refused(void); /* connections, since the start */

#endif
