/* pdf.h - the pages of a PDF, by Poppler: the only door to it.
 *
 * Poppler is under the GPL, and so is the program that is linked with it: penstock-extract is
 * conveyed under GPL-3 as a whole. The engine talks to it over a pipe (frames.h) and links none of
 * it.
 *
 * A page is `partial` when more than one in twenty of its letters has no known Unicode value, when
 * Poppler's letters and boxes do not pair, when memory ran out on the way, and always when the file
 * has no end mark, so that nobody knows what is missing. It is `failed` when it cannot be read, and
 * when it has pictures and no text: a scan. A page without either is ok, and its reason says blank;
 * without poppler-data, where blank may mean that its font is not known, it is failed.
 *
 * Units: points.  Owner: borrows the document.  Memory: Poppler's.  Errors: all go to the output as
 * frames.  Threads: one. */
#ifndef PENSTOCK_WORKERS_EXTRACT_PDF_H
#define PENSTOCK_WORKERS_EXTRACT_PDF_H

#include <stdbool.h>

#include "workers/extract/output.h"

/* Where the fonts of Chinese, Japanese and Korean documents have their tables (poppler-data). */
#define PDF_DATA_FOLDER "/usr/share/poppler"

bool pdf_is(struct bytes document); /* by the mark that PDF wants in the first 1024 bytes */

/* Says HELLO and the pages first to at most last, then END; or BAD. */
void pdf_read(struct output *o, struct bytes document, uint32_t first, uint32_t last);

#endif
