/* tree.h - whether a data file is a sound LMDB environment, read page by page before LMDB maps it.
 *
 * LMDB trusts the pages of its trees: a page number or a node's length that a bit flip, a lost
 * write or another program changed is followed, into memory that is not there or over pages that
 * are in use. What it relies on is checked here, without it, for the newest commit:
 *
 *   1. both meta pages are whole, the newer one in the slot that its transaction's parity says;
 *   2. every page of every tree has its own number, one kind, nodes that lie within it, side by
 *      side and in order, between the separators above; depths and counts are what the trees have;
 *   3. no page is used twice, none that is used is also listed as free, none lies beyond the end.
 *
 * What keeps to that is a valid environment, however it came about. What values hold is not read:
 * they prove themselves, and so does the head of a run of pages, which env_run_is_sound looks at
 * before LMDB frees it. The format is version 1 (LMDB 0.9), in the byte order of this machine; the
 * tables are plain ones (no duplicates), as env.h makes them.
 *
 * Units: pages.  Owner: the caller sees to it that nobody writes meanwhile.  Memory: a bit a page
 * of the file and a page a level, for the call.  Errors: -ENOENT no file or an empty one,
 * ERR_CORRUPT, ERR_VERSION, -errno, with err.  Threads: any. */
#ifndef PENSTOCK_STORE_TREE_H
#define PENSTOCK_STORE_TREE_H

#include <stddef.h>

int tree_check(const char *path, char *err, size_t err_bytes);

#endif
