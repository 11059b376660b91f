/* entities.h - dates, amounts, durations, percentages, parties and governing law in a text.
 *
 * The grammars are data (grammar.def). They run over stretches of the text that end at line ends,
 * so that a stretch on which a pattern exceeds the limits of base/regex.h is skipped, counted, and
 * harms nothing else. Of entities that overlap the longest stays; what cannot be (a 30th of
 * February) is dropped. Where words and figures are both given and differ, the words count and
 * `conflict` is set.
 *
 * Units: bytes, and characters of the text, both [begin, end).  Owner: grammar_open gives to
 * grammar_close; entities live in the arena.  Memory: 160 bytes an entity.  Errors: ERR_FIELD when
 * a pattern does not compile, -ENOMEM, ERR_CANCELLED.  Threads: a grammar is
 * immutable once open. */
#ifndef PENSTOCK_WORKERS_POST_ENTITIES_H
#define PENSTOCK_WORKERS_POST_ENTITIES_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "workers/encode/clauses.h"

#define ENTITIES_MAX 16384u

enum entity_type {
    ENTITY_DATE,
    ENTITY_DURATION,
    ENTITY_AMOUNT,
    ENTITY_PERCENTAGE,
    ENTITY_PARTY,
    ENTITY_LAW,
    ENTITY_TYPES
};
const char *entity_type_name(enum entity_type t); /* "date" ... "governing_law" */

struct entity {
    enum entity_type type;
    uint32_t begin, end, char_begin, char_end;
    char iso[24];      /* date "2026-03-02", duration "P30D" */
    double number;     /* amount; percentage (5 is five per cent); duration in days */
    char currency[4];  /* amount: ISO 4217 */
    struct bytes name; /* party: the name; law: the jurisdiction; in the text */
    struct bytes role; /* party: what it is called from then on; in the text */
    bool business;     /* duration: in business days */
    bool conflict;     /* words and figures differ */
    double score;
};
struct entities {
    struct entity *at;   /* [n], in the order of the text */
    uint32_t n, skipped; /* stretches that a pattern could not be run on */
    bool full;           /* ENTITIES_MAX were found: there may be more */
};

struct grammar;
int grammar_open(struct grammar **out, char *err, size_t err_bytes);
void grammar_close(struct grammar *g); /* NULL is fine */

/* Which grammars run: bit 0 English, bit 1 Chinese. language is that of the text as a whole and
 * decides what a yen sign means. cancelled may be NULL. */
#define GRAMMAR_EN 1u
#define GRAMMAR_ZH 2u
int entities_find(const struct grammar *g, struct bytes text, uint32_t grammars,
                  enum clause_language language, const atomic_bool *cancelled, struct arena *a,
                  struct entities *out, char *err, size_t err_bytes);

#endif
