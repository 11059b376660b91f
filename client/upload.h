/* upload.h - a body that is too long for one frame, on its way in chunks; private to client/.
 *
 * It asks one question at a time: upload_next says which, upload_heard and upload_refused take the
 * answer, until upload_whole. Each question may be repeated, over another connection or to a broker
 * that was restarted: the broker's answer says where to go on.
 *
 * Units: bytes.  Owner: borrows the body and the key.  Memory: none.  Errors: none of its own.
 * Threads: one at a time. */
#ifndef PENSTOCK_CLIENT_UPLOAD_H
#define PENSTOCK_CLIENT_UPLOAD_H

#include "client/link.h"

struct upload {
    struct bytes body;
    const char *key;                        /* the job's, or: */
    char drawn[33];                         /* one that finds it again while this call lasts */
    char name[LIMIT_UPLOAD_NAME_BYTES + 1]; /* empty: not begun */
    uint64_t have, chunk_bytes;
    uint32_t crc, faults; /* faults: times that the broker had lost it, or bytes on the way */
};
void upload_init(struct upload *u, struct bytes body, const char *key);
bool upload_whole(const struct upload *u); /* it can be submitted by its name */

union upload_message {
    struct msg_upload_begin begin;
    struct msg_upload_chunk chunk;
};
/* The next question; m is its header and must live as long as ask. */
void upload_next(const struct upload *u, uint64_t req, union upload_message *m,
                 struct link_ask *ask);
void upload_heard(struct upload *u, const struct msg_upload_state *m);
/* True: upload_next knows how to go on after this refusal. */
bool upload_refused(struct upload *u, const struct penstock_refusal *why);

/* All of it. PENSTOCK_STOPPED when the job's progress callback says so. */
int upload_run(struct penstock *p, struct upload *u, const struct penstock_job *job,
               int64_t deadline_ms, char *err, size_t err_bytes);
void upload_give_up(struct penstock *p, const struct upload *u); /* tells the broker, if it can */

#endif
