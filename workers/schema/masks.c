#include "workers/schema/masks.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define DENSE_MIN 512u /* tokens: fewer are faster one by one */
#define GROUPS_MAX 4096u

static const struct mask_group *group_at(const struct masks *m, uint32_t i) {
    return (const struct mask_group *)(const void *)m->groups.data + i;
}

static const struct mask_run *run_at(const struct masks *m, uint32_t i) {
    return (const struct mask_run *)(const void *)m->runs.data + i;
}

/* ---- making them ---- */

/* The state in the making. A text that starts there is followed with nothing known of its stack:
 * frame 0 stands for it, and behind that frame the text is over. */
struct making {
    struct masks *m;
    struct walk walk;
    struct walk_places *level; /* [longest + 1] */
    uint32_t *mark, *chars;    /* [longest + 1]: frames, characters when the rule was over */
    struct mask_group group[GROUPS_MAX];
    uint32_t groups, last; /* last: the group found last */
    struct buf told;       /* struct told */
    struct buf left;       /* struct leaving */
    bool text;             /* a state that all strings share */
    int error;
};
struct told {
    uint32_t node, group;
};
struct leaving {
    struct mask_exit exit;
    uint8_t byte;
};

static bool in_group(const struct mask_group *g, uint32_t need, uint32_t chars, bool closed) {
    return g->need == need && g->chars == chars && g->closed == closed;
}

static void tell(struct making *k, uint32_t node, uint32_t need, uint32_t chars, bool closed) {
    uint32_t i = k->last;
    if (k->groups == 0 || !in_group(&k->group[i], need, chars, closed))
        for (i = 0; i < k->groups && !in_group(&k->group[i], need, chars, closed);) i++;
    if (i == GROUPS_MAX) {
        k->error = ERR_LIMIT;
        return;
    }
    if (i == k->groups)
        k->group[k->groups++] = (struct mask_group){.need = need, .chars = chars, .closed = closed};
    k->group[i].n += k->m->l->node[node].tokens;
    k->last = i;
    struct told t = {node, i};
    int rc = buf_append(&k->told, &t, sizeof t);
    if (rc) k->error = rc;
}

/* Notes that the rule is over before this node's byte, when that is possible. */
static void leave(struct making *k, uint32_t node, const struct walk_places *from) {
    const struct lexicon_node *n = &k->m->l->node[node];
    bool over = false;
    for (uint32_t i = 0; i < from->n && !over; i++) {
        const struct walk_place *p = &from->at[i];
        over =
            p->frame == GRAMMAR_NONE || (p->frame == 0 && grammar_at(k->m->g, p->state)->accept &&
                                         grammar_next(k->m->g, p->state, n->byte) == GRAMMAR_NONE);
    }
    struct leaving l = {{node, k->chars[n->depth - 1]}, n->byte};
    int rc = over ? buf_append(&k->left, &l, sizeof l) : 0;
    if (rc) k->error = rc;
}

/* The usual step: one place, within the rule, to a state that only has edges. */
static bool simple_step(struct making *k, const struct walk_places *from, uint8_t byte,
                        struct walk_places *to) {
    const struct walk_place *p = &from->at[0];
    if (from->n != 1 || p->frame != 0 || k->text) return false;
    uint32_t next = grammar_next(k->m->g, p->state, byte);
    if (next == GRAMMAR_NONE) return false;
    const struct grammar_state *s = grammar_at(k->m->g, next);
    if (s->dist >= GRAMMAR_FAR || s->edges == 0 || s->call != GRAMMAR_NONE ||
        s->also != GRAMMAR_NONE)
        return false;
    to->at[0] = (struct walk_place){next, 0, p->chars};
    to->n = 1;
    return true;
}

/* Follows one node; false when nothing under it is legal. */
static bool follow(struct making *k, uint32_t node) {
    const struct lexicon_node *n = &k->m->l->node[node];
    const struct walk_places *from = &k->level[n->depth - 1];
    struct walk_places *to = &k->level[n->depth];
    bool closed = false;
    to->n = 0;
    k->m->work++;
    k->walk.frames.len = k->mark[n->depth - 1];
    if (!simple_step(k, from, n->byte, to)) {
        leave(k, node, from);
        for (uint32_t i = 0; i < from->n && !k->error; i++)
            k->error = walk_step(&k->walk, from->at[i], n->byte, to);
    }
    k->mark[n->depth] = (uint32_t)k->walk.frames.len;
    if (to->n == 0 || k->error) return false;
    closed = k->text && to->at[0].frame == GRAMMAR_NONE;
    k->chars[n->depth] = !k->text ? 0 : closed ? from->at[0].chars : to->at[0].chars;
    if (n->tokens > 0) tell(k, node, walk_nearest(&k->walk, to), k->chars[n->depth], closed);
    return true;
}

