/* stage_contract.c - post.contract: clause vectors to the result of contract.analyze.
 *
 * Entities come from the text by grammar, clause types from cosine and cues, risks from the
 * policy's rules over both. Taxonomy and policy are read when the stage opens, so that a fault in a
 * file stops the worker's start and not its jobs. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/kinds.h"
#include "workers/encode/clauses_pack.h"
#include "workers/post/contract_dir.h"
#include "workers/post/flat.h"
#include "workers/post/result.h"
#include "workers/post/stages.h"

#define ALSO_SHARE 0.8 /* a further type scores at least this share of the best */

struct self {
    struct models *models;
    struct taxonomy *taxonomy;
    struct policy *policy;
    struct classifier *classifier;
    struct risks *risks;
    struct grammar *grammar;
    struct class_score *scores; /* [n_types], of the clause at hand */
};

static void close_self(void *self) {
    struct self *s = self;
    if (!s) return;
    free(s->scores);
    grammar_close(s->grammar);
    risks_close(s->risks);
    classifier_close(s->classifier);
    policy_free(s->policy);
    taxonomy_free(s->taxonomy);
    free(s);
}

static int open_self(void **self, const struct stage_context *c, char *err, size_t err_bytes) {
    char path[4096];
    struct self *s = calloc(1, sizeof *s);
    if (!s) return err_set(err, err_bytes, -ENOMEM, "post.contract: out of memory");
    s->models = c->models;
    int rc = contract_file("taxonomy.yaml", path, sizeof path, err, err_bytes);
    if (rc == 0) rc = taxonomy_load(&s->taxonomy, path, err, err_bytes);
    if (rc == 0) rc = contract_file("policy.yaml", path, sizeof path, err, err_bytes);
    if (rc == 0) rc = policy_load(&s->policy, path, s->taxonomy, err, err_bytes);
    if (rc == 0) rc = classifier_open(&s->classifier, s->taxonomy, err, err_bytes);
    if (rc == 0) rc = risks_open(&s->risks, s->policy, s->taxonomy, err, err_bytes);
    if (rc == 0) rc = grammar_open(&s->grammar, err, err_bytes);
    if (rc == 0) s->scores = calloc(s->taxonomy->n_types, sizeof *s->scores);
    if (rc == 0 && !s->scores)
        rc = err_set(err, err_bytes, -ENOMEM, "post.contract: out of memory");
    if (rc < 0)
        close_self(s);
    else
        *self = s;
    return rc;
}

/* ---- types ---- */

/* The best type, and up to three more that hold beside it: near the best and with a cue of their
 * own, because descriptions of related types are all alike to the encoder. */
static void choose(const struct self *s, double threshold, struct typed_clause *t,
                   struct class_score *best, struct class_score also[3]) {
    uint32_t n = s->taxonomy->n_types, top = 0;
    for (uint32_t i = 1; i < n; i++)
        if (s->scores[i].score > s->scores[top].score) top = i;
    *best = s->scores[top];
    t->type = best->score >= threshold ? top : UINT32_MAX;
    t->n_also = 0;
    while (t->type != UINT32_MAX && t->n_also < 3) {
        uint32_t next = UINT32_MAX;
        for (uint32_t i = 0; i < n; i++) {
            const struct class_score *c = &s->scores[i];
            bool taken = i == top;
            for (uint32_t k = 0; k < t->n_also; k++) taken |= t->also[k] == i;
            if (taken || c->cue <= 0 || c->score < threshold) continue;
            if (c->score < ALSO_SHARE * best->score) continue;
            if (next == UINT32_MAX || c->score > s->scores[next].score) next = i;
        }
        if (next == UINT32_MAX) return;
        also[t->n_also] = s->scores[next];
        t->also[t->n_also++] = next;
    }
}

/* Everything an analysis holds for a clause. */
struct room {
    struct typed_clause *clauses;
    struct class_score *best, (*also)[3];
    bool *truncated;
};

static int classify_all(struct self *s, struct stage_item *i, const struct vectors_in *in,
                        const struct clauses *cs, struct analysis *a, struct room *r, char *err,
                        size_t err_bytes) {
    const struct taxonomy_languages *w = &s->taxonomy->weights;
    double threshold = (a->language == LANGUAGE_ZH ? &w->zh : &w->en)->threshold;
    const float *types;
    uint32_t dim;
    struct buf seen = {0};
    int rc = classifier_vectors(s->classifier, s->models, in->model, a->language, &types, &dim, err,
                                err_bytes);
    if (rc == 0 && dim != in->dim)
        rc = err_set(err, err_bytes, ERR_CORRUPT, "vectors of %u floats, the model's have %u",
                     in->dim, dim);
    for (uint32_t k = 0; rc == 0 && k < cs->n; k++) {
        if (item_cancelled(i)) rc = err_set(err, err_bytes, ERR_CANCELLED, "cancelled");
        struct typed_clause *t = &r->clauses[k];
        buf_clear(&seen);
        size_t heading_bytes = 0;
        if (rc == 0) rc = clause_seen(a->text, &cs->at[k], &seen, &heading_bytes);
        t->clause = &cs->at[k];
        t->seen = bytes_of(arena_copy(i->arena, seen.data, seen.len), seen.len);
        if (rc == 0 && !t->seen.data) rc = -ENOMEM;
        if (rc < 0) break;
        classifier_score(s->classifier, a->language, types, dim, in->vectors + (size_t)k * dim,
                         t->seen, heading_bytes, s->scores);
        choose(s, threshold, t, &r->best[k], r->also[k]);
        r->truncated[k] = pack_as_bool(pack_at(in->truncated, k), false);
    }
    buf_fini(&seen);
    return rc;
}

