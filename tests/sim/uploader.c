/* Clients that upload the body of a job: begun, sent in chunks over connections and brokers that
 * die, and submitted or dropped; repeated where no answer comes. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "schemas/pack.h"
#include "tests/sim/world.h"

static void body_of(const struct uploading *u, struct buf *out) {
    struct packer p = packer_of(out);
    actors_body(&p, u->n, 1100 + u->n % 1900);
}

static void say(const struct client *c, enum msg_type type, const void *header) {
    net_send(c->conn, type, header, NULL, 0);
}

static void send_chunk(struct client *c, struct uploading *u, struct bytes body) {
    uint64_t left = body.len - u->have;
    uint64_t len = left < UPLOAD_CHUNK ? left : UPLOAD_CHUNK;
    struct bytes data = bytes_of((const uint8_t *)body.data + u->have, len);
    struct msg_upload_chunk m = {.req = u->req,
                                 .upload = bytes_str(u->name),
                                 .offset = chance(20) ? draw(body.len) : u->have,
                                 .crc = crc32c(0, data.data, data.len)};
    if (chance(10)) m.crc ^= 1;
    net_send(c->conn, MSG_UPLOAD_CHUNK, &m, &data, 1);
}

static void send_submit(struct client *c, struct uploading *u) {
    static const char *const pipelines[] = {"one", "chain", "late"};
    char key[16];
    struct msg_submit m = {.req = u->req,
                           .kind = bytes_str("text.embed"),
                           .pipeline = bytes_str(pipelines[u->n % 3]),
                           .upload = bytes_str(u->name)};
    snprintf(key, sizeof key, "key-%d", (int)(u->n % KEYS));
    if (u->n % 5 == 0) m.key = bytes_str(key); /* it may belong to another body */
    say(c, MSG_SUBMIT, &m);
}

/* The next step, or the last one again. */
static void ask(struct client *c, struct uploading *u) {
    struct buf buf = {0};
    char key[24];
    body_of(u, &buf);
    struct bytes body = buf_bytes(&buf);
    u->req = ++c->req;
    u->sent_ms = W->mono_ms;
    snprintf(key, sizeof key, "up-%llu", (unsigned long long)u->n);
    struct msg_upload_begin begin = {.req = u->req,
                                     .bytes = body.len,
                                     .crc = crc32c(0, body.data, body.len),
                                     .key = bytes_str(key)};
    struct msg_upload_get get = {.req = u->req, .upload = bytes_str(u->name)};
    struct msg_upload_drop drop = {.req = u->req, .upload = bytes_str(u->name)};
    if (!u->name[0])
        say(c, MSG_UPLOAD_BEGIN, &begin);
    else if (chance(10))
        say(c, MSG_UPLOAD_DROP, &drop);
    else if (chance(30))
        say(c, MSG_UPLOAD_GET, &get);
    else if (u->have < body.len)
        send_chunk(c, u, body);
    else
        send_submit(c, u);
    buf_fini(&buf);
}

void uploader_hears(struct client *c, const struct msg_desc *d, const struct packet *p) {
    struct uploading *u = &c->uploading;
    struct refusal why;
    if (!u->open || msg_req(p->frame[1]) != u->req) return;
    if (d->type == MSG_ACCEPTED) u->open = false;
    if (d->type == MSG_UPLOAD_STATE) {
        struct msg_upload_state m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        CHECK(bytes_to_cstr(m.upload, u->name, sizeof u->name) == 0, "a name that is none");
        u->open = m.bytes > 0;
        u->have = m.have;
        if (u->open) ask(c, u);
    } else if (d->type == MSG_REFUSED) {
        struct msg_refused m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        if (m.retry_after_ms || bytes_is(m.code, "checksum")) return; /* again, in a while */
        u->open = bytes_is(m.code, "unknown_upload") && W->faults;
        u->name[0] = '\0';
        u->have = 0;
    }
}

void uploader_step(struct client *c) {
    struct uploading *u = &c->uploading;
    if (u->open && W->mono_ms - u->sent_ms > 600) {
        if (chance(50)) /* forgotten: it expires */
            u->open = false;
        else
            ask(c, u);
    }
    if (u->open || W->submitted >= W->jobs_wanted || !toss(40)) return;
    *u = (struct uploading){.open = true, .n = draw(100000)};
    W->submitted++;
    ask(c, u);
}
