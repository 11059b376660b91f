/* jinja_text.h - what Python's strings can do, for chat templates.
 *
 * Units: bytes of UTF-8; counts and limits as said.  Owner: spans borrow from the text given; new
 * lists live in the arena.  Memory: the arena, or the caller's buf.  Errors: -ENOMEM; ERR_FIELD for
 * a letter whose case takes more than one (the caller names what was asked).  Threads: any. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_TEXT_H
#define PENSTOCK_WORKERS_CHAT_JINJA_TEXT_H

#include "workers/chat/jinja_value.h"

bool text_is_space(uint32_t c); /* str.isspace(), and \s of a regular expression */

/* Less the characters of `chars` at the sides named; {NULL, 0}: white space. */
struct bytes text_strip(struct bytes s, struct bytes chars, bool left, bool right);
/* A list of spans between `sep`, or of words where sep is {NULL, 0}; at most `max` cuts, from the
 * right when `last`; negative: any number. sep is not empty. */
int text_split(struct arena *a, struct bytes s, struct bytes sep, int64_t max, bool last,
               struct value *out);
int text_lines(struct arena *a, struct bytes s, struct value *out); /* str.splitlines() */
/* The first `max` of `old` replaced; negative: all. Between all characters where old is empty. */
int text_replace(struct bytes s, struct bytes old, struct bytes with, int64_t max, struct buf *out);

enum text_case {
    TEXT_UPPER,
    TEXT_LOWER,
    TEXT_CAPITAL, /* str.capitalize() */
    TEXT_TITLE,   /* str.title() */
    TEXT_WORDS    /* Jinja's filter `title` */
};
int text_case(struct bytes s, enum text_case to, struct buf *out);

/* Bytes in front of the code point at that index; the whole length beyond the last. */
size_t text_offset(struct bytes s, uint32_t index);
/* Where the first or last `needle` begins, in bytes; -1: nowhere. */
int64_t text_find(struct bytes s, struct bytes needle, bool last);

#endif
