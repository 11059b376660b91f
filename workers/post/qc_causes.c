#include "workers/post/qc_causes.h"

#include "base/err.h"

#define EVENTS_SHOWN 3u /* of one cause; the last place is kept for a rule's line */
#define SHOWN_MIN 0.2   /* events less alike than this are no evidence */
#define SHOWN_OF_BEST 0.8

static double weight_of(enum devlog_severity s) {
    return s == DEVLOG_ERROR ? 1 : s == DEVLOG_WARNING ? 0.95 : 0.85;
}

static double cosine(const float *a, const float *b, uint32_t dim) {
    double sum = 0;
    for (uint32_t k = 0; k < dim; k++) sum += (double)a[k] * (double)b[k];
    return sum;
}

struct texts {
    const float *vectors; /* [described + chosen][dim] */
    uint32_t dim, described;
};

static double alike(const struct texts *t, const struct part_log *log, uint32_t cause,
                    uint32_t event) {
    double c = cosine(t->vectors + (size_t)cause * t->dim,
                      t->vectors + ((size_t)t->described + event) * t->dim, t->dim);
    return c > 0 ? c * weight_of(log->chosen[event].severity) : 0;
}

/* The events most like the cause, best first, no line twice; returns the best score. */
static double take_events(const struct texts *t, const struct part_log *log, uint32_t cause,
                          struct qc_cause *out) {
    double best = 0;
    for (uint32_t e = 0; e < log->n_chosen; e++) {
        double s = alike(t, log, cause, e);
        if (s > best) best = s;
    }
    double least = best * SHOWN_OF_BEST > SHOWN_MIN ? best * SHOWN_OF_BEST : SHOWN_MIN;
    for (uint32_t e = 0; e < log->n_chosen; e++) {
        double s = alike(t, log, cause, e);
        if (s < least) continue;
        uint32_t at = out->n_evidence;
        if (at == EVENTS_SHOWN) {
            if (s <= out->evidence[at - 1].score) continue;
            at--;
        } else {
            out->n_evidence++;
        }
        for (; at > 0 && s > out->evidence[at - 1].score; at--)
            out->evidence[at] = out->evidence[at - 1];
        out->evidence[at] = (struct qc_evidence){log->chosen[e].first, s, NULL};
    }
    return best;
}

/* The share of measured rules that hold, their lines as evidence; negative: none was measured. */
static double take_rules(const struct recipe_cause *c, const struct part_facts *f,
                         const struct qc_verdict *v, struct qc_cause *out) {
    uint32_t measured = 0, holding = 0;
    for (uint32_t i = 0; i < c->n_rules; i++) {
        struct qc_rule d = qc_decide(&c->rules[i], f, v);
        measured += d.measured;
        if (!d.holds) continue;
        holding++;
        if (d.at.line > 0 && out->n_evidence < QC_EVIDENCE)
            out->evidence[out->n_evidence++] = (struct qc_evidence){d.at, 1, d.rule};
    }
    return measured > 0 ? (double)holding / measured : -1;
}

/* Keeps the best QC_CAUSES, of equal ones the recipe's first. */
static void offer(struct qc_verdict *v, const struct qc_cause *c) {
    uint32_t at = v->n_causes;
    if (at == QC_CAUSES) {
        if (c->score <= v->causes[at - 1].score) return;
        at--;
    } else {
        v->n_causes++;
    }
    for (; at > 0 && c->score > v->causes[at - 1].score; at--) v->causes[at] = v->causes[at - 1];
    v->causes[at] = *c;
}

int qc_rank(const struct recipe *r, const struct part_facts *f, const float *vectors, uint32_t n,
            uint32_t dim, struct qc_verdict *v, char *err, size_t err_bytes) {
    struct texts t = {vectors, dim, 0};
    for (uint32_t i = 0; i < r->n_causes; i++) t.described += r->causes[i].describe != NULL;
    bool texts = n > 0;
    if (texts && n != t.described + f->log.n_chosen)
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "%u vectors for %u causes and %u events: the stages do not belong together",
                       n, t.described, f->log.n_chosen);
    for (uint32_t i = 0, described = 0; i < r->n_causes; i++) {
        const struct recipe_cause *c = &r->causes[i];
        struct qc_cause out = {.cause = c->cause};
        bool compared = texts && c->describe;
        double text = compared ? take_events(&t, &f->log, described, &out) : 0;
        described += c->describe != NULL;
        double rules = take_rules(c, f, v, &out);
        if (rules < 0)
            out.score = text;
        else
            out.score = compared ? (text + rules) / 2 : rules;
        if (out.score > 0) offer(v, &out);
    }
    return 0;
}