static int room_make(struct room *r, uint32_t n, struct arena *a) {
    r->clauses = arena_calloc(a, n, sizeof *r->clauses);
    r->best = arena_calloc(a, n, sizeof *r->best);
    r->also = arena_calloc(a, n, sizeof *r->also);
    r->truncated = arena_calloc(a, n, sizeof *r->truncated);
    return r->clauses && r->best && r->also && r->truncated ? 0 : -ENOMEM;
}

/* The title given, else the heading that the text begins with. */
static struct bytes title_of(struct bytes given, struct bytes text, const struct clauses *cs) {
    const struct clause *c = &cs->at[0];
    if (given.len) return given;
    if (c->heading.end > c->begin || c->level > 0) return (struct bytes){NULL, 0};
    return bytes_of((const char *)text.data + c->heading.begin, c->heading.end - c->heading.begin);
}

static int read_entities(struct self *s, struct stage_item *i,
                         const struct kind_contract_analyze *body, const struct clauses *cs,
                         struct analysis *a, char *err, size_t err_bytes) {
    uint32_t grammars = bytes_is(body->language, "en")   ? GRAMMAR_EN
                        : bytes_is(body->language, "zh") ? GRAMMAR_ZH
                                                         : GRAMMAR_EN | GRAMMAR_ZH;
    struct flat flat;
    int rc = flat_make(&flat, a->text, cs, i->arena);
    if (rc == 0)
        rc = entities_find(s->grammar, flat.text, grammars, a->language, i->cancelled, i->arena,
                           &a->entities, err, err_bytes);
    if (rc == 0) flat_restore(&flat, a->text, &a->entities);
    return rc;
}

static int analyze(struct self *s, struct stage_item *i, const struct kind_contract_analyze *body,
                   const struct vectors_in *in, struct buf *out, char *err, size_t err_bytes) {
    struct analysis a = {.model = in->model, .taxonomy = s->taxonomy, .policy = s->policy};
    struct clauses cs;
    struct room r = {NULL, NULL, NULL, NULL};
    int rc = document_read(&a.document, pack_get(in->keep, "document"), i->arena, err, err_bytes);
    a.text = a.document.text;
    if (rc == 0) rc = clauses_unpack(in->keep, a.text, i->arena, &a.language, &cs, err, err_bytes);
    if (rc == 0 && cs.n != in->n)
        rc = err_set(err, err_bytes, ERR_CORRUPT, "%u clauses, but %u vectors", cs.n, in->n);
    if (rc == 0) rc = room_make(&r, cs.n, i->arena);
    if (rc == 0) rc = classify_all(s, i, in, &cs, &a, &r, err, err_bytes);
    if (rc == 0) rc = read_entities(s, i, body, &cs, &a, err, err_bytes);
    if (rc == 0) rc = risks_find(s->risks, r.clauses, cs.n, &a.entities, i->arena, &a.findings);
    if (rc < 0) return rc;
    a.n = cs.n;
    a.title = title_of(body->title, a.text, &cs);
    a.clauses = r.clauses;
    a.best = r.best;
    a.also = (const struct class_score(*)[3])r.also;
    a.truncated = r.truncated;
    result_pack(&a, out);
    if (out->error) return 0; /* the item says what it is */
    rc = pack_check(buf_bytes(out), err, err_bytes);
    if (rc == ERR_LIMIT)
        return err_set(err, err_bytes, rc,
                       "more boxes, entities and clauses than one result may "
                       "hold: submit the contract in parts");
    return rc;
}

static void run_one(struct self *s, struct stage_item *i) {
    const struct kind_desc *kind = kind_find(i->kind);
    struct kind_contract_analyze body;
    struct refusal why;
    struct pack_doc *doc;
    struct vectors_in in;
    char err[LIMIT_REASON_BYTES] = "";
    if (!kind || strcmp(kind->name, "contract.analyze") != 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "post.contract runs contract.analyze jobs, not %.*s",
                  (int)i->kind.len, i->kind.len ? (const char *)i->kind.data : "");
        return;
    }
    if (kind_decode(kind, i->body, &body, &why) < 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "body: %s: %s", why.field, why.message);
        return;
    }
    int rc = pack_parse(&doc, i->input, err, sizeof err);
    if (rc < 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    if (vectors_read(i, pack_root(doc), &in)) {
        struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
        rc = analyze(s, i, &body, &in, &out, err, sizeof err);
        if (rc == 0)
            item_done_buf(i, &out);
        else
            item_fail_rc(i, rc, err);
        buf_fini(&out);
    }
    pack_free(doc);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) run_one(self, items[i]);
}

const struct stage_program stage_post_contract = {.run = "post.contract",
                                                  .needs_model = true,
                                                  .open = open_self,
                                                  .run_batch = run_batch,
                                                  .close = close_self};