static void walk_trie(struct making *k) {
    const struct lexicon *l = k->m->l;
    for (uint32_t b = 0; b < 256 && !k->error; b++)
        for (uint32_t i = l->begin[b]; i < l->begin[b + 1] && !k->error;) {
            i = follow(k, i) ? i + 1 : l->node[i].end;
            if (k->m->work > MASKS_WORK_MAX) k->error = ERR_LIMIT;
        }
}

static int by_byte(const void *left, const void *right) {
    const struct leaving *a = left, *b = right;
    if (a->byte != b->byte) return a->byte < b->byte ? -1 : 1;
    return (a->exit.node > b->exit.node) - (a->exit.node < b->exit.node);
}

static int store_exits(struct making *k, struct mask_state *s) {
    struct masks *m = k->m;
    struct leaving *l = (struct leaving *)(void *)k->left.data;
    uint32_t n = (uint32_t)(k->left.len / sizeof *l);
    s->run = (uint32_t)(m->runs.len / sizeof(struct mask_run));
    if (n > 0) qsort(l, n, sizeof *l, by_byte);
    for (uint32_t i = 0, end; i < n; i = end) {
        for (end = i; end < n && l[end].byte == l[i].byte;) end++;
        struct mask_run r = {.first = (uint32_t)(m->exits.len / sizeof(struct mask_exit)),
                             .n = end - i,
                             .byte = l[i].byte};
        int rc = buf_append(&m->runs, &r, sizeof r);
        for (uint32_t j = i; rc == 0 && j < end; j++)
            rc = buf_append(&m->exits, &l[j].exit, sizeof l[j].exit);
        if (rc) return rc;
        s->runs++;
    }
    return 0;
}

static void set_node(const struct lexicon *l, const struct lexicon_node *n, uint32_t *bits) {
    for (uint32_t k = n->token; k < n->token + n->tokens; k++)
        bits[l->ids[k] / 32] |= 1u << (l->ids[k] % 32);
}

static uint32_t *words_at(const struct masks *m, uint32_t first) {
    return (uint32_t *)(void *)m->words.data + first;
}

/* Room for one mask of all tokens, with no bit set. */
static int new_words(struct masks *m, uint32_t *first) {
    size_t bytes = (m->l->vocab + 31) / 32 * sizeof(uint32_t);
    *first = (uint32_t)(m->words.len / sizeof(uint32_t));
    void *words = buf_extend(&m->words, bytes);
    if (words) memset(words, 0, bytes);
    return m->words.error;
}

static int store_groups(struct making *k, struct mask_state *s) {
    struct masks *m = k->m;
    const struct told *t = (const struct told *)(const void *)k->told.data;
    uint32_t total = 0, n = (uint32_t)(k->told.len / sizeof *t), next[GROUPS_MAX];
    int rc = 0;
    s->group = (uint32_t)(m->groups.len / sizeof(struct mask_group));
    s->groups = k->groups;
    s->all = GRAMMAR_NONE;
    for (uint32_t i = 0; rc == 0 && i < k->groups; i++) {
        struct mask_group *g = &k->group[i];
        g->dense = g->n >= DENSE_MIN;
        g->first = (uint32_t)(m->ids.len / sizeof(uint32_t));
        next[i] = g->first;
        if (!g->closed) {
            total += g->n;
            if (g->need > s->need_max) s->need_max = g->need;
            if (g->chars > s->chars_max) s->chars_max = g->chars;
        }
        if (g->dense) rc = new_words(m, &g->first);
        if (!g->dense && !buf_extend(&m->ids, g->n * sizeof(uint32_t))) rc = m->ids.error;
        if (rc == 0) rc = buf_append(&m->groups, g, sizeof *g);
    }
    if (rc == 0 && total >= DENSE_MIN) rc = new_words(m, &s->all);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        const struct lexicon_node *node = &m->l->node[t[i].node];
        const struct mask_group *g = &k->group[t[i].group];
        uint32_t *ids = (uint32_t *)(void *)m->ids.data;
        if (g->dense) set_node(m->l, node, words_at(m, g->first));
        for (uint32_t j = 0; !g->dense && j < node->tokens; j++)
            ids[next[t[i].group]++] = m->l->ids[node->token + j];
        if (s->all != GRAMMAR_NONE && !g->closed) set_node(m->l, node, words_at(m, s->all));
    }
    return rc;
}

