/* adapter_facts.h - what a LoRA adapter's directory says about itself, for people: `penstock model
 * show`.
 *
 * Reads adapter_config.json and the header of the weights, no weight; whether it fits a model is
 * seen when it is opened for one (adapter.h).
 *
 * Units: elements, bytes.  Owner, memory: none.  Errors: those of what is read, with err.
 * Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_ADAPTER_FACTS_H
#define PENSTOCK_WORKERS_INFER_ADAPTER_FACTS_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a directory is an adapter, and no model. */
bool adapter_facts_is_one(const char *dir);
/* Prints to stdout. */
int adapter_facts_show(const char *dir, bool json, char *err, size_t err_bytes);

#endif
