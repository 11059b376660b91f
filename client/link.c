#include "client/link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "schemas/job.h"
#include "schemas/json_schema.h"

/* ---- sending and receiving ---- */

uint64_t link_next_req(struct penstock *p) {
    memset(&p->refusal, 0, sizeof p->refusal);
    return ++p->last_req;
}

int link_reopen(struct penstock *p, char *err, size_t err_bytes) {
    link_forget(p);
    sock_close(p->sock);
    p->sock = NULL;
    struct sock_config c = {.type = SOCK_DEALER,
                            .linger_ms = 200,
                            .endpoint = p->endpoint,
                            .curve = p->encrypted ? &p->pair.curve : NULL};
    int rc = sock_open(&p->sock, p->ctx, &c, err, err_bytes);
    return rc < 0 ? PENSTOCK_INVALID : 0;
}

static int unreachable(const struct penstock *p, char *err, size_t err_bytes) {
    return err_set(err, err_bytes, PENSTOCK_UNREACHABLE,
                   "no broker at %s%s; start one with `penstock up`, or name the right one with "
                   "--endpoint or PENSTOCK_ENDPOINT",
                   p->endpoint,
                   p->encrypted ? ", or it does not let this key in (`penstock keys ls` there), or "
                                  "--server-key is not its key"
                   : strncmp(p->endpoint, "tcp:", 4) == 0
                       ? "; one with --curve needs --key-file and --server-key"
                       : "");
}

/* Sleeps until the socket is ready or the time is over; returns whether it is ready. */
static bool ready(struct penstock *p, bool to_write, int64_t until_ms) {
    int64_t left_ms = until_ms - clock_mono_ms();
    struct sock_wait w = {.sock = p->sock, .readable = !to_write, .writable = to_write};
    sock_wait(&w, 1, left_ms > 0 ? left_ms : 0);
    return to_write ? w.writable : w.readable;
}

/* Waits for room until the deadline. */
static int send_frames(struct penstock *p, const struct sock_msg *m, int64_t deadline_ms, char *err,
                       size_t err_bytes) {
    int rc;
    while ((rc = sock_send(p->sock, m)) == -EAGAIN)
        if (!ready(p, true, deadline_ms) && clock_mono_ms() >= deadline_ms) break;
    if (rc == 0) return 0;
    if (rc == -EAGAIN) return unreachable(p, err, err_bytes);
    return err_set(err, err_bytes, rc == ERR_LIMIT ? PENSTOCK_INVALID : PENSTOCK_PROTOCOL,
                   "cannot send: %s", err_text(rc));
}

void link_forget(struct penstock *p) {
    buf_fini(&p->going);
    p->n_going = p->coming.left = 0;
    sock_msg_fini(&p->behind);
}

int link_flush(struct penstock *p, int64_t deadline_ms, char *err, size_t err_bytes) {
    uint8_t tag[MSG_TAG_BYTES];
    struct buf header = {0};
    struct msg_many many = {.n = p->n_going};
    if (p->n_going == 0) return 0;
    many_end(&p->going, p->n_going);
    if (msg_encode(MSG_MANY, &many, tag, &header) < 0) {
        buf_fini(&header);
        return err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
    }
    struct sock_msg m = {
        .frames = 3,
        .frame = {bytes_of(tag, sizeof tag), buf_bytes(&header), buf_bytes(&p->going)}};
    int rc = send_frames(p, &m, deadline_ms, err, err_bytes);
    buf_fini(&header);
    if (rc == PENSTOCK_UNREACHABLE) return rc;
    buf_clear(&p->going);
    p->n_going = 0;
    return rc;
}

/* Gathers it, or sends it behind what was gathered. */
static int gather(struct penstock *p, const struct sock_msg *m, int64_t deadline_ms, char *err,
                  size_t err_bytes) {
    if (p->gathers && many_add(&p->going, &p->n_going, m->frame, m->frames)) return 0;
    int rc = link_flush(p, deadline_ms, err, err_bytes);
    if (rc < 0) return rc;
    if (p->gathers && many_add(&p->going, &p->n_going, m->frame, m->frames)) return 0;
    return send_frames(p, m, deadline_ms, err, err_bytes);
}

