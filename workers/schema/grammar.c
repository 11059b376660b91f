#include "workers/schema/grammar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

uint32_t grammar_state(struct grammar *g, bool accept) {
    struct grammar_state s = {
        .call = GRAMMAR_NONE, .then = GRAMMAR_NONE, .also = GRAMMAR_NONE, .accept = accept};
    if (g->n_states == GRAMMAR_STATES_MAX) g->error = ERR_LIMIT;
    if (!g->error) g->error = buf_append(&g->states, &s, sizeof s);
    return g->error ? GRAMMAR_END : g->n_states++;
}

uint32_t grammar_call(struct grammar *g, uint32_t rule, uint32_t then) {
    uint32_t s = grammar_state(g, false);
    if (g->error) return s;
    grammar_at(g, s)->call = rule;
    grammar_at(g, s)->then = then;
    return s;
}

void grammar_also(struct grammar *g, uint32_t state, uint32_t also) {
    if (!g->error) grammar_at(g, state)->also = also;
}

void grammar_edges(struct grammar *g, uint32_t state, const struct grammar_edge *e, uint32_t n) {
    size_t at = g->edges.len / sizeof *e;
    if (at + n > GRAMMAR_EDGES_MAX) g->error = ERR_LIMIT;
    if (g->error || n == 0) return;
    g->error = buf_append(&g->edges, e, n * sizeof *e);
    if (g->error) return;
    grammar_at(g, state)->edge = (uint32_t)at;
    grammar_at(g, state)->edges = n;
}

