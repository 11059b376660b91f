/* kvpool.h - the pages that hold keys and values, shared by all sequences of a decoder.
 *
 * One buffer of pages, each [layer][K|V][kv_head][token][head_dim] of KVPOOL_PAGE_TOKENS tokens (as
 * kernels/kv.h says), and a stack of the free ones. A sequence keeps the numbers of its pages in
 * order: its block table. Sequences that begin alike may hold a page together; it is free when none
 * holds it.
 *
 * Units: tokens, pages.  Owner: kvpool_init allocates what kvpool_fini frees; whoever takes pages
 * drops them.  Memory: all of it at init.  Errors: -ENOMEM, ERR_FULL.  Threads: one caller at a
 * time. */
#ifndef PENSTOCK_WORKERS_INFER_KVPOOL_H
#define PENSTOCK_WORKERS_INFER_KVPOOL_H

#include "kernels/ops.h"

#define KVPOOL_PAGE_TOKENS 16u

struct kvpool {
    struct ops *ops;
    void *data;        /* [pages][layers][2][kv_heads][KVPOOL_PAGE_TOKENS][head_dim] */
    uint32_t *free;    /* [free_n] page numbers */
    uint16_t *holders; /* [pages] */
    uint32_t pages, free_n, kv_heads, head_dim;
    enum dtype dtype;
    size_t layer_bytes, page_bytes;
};

struct kvpool_config {
    uint32_t layers, kv_heads, head_dim;
    enum dtype dtype;
    uint32_t tokens; /* rounded up to whole pages */
};
/* Bytes that one token takes in all layers. */
size_t kvpool_token_bytes(const struct kvpool_config *c);

int kvpool_init(struct kvpool *p, struct ops *ops, const struct kvpool_config *c, char *err,
                size_t err_bytes);
void kvpool_fini(struct kvpool *p); /* accepts zeroed memory */

static inline uint32_t kvpool_pages_for(uint32_t tokens) {
    return (uint32_t)(((uint64_t)tokens + KVPOOL_PAGE_TOKENS - 1) / KVPOOL_PAGE_TOKENS);
}
/* All n or none (ERR_FULL). */
int kvpool_take(struct kvpool *p, uint32_t n, uint32_t *pages);
/* One more holder for each, who drops them too. */
void kvpool_share(struct kvpool *p, uint32_t n, const uint32_t *pages);
void kvpool_drop(struct kvpool *p, uint32_t n, const uint32_t *pages);
/* As the operations see one layer. */
struct ops_kv kvpool_layer(const struct kvpool *p, uint32_t layer);

#endif
