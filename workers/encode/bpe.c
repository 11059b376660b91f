#include "workers/encode/bpe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/encode/unicode.h"

#define NONE UINT32_MAX

static uint32_t hash_pair(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

static struct bpe_merge *seek(const struct bpe *b, uint32_t left, uint32_t right) {
    for (uint32_t i = hash_pair(left, right) & b->mask;; i = (i + 1) & b->mask) {
        struct bpe_merge *m = &b->merges[i];
        if (m->rank == NONE || (m->left == left && m->right == right)) return m;
    }
}

/* ---- reading ---- */

static int options_read(struct bpe *b, const struct json *model, const char *where, char *err,
                        size_t err_bytes) {
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++)
        if (json_str_len(json_get(model, affixes[i])) > 0)
            return err_set(err, err_bytes, ERR_FIELD, "%s: %s: is not supported", where,
                           affixes[i]);
    if (json_kind(json_get(model, "dropout")) == JSON_REAL &&
        json_real(json_get(model, "dropout"), 0) != 0)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: dropout: is not supported, the same text must give the same tokens",
                       where);
    b->byte_fallback = json_bool(json_get(model, "byte_fallback"), false);
    b->fuse_unknown = json_bool(json_get(model, "fuse_unk"), false);
    b->ignore_merges = json_bool(json_get(model, "ignore_merges"), false);
    b->unknown = -1;
    const char *unknown = json_str(json_get(model, "unk_token"));
    if (!unknown) return 0;
    b->unknown = vocab_find(b->vocab, bytes_str(unknown));
    if (b->unknown < 0)
        return err_set(err, err_bytes, ERR_FIELD, "%s: unk_token: %.60s is not in the vocabulary",
                       where, unknown);
    return 0;
}

static void tables_fill(struct bpe *b) {
    for (uint32_t i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        b->bytes[i] = vocab_find(b->vocab, bytes_str(name));
    }
    for (uint32_t c = 0; c < BPE_DIRECT; c++) {
        char bytes[4];
        uint32_t n = unicode_put(bytes, c);
        b->direct[c] = vocab_find(b->vocab, bytes_of(bytes, n));
    }
}

/* A merge is "left right" or ["left", "right"]. */
static int merge_parts(const struct json *j, struct bytes *left, struct bytes *right) {
    if (json_kind(j) == JSON_ARRAY && json_len(j) == 2) {
        const struct json *a = json_at(j, 0), *b = json_at(j, 1);
        if (!json_str(a) || !json_str(b)) return ERR_FIELD;
        *left = bytes_of(json_str(a), json_str_len(a));
        *right = bytes_of(json_str(b), json_str_len(b));
        return 0;
    }
    const char *text = json_str(j), *blank = text ? strchr(text, ' ') : NULL;
    if (!blank || strchr(blank + 1, ' ')) return ERR_FIELD;
    *left = bytes_of(text, (size_t)(blank - text));
    *right = bytes_str(blank + 1);
    return 0;
}

static int merge_add(struct bpe *b, const struct json *j, uint32_t rank, const char *where,
                     char *err, size_t err_bytes) {
    struct bytes left, right;
    if (merge_parts(j, &left, &right) < 0 || left.len > UINT16_MAX || right.len > UINT16_MAX)
        return err_set(err, err_bytes, ERR_FIELD, "%s: merges: item %u: not a pair of tokens",
                       where, rank);
    struct buf joined = {0};
    buf_append(&joined, left.data, left.len);
    int rc = buf_append(&joined, right.data, right.len);
    int64_t a = vocab_find(b->vocab, left), c = vocab_find(b->vocab, right);
    int64_t id = rc < 0 ? -1 : vocab_find(b->vocab, buf_bytes(&joined));
    buf_fini(&joined);
    if (rc < 0) return rc;
    if (a < 0 || c < 0 || id < 0)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: merges: item %u: %s is not in the vocabulary", where, rank,
                       a < 0   ? "its left token"
                       : c < 0 ? "its right token"
                               : "what it makes");
    /* A pair given twice counts where it stands last. */
    *seek(b, (uint32_t)a, (uint32_t)c) =
        (struct bpe_merge){(uint32_t)a, (uint32_t)c, rank, (uint32_t)id};
    return 0;
}

