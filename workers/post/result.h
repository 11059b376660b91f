/* result.h - the result of contract.analyze as a msgpack document.
 *
 *   { language, title, method: "zero-shot", model, pages_in, pages_ok, pages_failed,
 *     entities: [{type, value, normalized, charspan: [b, e], prov: [], score, role?, business?,
 *                 conflict?}],
 *     clauses:  [{type, also: [{type, score}], heading, number, level, text, charspan, prov: [],
 *                 score, cosine, cue, truncated, risk: {level, rule, why} | nil}],
 *     risks:    [{level, rule, why, clause: index | nil}],
 *     taxonomy: {name, version}, policy: {name, version},
 *     summary:  {clauses, typed, other, entities, risks: {high, medium, low}}, notices: [str] }
 *
 * normalized is a date or duration of ISO 8601, {currency, value}, {name, role}, a number (per
 * cent), or a jurisdiction. charspan counts Unicode code points of the submitted text, which it
 * cuts exactly to value and text. A plain text has as many pages as form feeds part.
 *
 * Units: as above.  Owner: everything is borrowed during the call.  Memory: the buf.  Errors: in
 * the buf.  Threads: any. */
#ifndef PENSTOCK_WORKERS_POST_RESULT_H
#define PENSTOCK_WORKERS_POST_RESULT_H

#include "workers/post/classify.h"
#include "workers/post/risk.h"

struct analysis {
    struct bytes text, title, model;
    enum clause_language language;
    const struct taxonomy *taxonomy;
    const struct policy *policy;
    struct typed_clause *clauses;   /* [n] */
    const struct class_score *best; /* [n]: of the clause's type, or of the nearest for Other */
    const struct class_score (*also)[3]; /* [n]: of typed_clause.also */
    const bool *truncated;               /* [n]: the encoder did not see all of it */
    uint32_t n;
    struct entities entities;
    struct findings findings;
};
void result_pack(const struct analysis *a, struct buf *out);

#endif
