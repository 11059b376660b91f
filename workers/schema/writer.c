#include "workers/schema/writer.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

static struct writer_frame *frame_at(const struct writer *w, uint32_t frame) {
    return (struct writer_frame *)(void *)w->frames.data + frame;
}

/* Tokens that end the whole text from here. */
static uint32_t dist_of(const struct writer *w, const struct writer_place *p) {
    uint32_t dist = grammar_at(w->g, p->state)->dist;
    if (p->frame == GRAMMAR_NONE) return dist;
    const struct writer_frame *f = frame_at(w, p->frame);
    if (p->state < GRAMMAR_END) {
        uint32_t min = grammar_rule_at(w->g, f->rule)->chars_min;
        uint32_t chars = p->state == TEXT_QUOTE ? 0 : p->chars;
        if (min > chars) dist += min - chars;
    }
    return dist + f->dist;
}

static void keep(struct writer *w, struct writer_place p, struct writer_places *out) {
    for (uint32_t i = 0; i < out->n; i++)
        if (memcmp(&out->at[i], &p, sizeof p) == 0) return;
    if (out->n < WRITER_PLACES_MAX) {
        out->at[out->n++] = p;
        return;
    }
    uint32_t worst = 0; /* fewer places are fewer texts, never wrong ones */
    for (uint32_t i = 1; i < out->n; i++)
        if (dist_of(w, &out->at[i]) > dist_of(w, &out->at[worst])) worst = i;
    if (dist_of(w, &p) < dist_of(w, &out->at[worst])) out->at[worst] = p;
}

static int enter(struct writer *w, const struct writer_place *p, uint32_t rule, uint32_t then,
                 uint32_t *frame) {
    struct writer_frame f = {.then = then, .rule = rule, .parent = p->frame, .depth = 1};
    f.dist = grammar_at(w->g, then)->dist;
    if (p->frame != GRAMMAR_NONE) {
        f.dist += frame_at(w, p->frame)->dist;
        f.depth += frame_at(w, p->frame)->depth;
    }
    *frame = (uint32_t)(w->frames.len / sizeof f);
    return buf_append(&w->frames, &f, sizeof f);
}

/* Adds a place with all that it is without another byte: calls entered, ended rules left. */
static int settle(struct writer *w, struct writer_place p, struct writer_places *out) {
    for (;;) {
        const struct grammar_state *s = grammar_at(w->g, p.state);
        int rc = 0;
        if (s->dist >= GRAMMAR_FAR) return 0;
        if (s->also != GRAMMAR_NONE)
            rc = settle(w, (struct writer_place){s->also, p.frame, p.chars}, out);
        if (s->call != GRAMMAR_NONE) {
            const struct grammar_rule *r = grammar_rule_at(w->g, s->call);
            uint32_t frame;
            if (rc == 0) rc = enter(w, &p, s->call, s->then, &frame);
            for (uint32_t i = 0; rc == 0 && i < r->starts; i++) {
                uint32_t start = grammar_start_at(w->g, r->start + i);
                rc = settle(w, (struct writer_place){start, frame, 0}, out);
            }
            return rc;
        }
        if (rc < 0) return rc;
        if (s->edges > 0 || (s->accept && p.frame == GRAMMAR_NONE)) keep(w, p, out);
        if (s->edges > 0 || !s->accept || p.frame == GRAMMAR_NONE) return 0;
        p.state = frame_at(w, p.frame)->then;
        p.frame = frame_at(w, p.frame)->parent;
        p.chars = 0;
    }
}

/* Counts a string's characters; false when its bounds forbid the byte. */
static bool count_char(const struct writer *w, struct writer_place *p, uint8_t byte) {
    if (p->state == TEXT_QUOTE) p->chars = 0;
    if (p->state != TEXT_BODY) return true;
    const struct grammar_rule *r = grammar_rule_at(w->g, frame_at(w, p->frame)->rule);
    if (byte == '"') return p->chars >= r->chars_min;
    return p->chars++ < r->chars_max;
}

static int step(struct writer *w, struct writer_place p, uint8_t byte, struct writer_places *out) {
    uint32_t to = grammar_next(w->g, p.state, byte);
    if (to != GRAMMAR_NONE) {
        if (grammar_at(w->g, to)->dist >= GRAMMAR_FAR || !count_char(w, &p, byte)) return 0;
        p.state = to;
        return settle(w, p, out);
    }
    if (!grammar_at(w->g, p.state)->accept || p.frame == GRAMMAR_NONE) return 0;
    struct writer_places over = {.n = 0}; /* the rule is over before this byte */
    const struct writer_frame *f = frame_at(w, p.frame);
    int rc = settle(w, (struct writer_place){f->then, f->parent, 0}, &over);
    for (uint32_t i = 0; rc == 0 && i < over.n; i++) rc = step(w, over.at[i], byte, out);
    return rc;
}

