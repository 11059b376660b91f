#include "workers/encode/unigram.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/encode/unicode.h"

#define NONE UINT32_MAX
#define UNKNOWN_PENALTY 10.0

/* ---- reading ---- */

static int read_entry(struct unigram *u, struct vocab *v, const struct json *item, uint32_t id,
                      const char *where, char *err, size_t err_bytes) {
    const struct json *token = json_at(item, 0), *score = json_at(item, 1);
    if (json_kind(item) != JSON_ARRAY || json_len(item) != 2 || !json_str(token) ||
        (json_kind(score) != JSON_REAL && json_kind(score) != JSON_INT))
        return err_set(err, err_bytes, ERR_FIELD, "%s: vocab: item %u: not a [token, score]", where,
                       id);
    u->score[id] = json_num(score, 0);
    int rc = vocab_add(v, bytes_of(json_str(token), json_str_len(token)), id);
    return rc < 0 ? err_set(err, err_bytes, rc, "%s: vocab: item %u: %s", where, id, err_text(rc))
                  : 0;
}

static int read_vocab(struct unigram *u, struct vocab *v, const struct json *model,
                      const char *where, char *err, size_t err_bytes) {
    const struct json *vocab = json_get(model, "vocab");
    size_t n = json_len(vocab);
    if (json_kind(vocab) != JSON_ARRAY || n == 0)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: vocab: missing, empty, or not a list of [token, score]", where);
    if (n > VOCAB_IDS_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: vocab: at most %u", where, VOCAB_IDS_MAX);
    u->score = malloc(n * sizeof *u->score);
    if (!u->score) return -ENOMEM;
    u->n = (uint32_t)n;
    double lowest = 0;
    for (uint32_t i = 0; i < u->n; i++) {
        int rc = read_entry(u, v, json_at(vocab, i), i, where, err, err_bytes);
        if (rc < 0) return rc;
        if (i == 0 || u->score[i] < lowest) lowest = u->score[i];
    }
    u->unknown_score = lowest - UNKNOWN_PENALTY;
    return 0;
}

/* ---- the trie, built breadth first from the sorted tokens ---- */

struct entry {
    struct bytes text;
    uint32_t id;
};

static int by_text(const void *a, const void *b) {
    struct bytes x = ((const struct entry *)a)->text, y = ((const struct entry *)b)->text;
    int c = memcmp(x.data, y.data, x.len < y.len ? x.len : y.len);
    return c ? c : (x.len > y.len) - (x.len < y.len);
}

struct work { /* the entries below a node */
    uint32_t node, first, last, depth;
};

static uint8_t byte_at(const struct entry *e, uint32_t depth) {
    return ((const uint8_t *)e->text.data)[depth];
}

/* Lays the children of one node down, and puts them on the list of what is to be done. */
static int grow(struct buf *nodes, struct buf *todo, const struct entry *e, struct work w) {
    uint32_t at = w.first, first = (uint32_t)(nodes->len / sizeof(struct unigram_node)), n = 0;
    while (at < w.last && e[at].text.len == w.depth) at++; /* it ends here */
    while (at < w.last) {
        uint32_t from = at;
        uint8_t byte = byte_at(&e[at], w.depth);
        while (at < w.last && byte_at(&e[at], w.depth) == byte) at++;
        struct unigram_node kid = {.id = NONE, .byte = byte};
        if (e[from].text.len == w.depth + 1) kid.id = e[from].id;
        struct work more = {first + n++, from, at, w.depth + 1};
        buf_append(nodes, &kid, sizeof kid);
        buf_append(todo, &more, sizeof more);
    }
    if (nodes->error || todo->error) return -ENOMEM;
    struct unigram_node *node = (struct unigram_node *)(void *)nodes->data + w.node;
    node->kids = first;
    node->n_kids = (uint16_t)n;
    return 0;
}

static int build(struct unigram *u, const struct vocab *v) {
    struct entry *e = malloc(u->n * sizeof *e);
    if (!e) return -ENOMEM;
    uint32_t n = 0;
    for (uint32_t i = 0; i < u->n; i++) {
        struct bytes token = vocab_token(v, i);
        /* a token given twice counts under the id that the vocabulary finds */
        if (token.len > 0 && vocab_find(v, token) == (int64_t)i) e[n++] = (struct entry){token, i};
    }
    qsort(e, n, sizeof *e, by_text);
    struct buf nodes = {0}, todo = {0};
    struct unigram_node root = {.id = NONE};
    struct work all = {0, 0, n, 0};
    int rc = buf_append(&nodes, &root, sizeof root);
    if (rc == 0) rc = buf_append(&todo, &all, sizeof all);
    for (size_t i = 0; rc == 0 && i < todo.len; i += sizeof all) {
        memcpy(&all, todo.data + i, sizeof all);
        rc = grow(&nodes, &todo, e, all);
    }
    free(e);
    buf_fini(&todo);
    u->nodes = (struct unigram_node *)(void *)nodes.data;
    return rc;
}

int unigram_read(struct unigram *u, struct vocab *v, const struct json *model, const char *where,
                 char *err, size_t err_bytes) {
    *u = (struct unigram){.vocab = v, .unknown = -1};
    int rc = read_vocab(u, v, model, where, err, err_bytes);
    if (rc < 0) return rc;
    const struct json *unknown = json_get(model, "unk_id");
    if (json_kind(unknown) != JSON_NULL) {
        u->unknown = json_int(unknown, -1);
        if (u->unknown < 0 || u->unknown >= u->n)
            return err_set(err, err_bytes, ERR_FIELD, "%s: unk_id: not from 0 to %u", where,
                           u->n - 1);
    }
    u->byte_fallback = json_bool(json_get(model, "byte_fallback"), false);
    for (uint32_t i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        u->bytes[i] = vocab_find(v, bytes_str(name));
    }
    return build(u, v);
}

void unigram_fini(struct unigram *u) {
    free(u->score);
    free(u->nodes);
    *u = (struct unigram){0};
}

/* ---- one word ---- */

struct best { /* the best way to cut what lies before a place */
    double score;
    uint32_t begin, id; /* of its last token; begin NONE: no way yet */
};

static void offer(struct best *to, double score, size_t begin, uint32_t id) {
    if (to->begin == NONE || score > to->score) *to = (struct best){score, (uint32_t)begin, id};
}

static const struct unigram_node *child(const struct unigram *u, const struct unigram_node *node,
                                        uint8_t byte) {
    const struct unigram_node *kids = u->nodes + node->kids;
    uint32_t lo = 0, hi = node->n_kids;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (kids[mid].byte < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < node->n_kids && kids[lo].byte == byte ? kids + lo : NULL;
}

static int fill(const struct unigram *u, struct bytes word, struct best *best) {
    const char *text = word.data, *next = text;
    for (size_t at = 0; at < word.len; at = (size_t)(next - text)) {
        unicode_next(&next);
        size_t one = (size_t)(next - text);
        bool covered = false;
        const struct unigram_node *node = u->nodes;
        for (size_t end = at; end < word.len && (node = child(u, node, (uint8_t)text[end]));) {
            end++;
            if (node->id == NONE) continue;
            offer(&best[end], u->score[node->id] + best[at].score, at, node->id);
            covered |= end == one;
        }
        if (covered) continue;
        if (u->unknown < 0) return ERR_FIELD;
        offer(&best[one], u->unknown_score + best[at].score, at, (uint32_t)u->unknown);
    }
    return 0;
}

static bool put_bytes(const struct unigram *u, struct bytes part, struct buf *ids) {
    const uint8_t *s = part.data;
    if (!u->byte_fallback) return false;
    for (size_t i = 0; i < part.len; i++)
        if (u->bytes[s[i]] < 0) return false;
    for (size_t i = 0; i < part.len; i++) {
        uint32_t id = (uint32_t)u->bytes[s[i]];
        buf_append(ids, &id, sizeof id);
    }
    return true;
}

/* A run of unknown characters: its own token if it has one, else its bytes, else unknown. */
static void put_unknown(const struct unigram *u, struct bytes part, struct buf *ids) {
    int64_t id = vocab_find(u->vocab, part);
    if (id < 0 && put_bytes(u, part, ids)) return;
    uint32_t put = id < 0 ? (uint32_t)u->unknown : (uint32_t)id;
    buf_append(ids, &put, sizeof put);
}

int unigram_word(const struct unigram *u, struct bytes word, struct buf *room, struct buf *ids) {
    buf_clear(room);
    struct best *best = buf_extend(room, (word.len + 1) * sizeof *best);
    if (!best) return -ENOMEM;
    memset(best, 0xFF, (word.len + 1) * sizeof *best);
    best[0].score = 0;
    int rc = fill(u, word, best);
    if (rc < 0) return rc;
    /* From the end back, so that each place on the way knows where its token ends instead. */
    struct best last = best[word.len];
    for (uint32_t end = (uint32_t)word.len; end > 0;) {
        uint32_t begin = last.begin;
        struct best before = best[begin];
        best[begin] = (struct best){.begin = end, .id = last.id};
        last = before;
        end = begin;
    }
    const char *text = word.data;
    for (uint32_t at = 0, from = 0; at < word.len; from = at) {
        uint32_t id = best[at].id;
        bool unknown = (int64_t)id == u->unknown;
        do at = best[at].begin; /* neighbours that are unknown too join it */
        while (unknown && at < word.len && best[at].id == id);
        if (unknown)
            put_unknown(u, bytes_of(text + from, at - from), ids);
        else
            buf_append(ids, &id, sizeof id);
    }
    return ids->error;
}
