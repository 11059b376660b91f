/* document.h - a document as the stages hand it on: its text, its pages, a box for each character.
 *
 *   { format: "pdf" | "txt" | "text", encoding: str, text: str,
 *     pages: [[number, outcome, width, height, begin, end, reason, running]],
 *     pages_in: u64, boxes: bin }
 *
 * "text" is the text of a job that came as text: no pages, and pages_in counts what form feeds
 * part. boxes has four u16le for each code point (x0, y0, x1, y1), 65535 being the page's width or
 * height; all zero: not drawn. It is empty for formats without pages. A step is 0.01 point on A4.
 *
 * Read back, everything is checked: the document may have come from another process.
 *
 * Units: points from the page's top left corner, y downwards; code points, [begin, end).
 * Owner: document_read borrows from the packed document and the arena.  Memory: 8 bytes a character
 * packed, 80 a page.  Errors: ERR_CORRUPT with err, -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_DOCUMENT_H
#define PENSTOCK_WORKERS_ENCODE_DOCUMENT_H

#include "schemas/pack.h"
#include "workers/encode/extract.h"

struct document_page {
    uint32_t number; /* from 1 */
    enum extract_outcome outcome;
    float width_pt, height_pt; /* 0: a format without pages */
    uint32_t begin, end;       /* code points of the text; equal: none */
    struct bytes reason;       /* empty where all is well */
    struct bytes running; /* running heads, feet and page numbers: lines that are not in text */
};

struct document {
    struct bytes format, encoding, text;
    uint32_t chars; /* code points of text */
    const struct document_page *pages;
    uint32_t n_pages;  /* 0: the job came as text */
    uint32_t pages_in; /* n_pages, or what form feeds part */
    uint32_t pages_ok, pages_partial, pages_failed;
    const uint8_t *boxes; /* [chars][4] u16le; NULL: none */
};

/* Of a text that came as text. */
void document_of_text(struct document *out, struct bytes text);
const char *document_outcome_name(enum extract_outcome o); /* "ok", "partial", "failed" */

/* The page that holds a character; NULL: none does. */
const struct document_page *document_page_of(const struct document *d, uint32_t at);
/* The box of a character on its page; false: it is not drawn. */
bool document_box(const struct document *d, const struct document_page *page, uint32_t at,
                  struct extract_box *out);
/* A box as the document holds it. */
void document_put_box(uint8_t to[8], const struct extract_box *box, float width_pt,
                      float height_pt);

void document_pack(struct packer *p, const struct document *d);
int document_read(struct document *out, const struct pack_val *v, struct arena *a, char *err,
                  size_t err_bytes);

#endif
