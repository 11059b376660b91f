/* submit.h - from a request to a job that is on its way to the disk.
 *
 * A draft is what somebody wants to run: it is given a kind and a pipeline (draft_choose), then
 * checked against the load and the kind's fields and made a job (draft_admit). The caller says whom
 * to answer and hands the operation to outbox_add.
 *
 * Units: none.  Owner: a draft borrows everything; draft_admit gives the operation to the caller
 * and the job to the broker's table.  Memory: one job and one operation.
 * Errors: ERR_UNKNOWN or NULL with a refusal.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_SUBMIT_H
#define PENSTOCK_BROKER_SUBMIT_H

#include "broker/broker.h"

struct draft {
    const struct msg_submit *m; /* kind, pipeline, priority, times and seed */
    struct tenant *tenant;
    struct bytes key, body;
    struct upload *upload;        /* a whole one in place of the body, or NULL */
    uint64_t origin;              /* the dead letter that it is made of; 0: none */
    const struct kind_desc *kind; /* by draft_choose */
    const struct pipeline *pipeline;
    uint32_t index; /* of the pipeline among those that are loaded */
};
int draft_choose(struct broker *b, struct draft *d, struct refusal *why);
struct commit_op *draft_admit(struct broker *b, const struct draft *d, struct refusal *why);

#endif
