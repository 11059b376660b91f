/* link.h - one request and its answer over the client's socket; private to client/.
 *
 * Units: milliseconds.  Owner: the handle owns the socket; an answer is owned by the caller until
 * link_answer_fini.  Memory: the answer's frames.  Errors: enum penstock_error with err.
 * Threads: one at a time. */
#ifndef PENSTOCK_CLIENT_LINK_H
#define PENSTOCK_CLIENT_LINK_H

#include "base/sock.h"
#include "client/penstock.h"
#include "schemas/cert.h"
#include "schemas/many.h"
#include "schemas/msg.h"

struct penstock {
    struct sock_ctx *ctx;
    struct sock *sock;
    char endpoint[256];
    bool encrypted;
    struct cert_pair pair; /* when it is */
    uint64_t last_req;
    struct penstock_refusal refusal;
    bool gathers; /* link_send keeps short messages until link_flush; only where MANY is read */
    struct buf going;
    uint32_t n_going;
    struct many_it coming;  /* the messages of a MANY that were not taken yet */
    struct sock_msg behind; /* which owns them */
};

struct link_answer {
    struct sock_msg msg;
    const struct msg_desc *desc;
    union { /* decoded by desc, borrows from msg */
        struct msg_accepted accepted;
        struct msg_accepted_many accepted_many;
        struct msg_dropped dropped;
        struct msg_result result;
        struct msg_state state;
        struct msg_job job;
        struct msg_event event;
        struct msg_ended ended;
        struct msg_stream stream;
        struct msg_jobs jobs;
        struct msg_worker_list worker_list;
        struct msg_pong pong;
        struct msg_stats stats;
        struct msg_queue_list queue_list;
        struct msg_upload_state upload_state;
        struct msg_refused refused;
    } as;
};
void link_answer_fini(struct link_answer *a); /* accepts zeroed memory */

struct link_ask {
    enum msg_type type;
    const void *in;        /* the message's struct, with req = p->last_req */
    struct bytes payload;  /* absent: none */
    enum msg_type want[2]; /* what may answer it; 0: only want[0] */
    bool once;             /* must not be sent a second time */
    int64_t patience_ms;   /* how long a living broker may take; then it is asked again */
};
/* Sends and waits; PENSTOCK_REFUSED fills p->refusal. */
int link_ask(struct penstock *p, const struct link_ask *ask, int64_t timeout_ms,
             struct link_answer *out, char *err, size_t err_bytes);

/* The pieces, for streams. */
uint64_t link_next_req(struct penstock *p); /* and clears the last refusal */
int link_send(struct penstock *p, enum msg_type type, const void *in, struct bytes payload,
              int64_t deadline_ms, char *err, size_t err_bytes);
/* Sends what was gathered; PENSTOCK_UNREACHABLE: it still waits. */
int link_flush(struct penstock *p, int64_t deadline_ms, char *err, size_t err_bytes);
void link_forget(struct penstock *p); /* what was gathered, and what came and was not taken */
/* The next message with this request number, decoded. 1; 0 when until_ms has come. */
int link_recv(struct penstock *p, uint64_t req, int64_t until_ms, struct link_answer *out,
              char *err, size_t err_bytes);
/* The next message, whatever it answers, decoded: 1; 0 when none is there. Never blocks. What
 * cannot be understood is dropped. */
int link_take(struct penstock *p, struct link_answer *out);
int link_reopen(struct penstock *p, char *err, size_t err_bytes);
int link_refused(struct penstock *p, const struct link_answer *a, char *err, size_t err_bytes);

/* Arguments and answers in the public types. */
/* The body as msgpack: as given, or made from its JSON text into buf. */
int link_body(const struct penstock_job *job, struct buf *buf, struct bytes *out, char *err,
              size_t err_bytes);
void link_submit(const struct penstock_job *job, uint64_t req, struct msg_submit *out);
/* From RESULT or STATE. */
int link_result(const struct link_answer *a, struct penstock_result *out, char *err,
                size_t err_bytes);
int link_job_id(const char *text, uint64_t *out, char *err, size_t err_bytes);
void link_text(struct bytes text, char *out, size_t out_bytes); /* cut to fit */
int link_doc(struct bytes document, struct penstock_doc *out, char *err, size_t err_bytes);

#endif
