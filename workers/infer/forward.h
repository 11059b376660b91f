/* forward.h - the layers of a transformer over one ragged batch of rows.
 *
 * Owns the workspace: staging arrays that the caller fills on the host (ids, positions, begins,
 * block tables) and activation buffers on the backend. forward_run copies the staging over and runs
 * the embedding and every layer; `h` then holds the last residual stream, [rows][dim].
 *
 * Units: tokens, elements.  Owner: forward_init allocates what forward_fini frees; config, weights
 * and ops are borrowed until then.  Memory: all of it at init, sized by rows_max and seqs_max.
 * Errors: -ENOMEM with err; a run cannot fail.  Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_FORWARD_H
#define PENSTOCK_WORKERS_INFER_FORWARD_H

#include "kernels/ops.h"
#include "workers/infer/adapter.h"
#include "workers/infer/config.h"
#include "workers/infer/kvpool.h"
#include "workers/infer/weights.h"

struct forward_batch {   /* one set on the host, one on the backend */
    uint32_t *ids, *pos; /* [rows_max] */
    uint32_t *begin;     /* [seqs_max + 1] */
    uint32_t *kv_len;    /* [seqs_max] */
    uint32_t *pages;     /* [seqs_max][seq_pages_max], packed with stride pages_max of the run */
    uint32_t *gather;    /* [seqs_max]: rows for forward_gather */
};
struct forward {
    struct ops *ops;
    const struct config *config;
    const struct weights *weights;
    uint32_t rows_max, seqs_max, seq_pages_max;
    struct forward_batch host, device;
    void *h, *normed, *qkv, *attended, *inner, *branch; /* act [rows_max][...] */
    struct rope rope[2];                                /* as config.rope */
    const struct adapter **adapter; /* [seqs_max] of the staged sequences; NULL: the plain model */
    void *low, *added;  /* act [rows_max][low_width], [rows_max][inner, twice that when gated] */
    uint32_t low_width; /* of the widest adapter; 0, and no memory above, before the first one */
    bool sandwich;      /* what comes out of a block is normed before it joins h */
};

/* positions: how many the rotary tables cover. */
int forward_init(struct forward *f, struct ops *ops, const struct config *c,
                 const struct weights *w, uint32_t rows_max, uint32_t seqs_max, uint32_t positions,
                 char *err, size_t err_bytes);
void forward_fini(struct forward *f); /* accepts zeroed memory */
/* Makes room for an adapter; whoever stages sequences then names theirs in f->adapter. */
int forward_adapt(struct forward *f, const struct adapter *a, char *err, size_t err_bytes);

/* Runs n_seq sequences whose rows stand in f->host; pool NULL: without a cache. pages_max is the
 * stride of host.pages in this run. Leaves the residual stream in f->h. */
void forward_run(struct forward *f, uint32_t n_seq, const struct kvpool *pool, uint32_t pages_max);
/* The batch of the last run, as the operations take it. */
struct ops_batch forward_last_batch(const struct forward *f, uint32_t n_seq, uint32_t pages_max);
/* The final norm over the rows listed in host.gather; returns act [n][dim], valid until the next
 * run. */
const void *forward_gather(struct forward *f, uint32_t n);
/* The final norm over all rows of the last run, where the family has one; returns act [rows][dim].
 */
const void *forward_hidden(struct forward *f, uint32_t rows);

#endif
