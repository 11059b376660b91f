#include "workers/post/risk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/regex.h"

#define ANY (UINT32_MAX - 1)

struct risks {
    const struct policy *policy;
    uint32_t *type;       /* of each rule; ANY */
    struct regex **match; /* of each rule; NULL: none */
};

int risks_open(struct risks **out, const struct policy *p, const struct taxonomy *t, char *err,
               size_t err_bytes) {
    struct risks *r = calloc(1, sizeof *r);
    char why[256];
    *out = NULL;
    if (r) {
        r->policy = p;
        r->type = calloc(p->n_rules, sizeof *r->type);
        r->match = calloc(p->n_rules, sizeof(struct regex *));
    }
    int rc =
        r && r->type && r->match ? 0 : err_set(err, err_bytes, -ENOMEM, "policy: out of memory");
    for (uint32_t i = 0; rc == 0 && i < p->n_rules; i++) {
        const struct policy_rule *rule = &p->rules[i];
        r->type[i] = ANY;
        for (uint32_t k = 0; k < t->n_types; k++)
            if (strcmp(rule->type, t->types[k].name) == 0) r->type[i] = k;
        if (rule->match) rc = regex_open(&r->match[i], rule->match, "i", why, sizeof why);
        if (rc < 0) err_set(err, err_bytes, rc, "policy: rule %s: match: %s", rule->id, why);
    }
    if (rc == 0)
        *out = r;
    else
        risks_close(r);
    return rc;
}

void risks_close(struct risks *r) {
    if (!r) return;
    for (uint32_t i = 0; r->match && i < r->policy->n_rules; i++) regex_close(r->match[i]);
    free(r->match);
    free(r->type);
    free(r);
}

static bool is_of(const struct typed_clause *c, uint32_t type) {
    if (type == ANY || c->type == type) return true;
    for (uint32_t i = 0; i < c->n_also; i++)
        if (c->also[i] == type) return true;
    return false;
}

static bool value_hits(const struct policy_rule *rule, const struct entity *e) {
    static const enum entity_type types[] = {[POLICY_DURATION] = ENTITY_DURATION,
                                             [POLICY_PERCENTAGE] = ENTITY_PERCENTAGE,
                                             [POLICY_AMOUNT] = ENTITY_AMOUNT};
    if (rule->entity == POLICY_CONFLICT) return e->conflict;
    return e->type == types[rule->entity] && (!rule->above || e->number > *rule->above) &&
           (!rule->below || e->number < *rule->below);
}

/* `first` is the first entity that ends behind the clause's beginning. */
static bool holds(const struct risks *r, uint32_t i, const struct typed_clause *c,
                  const struct entities *entities, uint32_t first) {
    const struct policy_rule *rule = &r->policy->rules[i];
    struct regex_span spans[REGEX_GROUPS];
    if (rule->when == POLICY_ABSENT || !is_of(c, r->type[i])) return false;
    if (r->match[i] && regex_find(r->match[i], c->seen.data, c->seen.len, 0, spans) != 1)
        return false;
    if (rule->when == POLICY_PRESENT) return true;
    for (uint32_t k = first; k < entities->n && entities->at[k].begin < c->clause->end; k++)
        if (value_hits(rule, &entities->at[k])) return true;
    return false;
}

/* One pass counts, the next one writes: at is NULL in the first. */
static uint32_t collect(const struct risks *r, const struct typed_clause *clauses, uint32_t n,
                        const struct entities *entities, struct finding *at) {
    const struct policy *p = r->policy;
    uint32_t found = 0, first = 0;
    for (uint32_t c = 0; c < n; c++) {
        while (first < entities->n && entities->at[first].end <= clauses[c].clause->begin) first++;
        for (int level = POLICY_HIGH; level >= POLICY_LOW; level--) {
            for (uint32_t i = 0; i < p->n_rules; i++) {
                if ((int)p->rules[i].level != level || !holds(r, i, &clauses[c], entities, first))
                    continue;
                if (at) at[found] = (struct finding){i, c};
                found++;
            }
        }
    }
    for (uint32_t i = 0; i < p->n_rules; i++) {
        bool there = p->rules[i].when != POLICY_ABSENT;
        for (uint32_t c = 0; !there && c < n; c++) there = is_of(&clauses[c], r->type[i]);
        if (there) continue;
        if (at) at[found] = (struct finding){i, UINT32_MAX};
        found++;
    }
    return found;
}

int risks_find(const struct risks *r, const struct typed_clause *clauses, uint32_t n,
               const struct entities *entities, struct arena *a, struct findings *out) {
    *out = (struct findings){.n = collect(r, clauses, n, entities, NULL)};
    out->at = arena_calloc(a, out->n + (size_t)1, sizeof *out->at);
    if (!out->at) return -ENOMEM;
    collect(r, clauses, n, entities, out->at);
    return 0;
}
