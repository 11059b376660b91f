/* layout.h - a document's lines, arranged as somebody reads them.
 *
 * What extraction gives has a line feed behind every line. Here, with the help of the boxes,
 *   - running heads, feet and page numbers leave the text (document_page.running keeps them), so
 *     that a sentence goes on over the page: lines near the upper or the lower edge that come back
 *     on other pages, their page number counted along;
 *   - a blank line comes between lines that stand further apart than those of a paragraph, or that
 *     differ in size;
 *   - a form feed comes between pages, a tab between cells of a table that nothing else parts.
 * A text file stays as it is.
 *
 * Units: points, code points.  Owner: out borrows from x and the arena.  Memory: 120 bytes a line,
 * 20 a character, in the arena.  Errors: -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_LAYOUT_H
#define PENSTOCK_WORKERS_ENCODE_LAYOUT_H

#include "workers/encode/document.h"

int layout_document(struct document *out, const struct extracted *x, struct arena *a);

#endif