/* The tokens of one state. */
static int make_state(struct making *k, uint32_t state) {
    struct walk_frame unknown = {.then = GRAMMAR_END, .parent = GRAMMAR_NONE};
    k->walk.frames.len = k->told.len = k->left.len = 0;
    k->groups = k->last = 0;
    k->text = state < GRAMMAR_END;
    k->level[0] = (struct walk_places){.at[0] = {state, 0, 0}, .n = 1};
    k->chars[0] = 0;
    k->error = buf_append(&k->walk.frames, &unknown, sizeof unknown);
    k->mark[0] = (uint32_t)k->walk.frames.len;
    walk_trie(k);
    if (!k->error) k->error = store_exits(k, &k->m->state[state]);
    if (!k->error) k->error = store_groups(k, &k->m->state[state]);
    if (!k->error && masks_bytes(k->m) > MASKS_BYTES_MAX) k->error = ERR_LIMIT;
    return k->error;
}

static int make_all(struct masks *m) {
    struct making *k = calloc(1, sizeof *k);
    size_t longest = m->l->longest + (size_t)1;
    m->state = calloc(m->g->n_states, sizeof *m->state);
    if (!k || !m->state) {
        free(k);
        return -ENOMEM;
    }
    *k = (struct making){.m = m, .walk.g = m->g};
    k->level = calloc(longest, sizeof *k->level);
    k->mark = calloc(longest, sizeof *k->mark);
    k->chars = calloc(longest, sizeof *k->chars);
    int rc = k->level && k->mark && k->chars ? 0 : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < m->g->n_states; i++) {
        const struct grammar_state *s = grammar_at(m->g, i);
        if (s->edges > 0 && s->dist < GRAMMAR_FAR) rc = make_state(k, i);
    }
    buf_fini(&k->walk.frames);
    buf_fini(&k->told);
    buf_fini(&k->left);
    free(k->level);
    free(k->mark);
    free(k->chars);
    free(k);
    return rc;
}

int masks_init(struct masks *m, struct grammar *g, const struct lexicon *l, char *err,
               size_t err_bytes) {
    *m = (struct masks){.g = g, .l = l};
    grammar_measure(g, l->single);
    if (grammar_rule_at(g, g->root)->dist >= GRAMMAR_FAR)
        return err_set(err, err_bytes, ERR_FIELD,
                       "schema: the model's vocabulary lacks a byte that every text of it needs");
    int rc = make_all(m);
    if (rc == 0) return 0;
    masks_fini(m);
    return err_set(err, err_bytes, rc,
                   rc == -ENOMEM ? "schema: no memory for its masks"
                                 : "schema: the masks of its tokens need too much time or memory; "
                                   "shorten its patterns, or the maxLength beside them");
}

void masks_fini(struct masks *m) {
    free(m->state);
    buf_fini(&m->groups);
    buf_fini(&m->ids);
    buf_fini(&m->words);
    buf_fini(&m->runs);
    buf_fini(&m->exits);
    *m = (struct masks){0};
}

size_t masks_bytes(const struct masks *m) {
    return m->groups.len + m->ids.len + m->words.len + m->runs.len + m->exits.len +
           (m->g ? m->g->n_states * sizeof *m->state : 0);
}

/* ---- using them ---- */

/* What a place adds to the groups of its state. */
struct bounds {
    uint32_t dist, budget;    /* behind the rule; less than this may be left in all */
    uint32_t chars, min, max; /* of a string */
};

static bool fits(const struct bounds *b, const struct mask_group *g) {
    uint32_t chars = b->chars + g->chars;
    uint32_t missing = chars < b->min ? b->min - chars : 0;
    if (chars > b->max || (g->closed && missing > 0)) return false;
    return g->need + missing + b->dist < b->budget;
}

