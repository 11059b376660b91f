/* clauses.c - fuzzes the clause splitter: any UTF-8 gives clauses in order whose spans are whole
 * characters inside the text. */
#include <stdlib.h>

#include "workers/encode/clauses.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct bytes text = bytes_of(data, utf8_check(data, bytes));
    struct arena a;
    struct clauses cs;
    uint32_t end = 0, char_end = 0;
    arena_init(&a, 256u << 20);
    if (clauses_split(text, &a, &cs) == 0) {
        for (uint32_t i = 0; i < cs.n; i++) {
            const struct clause *c = &cs.at[i];
            size_t len = c->end - c->begin;
            if (c->begin < end || c->end > text.len || c->begin >= c->end) abort();
            if (c->char_begin < char_end || utf8_check(data + c->begin, len) != len) abort();
            if (c->number.end > text.len || c->heading.end > text.len) abort();
            end = c->end;
            char_end = c->char_end;
        }
    }
    clauses_language(text);
    arena_fini(&a);
    return 0;
}
