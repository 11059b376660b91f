#include "workers/schema/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

uint32_t writer_shortest(const struct masks *m) {
    return grammar_rule_at(m->g, m->g->root)->dist;
}

int writer_init(struct writer *w, const struct masks *m, uint32_t tokens_max, char *err,
                size_t err_bytes) {
    *w = (struct writer){.m = m, .walk.g = m->g, .left = tokens_max};
    if (tokens_max < writer_shortest(m))
        return err_set(err, err_bytes, ERR_LIMIT,
                       "schema: its shortest text needs %u tokens; max_tokens and the context "
                       "leave %u",
                       writer_shortest(m), tokens_max);
    struct walk_place root = {GRAMMAR_END, GRAMMAR_NONE, 0};
    w->level = calloc((size_t)m->l->longest + 1, sizeof *w->level);
    int rc = w->level ? walk_enter(&w->walk, root, m->g->root, GRAMMAR_END, &w->now) : -ENOMEM;
    if (rc == 0) return 0;
    writer_fini(w);
    return err_set(err, err_bytes, rc, "schema: no memory");
}

void writer_fini(struct writer *w) {
    buf_fini(&w->walk.frames);
    free(w->level);
    *w = (struct writer){0};
}

/* Less than this may be left to do behind the next token. */
static uint32_t allowed(const struct writer *w) {
    uint32_t near = walk_nearest(&w->walk, &w->now), left = w->left;
    for (uint32_t i = 0; i < w->now.n; i++)
        if (w->now.at[i].frame != GRAMMAR_NONE &&
            walk_frame_at(&w->walk, w->now.at[i].frame)->depth > WRITER_DEPTH_MAX && left > near)
            left = near;
    return left;
}

int writer_mask(struct writer *w, uint32_t *bits) {
    const struct lexicon *l = w->m->l;
    uint32_t budget = allowed(w), words = (l->vocab + 31) / 32;
    int rc = 0;
    memset(bits, 0, words * sizeof *bits);
    for (uint32_t i = 0; rc == 0 && budget > 0 && i < w->now.n; i++)
        rc = masks_add(w->m, &w->walk, w->now.at[i], budget, w->level, bits);
    for (uint32_t i = 0; w->taken == 0 && i < words; i++) bits[i] &= ~l->differs[i];
    return rc;
}

/* The places behind a token, each place of now followed by itself as its mask does. */
static int follow(struct writer *w, uint32_t token, struct walk_places *out) {
    const struct lexicon *l = w->m->l;
    const uint8_t *text = l->text.data + l->word[token].begin;
    out->n = 0;
    for (uint32_t k = 0; k < w->now.n; k++) {
        struct walk_places at = {.at[0] = w->now.at[k], .n = 1};
        for (uint32_t i = 0; i < l->word[token].bytes; i++) {
            struct walk_places next = {.n = 0};
            for (uint32_t j = 0; j < at.n; j++) {
                int rc = walk_step(&w->walk, at.at[j], text[i], &next);
                if (rc < 0) return rc;
            }
            at = next;
        }
        for (uint32_t j = 0; j < at.n; j++) walk_keep(&w->walk, at.at[j], out);
    }
    return 0;
}

static bool is_word(const struct writer *w, uint32_t token) {
    return token < w->m->l->vocab && w->m->l->word[token].bytes > 0 && w->left > 0 &&
           (w->taken > 0 || !w->m->l->word[token].differs);
}

int writer_allows(struct writer *w, uint32_t token) {
    struct walk_places to;
    size_t frames = w->walk.frames.len;
    if (!is_word(w, token)) return 0;
    int rc = follow(w, token, &to);
    if (rc == 0) rc = to.n > 0 && walk_nearest(&w->walk, &to) < allowed(w);
    w->walk.frames.len = frames;
    return rc;
}

int writer_take(struct writer *w, uint32_t token) {
    struct walk_places to;
    if (!is_word(w, token)) return ERR_FIELD;
    int rc = follow(w, token, &to);
    if (rc < 0) return rc;
    if (to.n == 0 || walk_nearest(&w->walk, &to) >= w->left) return ERR_FIELD;
    w->now = to;
    w->left--;
    w->taken++;
    return 0;
}

bool writer_may_end(const struct writer *w) {
    return w->now.n > 0 && walk_nearest(&w->walk, &w->now) == 0;
}

bool writer_must_end(const struct writer *w) {
    for (uint32_t i = 0; i < w->now.n; i++)
        if (grammar_at(w->m->g, w->now.at[i].state)->edges > 0) return false;
    return writer_may_end(w);
}
