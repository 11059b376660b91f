#include "workers/post/result.h"

#include <math.h>
#include <string.h>

#include "schemas/pack.h"
#include "workers/post/prov.h"

#define PAGES_MAX 8192u /* rows; LIMIT_EXTRACT_PAGES are read at the most */

static struct bytes part(const struct analysis *a, uint32_t begin, uint32_t end) {
    return bytes_of((const char *)a->text.data + begin, end - begin);
}

static void kv_bytes(struct packer *p, const char *key, struct bytes v) {
    pack_str(p, key);
    pack_strn(p, v);
}

static void kv_span(struct packer *p, uint32_t begin, uint32_t end) {
    pack_str(p, "charspan");
    pack_array(p, 2);
    pack_u64(p, begin);
    pack_u64(p, end);
}

/* Hundredths of a point, outwards, so that a box still encloses what it did. */
static void pack_box(struct packer *p, const struct extract_box *b) {
    pack_array(p, 4);
    pack_f64(p, floor((double)b->x0 * 100) / 100);
    pack_f64(p, floor((double)b->y0 * 100) / 100);
    pack_f64(p, ceil((double)b->x1 * 100) / 100);
    pack_f64(p, ceil((double)b->y1 * 100) / 100);
}

/* text_at is the byte at which the span begins. */
static void kv_prov(struct packer *p, const struct analysis *a, uint32_t text_at, uint32_t begin,
                    uint32_t end) {
    struct prov_it it = prov_begin(&a->document, text_at, begin, end);
    struct prov prov;
    uint32_t n = 0;
    while (prov_next(&it, &prov)) n++;
    pack_str(p, "prov");
    pack_array(p, n);
    it = prov_begin(&a->document, text_at, begin, end);
    while (prov_next(&it, &prov)) {
        pack_map(p, 3);
        pack_kv_u64(p, "page", prov.page->number);
        pack_str(p, "bbox");
        pack_box(p, &prov.box);
        kv_span(p, prov.begin, prov.end);
    }
}

static void kv_version(struct packer *p, const char *key, const char *name, uint32_t version) {
    pack_str(p, key);
    pack_map(p, 2);
    pack_kv_str(p, "name", name);
    pack_kv_u64(p, "version", version);
}

static const char *type_name(const struct analysis *a, uint32_t type) {
    return type == UINT32_MAX ? "Other" : a->taxonomy->types[type].name;
}

/* ---- entities ---- */

static void pack_normalized(struct packer *p, const struct entity *e) {
    pack_str(p, "normalized");
    switch (e->type) {
    case ENTITY_AMOUNT:
        pack_map(p, 2);
        pack_kv_str(p, "currency", e->currency);
        pack_kv_f64(p, "value", e->number);
        break;
    case ENTITY_PARTY:
        pack_map(p, 2);
        kv_bytes(p, "name", e->name);
        kv_bytes(p, "role", e->role);
        break;
    case ENTITY_PERCENTAGE: pack_f64(p, e->number); break;
    case ENTITY_LAW: pack_strn(p, e->name); break;
    default: pack_str(p, e->iso);
    }
}

static void pack_entity(struct packer *p, const struct analysis *a, const struct entity *e) {
    pack_map(p, 6 + (uint32_t)e->business + (uint32_t)e->conflict);
    pack_kv_str(p, "type", entity_type_name(e->type));
    kv_bytes(p, "value", part(a, e->begin, e->end));
    pack_normalized(p, e);
    kv_span(p, e->char_begin, e->char_end);
    kv_prov(p, a, e->begin, e->char_begin, e->char_end);
    pack_kv_f64(p, "score", e->score);
    if (e->business) pack_kv_bool(p, "business", true);
    if (e->conflict) pack_kv_bool(p, "conflict", true);
}

/* ---- clauses and risks ---- */

static void pack_risk(struct packer *p, const struct analysis *a, uint32_t rule, uint32_t more) {
    const struct policy_rule *r = &a->policy->rules[rule];
    pack_map(p, 3 + more);
    pack_kv_str(p, "level", policy_level_name(r->level));
    pack_kv_str(p, "rule", r->id);
    pack_kv_str(p, "why", a->language == LANGUAGE_ZH ? r->why_zh : r->why_en);
}

/* finding: the clause's gravest, or NULL. */
static void pack_clause(struct packer *p, const struct analysis *a, uint32_t i,
                        const struct finding *finding) {
    const struct typed_clause *t = &a->clauses[i];
    const struct clause *c = t->clause;
    pack_map(p, 13);
    pack_kv_str(p, "type", type_name(a, t->type));
    pack_str(p, "also");
    pack_array(p, t->n_also);
    for (uint32_t k = 0; k < t->n_also; k++) {
        pack_map(p, 2);
        pack_kv_str(p, "type", type_name(a, t->also[k]));
        pack_kv_f64(p, "score", a->also[i][k].score);
    }
    kv_bytes(p, "heading", part(a, c->heading.begin, c->heading.end));
    kv_bytes(p, "number", part(a, c->number.begin, c->number.end));
    pack_kv_u64(p, "level", c->level);
    kv_bytes(p, "text", part(a, c->begin, c->end));
    kv_span(p, c->char_begin, c->char_end);
    kv_prov(p, a, c->begin, c->char_begin, c->char_end);
    pack_kv_f64(p, "score", a->best[i].score);
    pack_kv_f64(p, "cosine", a->best[i].cosine);
    pack_kv_f64(p, "cue", a->best[i].cue);
    pack_kv_bool(p, "truncated", a->truncated[i]);
    pack_str(p, "risk");
    if (finding)
        pack_risk(p, a, finding->rule, 0);
    else
        pack_nil(p);
}