static uint32_t nearest(const struct writer *w, const struct writer_places *places) {
    uint32_t best = GRAMMAR_FAR;
    for (uint32_t i = 0; i < places->n; i++) {
        uint32_t d = dist_of(w, &places->at[i]);
        if (d < best) best = d;
    }
    return best;
}

int writer_prepare(struct grammar *g, const struct lexicon *l, char *err, size_t err_bytes) {
    grammar_measure(g, l->single);
    if (writer_shortest(g) < GRAMMAR_FAR) return 0;
    return err_set(err, err_bytes, ERR_FIELD,
                   "schema: the model's vocabulary lacks a byte that every text of it needs");
}

uint32_t writer_shortest(const struct grammar *g) {
    return grammar_rule_at(g, g->root)->dist;
}

int writer_init(struct writer *w, const struct grammar *g, const struct lexicon *l,
                uint32_t tokens_max, char *err, size_t err_bytes) {
    *w = (struct writer){.g = g, .l = l, .left = tokens_max};
    if (tokens_max < writer_shortest(g))
        return err_set(err, err_bytes, ERR_LIMIT,
                       "schema: its shortest text needs max_tokens of at least %u, not %u",
                       writer_shortest(g), tokens_max);
    struct writer_place root = {GRAMMAR_END, GRAMMAR_NONE, 0};
    const struct grammar_rule *r = grammar_rule_at(g, g->root);
    uint32_t frame;
    w->walk = calloc((size_t)l->longest + 1, sizeof *w->walk);
    w->mark = calloc((size_t)l->longest + 1, sizeof *w->mark);
    int rc = w->walk && w->mark ? enter(w, &root, g->root, GRAMMAR_END, &frame) : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < r->starts; i++) {
        uint32_t start = grammar_start_at(g, r->start + i);
        rc = settle(w, (struct writer_place){start, frame, 0}, &w->now);
    }
    if (rc == 0) return 0;
    writer_fini(w);
    return err_set(err, err_bytes, rc, "schema: no memory");
}

void writer_fini(struct writer *w) {
    buf_fini(&w->frames);
    free(w->walk);
    free(w->mark);
    *w = (struct writer){0};
}

/* What may be left to do behind the next token. */
static uint32_t allowed(const struct writer *w) {
    uint32_t near = nearest(w, &w->now), left = w->left;
    for (uint32_t i = 0; i < w->now.n; i++)
        if (w->now.at[i].frame != GRAMMAR_NONE &&
            frame_at(w, w->now.at[i].frame)->depth > WRITER_DEPTH_MAX && left > near)
            left = near;
    return left;
}

int writer_mask(struct writer *w, uint32_t *bits) {
    const struct lexicon *l = w->l;
    size_t frames = w->frames.len;
    uint32_t budget = allowed(w);
    int rc = 0;
    memset(bits, 0, (l->vocab + 31) / 32 * sizeof *bits);
    w->walk[0] = w->now;
    w->mark[0] = (uint32_t)frames;
    for (uint32_t i = 0; rc == 0 && budget > 0 && i < l->nodes;) {
        const struct lexicon_node *n = &l->node[i];
        const struct writer_places *from = &w->walk[n->depth - 1];
        struct writer_places *to = &w->walk[n->depth];
        to->n = 0;
        w->frames.len = w->mark[n->depth - 1];
        for (uint32_t k = 0; rc == 0 && k < from->n; k++) rc = step(w, from->at[k], n->byte, to);
        w->mark[n->depth] = (uint32_t)w->frames.len;
        if (n->tokens > 0 && to->n > 0 && nearest(w, to) < budget)
            for (uint32_t k = n->token; k < n->token + n->tokens; k++) {
                uint32_t id = l->ids[k];
                if (w->taken > 0 || !l->word[id].differs) bits[id / 32] |= 1u << (id % 32);
            }
        i = to->n > 0 ? i + 1 : n->end;
    }
    w->frames.len = frames;
    return rc;
}

int writer_take(struct writer *w, uint32_t token) {
    const struct lexicon *l = w->l;
    if (token >= l->vocab || l->word[token].bytes == 0 || w->left == 0) return ERR_FIELD;
    const uint8_t *text = l->text.data + l->word[token].begin;
    for (uint32_t i = 0; i < l->word[token].bytes; i++) {
        struct writer_places to = {.n = 0};
        for (uint32_t k = 0; k < w->now.n; k++) {
            int rc = step(w, w->now.at[k], text[i], &to);
            if (rc < 0) return rc;
        }
        w->now = to;
        if (to.n == 0) return ERR_FIELD;
    }
    w->left--;
    w->taken++;
    return 0;
}

bool writer_may_end(const struct writer *w) {
    return w->now.n > 0 && nearest(w, &w->now) == 0;
}

bool writer_must_end(const struct writer *w) {
    for (uint32_t i = 0; i < w->now.n; i++)
        if (grammar_at(w->g, w->now.at[i].state)->edges > 0) return false;
    return writer_may_end(w);
}
