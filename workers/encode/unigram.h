/* unigram.h - the unigram model: of all ways to cut a word into tokens, the one with the best sum
 * of scores.
 *
 * One pass from left to right (Viterbi); a trie gives the tokens that begin at a place. A character
 * that no token covers costs ten less than the lowest score; a run of such characters is one
 * unknown token, or its bytes (byte_fallback). Of equal ways the one found first stays, and scores
 * are doubles added in the same order as in Hugging Face's tokenizers.
 *
 * Units: bytes of valid UTF-8; scores are log probabilities.  Owner: embedded in the tokenizer;
 * borrows its vocabulary; unigram_fini at the end.  Memory: 12 bytes a node of the trie; 16 bytes a
 * byte of the word in the caller's room.  Errors: ERR_FIELD with the place in err, ERR_LIMIT,
 * -ENOMEM.  Threads: immutable once read; a room a thread. */
#ifndef PENSTOCK_WORKERS_ENCODE_UNIGRAM_H
#define PENSTOCK_WORKERS_ENCODE_UNIGRAM_H

#include "workers/encode/vocab.h"

struct json;

struct unigram {
    const struct vocab *vocab;
    double *score; /* [n] of each id */
    uint32_t n;
    struct unigram_node {
        uint32_t kids;   /* the first of its children, which lie together, sorted by byte */
        uint32_t id;     /* of the token that ends here; UINT32_MAX: none */
        uint16_t n_kids; /* 0 to 256 */
        uint8_t byte;
    } * nodes; /* [0] is the root */
    double unknown_score;
    int64_t unknown; /* -1: none */
    bool byte_fallback;
    int64_t bytes[256]; /* ids of <0x00> .. <0xFF>; -1: none */
};

/* Fills v from model.vocab, a list of [token, score], and reads the rest. */
int unigram_read(struct unigram *u, struct vocab *v, const struct json *model, const char *where,
                 char *err, size_t err_bytes);
void unigram_fini(struct unigram *u); /* accepts zeroed memory */
/* Appends the ids of one word, as u32 in memory order. room: reused from word to word. ERR_FIELD: a
 * character that is not in the vocabulary, and there is no unknown token. */
int unigram_word(const struct unigram *u, struct bytes word, struct buf *room, struct buf *ids);

#endif
