/* jinja_lex.h - a chat template cut into tokens, with the white space that Jinja takes away.
 *
 * As `transformers` sets Jinja up: a line end behind a block or comment is dropped (trim_blocks),
 * and so are blanks in front of one that begins a line (lstrip_blocks); `-` strips all white space
 * on its side, `+` none. Line ends become LF, and one at the end of the template is dropped.
 *
 * Units: bytes of UTF-8; lines from 1.  Owner: tokens borrow from the arena.  Memory: the arena.
 * Errors: ERR_FIELD with the line and what is wrong there; -ENOMEM.  Threads: one at a time. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_LEX_H
#define PENSTOCK_WORKERS_CHAT_JINJA_LEX_H

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"

enum jinja_token_kind {
    JT_END,
    JT_TEXT,
    JT_PRINT, /* {{ */
    JT_PRINT_END,
    JT_BLOCK, /* {% */
    JT_BLOCK_END,
    JT_NAME,
    JT_STR, /* text: without quotes, escapes resolved */
    JT_INT,
    JT_FLOAT,
    JT_OP /* text: the sign or signs */
};
struct jinja_token {
    enum jinja_token_kind kind;
    uint32_t line;
    struct bytes text;
    union {
        int64_t number;
        double real;
    };
};
/* The last token is JT_END. */
int jinja_lex(struct arena *a, struct bytes source, struct jinja_token **out, uint32_t *n,
              char *err, size_t err_bytes);

#endif
