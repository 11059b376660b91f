#include "workers/infer/kvpool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kernels/kv.h"

size_t kvpool_token_bytes(const struct kvpool_config *c) {
    return c->layers * kv_token_bytes(c->kv_heads, c->head_dim, c->dtype);
}

int kvpool_init(struct kvpool *p, struct ops *ops, const struct kvpool_config *c, char *err,
                size_t err_bytes) {
    *p = (struct kvpool){
        .ops = ops, .kv_heads = c->kv_heads, .head_dim = c->head_dim, .dtype = c->dtype};
    uint32_t pages = kvpool_pages_for(c->tokens);
    p->page_bytes = kvpool_token_bytes(c) * KVPOOL_PAGE_TOKENS;
    p->layer_bytes = p->page_bytes / c->layers;
    size_t bytes;
    if (pages == 0 || __builtin_mul_overflow(p->page_bytes, (size_t)pages, &bytes))
        return err_set(err, err_bytes, -EINVAL, "a KV pool of %u tokens cannot be", c->tokens);
    p->free = malloc(pages * sizeof *p->free);
    p->holders = calloc(pages, sizeof *p->holders);
    p->data = p->free && p->holders ? ops->alloc(ops, bytes) : NULL;
    if (!p->data) {
        kvpool_fini(p);
        return err_set(err, err_bytes, -ENOMEM, "no memory for a KV pool of %u tokens (%zu bytes)",
                       c->tokens, bytes);
    }
    p->pages = pages;
    while (p->free_n < pages) { /* page 0 on top: low pages are used first */
        p->free[p->free_n] = pages - 1 - p->free_n;
        p->free_n++;
    }
    return 0;
}

void kvpool_fini(struct kvpool *p) {
    if (p->data) p->ops->free(p->ops, p->data);
    free(p->free);
    free(p->holders);
    *p = (struct kvpool){0};
}

int kvpool_take(struct kvpool *p, uint32_t n, uint32_t *pages) {
    if (n > p->free_n) return ERR_FULL;
    for (uint32_t i = 0; i < n; i++) {
        pages[i] = p->free[--p->free_n];
        p->holders[pages[i]] = 1;
    }
    return 0;
}

void kvpool_share(struct kvpool *p, uint32_t n, const uint32_t *pages) {
    for (uint32_t i = 0; i < n; i++) {
        assert(p->holders[pages[i]] > 0 && p->holders[pages[i]] < UINT16_MAX);
        p->holders[pages[i]]++;
    }
}

void kvpool_drop(struct kvpool *p, uint32_t n, const uint32_t *pages) {
    for (uint32_t i = n; i > 0; i--) {
        assert(p->holders[pages[i - 1]] > 0);
        if (--p->holders[pages[i - 1]] == 0) p->free[p->free_n++] = pages[i - 1];
    }
}

struct ops_kv kvpool_layer(const struct kvpool *p, uint32_t layer) {
    return (struct ops_kv){.pool = p->data,
                           .page_bytes = p->page_bytes,
                           .layer_bytes = p->layer_bytes * layer,
                           .page_tokens = KVPOOL_PAGE_TOKENS,
                           .kv_heads = p->kv_heads,
                           .head_dim = p->head_dim,
                           .dtype = p->dtype};
}