/* Sixteen words a step, which compilers turn into vectors. */
static void add_words(const struct masks *m, uint32_t first, uint32_t *restrict bits) {
    const uint32_t *restrict words = words_at(m, first);
    uint32_t n = (m->l->vocab + 31) / 32, i = 0;
    for (; i + 16 <= n; i += 16)
        for (uint32_t k = 0; k < 16; k++) bits[i + k] |= words[i + k];
    for (; i < n; i++) bits[i] |= words[i];
}

static void add_groups(const struct masks *m, const struct mask_state *s, const struct bounds *b,
                       uint32_t *bits) {
    const uint32_t *ids = (const uint32_t *)(const void *)m->ids.data;
    uint32_t missing = b->chars < b->min ? b->min - b->chars : 0;
    bool all = s->all != GRAMMAR_NONE && b->chars + s->chars_max <= b->max &&
               s->need_max + missing + b->dist < b->budget;
    if (all) add_words(m, s->all, bits);
    for (uint32_t i = s->group; i < s->group + s->groups; i++) {
        const struct mask_group *g = group_at(m, i);
        if ((all && !g->closed) || !fits(b, g)) continue;
        if (g->dense) add_words(m, g->first, bits);
        for (uint32_t k = g->first; !g->dense && k < g->first + g->n; k++)
            bits[ids[k] / 32] |= 1u << (ids[k] % 32);
    }
}

/* The legal tokens at and below a node that has led to `to`. */
static int add_below(const struct masks *m, struct walk *w, uint32_t node,
                     const struct walk_places *to, uint32_t budget, struct walk_places *level,
                     uint32_t *bits) {
    const struct lexicon_node *top = &m->l->node[node];
    size_t frames = w->frames.len;
    int rc = 0;
    if (walk_nearest(w, to) < budget) set_node(m->l, top, bits);
    if (top->end == node + 1) return 0;
    level[0] = *to;
    for (uint32_t i = node + 1; rc == 0 && i < top->end;) {
        const struct lexicon_node *n = &m->l->node[i];
        const struct walk_places *from = &level[n->depth - top->depth - 1];
        struct walk_places *next = &level[n->depth - top->depth];
        next->n = 0;
        for (uint32_t k = 0; rc == 0 && k < from->n; k++)
            rc = walk_step(w, from->at[k], n->byte, next);
        if (n->tokens > 0 && walk_nearest(w, next) < budget) set_node(m->l, n, bits);
        i = next->n > 0 ? i + 1 : n->end;
    }
    w->frames.len = frames;
    return rc;
}

int masks_add(const struct masks *m, struct walk *w, struct walk_place p, uint32_t budget,
              struct walk_places *level, uint32_t *bits) {
    if (p.frame == GRAMMAR_NONE) return 0;
    const struct mask_state *s = &m->state[p.state];
    const struct walk_frame *f = walk_frame_at(w, p.frame);
    struct bounds b = {.dist = f->dist, .budget = budget, .max = GRAMMAR_CHARS_MAX};
    if (p.state < GRAMMAR_END) {
        b.chars = p.state == TEXT_QUOTE ? 0 : p.chars;
        b.min = grammar_rule_at(m->g, f->rule)->chars_min;
        b.max = grammar_rule_at(m->g, f->rule)->chars_max;
    }
    add_groups(m, s, &b, bits);
    if (s->runs == 0) return 0;
    size_t frames = w->frames.len;
    struct walk_places over = {.n = 0};
    int rc = walk_leave(w, p.frame, &over);
    for (uint32_t i = s->run; rc == 0 && i < s->run + s->runs; i++) {
        const struct mask_run *r = run_at(m, i);
        const struct mask_exit *e = (const struct mask_exit *)(const void *)m->exits.data;
        struct walk_places to = {.n = 0};
        for (uint32_t k = 0; rc == 0 && k < over.n; k++)
            rc = walk_step(w, over.at[k], r->byte, &to);
        for (uint32_t k = r->first; rc == 0 && to.n > 0 && k < r->first + r->n; k++) {
            uint32_t chars = b.chars + e[k].chars;
            if (chars >= b.min && chars <= b.max)
                rc = add_below(m, w, e[k].node, &to, budget, level, bits);
        }
    }
    w->frames.len = frames;
    return rc;
}