int link_send(struct penstock *p, enum msg_type type, const void *in, struct bytes payload,
              int64_t deadline_ms, char *err, size_t err_bytes) {
    uint8_t tag[MSG_TAG_BYTES];
    struct buf header = {0};
    int rc = msg_encode(type, in, tag, &header);
    if (rc < 0) {
        buf_fini(&header);
        return err_set(err, err_bytes, rc == -ENOMEM ? PENSTOCK_MEMORY : PENSTOCK_INVALID,
                       "an argument is not acceptable: %s (see `penstock schema` and "
                       "schemas/README.md for the bounds)",
                       err_text(rc));
    }
    struct sock_msg m = {.frames = payload.data ? 3 : 2,
                         .frame = {bytes_of(tag, sizeof tag), buf_bytes(&header), payload}};
    rc = gather(p, &m, deadline_ms, err, err_bytes);
    buf_fini(&header);
    return rc;
}

void link_answer_fini(struct link_answer *a) {
    sock_msg_fini(&a->msg);
}

static int decode(struct link_answer *a, char *err, size_t err_bytes) {
    struct refusal why;
    int rc = msg_decode(a->desc, a->msg.frame[1], &a->as, &why);
    if (rc == 0) return 0;
    link_answer_fini(a);
    return err_set(err, err_bytes, PENSTOCK_PROTOCOL,
                   "the broker's %s is not understood: %s; use a client of the broker's version",
                   a->desc->name, why.message);
}

/* The next message that has come, alone or in a MANY: what sock_recv returns. What cannot be read
 * is passed over. */
static int take_message(struct penstock *p, struct sock_msg *out) {
    struct refusal why;
    const struct msg_desc *d;
    struct msg_many m;
    for (;;) {
        while (p->coming.left > 0) {
            if (many_next(&p->coming, &why) == 1)
                return sock_msg_copy(out, p->coming.frame, p->coming.frames) ? -ENOMEM : 1;
            p->coming.left = 0;
        }
        sock_msg_fini(&p->behind);
        int rc = sock_recv(p->sock, out);
        if (rc != 1 || msg_open(out->frame, out->frames, MSG_B2C, &d, &why) != 0 ||
            d->type != MSG_MANY)
            return rc;
        p->behind = *out;
        out->frames = 0;
        if (msg_decode(d, p->behind.frame[1], &m, &why) != 0 ||
            many_begin(&p->coming, p->behind.frame[2], m.n, &why) != 0)
            p->coming.left = 0;
    }
}

int link_recv(struct penstock *p, uint64_t req, int64_t until_ms, struct link_answer *out,
              char *err, size_t err_bytes) {
    for (;;) {
        int rc = take_message(p, &out->msg);
        if (rc == 1) {
            struct refusal why;
            rc = msg_open(out->msg.frame, out->msg.frames, MSG_B2C, &out->desc, &why);
            if (rc == ERR_VERSION) {
                link_answer_fini(out);
                return err_set(err, err_bytes, PENSTOCK_PROTOCOL, "%s", why.message);
            }
            /* What answers an earlier request, or is nothing known, is for nobody. */
            if (rc == 0 && msg_req(out->msg.frame[1]) == req)
                return decode(out, err, err_bytes) < 0 ? PENSTOCK_PROTOCOL : 1;
            link_answer_fini(out);
            continue;
        }
        if (rc == -ENOMEM) return err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
        if (!ready(p, false, until_ms) && clock_mono_ms() >= until_ms) return 0;
    }
}

int link_take(struct penstock *p, struct link_answer *out) {
    struct refusal why;
    char ignored[64];
    *out = (struct link_answer){0};
    while (take_message(p, &out->msg) == 1) {
        if (msg_open(out->msg.frame, out->msg.frames, MSG_B2C, &out->desc, &why) != 0)
            link_answer_fini(out);
        else if (decode(out, ignored, sizeof ignored) == 0)
            return 1;
    }
    return 0;
}

/* ---- asking ---- */

