/* classify.h - which type of the taxonomy a clause is: cosine with the described types, and cues.
 *
 * A zero-shot baseline: nothing here was trained on labelled clauses. Both parts of a score stay
 * visible, so that a reader can see what decided.
 *
 * Units: none.  Owner: the taxonomy is borrowed until classifier_close; type vectors are computed
 * at the first use of a model and kept.  Memory: the compiled cues, a vector a type and language.
 * Errors: ERR_FIELD for a cue that does not compile, all of models_get, -ENOMEM.
 * Threads: the compute thread. */
#ifndef PENSTOCK_WORKERS_POST_CLASSIFY_H
#define PENSTOCK_WORKERS_POST_CLASSIFY_H

#include "base/bytes.h"
#include "pipelines/policy.h"
#include "workers/encode/clauses.h"

struct models;
struct classifier;
int classifier_open(struct classifier **out, const struct taxonomy *t, char *err, size_t err_bytes);
void classifier_close(struct classifier *c); /* NULL is fine */

/* The vectors of all types for a model and language: [n_types][dim], borrowed until close. */
int classifier_vectors(struct classifier *c, struct models *models, struct bytes model,
                       enum clause_language language, const float **vectors, uint32_t *dim,
                       char *err, size_t err_bytes);

struct class_score {
    double score, cosine, cue;
};
/* Scores one clause (its unit vector; its text as clause_seen gives it) for every type. Cues in the
 * heading count half: it stands above other clauses too. */
void classifier_score(const struct classifier *c, enum clause_language language, const float *types,
                      uint32_t dim, const float *vector, struct bytes seen, size_t heading_bytes,
                      struct class_score *scores /* [n_types] */);

#endif