static int by_text(const void *left, const void *right) {
    const struct grammar_literal *a = left, *b = right;
    uint32_t n = a->bytes < b->bytes ? a->bytes : b->bytes;
    int order = n ? memcmp(a->text, b->text, n) : 0;
    return order ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* The literals agree in their first `depth` bytes, which led to `state`. */
static void branch(struct grammar *g, uint32_t state, const struct grammar_literal *list,
                   uint32_t n, uint32_t depth) {
    while (!g->error && n > 0) {
        struct grammar_edge e[256];
        uint32_t first[257], k = 0;
        while (n > 0 && list->bytes == depth) {
            grammar_at(g, state)->accept = true;
            list++, n--;
        }
        for (uint32_t i = 0; i < n; i++) {
            uint8_t byte = list[i].text[depth];
            if (k > 0 && e[k - 1].lo == byte) continue;
            first[k] = i;
            e[k++] = (struct grammar_edge){.lo = byte, .hi = byte};
        }
        first[k] = n;
        for (uint32_t i = 0; i < k; i++) {
            bool ends = first[i + 1] - first[i] == 1 && list[first[i]].bytes == depth + 1;
            e[i].to = ends ? list[first[i]].to : grammar_state(g, false);
        }
        grammar_edges(g, state, e, k);
        depth++;
        for (uint32_t i = 0; k > 1 && i < k; i++)
            if (first[i + 1] - first[i] > 1 || list[first[i]].bytes > depth)
                branch(g, e[i].to, list + first[i], first[i + 1] - first[i], depth);
        if (k != 1 || (n == 1 && list->bytes == depth)) return;
        state = e[0].to;
    }
}

void grammar_literals(struct grammar *g, uint32_t state, struct grammar_literal *list, uint32_t n) {
    uint32_t kept = 0;
    qsort(list, n, sizeof *list, by_text);
    for (uint32_t i = 0; i < n; i++)
        if (kept == 0 || by_text(&list[kept - 1], &list[i]) != 0) list[kept++] = list[i];
    branch(g, state, list, kept, 0);
}

uint32_t grammar_rule(struct grammar *g) {
    struct grammar_rule r = {.dist = GRAMMAR_FAR};
    if (!g->error) g->error = buf_append(&g->rules, &r, sizeof r);
    return g->error ? 0 : g->n_rules++;
}

void grammar_starts(struct grammar *g, uint32_t rule, const uint32_t *starts, uint32_t n) {
    uint32_t at = (uint32_t)(g->starts.len / sizeof *starts);
    if (!g->error) g->error = buf_append(&g->starts, starts, n * sizeof *starts);
    if (g->error) return;
    grammar_rule_at(g, rule)->start = at;
    grammar_rule_at(g, rule)->starts = n;
}

uint32_t grammar_text(struct grammar *g, uint32_t chars_min, uint32_t chars_max) {
    uint32_t rule = grammar_rule(g), start = TEXT_QUOTE;
    grammar_starts(g, rule, &start, 1);
    if (g->error) return rule;
    grammar_rule_at(g, rule)->chars_min = chars_min;
    grammar_rule_at(g, rule)->chars_max = chars_max;
    return rule;
}

/* JSON's string (RFC 8259, section 7) with only the escapes that have a letter and are needed. */
static void shared_states(struct grammar *g) {
    static const struct grammar_edge quote[] = {{TEXT_BODY, '"', '"'}};
    static const struct grammar_edge body[] = {
        {TEXT_BODY, 0x20, 0x21},   {GRAMMAR_END, '"', '"'}, {TEXT_BODY, 0x23, 0x5B},
        {TEXT_ESCAPE, '\\', '\\'}, {TEXT_BODY, 0x5D, 0x7F}, {TEXT_1, 0xC2, 0xDF},
        {TEXT_E0, 0xE0, 0xE0},     {TEXT_2, 0xE1, 0xEC},    {TEXT_ED, 0xED, 0xED},
        {TEXT_2, 0xEE, 0xEF},      {TEXT_F0, 0xF0, 0xF0},   {TEXT_3, 0xF1, 0xF3},
        {TEXT_F4, 0xF4, 0xF4}};
    static const struct grammar_edge escape[] = {{TEXT_BODY, '"', '"'}, {TEXT_BODY, '\\', '\\'},
                                                 {TEXT_BODY, 'b', 'b'}, {TEXT_BODY, 'f', 'f'},
                                                 {TEXT_BODY, 'n', 'n'}, {TEXT_BODY, 'r', 'r'},
                                                 {TEXT_BODY, 't', 't'}};
    static const struct grammar_edge due[] = {
        {TEXT_BODY, 0x80, 0xBF}, {TEXT_1, 0x80, 0xBF}, {TEXT_2, 0x80, 0xBF}, {TEXT_1, 0xA0, 0xBF},
        {TEXT_1, 0x80, 0x9F},    {TEXT_2, 0x90, 0xBF}, {TEXT_2, 0x80, 0x8F}};
    for (uint32_t s = 0; s < GRAMMAR_SHARED; s++) grammar_state(g, s == GRAMMAR_END);
    grammar_edges(g, TEXT_QUOTE, quote, 1);
    grammar_edges(g, TEXT_BODY, body, sizeof body / sizeof *body);
    grammar_edges(g, TEXT_ESCAPE, escape, sizeof escape / sizeof *escape);
    for (uint32_t s = TEXT_1; s <= TEXT_F4; s++) grammar_edges(g, s, &due[s - TEXT_1], 1);
}

int grammar_init(struct grammar *g) {
    *g = (struct grammar){0};
    shared_states(g);
    grammar_text(g, 0, GRAMMAR_CHARS_MAX); /* rule 0: any string */
    return g->error;
}

void grammar_fini(struct grammar *g) {
    buf_fini(&g->states);
    buf_fini(&g->edges);
    buf_fini(&g->starts);
    buf_fini(&g->rules);
}

static uint32_t sum(uint32_t a, uint32_t b) {
    return a + b < GRAMMAR_FAR ? a + b : GRAMMAR_FAR;
}

static uint32_t edge_dist(const struct grammar *g, const struct grammar_state *s,
                          const bool single[256]) {
    uint32_t best = s->accept ? 0 : GRAMMAR_FAR;
    const struct grammar_edge *e = (const struct grammar_edge *)(const void *)g->edges.data;
    for (uint32_t i = s->edge; i < s->edge + s->edges; i++) {
        uint32_t d = sum(grammar_at(g, e[i].to)->dist, 1);
        if (d >= best) continue;
        for (uint32_t b = e[i].lo; b <= e[i].hi; b++)
            if (single[b]) best = d;
    }
    if (s->call != GRAMMAR_NONE) {
        uint32_t d = sum(grammar_rule_at(g, s->call)->dist, grammar_at(g, s->then)->dist);
        if (d < best) best = d;
    }
    if (s->also != GRAMMAR_NONE && grammar_at(g, s->also)->dist < best)
        best = grammar_at(g, s->also)->dist;
    return best;
}

void grammar_measure(struct grammar *g, const bool single[256]) {
    bool changed = true;
    for (uint32_t i = 0; i < g->n_states; i++) grammar_at(g, i)->dist = GRAMMAR_FAR;
    for (uint32_t i = 0; i < g->n_rules; i++) grammar_rule_at(g, i)->dist = GRAMMAR_FAR;
    while (changed) { /* distances only fall; states are made from front to back */
        changed = false;
        for (uint32_t i = g->n_states; i-- > 0;) {
            struct grammar_state *s = grammar_at(g, i);
            uint32_t d = edge_dist(g, s, single);
            changed |= d < s->dist;
            s->dist = d;
        }
        for (uint32_t i = 0; i < g->n_rules; i++) {
            struct grammar_rule *r = grammar_rule_at(g, i);
            uint32_t best = GRAMMAR_FAR;
            for (uint32_t k = 0; k < r->starts; k++) {
                uint32_t d = grammar_at(g, grammar_start_at(g, r->start + k))->dist;
                if (d < best) best = d;
            }
            best = sum(best, r->chars_min); /* a character is a byte at least, and can be one */
            changed |= best < r->dist;
            r->dist = best;
        }
    }
}

uint32_t grammar_next(const struct grammar *g, uint32_t state, uint8_t byte) {
    const struct grammar_state *s = grammar_at(g, state);
    const struct grammar_edge *e = (const struct grammar_edge *)(const void *)g->edges.data;
    uint32_t low = s->edge, high = s->edge + s->edges;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (byte > e[middle].hi)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->edge + s->edges && byte >= e[low].lo ? e[low].to : GRAMMAR_NONE;
}
