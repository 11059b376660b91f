#include "workers/schema/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "workers/schema/regex_nfa.h"

#define SETS_MAX 8192u
#define WORK_MAX 30000000u

/* What of the patterns is under way after some characters: a sorted list of nodes, and how many
 * characters there were as far as the bounds care. */
struct position {
    uint32_t first, n; /* in ids */
    uint32_t chars, state;
    uint32_t matched; /* patterns that hold whatever follows */
};
struct build {
    struct grammar *g;
    struct nfa a;
    uint32_t starts[PATTERN_TEXTS_MAX], patterns, chars_min, chars_max;
    struct position *at;
    uint32_t n, work;
    struct buf ids;
    uint8_t *seen;       /* [nodes] */
    uint32_t *list, len; /* a set in the making */
};
struct piece {
    uint32_t lo, hi, to;
};

/* Adds a node and all that it leads to without a character. */
static void reach(struct build *b, uint32_t node, bool begin, bool finish, uint32_t *matched) {
    const struct nfa_node *n = &b->a.node[node];
    if (b->seen[node]) return;
    b->seen[node] = 1;
    b->list[b->len++] = node;
    if (n->kind == NFA_MATCH) *matched |= 1u << n->pattern;
    if (n->kind == NFA_SPLIT) {
        reach(b, n->next, begin, finish, matched);
        reach(b, n->other, begin, finish, matched);
    }
    if ((n->kind == NFA_BEGIN && begin) || (n->kind == NFA_FINISH && finish))
        reach(b, n->next, begin, finish, matched);
}

static void forget(struct build *b) {
    for (uint32_t i = 0; i < b->len; i++) b->seen[b->list[i]] = 0;
    b->len = 0;
}

static const uint32_t *ids_of(const struct build *b, const struct position *p) {
    return (const uint32_t *)(const void *)b->ids.data + p->first;
}

/* Whether a string may end here. */
static bool may_end(struct build *b, const struct position *p, bool at_begin) {
    uint32_t matched = p->matched;
    if (p->chars < b->chars_min) return false;
    for (uint32_t i = 0; i < p->n; i++) reach(b, ids_of(b, p)[i], at_begin, true, &matched);
    forget(b);
    return matched == (1u << b->patterns) - 1;
}

static int by_number(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, c = *(const uint32_t *)right;
    return (a > c) - (a < c);
}

/* The position of the set in `list`, made when it is new. */
static uint32_t position(struct build *b, uint32_t chars, uint32_t matched) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < b->len; i++) b->seen[b->list[i]] = 0;
    for (uint32_t i = 0; i < b->len; i++) {
        const struct nfa_node *n = &b->a.node[b->list[i]];
        if (n->kind == NFA_CHAR || n->kind == NFA_FINISH || n->kind == NFA_BEGIN)
            b->list[kept++] = b->list[i];
    }
    b->len = 0;
    qsort(b->list, kept, sizeof *b->list, by_number);
    if (b->chars_max == GRAMMAR_CHARS_MAX && chars > b->chars_min) chars = b->chars_min;
    for (uint32_t i = 1; i < b->n; i++) { /* the first is where ^ holds: it is like no other */
        const struct position *p = &b->at[i];
        if (p->n == kept && p->chars == chars && p->matched == matched &&
            (kept == 0 || memcmp(ids_of(b, p), b->list, kept * sizeof *b->list) == 0))
            return i;
    }
    b->work += b->n + kept;
    if (b->n == SETS_MAX || b->work > WORK_MAX || b->g->error) {
        if (!b->g->error) b->g->error = ERR_LIMIT;
        return 0;
    }
    struct position p = {.first = (uint32_t)(b->ids.len / sizeof *b->list),
                         .n = kept,
                         .chars = chars,
                         .matched = matched};
    int rc = buf_append(&b->ids, b->list, kept * sizeof *b->list);
    if (rc) b->g->error = rc;
    p.state = grammar_state(b->g, false);
    b->at[b->n] = p;
    return b->n++;
}

static bool holds(const struct build *b, const struct nfa_node *n, uint32_t c) {
    for (uint32_t i = n->range; i < n->range + n->ranges; i++)
        if (c >= b->a.range[i].lo && c <= b->a.range[i].hi) return true;
    return false;
}

