/* pdf.h - PDF files made to measure, good and hostile, for the extraction tests.
 *
 * Units: points, bytes.  Owner: pdf_end frees the maker and gives bytes in the arena.
 * Memory: malloc until pdf_end.  Errors: a failed call fails the test.  Threads: one. */
#ifndef PENSTOCK_TESTS_EXTRACT_PDF_H
#define PENSTOCK_TESTS_EXTRACT_PDF_H

#include "base/arena.h"
#include "base/bytes.h"

/* Objects are numbered by their user, from 1; a number may be left out. */
struct pdf {
    struct buf out;
    uint32_t *offset; /* [objects], 0: left out */
    uint32_t objects;
};
void pdf_begin(struct pdf *p, uint32_t objects);
void pdf_object(struct pdf *p, uint32_t number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void pdf_stream(struct pdf *p, uint32_t number, const char *dict, struct bytes data);
/* Cross references and trailer; extra goes into the trailer. The catalog is object 1. */
struct bytes pdf_end(struct pdf *p, struct arena *a, const char *extra);

/* A page with Helvetica as /F1; keys are further entries, as "/Rotate 90". NULL media: A4. */
struct pdf_page {
    const char *content, *keys, *media;
};
struct bytes pdf_of_pages(struct arena *a, const struct pdf_page *pages, uint32_t n);
/* n pages that say "Page K of the good document". */
struct bytes pdf_good(struct arena *a, uint32_t n);
/* As many pages as wanted, all with the same content. */
struct bytes pdf_of_many(struct arena *a, uint32_t n);
/* One page with this stream object as its content, between two good pages. */
struct bytes pdf_with_middle(struct arena *a, const char *dict, struct bytes data);

/* zlib data that inflates to `data` and then 258 * repeats bytes that repeat its last `distance`
 * bytes (4, or 13). */
struct bytes flate_of(struct arena *a, struct bytes data, uint32_t distance, uint32_t repeats);
/* For two FlateDecode filters: inflates to about 258 * repeats bytes of "q Q ". */
struct bytes flate_bomb(struct arena *a, uint32_t repeats);

#endif
