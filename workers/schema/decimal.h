/* decimal.h - the numbers between two bounds, exactly, as states over their digits.
 *
 * Numbers are written without exponent, without -0 as an integer, with at most 15 digits (so that
 * each is a double of its own and comparing decimals is comparing doubles); integers have as many
 * digits as their bounds, when those have more.
 *
 * Units: digits.  Owner, memory: the grammar's.  Errors: ERR_FIELD for a bound that needs more than
 * 15 digits, with err.  Threads: as the grammar. */
#ifndef PENSTOCK_WORKERS_SCHEMA_DECIMAL_H
#define PENSTOCK_WORKERS_SCHEMA_DECIMAL_H

#include "workers/schema/grammar.h"

struct json;

#define DECIMAL_DIGITS 15u
#define DECIMAL_MULTIPLE_MAX 200u

struct decimal {
    bool negative;
    uint32_t whole, part; /* digits before and behind the point */
    uint8_t digit[48];
};
struct decimal_range {
    bool has_lo, has_hi, lo_open, hi_open, integer;
    struct decimal lo, hi;
    uint32_t multiple; /* of integers, at most DECIMAL_MULTIPLE_MAX; 0: any */
};
int decimal_read(const struct json *j, struct decimal *out, char *err, size_t err_bytes);
int decimal_compare(const struct decimal *a, const struct decimal *b);
/* The first state; a range without a number gives one from which no end can be reached. */
uint32_t decimal_states(struct grammar *g, const struct decimal_range *r);

#endif
