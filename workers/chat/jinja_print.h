/* jinja_print.h - values as text: Python's str() and repr(), and json.dumps().
 *
 * Units: bytes of UTF-8.  Owner: text is appended to the caller's buf.  Memory: that buf, capped by
 * its max_bytes.  Errors: ERR_FIELD for a value that has no text here; ERR_LIMIT
 * for nesting; the buf's own.  Threads: any. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_PRINT_H
#define PENSTOCK_WORKERS_CHAT_JINJA_PRINT_H

#include "workers/chat/jinja_value.h"

/* str(): of a string itself, of what is undefined nothing. */
int print_str(struct value v, struct buf *out);
int print_repr(struct value v, struct buf *out);

/* json.dumps() of the filter `tojson` as transformers defines it. */
struct json_style {
    bool ascii;              /* ensure_ascii */
    bool sorted;             /* sort_keys */
    bool lines;              /* whether indent was given */
    struct bytes indent;     /* of one level */
    struct bytes item, pair; /* separators, such as ", " and ": " */
};
int print_json(struct value v, const struct json_style *style, struct buf *out);

#define PRINT_REAL_BYTES 32u
/* repr() of a float: the fewest digits that read back as the same number. */
void print_real(double v, char out[PRINT_REAL_BYTES]);

#endif
