/* adapt.h - what adapters add to the products of a layer, for rows of several adapters at once.
 *
 * Rows of neighbouring sequences with the same adapter are one run: it is multiplied with A (down
 * to the rank) and B (up again), and what comes out joins the model's own product. A run's bits
 * depend on its own rows only, and a row without an adapter takes the path that it takes without
 * this module.
 *
 * Units: elements.  Owner, memory: the forward's buffers (forward_adapt makes them).  Errors: none.
 * Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_ADAPT_H
#define PENSTOCK_WORKERS_INFER_ADAPT_H

#include "workers/infer/forward.h"

/* Adds to y [rows][n] what the adapters of the batch make of x [rows][k]. */
void adapt_add(struct forward *f, uint32_t n_seq, uint32_t layer, enum adapter_block block,
               const void *x, void *y);

/* For a product whose activation needs the sum: leaves what belongs to it in f->added. */
void adapt_collect(struct forward *f, uint32_t n_seq, uint32_t layer, enum adapter_block block,
                   const void *x);
/* Rows begin .. end-1 of the batch; what was collected is added to those from `with` on. */
struct adapt_span {
    uint32_t seq, begin, with, end;
};
/* Starts from zero; false at the end. */
bool adapt_next(const struct forward *f, uint32_t n_seq, uint32_t layer, enum adapter_block block,
                struct adapt_span *s);

#endif
