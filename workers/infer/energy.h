/* energy.h - how much each input of each linear weight is used: the mean square of the activations
 * that meet it, over the texts of a calibration.
 *
 * Units: elements.  Owner: energy_new gives one to energy_free.  Memory: a float for each input.
 * Errors: NULL without memory.  Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_ENERGY_H
#define PENSTOCK_WORKERS_INFER_ENERGY_H

#include <stdint.h>

#include "workers/infer/config.h"

/* The inputs of a layer's products, and of the head. */
enum energy_of { ENERGY_QKV, ENERGY_O, ENERGY_UP, ENERGY_DOWN, ENERGY_HEAD, ENERGY_KINDS };

struct energy;
struct energy *energy_new(const struct config *c);
void energy_free(struct energy *e); /* NULL is fine */
/* Rows of activations [rows][width] that meet that product. */
void energy_add(struct energy *e, uint32_t layer, enum energy_of of, uint32_t rows, const float *x);
uint64_t energy_rows(const struct energy *e); /* that were seen, in the first layer */
/* [width] for the weight of that pattern; NULL: none was seen. */
const float *energy_for(const struct energy *e, const struct config *c, uint32_t layer,
                        const char *pattern);

#endif
