/* marker.h - the number or heading that a line of a contract begins with.
 *
 * Units: bytes of valid UTF-8, levels from 1.  Owner, memory: none.  Errors: none.  Threads: any.
 * */
#ifndef PENSTOCK_WORKERS_ENCODE_MARKER_H
#define PENSTOCK_WORKERS_ENCODE_MARKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct marker {
    uint32_t number_bytes; /* from the line's beginning; 0: no number */
    uint32_t level;        /* 1: article, chapter, 一、, 1.; more: nested; 0: no number */
    uint32_t heading_begin, heading_end; /* in the line; equal: none */
    bool heading_only;                   /* the line holds nothing but number and heading */
};
/* line has no white space at its ends. alone: blank lines stand before and behind it, so that a
 * short line without a full stop is a heading. */
struct marker marker_read(struct bytes line, bool alone);

/* The bytes of a Chinese or Arabic numeral at the beginning; 0: none. */
size_t marker_chinese_number(struct bytes text);
size_t marker_digits(struct bytes text);

/* The end of the first sentence of text behind `from` (its mark, closing quotes included); text.len
 * when there is no other. Abbreviations and numbers do not end one. */
size_t sentence_end(struct bytes text, size_t from);

#endif