int bpe_read(struct bpe *b, const struct vocab *v, const struct json *model, const char *where,
             char *err, size_t err_bytes) {
    *b = (struct bpe){.vocab = v};
    int rc = options_read(b, model, where, err, err_bytes);
    if (rc < 0) return rc;
    const struct json *merges = json_get(model, "merges");
    if (json_kind(merges) != JSON_ARRAY)
        return err_set(err, err_bytes, ERR_FIELD, "%s: merges: missing or not a list", where);
    size_t n = json_len(merges);
    if (n > BPE_MERGES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: merges: at most %u", where, BPE_MERGES_MAX);
    size_t cap = 16;
    while (cap < n * 2) cap *= 2;
    b->mask = (uint32_t)cap - 1;
    b->merges = malloc(cap * sizeof *b->merges);
    if (!b->merges) return err_set(err, err_bytes, -ENOMEM, "%s: out of memory", where);
    memset(b->merges, 0xFF, cap * sizeof *b->merges);
    tables_fill(b);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = merge_add(b, json_at(merges, i), (uint32_t)i, where, err, err_bytes);
    return rc;
}

void bpe_fini(struct bpe *b) {
    free(b->merges);
    *b = (struct bpe){0};
}

void bpe_room_fini(struct bpe_room *r) {
    buf_fini(&r->symbols);
    buf_fini(&r->heap);
}

/* ---- one word ---- */

struct symbol {
    uint32_t id, prev, next; /* neighbours' indices; NONE at the ends */
    bool gone;               /* merged into its left neighbour */
};
struct candidate {
    uint32_t rank, at, id; /* the pair that begins at symbol `at` makes `id` */
};

static void symbol_add(struct buf *symbols, int64_t id) {
    struct symbol *s = buf_extend(symbols, sizeof *s);
    if (!s) return;
    uint32_t n = (uint32_t)(symbols->len / sizeof *s);
    *s = (struct symbol){.id = (uint32_t)id, .prev = n >= 2 ? n - 2 : NONE, .next = n};
}

static bool add_bytes(const struct bpe *b, const char *at, const char *end, struct buf *symbols) {
    for (const char *p = at; p < end; p++)
        if (b->bytes[(uint8_t)*p] < 0) return false;
    for (; at < end; at++) symbol_add(symbols, b->bytes[(uint8_t)*at]);
    return true;
}

/* Characters to symbols. An unknown run is held back until the next known character, as the
 * reference does, so that fused ones become one. */
static int symbols_fill(const struct bpe *b, struct bytes word, struct buf *symbols) {
    const char *at = word.data, *end = at + word.len;
    bool held = false;
    while (at < end) {
        const char *begin = at;
        uint32_t c = unicode_next(&at);
        int64_t id = c < BPE_DIRECT ? b->direct[c]
                                    : vocab_find(b->vocab, bytes_of(begin, (size_t)(at - begin)));
        if (id >= 0) {
            if (held) symbol_add(symbols, b->unknown);
            held = false;
            symbol_add(symbols, id);
        } else if (b->byte_fallback && add_bytes(b, begin, at, symbols)) {
            continue;
        } else if (b->unknown >= 0) {
            if (held && !b->fuse_unknown) symbol_add(symbols, b->unknown);
            held = true;
        }
    }
    if (held) symbol_add(symbols, b->unknown);
    return symbols->error;
}

static bool before(const struct candidate *a, const struct candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct buf *heap, struct candidate c) {
    if (!buf_extend(heap, sizeof c)) return;
    struct candidate *h = (struct candidate *)(void *)heap->data;
    size_t i = heap->len / sizeof c - 1;
    for (; i > 0 && before(&c, &h[(i - 1) / 2]); i = (i - 1) / 2) h[i] = h[(i - 1) / 2];
    h[i] = c;
}

static bool heap_pop(struct buf *heap, struct candidate *out) {
    if (heap->len == 0) return false;
    struct candidate *h = (struct candidate *)(void *)heap->data;
    heap->len -= sizeof *h;
    size_t n = heap->len / sizeof *h, i = 0;
    *out = h[0];
    struct candidate last = h[n];
    for (size_t kid; (kid = 2 * i + 1) < n; i = kid) {
        if (kid + 1 < n && before(&h[kid + 1], &h[kid])) kid++;
        if (!before(&h[kid], &last)) break;
        h[i] = h[kid];
    }
    h[i] = last;
    return true;
}

static void offer(const struct bpe *b, const struct symbol *s, uint32_t at, struct buf *heap) {
    if (at == NONE || s[at].next == NONE) return;
    const struct bpe_merge *m = seek(b, s[at].id, s[s[at].next].id);
    if (m->rank != NONE) heap_push(heap, (struct candidate){m->rank, at, m->id});
}

static int merge_all(const struct bpe *b, struct bpe_room *room) {
    struct symbol *s = (struct symbol *)(void *)room->symbols.data;
    uint32_t n = (uint32_t)(room->symbols.len / sizeof *s);
    s[n - 1].next = NONE;
    for (uint32_t i = 0; i + 1 < n; i++) offer(b, s, i, &room->heap);
    struct candidate c;
    while (heap_pop(&room->heap, &c)) {
        if (s[c.at].gone || s[c.at].next == NONE) continue;
        uint32_t right = s[c.at].next;
        const struct bpe_merge *m = seek(b, s[c.at].id, s[right].id);
        if (m->rank == NONE || m->id != c.id) continue; /* the pair has changed since */
        s[c.at].id = c.id;
        s[c.at].next = s[right].next;
        s[right].gone = true;
        if (s[right].next != NONE) s[s[right].next].prev = c.at;
        offer(b, s, s[c.at].prev, &room->heap);
        offer(b, s, c.at, &room->heap);
    }
    return room->heap.error;
}

int bpe_word(const struct bpe *b, struct bytes word, struct bpe_room *room, struct buf *ids) {
    if (b->ignore_merges) {
        int64_t whole = vocab_find(b->vocab, word);
        if (whole >= 0) {
            uint32_t u = (uint32_t)whole;
            return buf_append(ids, &u, sizeof u);
        }
    }
    buf_clear(&room->symbols);
    buf_clear(&room->heap);
    int rc = symbols_fill(b, word, &room->symbols);
    if (rc < 0 || room->symbols.len == 0) return rc;
    rc = merge_all(b, room);
    if (rc < 0) return rc;
    const struct symbol *s = (const struct symbol *)(const void *)room->symbols.data;
    for (uint32_t i = 0; i != NONE; i = s[i].next) buf_append(ids, &s[i].id, sizeof s[i].id);
    return ids->error;
}
