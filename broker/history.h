/* history.h - what happened to a job: kept with it, told to those who follow, told again on demand.
 *
 * Every change of a job's state adds a line (effects_transition). Lines are written with the job's
 * next record, so a lease that nothing followed before a crash is forgotten; their numbers grow
 * over restarts all the same, so that a client which asks for what came after the last number it
 * saw misses nothing. An end is told when it is on disk.
 *
 * Units: lines.  Owner: the job owns its lines.  Memory: LIMIT_NOTES a job.  Errors: none; a
 * follower that is gone is dropped, and one that does not read is told so when it does (owed.h).
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_HISTORY_H
#define PENSTOCK_BROKER_HISTORY_H

#include "broker/broker.h"

/* Adds what e did to j, which stood at `stage` before. by: a worker or a tenant. */
void history_add(struct broker *b, struct job *j, const struct job_event *e, uint32_t fx,
                 uint32_t stage, const char *by);
/* Tells the followers what is new, or else where the job stands. */
void history_tell(struct broker *b, struct job *j, bool last);
void history_stream(struct broker *b, struct job *j, const char *type, uint64_t stage,
                    uint64_t attempt, struct bytes data);
/* Tells the followers of j that a part of it has ended. */
void history_child(struct broker *b, struct job *j, const struct job *child);
/* EVENT dropped, to a follower whose stream ended because it did not read. -EAGAIN: again later. */
int history_tell_dropped(struct broker *b, const struct owed *o);
/* Tells every follower again where its job stands: those that are gone are found and dropped. */
void history_probe(struct broker *b);

/* Answers an EVENTS: what is kept behind the number it names, then where the job stands. rec is the
 * job's record; j is there while it lives. */
void history_replay(struct broker *b, const struct request *r, const struct job *j,
                    const struct job_record *rec);

#endif
