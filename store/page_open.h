/* page_open.h - what the files of a page group share: its tables, and the check of its indexes.
 *
 * Units: none.  Owner, memory: the caller's.  Errors: ERR_CORRUPT.  Threads: as the transaction. */
#ifndef PENSTOCK_STORE_PAGE_OPEN_H
#define PENSTOCK_STORE_PAGE_OPEN_H

#include "store/page_group.h"

enum page_table { PAGE_DATA, PAGE_NODES, PAGE_USED, PAGE_INFO, PAGE_TABLES };

#define PAGE_DAMAGED_NAME "damaged" /* the next that opens the group alone makes it anew */

/* Whether every page has its node, its place in USED and a value of the right size, and nothing
 * else is there. Reads no value. */
int page_group_check(struct env_txn *t, size_t value_bytes);

#endif