static void pack_summary(struct packer *p, const struct analysis *a) {
    uint32_t typed = 0, level[3] = {0};
    for (uint32_t i = 0; i < a->n; i++) typed += a->clauses[i].type != UINT32_MAX;
    for (uint32_t i = 0; i < a->findings.n; i++)
        level[a->policy->rules[a->findings.at[i].rule].level]++;
    pack_str(p, "summary");
    pack_map(p, 5);
    pack_kv_u64(p, "clauses", a->n);
    pack_kv_u64(p, "typed", typed);
    pack_kv_u64(p, "other", a->n - typed);
    pack_kv_u64(p, "entities", a->entities.n);
    pack_str(p, "risks");
    pack_map(p, 3);
    for (int l = POLICY_HIGH; l >= POLICY_LOW; l--)
        pack_kv_u64(p, policy_level_name((enum policy_level)l), level[l]);
}

static void pack_notices(struct packer *p, const struct analysis *a) {
    const struct document *d = &a->document;
    bool unread = d->pages_failed + d->pages_partial > 0, more = d->n_pages > PAGES_MAX;
    pack_str(p, "notices");
    pack_array(p, (uint32_t)unread + more + a->entities.full + (a->entities.skipped > 0));
    if (unread)
        pack_str(p, "not all of the document could be read: see pages; what is said to be absent "
                    "may stand there");
    if (more) pack_str(p, "more pages than are listed: the last ones are only counted");
    if (a->entities.full) pack_str(p, "more entities than are kept: some are missing");
    if (a->entities.skipped)
        pack_str(p, "some stretches were too intricate for a grammar: entities may be missing");
}

static void pack_pages(struct packer *p, const struct document *d) {
    uint32_t n = d->n_pages < PAGES_MAX ? d->n_pages : PAGES_MAX;
    pack_kv_u64(p, "pages_in", d->pages_in);
    pack_kv_u64(p, "pages_ok", d->pages_ok);
    pack_kv_u64(p, "pages_partial", d->pages_partial);
    pack_kv_u64(p, "pages_failed", d->pages_failed);
    pack_str(p, "pages");
    pack_array(p, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct document_page *page = &d->pages[i];
        pack_map(p, 7);
        pack_kv_u64(p, "page", page->number);
        pack_kv_str(p, "outcome", document_outcome_name(page->outcome));
        kv_bytes(p, "reason", page->reason);
        pack_kv_f64(p, "width", (double)page->width_pt);
        pack_kv_f64(p, "height", (double)page->height_pt);
        kv_span(p, page->begin, page->end);
        kv_bytes(p, "running", page->running);
    }
}

void result_pack(const struct analysis *a, struct buf *out) {
    struct packer packer = packer_of(out), *p = &packer;
    pack_map(p, 18);
    pack_kv_str(p, "language", clause_language_name(a->language));
    pack_str(p, "title");
    if (a->title.len)
        pack_strn(p, a->title);
    else
        pack_nil(p);
    pack_kv_str(p, "method", "zero-shot");
    kv_bytes(p, "model", a->model);
    kv_bytes(p, "format", a->document.format);
    pack_str(p, "text"); /* who sent it as text has it */
    if (a->document.n_pages > 0)
        pack_strn(p, a->text);
    else
        pack_nil(p);
    pack_pages(p, &a->document);
    pack_str(p, "entities");
    pack_array(p, a->entities.n);
    for (uint32_t i = 0; i < a->entities.n; i++) pack_entity(p, a, &a->entities.at[i]);
    pack_str(p, "clauses");
    pack_array(p, a->n);
    uint32_t f = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        while (f < a->findings.n && a->findings.at[f].clause < i) f++;
        bool hit = f < a->findings.n && a->findings.at[f].clause == i;
        pack_clause(p, a, i, hit ? &a->findings.at[f] : NULL);
    }
    pack_str(p, "risks");
    pack_array(p, a->findings.n);
    for (uint32_t i = 0; i < a->findings.n; i++) {
        pack_risk(p, a, a->findings.at[i].rule, 1);
        pack_str(p, "clause");
        if (a->findings.at[i].clause == UINT32_MAX)
            pack_nil(p);
        else
            pack_u64(p, a->findings.at[i].clause);
    }
    kv_version(p, "taxonomy", a->taxonomy->name, a->taxonomy->version);
    kv_version(p, "policy", a->policy->name, a->policy->version);
    pack_summary(p, a);
    pack_notices(p, a);
}
