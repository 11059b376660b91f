/* prov.h - where on its pages a span of a document stands: a box for each line it runs over.
 *
 * A fragment is a run of characters on one page and one line, white space at its ends left out; its
 * box is what encloses their boxes. A character lies in a box when its center does. The fragments
 * of a span hold all of its characters that are drawn, in order, and no others.
 *
 * Units: code points of the text; points from the page's top left corner.  Owner, memory: none.
 * Errors: none.  Threads: any. */
#ifndef PENSTOCK_WORKERS_POST_PROV_H
#define PENSTOCK_WORKERS_POST_PROV_H

#include "workers/encode/document.h"

struct prov {
    const struct document_page *page;
    struct extract_box box;
    uint32_t begin, end; /* code points */
};
/* Walks the fragments of a span. */
struct prov_it {
    const struct document *document;
    const char *at; /* the character at `next` */
    uint32_t next, end;
};
/* text_at is the byte at which code point `begin` of the document's text begins. */
struct prov_it prov_begin(const struct document *d, uint32_t text_at, uint32_t begin, uint32_t end);
bool prov_next(struct prov_it *it, struct prov *out);

#endif
