/* random_msg.h - a valid random value for any row of a field table, made from the table itself.
 *
 * Units: as the rows.  Owner: the values point into the pool, which the test frees with buf_fini.
 * Memory: the pool.  Errors: asserts.  Threads: one. */
#ifndef PENSTOCK_TESTS_RANDOM_MSG_H
#define PENSTOCK_TESTS_RANDOM_MSG_H

#include "base/arena.h"
#include "schemas/field.h"

/* Fills the struct at out (zeroed by the caller) with values within bounds, long ones rarely. */
void random_fields(const struct field *fields, uint32_t n, uint64_t *seed, struct arena *pool,
                   void *out);
/* Compares two structs member by member: equal numbers, equal bytes. */
bool fields_equal(const struct field *fields, uint32_t n, const void *a, const void *b);

#endif
