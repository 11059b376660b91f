/* lexicon.h - the bytes of all tokens of a vocabulary, as a trie laid out in preorder.
 *
 * Units: bytes, tokens.  Owner: lexicon_fini.  Memory: 16 bytes a node, about three nodes a token.
 * Errors: ERR_FIELD for a tokenizer whose tokens have no bytes of their own, -ENOMEM.
 * Threads: immutable once filled. */
#ifndef PENSTOCK_WORKERS_SCHEMA_LEXICON_H
#define PENSTOCK_WORKERS_SCHEMA_LEXICON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct tokenizer;

struct lexicon_node {
    uint32_t end;   /* the node behind this one's subtree */
    uint32_t token; /* of its tokens the first, in ids */
    uint16_t tokens, depth;
    uint8_t byte;
};
struct lexicon {
    struct buf text;                       /* all tokens' bytes */
    struct lexicon_word *word;             /* [vocab]; bytes 0: never written */
    struct lexicon_node *node;             /* [nodes] */
    uint32_t *ids;                         /* by bytes */
    uint32_t *differs;                     /* a bit a token: not to be the first of a text */
    uint32_t begin[257];                   /* node where the first byte becomes b or more */
    uint32_t vocab, nodes, n_ids, longest; /* longest: bytes */
    bool single[256];                      /* bytes that are a token */
};
struct lexicon_word {
    uint32_t begin, bytes, id;
    bool differs;
};
/* vocab: of the model, at least the tokenizer's. */
int lexicon_init(struct lexicon *l, const struct tokenizer *t, uint32_t vocab, char *err,
                 size_t err_bytes);
void lexicon_fini(struct lexicon *l); /* accepts zeroed memory */

#endif
