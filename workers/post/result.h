/* result.h - the result of contract.analyze as a msgpack document.
 *
 *   { language, title, method: "zero-shot", model, format, text: str | nil,
 *     pages_in, pages_ok, pages_partial, pages_failed,
 *     pages:    [{page, outcome, reason, width, height, charspan, running}],
 *     entities: [{type, value, normalized, charspan: [b, e], prov, score, business?, conflict?}],
 *     clauses:  [{type, also: [{type, score}], heading, number, level, text, charspan, prov, score,
 *                 cosine, cue, truncated, risk: {level, rule, why} | nil}],
 *     risks:    [{level, rule, why, clause: index | nil}],
 *     taxonomy: {name, version}, policy: {name, version},
 *     summary:  {clauses, typed, other, entities, risks: {high, medium, low}}, notices: [str] }
 *
 * normalized is a date or duration of ISO 8601, {currency, value}, {name, role}, a number (per
 * cent), or a jurisdiction. charspan counts Unicode code points of the text, which it cuts exactly
 * to value and text; prov lists [{page, bbox: [x0, y0, x1, y1], charspan}], one for each line that
 * the span runs over (prov.h). A job that came as text has neither text nor pages in its result,
 * prov is empty, and pages_in counts what form feeds part.
 *
 * Units: as above.  Owner: everything is borrowed during the call.  Memory: the buf.  Errors: in
 * the buf.  Threads: any. */
#ifndef PENSTOCK_WORKERS_POST_RESULT_H
#define PENSTOCK_WORKERS_POST_RESULT_H

#include "workers/encode/document.h"
#include "workers/post/classify.h"
#include "workers/post/risk.h"

struct analysis {
    struct document document;
    struct bytes text, title, model; /* text is the document's */
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
