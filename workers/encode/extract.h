/* extract.h - a document's bytes to its text, with a box for every character.
 *
 * The reading is done by penstock-extract (workers/extract), a disposable process with one document
 * each, under limits of memory, time, output and system calls: a hostile document kills the helper
 * and never its caller. Pages arrive one by one, so that what was read before a death is kept; the
 * page that killed a helper is `failed` with the reason, and a new helper goes on behind it, a few
 * times; a helper that was killed from outside costs no page. Whatever happens, pages_in = ok +
 * partial + failed. What the helper says is checked like any other input.
 *
 * The text is the pages' texts in order. A page with text ends with one line feed that we put in;
 * a page without adds nothing. Between the lines of a PDF is one line feed, without a box; between
 * two words in a row one space, whose box is the gap. Hyphens at line ends, ligatures and the
 * order of columns are left as Poppler gives them; what lies outside the page it leaves out. A
 * text file keeps every character but its byte order mark, CR LF included.
 *
 * Units:   points (1/72 inch), code points, bytes, milliseconds and seconds, in the names.
 * Owner:   what `out` points to lives in the arena; document and format are borrowed for the call.
 * Memory:  the arena, and as much again from malloc during the call; at most the limits' output.
 * Errors:  what item_fail_rc expects, with the sentence in err. Permanent: ERR_CORRUPT (a bad
 *          document: encrypted, damaged beyond repair, empty, in no known encoding), ERR_LIMIT (too
 *          large, or a limit, which err names, killed the helper before it knew how many pages
 *          there are). Transient: ERR_FULL (the helper is missing, could not be started, or is
 *          killed from outside again and again), -ENOMEM. ERR_CANCELLED.
 * Threads: any; several runs may go on at once. A helper dies with the thread that runs it. */
#ifndef PENSTOCK_WORKERS_ENCODE_EXTRACT_H
#define PENSTOCK_WORKERS_ENCODE_EXTRACT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"

enum extract_outcome {
    EXTRACT_OK,
    EXTRACT_PARTIAL, /* there is text, but some of it is missing or unreadable: see the reason */
    EXTRACT_FAILED   /* there is no text */
};

/* Of a character, as the page is shown (rotated, cut to its crop box): the origin is the top left
 * corner, y grows downwards, x0 <= x1, y0 <= y1, and all lies on the page. All zero: a character
 * that the page does not draw, which we put in. */
struct extract_box {
    float x0, y0, x1, y1;
};

struct extract_page {
    uint32_t number;           /* from 1 */
    float width_pt, height_pt; /* as shown; 0 for formats without pages and for unread pages */
    enum extract_outcome outcome;
    uint32_t begin, end; /* code points of the text; equal when there is none */
    struct bytes reason; /* a sentence; empty where all is well */
};

struct extracted {
    struct bytes text;                /* UTF-8, without NUL characters */
    uint32_t chars;                   /* code points of text */
    const struct extract_box *boxes;  /* [chars]; NULL for formats without pages */
    const struct extract_page *pages; /* [pages_in], in order; a text file is one page */
    uint32_t pages_in;                /* of the document: pages_ok + pages_partial + pages_failed */
    uint32_t pages_ok, pages_partial, pages_failed;
    const char *format;   /* "pdf", "txt"; static */
    const char *encoding; /* of a text file: "utf-8", "utf-16le", "utf-16be", "gb18030"; else "" */
};

struct extract_limits {
    uint64_t memory_bytes; /* of the helper's address space */
    uint64_t output_bytes; /* of text and boxes */
    uint32_t cpu_s;        /* of all helpers of the document together */
    uint32_t wall_ms;      /* of the whole call */
    uint32_t page_ms;      /* of one page, wall time */
    uint32_t pages;        /* that are read; those beyond are failed */
};
/* The defaults: LIMIT_EXTRACT_* of base/limits.h. */
extern const struct extract_limits extract_limits_default;

/* format: "auto", "pdf" or "txt"; empty is auto. limits NULL: the defaults; cancelled may be
 * NULL. */
int extract_run(const struct extract_limits *limits, struct bytes document, struct bytes format,
                const atomic_bool *cancelled, struct arena *a, struct extracted *out, char *err,
                size_t err_bytes);

/* Where the helper is: $PENSTOCK_EXTRACT, or beside the running program, or in ../bin of it.
 * ERR_FULL with err when there is none. */
int extract_helper(char *out, size_t out_bytes, char *err, size_t err_bytes);

#endif
