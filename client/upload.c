#include "client/upload.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/err.h"

#define ANSWER_MS 2000
#define FAULTS_MAX 8

void upload_init(struct upload *u, struct bytes body, const char *key) {
    *u = (struct upload){.body = body, .key = key && key[0] ? key : NULL};
    u->crc = crc32c(0, body.data, body.len);
    uint64_t random[2] = {(uint64_t)clock_mono_ns(), u->crc}; /* what is left without entropy */
    ssize_t n = getrandom(random, sizeof random, GRND_NONBLOCK);
    (void)n;
    snprintf(u->drawn, sizeof u->drawn, "%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
}

bool upload_whole(const struct upload *u) {
    return u->name[0] && u->have == u->body.len;
}

void upload_next(const struct upload *u, uint64_t req, union upload_message *m,
                 struct link_ask *ask) {
    *ask = (struct link_ask){.in = m, .want = {MSG_UPLOAD_STATE}, .patience_ms = ANSWER_MS};
    if (!u->name[0]) {
        ask->type = MSG_UPLOAD_BEGIN;
        m->begin = (struct msg_upload_begin){.req = req,
                                             .bytes = u->body.len,
                                             .crc = u->crc,
                                             .key = bytes_str(u->key ? u->key : u->drawn)};
        return;
    }
    size_t left = u->body.len - (size_t)u->have;
    size_t take = left < u->chunk_bytes ? left : (size_t)u->chunk_bytes;
    ask->type = MSG_UPLOAD_CHUNK;
    ask->payload = bytes_of((const uint8_t *)u->body.data + u->have, take);
    m->chunk = (struct msg_upload_chunk){.req = req,
                                         .upload = bytes_str(u->name),
                                         .offset = u->have,
                                         .crc = crc32c(0, ask->payload.data, take)};
}

void upload_heard(struct upload *u, const struct msg_upload_state *m) {
    link_text(m->upload, u->name, sizeof u->name);
    u->have = m->have < u->body.len ? m->have : u->body.len;
    u->chunk_bytes = m->chunk_bytes;
}

bool upload_refused(struct upload *u, const struct penstock_refusal *why) {
    bool lost = strcmp(why->code, "unknown_upload") == 0;
    if (!lost && strcmp(why->code, "checksum") != 0) return false;
    if (++u->faults > FAULTS_MAX) return false;
    /* A whole one whose checksum is wrong holds bytes of somebody else's with the same key. */
    if (lost || upload_whole(u)) u->name[0] = '\0', u->have = 0;
    if (!lost && !u->name[0]) u->key = NULL;
    return true;
}

/* A broker that is full, stops or mends its disk may be there again within our time. */
static bool wait_out(struct penstock *p, const struct upload *u, int64_t deadline_ms) {
    int64_t pause_ms = (int64_t)p->refusal.retry_after_ms;
    if (!u->name[0] || pause_ms == 0 || clock_mono_ms() + pause_ms >= deadline_ms) return false;
    sock_wait(NULL, 0, pause_ms);
    return true;
}

int upload_run(struct penstock *p, struct upload *u, const struct penstock_job *job,
               int64_t deadline_ms, char *err, size_t err_bytes) {
    while (!upload_whole(u)) {
        union upload_message m;
        struct link_ask ask;
        struct link_answer a;
        upload_next(u, link_next_req(p), &m, &ask);
        int64_t left_ms = deadline_ms - clock_mono_ms();
        int rc = link_ask(p, &ask, left_ms, &a, err, err_bytes);
        if (rc == PENSTOCK_REFUSED &&
            (upload_refused(u, &p->refusal) || wait_out(p, u, deadline_ms)))
            continue;
        if (rc < 0) return rc;
        upload_heard(u, &a.as.upload_state);
        link_answer_fini(&a);
        if (job->progress && job->progress(job->progress_arg, u->have, u->body.len))
            return err_set(err, err_bytes, PENSTOCK_STOPPED, "stopped by the caller");
    }
    return 0;
}

void upload_give_up(struct penstock *p, const struct upload *u) {
    if (!u->name[0]) return;
    struct penstock_refusal why = p->refusal;
    struct msg_upload_drop m = {.req = link_next_req(p), .upload = bytes_str(u->name)};
    link_send(p, MSG_UPLOAD_DROP, &m, bytes_of(NULL, 0), clock_mono_ms(), NULL, 0);
    p->refusal = why;
}