/* Where a character leads from position i: every pattern may also begin anew. */
static uint32_t follow(struct build *b, uint32_t i, uint32_t c) {
    struct position p = b->at[i];
    uint32_t matched = p.matched;
    for (uint32_t k = 0; k < p.n; k++) {
        const struct nfa_node *n = &b->a.node[ids_of(b, &p)[k]];
        if (n->kind == NFA_CHAR && holds(b, n, c)) reach(b, n->next, false, false, &matched);
    }
    for (uint32_t k = 0; k < b->patterns; k++) reach(b, b->starts[k], false, false, &matched);
    b->work += p.n + b->len;
    return position(b, p.chars + 1, matched);
}

/* ---- characters to bytes ---- */

/* The state before k continuation bytes of the characters base + 0 .. 64^k - 1, without those below
 * `least`, which have a shorter form. */
static uint32_t continued(struct grammar *g, const struct piece *p, uint32_t n, uint32_t base,
                          uint32_t k, uint32_t least) {
    struct grammar_edge e[64];
    uint32_t size = 1u << (6 * (k - 1)), edges = 0, same = GRAMMAR_NONE, same_to = 0;
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t lo = base + i * size, hi = lo + size - 1, to, first = 0;
        while (first < n && p[first].hi < lo) first++;
        if (hi < least || first == n || p[first].lo > hi) continue;
        bool whole = p[first].lo <= lo && p[first].hi >= hi;
        if (k == 1) {
            to = p[first].to;
        } else if (whole && same != GRAMMAR_NONE && same_to == p[first].to) {
            to = same;
        } else {
            to = continued(g, p + first, n - first, lo, k - 1, least);
            if (whole) same = to, same_to = p[first].to;
        }
        uint8_t byte = (uint8_t)(0x80 + i);
        if (edges > 0 && e[edges - 1].to == to && e[edges - 1].hi + 1 == byte)
            e[edges - 1].hi = byte;
        else
            e[edges++] = (struct grammar_edge){to, byte, byte};
    }
    uint32_t state = grammar_state(g, false);
    grammar_edges(g, state, e, edges);
    return state;
}

static uint32_t target(const struct piece *p, uint32_t n, uint32_t c) {
    for (uint32_t i = 0; i < n; i++)
        if (c >= p[i].lo && c <= p[i].hi) return p[i].to;
    return GRAMMAR_NONE;
}

static uint32_t escapes(struct grammar *g, const struct piece *p, uint32_t n) {
    static const char letter[] = "\"\\bfnrt", means[] = "\"\\\b\f\n\r\t";
    struct grammar_edge e[8];
    uint32_t edges = 0;
    for (uint32_t i = 0; letter[i]; i++) {
        uint32_t to = target(p, n, (uint8_t)means[i]);
        if (to != GRAMMAR_NONE)
            e[edges++] = (struct grammar_edge){to, (uint8_t)letter[i], (uint8_t)letter[i]};
    }
    if (edges == 0) return GRAMMAR_NONE;
    uint32_t state = grammar_state(g, false);
    grammar_edges(g, state, e, edges);
    return state;
}

static void byte_edges(struct grammar *g, uint32_t state, const struct piece *p, uint32_t n,
                       bool end) {
    struct grammar_edge e[256];
    uint32_t edges = 0, same[4] = {GRAMMAR_NONE, GRAMMAR_NONE, GRAMMAR_NONE, GRAMMAR_NONE};
    uint32_t same_to[4] = {0};
    for (uint32_t byte = 0x20; byte < 0xF5; byte++) {
        uint32_t to = GRAMMAR_NONE, k = byte < 0x80 ? 0 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
        if (byte == '"') {
            to = end ? GRAMMAR_END : GRAMMAR_NONE;
        } else if (byte == '\\') {
            to = escapes(g, p, n);
        } else if (byte < 0x80) {
            to = target(p, n, byte);
        } else if (byte >= 0xC2) {
            uint32_t least = k == 1 ? 0x80 : k == 2 ? 0x800 : 0x10000;
            uint32_t base = (byte & (0x3Fu >> k)) << (6 * k), first = 0;
            while (first < n && p[first].hi < base) first++;
            if (first == n || p[first].lo >= base + (1u << (6 * k))) continue;
            bool whole =
                base >= least && p[first].lo <= base && p[first].hi >= base + (1u << (6 * k)) - 1;
            if (whole && same[k] != GRAMMAR_NONE && same_to[k] == p[first].to)
                to = same[k];
            else
                to = continued(g, p + first, n - first, base, k, least);
            if (whole) same[k] = to, same_to[k] = p[first].to;
        }
        if (to == GRAMMAR_NONE) continue;
        if (edges > 0 && e[edges - 1].to == to && e[edges - 1].hi + 1u == byte)
            e[edges - 1].hi = (uint8_t)byte;
        else
            e[edges++] = (struct grammar_edge){to, (uint8_t)byte, (uint8_t)byte};
    }
    grammar_edges(g, state, e, edges);
}

