/* vocab.h - tokens and their ids, both ways.
 *
 * Units: bytes.  Owner: the tokenizer embeds it; zero-fill before vocab_add, vocab_fini at the end.
 * Memory: the texts once, 8 bytes an id, 16 bytes a token in the hash table.  Errors: -ENOMEM,
 * ERR_LIMIT for an id beyond VOCAB_IDS_MAX.  Threads: immutable once filled. */
#ifndef PENSTOCK_WORKERS_ENCODE_VOCAB_H
#define PENSTOCK_WORKERS_ENCODE_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define VOCAB_IDS_MAX (4u * 1024u * 1024u)

struct vocab {
    struct buf text; /* all tokens, end to end */
    struct vocab_entry {
        uint32_t begin, bytes; /* in text */
    } * by_id;                 /* [ids]; bytes UINT32_MAX: no such id */
    uint32_t ids, ids_cap;     /* highest id + 1 */
    struct vocab_slot {
        uint32_t hash, begin, bytes, id;
    } * slots; /* [mask + 1]; bytes UINT32_MAX: empty */
    uint32_t mask, used;
    uint32_t longest_bytes; /* of any token */
};

/* A token given again moves to the new id; an id given again shows the new token. */
int vocab_add(struct vocab *v, struct bytes token, uint32_t id);
int64_t vocab_find(const struct vocab *v, struct bytes token); /* -1: none */
struct bytes vocab_token(const struct vocab *v, uint32_t id);  /* {NULL, 0}: none; borrowed */
void vocab_fini(struct vocab *v);                              /* accepts zeroed memory */

#endif
