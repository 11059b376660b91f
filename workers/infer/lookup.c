#include "workers/infer/lookup.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

struct lookup {
    uint32_t *ids;  /* [n] of room for max */
    uint32_t *head; /* [1 << bits] the last place behind a pair of this hash; 0: none */
    uint32_t *prev; /* [max + 1] the place before it, for each */
    uint32_t n, max, bits;
    uint32_t from, match; /* the place that is guessed from, and how much is alike before it */
    bool searched;        /* there is none when match is 0 */
};

int lookup_open(struct lookup **out, uint32_t tokens_max) {
    struct lookup *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l) return -ENOMEM;
    l->max = tokens_max;
    while (l->bits < 30 && 1u << l->bits < tokens_max) l->bits++;
    l->ids = malloc(((size_t)tokens_max + 1) * sizeof *l->ids);
    l->prev = malloc(((size_t)tokens_max + 1) * sizeof *l->prev);
    l->head = calloc((size_t)1 << l->bits, sizeof *l->head);
    if (!l->ids || !l->prev || !l->head) {
        lookup_close(l);
        return -ENOMEM;
    }
    *out = l;
    return 0;
}

void lookup_close(struct lookup *l) {
    if (!l) return;
    free(l->ids);
    free(l->prev);
    free(l->head);
    free(l);
}

uint32_t lookup_len(const struct lookup *l) {
    return l->n;
}

/* Of the pair before a place: its first and last bits, mixed by an odd factor. */
static uint32_t *head_of(const struct lookup *l, uint32_t place) {
    uint64_t pair = (uint64_t)l->ids[place - 2] << 32 | l->ids[place - 1];
    return &l->head[l->bits ? pair * 0x9E3779B97F4A7C15u >> (64 - l->bits) : 0];
}

void lookup_add(struct lookup *l, uint32_t id) {
    assert(l->n < l->max);
    if (l->match > 0 && l->ids[l->from] == id) {
        l->from++;
        if (l->match < LOOKUP_MATCH_MAX) l->match++;
    } else {
        l->match = 0;
        l->searched = false;
    }
    l->ids[l->n++] = id;
    l->prev[l->n] = 0;
    if (l->n < 2) return;
    uint32_t *head = head_of(l, l->n);
    l->prev[l->n] = *head;
    *head = l->n;
}

static uint32_t alike(const struct lookup *l, uint32_t place) {
    uint32_t n = 0, most = place < LOOKUP_MATCH_MAX ? place : LOOKUP_MATCH_MAX;
    while (n < most && l->ids[place - 1 - n] == l->ids[l->n - 1 - n]) n++;
    return n;
}

static void search(struct lookup *l) {
    uint32_t place = l->prev[l->n];
    l->searched = true;
    for (uint32_t i = 0; i < LOOKUP_TRIES && place > 0; i++, place = l->prev[place]) {
        uint32_t match = alike(l, place);
        if (match < 2 || match <= l->match) continue; /* another pair, or no better */
        l->match = match;
        l->from = place;
    }
}

uint32_t lookup_match(struct lookup *l) {
    if (l->match == 0 && !l->searched && l->n > 2) search(l);
    return l->match;
}

uint32_t lookup_guess(struct lookup *l, uint32_t n, uint32_t *ids) {
    if (lookup_match(l) == 0) return 0;
    uint32_t known = l->n - l->from;
    for (uint32_t i = 0; i < n; i++) ids[i] = i < known ? l->ids[l->from + i] : ids[i - known];
    return n;
}