int link_refused(struct penstock *p, const struct link_answer *a, char *err, size_t err_bytes) {
    const struct msg_refused *m = &a->as.refused;
    struct penstock_refusal *r = &p->refusal;
    link_text(m->code, r->code, sizeof r->code);
    link_text(m->field, r->field, sizeof r->field);
    link_text(m->limit, r->limit, sizeof r->limit);
    link_text(m->message, r->message, sizeof r->message);
    link_text(m->fix, r->fix, sizeof r->fix);
    r->retry_after_ms = m->retry_after_ms;
    char again[48] = "";
    if (r->retry_after_ms)
        snprintf(again, sizeof again, ", again in %" PRIu64 " ms", r->retry_after_ms);
    return err_set(err, err_bytes, PENSTOCK_REFUSED, "%s%s%s (%s%s)", r->message,
                   r->fix[0] ? "; " : "", r->fix, r->code, again);
}

static int too_late(const struct penstock *p, const struct link_ask *ask, int64_t timeout_ms,
                    char *err, size_t err_bytes) {
    return err_set(err, err_bytes, PENSTOCK_TIMEOUT, "the broker at %s did not answer in %lld ms%s",
                   p->endpoint, (long long)timeout_ms,
                   ask->once ? "; the job may have been accepted: see `penstock ls`, and submit "
                               "with --key so that it can be repeated"
                             : "; see `penstock ping`");
}

int link_ask(struct penstock *p, const struct link_ask *ask, int64_t timeout_ms,
             struct link_answer *out, char *err, size_t err_bytes) {
    int64_t deadline_ms = clock_mono_ms() + (timeout_ms > 0 ? timeout_ms : 0);
    memset(out, 0, sizeof *out);
    for (bool sent = false;; sent = true) {
        int rc = link_send(p, ask->type, ask->in, ask->payload, deadline_ms, err, err_bytes);
        if (rc == PENSTOCK_UNREACHABLE && sent) return too_late(p, ask, timeout_ms, err, err_bytes);
        if (rc < 0) return rc;
        int64_t until_ms = ask->once ? deadline_ms : clock_mono_ms() + ask->patience_ms;
        if (until_ms > deadline_ms) until_ms = deadline_ms;
        while ((rc = link_recv(p, p->last_req, until_ms, out, err, err_bytes)) == 1) {
            enum msg_type type = out->desc->type;
            if (type == ask->want[0] || (ask->want[1] && type == ask->want[1])) return 0;
            if (type == MSG_REFUSED) rc = link_refused(p, out, err, err_bytes);
            link_answer_fini(out);
            if (rc < 0) return rc;
        }
        if (rc < 0) return rc;
        if (clock_mono_ms() >= deadline_ms) return too_late(p, ask, timeout_ms, err, err_bytes);
        /* The broker may have been restarted, and the question lost with it. */
        rc = link_reopen(p, err, err_bytes);
        if (rc < 0) return rc;
    }
}

/* ---- arguments and answers ---- */

int link_job_id(const char *text, uint64_t *out, char *err, size_t err_bytes) {
    if (text && job_id_parse(bytes_str(text), out) == 0) return 0;
    return err_set(err, err_bytes, PENSTOCK_INVALID,
                   "'%.40s' is not a job id (13 letters and digits); `penstock ls` lists them",
                   text ? text : "");
}

void link_text(struct bytes text, char *out, size_t out_bytes) {
    size_t len = utf8_cut(text, out_bytes - 1);
    if (len) memcpy(out, text.data, len);
    out[len] = '\0';
}

int link_doc(struct bytes document, struct penstock_doc *out, char *err, size_t err_bytes) {
    *out = (struct penstock_doc){0};
    char why[256];
    struct json *j;
    int rc = json_from_pack(document, &j, why, sizeof why);
    if (rc < 0)
        return err_set(err, err_bytes, PENSTOCK_PROTOCOL,
                       "the broker's document is not understood: %s", why);
    out->json = json_text(j, 0);
    json_free(j);
    out->doc = malloc(document.len ? document.len : 1);
    if (!out->json || !out->doc) {
        penstock_doc_free(out);
        return err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
    }
    memcpy(out->doc, document.data, document.len);
    out->doc_bytes = document.len;
    return 0;
}
