/* qc.h - OK or NG by a recipe's thresholds, and why: a pure function of facts and vectors.
 *
 * A region is a defect when its area and its score reach the recipe's thresholds (its contrast did
 * when it was found). A defect's score is (contrast / 255) * area / (area + area_min_px): 0 to 1,
 * rising with both. The part is NG when any of the recipe's ng rules holds.
 *
 * Causes are ranked for parts that are NG. A cause's score is the mean of two numbers, of which one
 * may be missing: how alike its description and the log's best event are (cosine, below 0 taken as
 * 0; plain events count 0.85, warnings 0.95, errors 1), and the share of its rules that hold, of
 * those whose feature was measured. Nothing here was trained: the method is called zero-shot.
 *
 * Units: as part_facts.h.  Owner: everything borrows from facts and recipe, or lies in the arena.
 * Memory: a few KiB.  Errors: -ENOMEM; ERR_FIELD when no ng rule can be decided.  Threads: any. */
#ifndef PENSTOCK_WORKERS_POST_QC_H
#define PENSTOCK_WORKERS_POST_QC_H

#include "workers/encode/part_facts.h"

#define QC_CAUSES 3u
#define QC_EVIDENCE 4u /* lines of one cause */

struct qc_defect {
    const char *class; /* the recipe's word for brighter or darker than the reference */
    double score;
    struct image_box box;
    uint32_t area_px, contrast;
};
struct qc_rule {
    const struct recipe_rule *rule;
    bool measured, holds;
    double value;        /* of the feature, when measured */
    struct part_line at; /* the line of a reading; line 0: none */
};
struct qc_evidence {
    struct part_line line;
    double score;                   /* of an event: its weighted cosine */
    const struct recipe_rule *rule; /* that it fulfils; NULL: it is an event */
};
struct qc_cause {
    const char *cause;
    double score;
    struct qc_evidence evidence[QC_EVIDENCE];
    uint32_t n_evidence;
};
struct qc_verdict {
    bool ng;
    double score;                    /* of the worst region, whether it is a defect or not */
    const struct qc_defect *defects; /* [n_defects], worst first, at most defects_max */
    uint32_t n_defects, n_defects_all;
    const struct qc_rule *rules; /* [n_ng] of the recipe */
    struct qc_cause causes[QC_CAUSES];
    uint32_t n_causes;
};

/* vectors [n][dim] of unit length: the described causes, then the log's chosen events; n 0:
 * none. */
int qc_judge(const struct recipe *r, const struct part_facts *f, const float *vectors, uint32_t n,
             uint32_t dim, struct arena *a, struct qc_verdict *out, char *err, size_t err_bytes);
/* The one rule: false in measured when the facts have no such feature. */
struct qc_rule qc_decide(const struct recipe_rule *rule, const struct part_facts *f,
                         const struct qc_verdict *v);

#endif
