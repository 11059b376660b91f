/* cuad.h - the labelled clauses of CUAD: a CSV file of contracts, with the texts of each category
 * as a list literal of Python and an answer beside it.
 *
 * Units: bytes of UTF-8.  Owner: cuad_open gives to cuad_close; everything inside is borrowed until
 * then.  Memory: twice the file.  Errors: -1 with a message on stderr.  Threads: one. */
#ifndef PENSTOCK_TESTS_BENCH_CONTRACT_CUAD_H
#define PENSTOCK_TESTS_BENCH_CONTRACT_CUAD_H

#include <stdint.h>

#define CUAD_CATEGORIES 41u

struct cuad_text {
    uint32_t contract, category; /* row and index in cuad.names */
    const char *text;
};
struct cuad {
    const char *names[CUAD_CATEGORIES]; /* in the file's order, which is the taxonomy's */
    uint32_t contracts;
    const char *
        *answers; /* [contracts][CUAD_CATEGORIES]: normalized by the annotators; "" : none */
    struct cuad_text *texts;
    uint32_t n_texts;
    char *memory[2];
};
int cuad_open(struct cuad *c, const char *path);
void cuad_close(struct cuad *c);

#endif
