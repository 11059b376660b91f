/* numerals.h - what a number is worth, in figures or in words, English or Chinese.
 *
 * Units: plain values.  Owner, memory: none.  Errors: false for what is no number.  Threads: any.
 * */
#ifndef PENSTOCK_WORKERS_POST_NUMERALS_H
#define PENSTOCK_WORKERS_POST_NUMERALS_H

#include <stdbool.h>

#include "base/bytes.h"

/* "1,234.50", "１２", "twenty-four", "two hundred and fifty thousand", "twenty-first", "二十四",
 * "壹佰捌拾陆万", "二〇二六", "3.5亿", "1,5" is none. White space at the ends does not count. */
bool numeral_value(struct bytes text, double *out);
/* A factor in words: million, k, 万, 百万; empty text is 1. */
bool numeral_factor(struct bytes text, double *out);

#endif
