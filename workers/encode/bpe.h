/* bpe.h - byte pair encoding: characters to ids, then the best-ranked pair merged until none is
 * left.
 *
 * A heap of candidate merges makes a word of n characters O(n log n), so that a tokenizer without a
 * pre-tokenizer can take a whole document as one word. Equal to Hugging Face's in what is done with
 * characters that are not in the vocabulary: their bytes (byte_fallback), else the unknown token
 * (fused or not), else nothing.
 *
 * Units: bytes of valid UTF-8.  Owner: embedded in the tokenizer; borrows its vocabulary; bpe_fini
 * at the end.  Memory: 16 bytes a merge twice over; a word's symbols and heap in a bpe_room.
 * Errors: ERR_FIELD with the place in err, ERR_LIMIT, -ENOMEM.  Threads: immutable once read; a
 * room a thread. */
#ifndef PENSTOCK_WORKERS_ENCODE_BPE_H
#define PENSTOCK_WORKERS_ENCODE_BPE_H

#include "workers/encode/vocab.h"

struct json;

#define BPE_MERGES_MAX (4u * 1024u * 1024u)
#define BPE_DIRECT 1024u /* characters below are looked up in a table */

struct bpe {
    const struct vocab *vocab;
    struct bpe_merge {
        uint32_t left, right, rank, id; /* rank UINT32_MAX: empty */
    } * merges;                         /* hash table [mask + 1] */
    uint32_t mask;
    bool byte_fallback, fuse_unknown, ignore_merges;
    int64_t unknown;            /* -1: none */
    int64_t bytes[256];         /* ids of <0x00> .. <0xFF>; -1: none */
    int64_t direct[BPE_DIRECT]; /* ids of one-character tokens; -1: none */
};

/* Working memory of one encode: reused from word to word. Zero-fill before first use. */
struct bpe_room {
    struct buf symbols, heap;
};
void bpe_room_fini(struct bpe_room *r);

int bpe_read(struct bpe *b, const struct vocab *v, const struct json *model, const char *where,
             char *err, size_t err_bytes);
void bpe_fini(struct bpe *b); /* accepts zeroed memory */
/* Appends the ids of one word, as u32 in memory order. */
int bpe_word(const struct bpe *b, struct bytes word, struct bpe_room *room, struct buf *ids);

#endif