/* ---- the automaton ---- */

/* Where the characters that a position tells apart begin, sorted. */
static uint32_t boundaries(const struct build *b, const struct position *p, uint32_t *cut,
                           uint32_t max) {
    static const uint32_t always[] = {0x08,  0x0B,   0x0C,   0x0E,    0x20,    0x80,
                                      0x800, 0xD800, 0xE000, 0x10000, 0x110000};
    uint32_t n = 0, kept = 0;
    for (uint32_t i = 0; i < sizeof always / sizeof *always; i++) cut[n++] = always[i];
    for (uint32_t k = 0; k < p->n; k++) {
        const struct nfa_node *node = &b->a.node[ids_of(b, p)[k]];
        if (node->kind != NFA_CHAR) continue;
        for (uint32_t i = node->range; i < node->range + node->ranges && n + 2 <= max; i++) {
            cut[n++] = b->a.range[i].lo;
            cut[n++] = b->a.range[i].hi + 1;
        }
    }
    qsort(cut, n, sizeof *cut, by_number);
    for (uint32_t i = 0; i < n; i++)
        if (kept == 0 || cut[kept - 1] != cut[i]) cut[kept++] = cut[i];
    return n + 2 > max ? 0 : kept;
}

static bool written(uint32_t c) { /* what this module writes of all characters */
    return (c >= 0x20 && !(c >= 0xD800 && c < 0xE000)) || (c >= 8 && c <= 13 && c != 11);
}

static void explore(struct build *b, uint32_t i, uint32_t *cut, struct piece *piece, uint32_t max) {
    struct position p = b->at[i];
    uint32_t cuts = boundaries(b, &p, cut, max), n = 0;
    if (cuts == 0) b->g->error = ERR_LIMIT;
    bool end = may_end(b, &p, i == 0);
    for (uint32_t k = 0; k + 1 < cuts && !b->g->error; k++) {
        if (!written(cut[k]) || p.chars >= b->chars_max) continue;
        uint32_t next = follow(b, i, cut[k]), to = b->at[next].state;
        if (n > 0 && piece[n - 1].to == to && piece[n - 1].hi + 1 == cut[k])
            piece[n - 1].hi = cut[k + 1] - 1;
        else
            piece[n++] = (struct piece){cut[k], cut[k + 1] - 1, to};
    }
    if (!b->g->error) byte_edges(b->g, p.state, piece, n, end);
}

#define CUTS_MAX 4096u

int pattern_states(struct grammar *g, const char *const *patterns, uint32_t n, uint32_t chars_min,
                   uint32_t chars_max, uint32_t *out, char *err, size_t err_bytes) {
    struct build b = {.g = g, .patterns = n, .chars_min = chars_min, .chars_max = chars_max};
    uint32_t *cut = calloc(CUTS_MAX, sizeof *cut), matched = 0;
    struct piece *piece = calloc(CUTS_MAX, sizeof *piece);
    int rc = nfa_init(&b.a);
    b.at = calloc(SETS_MAX, sizeof *b.at);
    b.seen = calloc(NFA_NODES_MAX, 1);
    b.list = calloc(NFA_NODES_MAX, sizeof *b.list);
    if (rc != 0 || !cut || !piece || !b.at || !b.seen || !b.list)
        rc = err_set(err, err_bytes, -ENOMEM, "no memory for a pattern");
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        rc = nfa_read(&b.a, patterns[i], i, &b.starts[i], err, (uint32_t)err_bytes);
    if (rc == 0) {
        for (uint32_t i = 0; i < n; i++) reach(&b, b.starts[i], true, false, &matched);
        position(&b, 0, matched);
        for (uint32_t i = 0; i < b.n && !g->error; i++) explore(&b, i, cut, piece, CUTS_MAX);
        struct grammar_edge quote = {b.at[0].state, '"', '"'};
        *out = grammar_state(g, false);
        grammar_edges(g, *out, &quote, 1);
        if (g->error)
            rc = err_set(err, err_bytes, g->error, "%.80s: needs too large an automaton",
                         patterns[0]);
    }
    nfa_fini(&b.a);
    free(cut);
    free(piece);
    free(b.at);
    free(b.seen);
    free(b.list);
    buf_fini(&b.ids);
    return rc;
}
