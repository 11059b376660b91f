/* text.h - a text file's encoding, and its text.
 *
 * In this order: a byte order mark (UTF-8, UTF-16); UTF-8 that is valid; with zero bytes, UTF-16
 * without a mark, if nearly all of it then is letters that people write; else GB18030 (which holds
 * GBK and GB2312), by the C library; Latin letters with accents that pass for it make the page
 * partial. What is none of these is refused with the byte that is wrong, and binary files are
 * refused by name where their first bytes say what they are.
 *
 * Units: bytes.  Owner: borrows the document.  Memory: the text.  Errors: all go to the output as
 * frames.  Threads: one. */
#ifndef PENSTOCK_WORKERS_EXTRACT_TEXT_H
#define PENSTOCK_WORKERS_EXTRACT_TEXT_H

#include "workers/extract/output.h"

/* Before the sandbox closes: the C library reads its GB18030 table from a file. */
void text_init(void);

/* Says HELLO, one page, END; or BAD. */
void text_read(struct output *o, struct bytes document);

#endif
