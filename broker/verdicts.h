/* verdicts.h - the answer to a request for many jobs, gathered while they reach the disk.
 *
 * Each job of the request has a place. When the last one is filled, ACCEPTED_MANY leaves and the
 * verdicts are freed.
 *
 * Units: jobs.  Owner: verdicts_new gives them to the operations that name them; whoever fills the
 * last place frees them.  Memory: some bytes a job, and the refusals.  Errors: NULL: no memory.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_VERDICTS_H
#define PENSTOCK_BROKER_VERDICTS_H

#include "broker/broker.h"

struct verdicts;
struct verdicts *verdicts_new(struct broker *b, const struct sock_peer *peer, uint64_t req,
                              uint32_t n);
void verdict_accepted(struct verdicts *v, uint32_t i, const struct msg_accepted *m);
void verdict_origin(struct verdicts *v, uint32_t i, uint64_t origin); /* the dead letter */
void verdicts_next(struct verdicts *v, uint64_t next); /* where the next page begins; 0: nowhere */
void verdict_refused(struct verdicts *v, uint32_t i, const struct refusal *why);
/* Answers when no place is open any more and frees them, once the client has room for them. */
void verdicts_answer(struct broker *b, struct verdicts *v);
/* Those that are owed to this client: 0 or -errno; -EAGAIN: again later. */
int verdicts_say(struct broker *b, const struct sock_peer *to, uint64_t req);
void verdicts_fini(struct broker *b); /* the broker ends, and nobody is answered any more */

#endif
