#include "workers/schema/walk.h"

#include <string.h>

uint32_t walk_dist(const struct walk *w, const struct walk_place *p) {
    uint32_t dist = grammar_at(w->g, p->state)->dist;
    if (p->frame == GRAMMAR_NONE) return dist;
    const struct walk_frame *f = walk_frame_at(w, p->frame);
    if (p->state < GRAMMAR_END) {
        uint32_t min = grammar_rule_at(w->g, f->rule)->chars_min;
        uint32_t chars = p->state == TEXT_QUOTE ? 0 : p->chars;
        if (min > chars) dist += min - chars;
    }
    return dist + f->dist;
}

uint32_t walk_nearest(const struct walk *w, const struct walk_places *places) {
    uint32_t best = GRAMMAR_FAR;
    for (uint32_t i = 0; i < places->n; i++) {
        uint32_t d = walk_dist(w, &places->at[i]);
        if (d < best) best = d;
    }
    return best;
}

void walk_keep(const struct walk *w, struct walk_place p, struct walk_places *out) {
    for (uint32_t i = 0; i < out->n; i++)
        if (memcmp(&out->at[i], &p, sizeof p) == 0) return;
    if (out->n < WALK_PLACES_MAX) {
        out->at[out->n++] = p;
        return;
    }
    uint32_t worst = 0;
    for (uint32_t i = 1; i < out->n; i++)
        if (walk_dist(w, &out->at[i]) > walk_dist(w, &out->at[worst])) worst = i;
    if (walk_dist(w, &p) < walk_dist(w, &out->at[worst])) out->at[worst] = p;
}

/* Adds a place with all that it is without another byte: calls entered, ended rules left. */
static int settle(struct walk *w, struct walk_place p, struct walk_places *out) {
    for (;;) {
        const struct grammar_state *s = grammar_at(w->g, p.state);
        int rc = 0;
        if (s->dist >= GRAMMAR_FAR) return 0;
        if (s->also != GRAMMAR_NONE)
            rc = settle(w, (struct walk_place){s->also, p.frame, p.chars}, out);
        if (rc < 0) return rc;
        if (s->call != GRAMMAR_NONE) return walk_enter(w, p, s->call, s->then, out);
        if (s->edges > 0 || (s->accept && p.frame == GRAMMAR_NONE)) walk_keep(w, p, out);
        if (s->edges > 0 || !s->accept || p.frame == GRAMMAR_NONE) return 0;
        const struct walk_frame *f = walk_frame_at(w, p.frame);
        p = (struct walk_place){f->then, f->parent, 0};
    }
}

int walk_enter(struct walk *w, struct walk_place p, uint32_t rule, uint32_t then,
               struct walk_places *out) {
    const struct grammar_rule *r = grammar_rule_at(w->g, rule);
    struct walk_frame f = {.then = then, .rule = rule, .parent = p.frame, .depth = 1};
    f.dist = grammar_at(w->g, then)->dist;
    if (p.frame != GRAMMAR_NONE) {
        f.dist += walk_frame_at(w, p.frame)->dist;
        f.depth += walk_frame_at(w, p.frame)->depth;
    }
    uint32_t frame = (uint32_t)(w->frames.len / sizeof f);
    int rc = buf_append(&w->frames, &f, sizeof f);
    for (uint32_t i = 0; rc == 0 && i < r->starts; i++) {
        uint32_t start = grammar_start_at(w->g, r->start + i);
        rc = settle(w, (struct walk_place){start, frame, 0}, out);
    }
    return rc;
}

int walk_leave(struct walk *w, uint32_t frame, struct walk_places *out) {
    const struct walk_frame *f = walk_frame_at(w, frame);
    return settle(w, (struct walk_place){f->then, f->parent, 0}, out);
}

/* Counts a string's characters; false when its bounds forbid the byte. */
static bool count_char(const struct walk *w, struct walk_place *p, uint8_t byte) {
    if (p->state == TEXT_QUOTE) p->chars = 0;
    if (p->state != TEXT_BODY) return true;
    const struct grammar_rule *r = grammar_rule_at(w->g, walk_frame_at(w, p->frame)->rule);
    if (byte == '"') return p->chars >= r->chars_min;
    return p->chars++ < r->chars_max;
}

int walk_step(struct walk *w, struct walk_place p, uint8_t byte, struct walk_places *out) {
    uint32_t to = grammar_next(w->g, p.state, byte);
    if (to != GRAMMAR_NONE) {
        if (grammar_at(w->g, to)->dist >= GRAMMAR_FAR || !count_char(w, &p, byte)) return 0;
        p.state = to;
        return settle(w, p, out);
    }
    if (!grammar_at(w->g, p.state)->accept || p.frame == GRAMMAR_NONE) return 0;
    struct walk_places over = {.n = 0}; /* the rule is over before this byte */
    int rc = walk_leave(w, p.frame, &over);
    for (uint32_t i = 0; rc == 0 && i < over.n; i++) rc = walk_step(w, over.at[i], byte, out);
    return rc;
}
