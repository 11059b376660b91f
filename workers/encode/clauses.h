/* clauses.h - plain text to clauses: paragraphs with their numbers, headings and exact places.
 *
 * Lines are joined to paragraphs (hard-wrapped text) or are paragraphs; a number at the beginning
 * of a line ("1.", "1.1", "(a)", "Article I", "Section 2", 第一条, 一、, （一）, ①) or a heading on a line
 * of its own always begins a new one. A heading alone goes to the clauses below it and is no
 * clause, unless nothing follows it. A paragraph longer than what an encoder sees at once is cut at
 * sentence ends; its parts keep number and heading.
 *
 * Clauses come in the order of the text and never overlap; each begins and ends with something
 * other than white space. What lies between them is white space, headings and a byte order mark.
 *
 * Units: bytes, and characters (Unicode code points) of the text as submitted, both [begin, end).
 * Owner: the list lives in the caller's arena.  Memory: 64 bytes a clause, 48 a line.  Errors:
 * ERR_LIMIT beyond CLAUSES_MAX, -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_CLAUSES_H
#define PENSTOCK_WORKERS_ENCODE_CLAUSES_H

#include "base/arena.h"
#include "base/bytes.h"

#define CLAUSES_MAX 4096u
#define CLAUSE_COST_MAX 1000u /* a letter costs 1, a Han character 4: about 250 tokens */

struct clause_part { /* empty: begin == end */
    uint32_t begin, end;
};
struct clause {
    uint32_t begin, end;           /* bytes */
    uint32_t char_begin, char_end; /* code points */
    struct clause_part number;     /* bytes: "1.1", "第一条", as written; else its heading's */
    struct clause_part heading;    /* bytes: in front of the text, or on a line above */
    uint32_t level;                /* of that number: 1 is the outermost; 0: there is none */
};
struct clauses {
    struct clause *at;
    uint32_t n;
};

enum clause_language { LANGUAGE_EN, LANGUAGE_ZH };
/* By script: Chinese when a third as many Han characters as Latin letters are there. */
enum clause_language clauses_language(struct bytes text);
const char *clause_language_name(enum clause_language l); /* "en", "zh" */

/* text is valid UTF-8 of at most UINT32_MAX bytes. */
int clauses_split(struct bytes text, struct arena *a, struct clauses *out);

/* What encoder and cues see of a clause: the heading above it, then its text without its number,
 * white space as single blanks. Appended to out, of which the first *heading_bytes (may be NULL)
 * are the heading's. */
int clause_seen(struct bytes text, const struct clause *c, struct buf *out, size_t *heading_bytes);

#endif
