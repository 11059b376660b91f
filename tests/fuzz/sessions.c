/* sessions.c - fuzzes what strangers say to a broker over time: three clients and five workers,
 * whose messages, connections and deaths the input spells out, against the real loop in the
 * simulated world (tests/sim), which checks at every step what the broker sends, writes and
 * remembers.
 *
 * A byte chooses what happens: time passes, the store commits or fails, the broker is killed or
 * told to drain, a connection is made anew, or a peer says something: a message of a known type
 * with fields from the next bytes, or with a header of raw bytes; alone, or gathered into a MANY
 * with what it said before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "schemas/many.h"
#include "schemas/pack.h"
#include "tests/sim/world.h"

enum { PEERS = 8, KNOWN = 16, INPUT_MAX = 4096, SESSION_CHARS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct peer {
    uint32_t conn;
    bool open;
    uint64_t epoch;
};
static struct {
    struct reader in;
    struct peer peer[PEERS]; /* the first CLIENTS are clients */
    uint64_t job[KNOWN], req;
    struct held lease[KNOWN];
    char upload[LIMIT_UPLOAD_NAME_BYTES + 1];
    uint64_t upload_have, upload_n;
    uint32_t n_jobs, n_leases;
} f;

static uint8_t u8(void) {
    return read_u8(&f.in); /* 0 behind the end */
}

static bool is_worker(uint32_t p) {
    return p >= CLIENTS;
}

/* ---- what peers hear ---- */

static void hear(struct peer *p, const struct packet *m) {
    union {
        struct msg_accepted accepted;
        struct msg_upload_state upload;
        struct msg_registered registered;
        struct msg_lease lease;
        unsigned char other[512];
    } h;
    const struct msg_desc *d = msg_desc(((const uint8_t *)m->frame[0].data)[3]);
    struct refusal why;
    if (msg_decode(d, m->frame[1], &h, &why) != 0) abort(); /* the broker said it */
    if (d->type == MSG_ACCEPTED) f.job[f.n_jobs++ % KNOWN] = h.accepted.job;
    if (d->type == MSG_REGISTERED) p->epoch = h.registered.epoch;
    if (d->type == MSG_LEASE)
        f.lease[f.n_leases++ % KNOWN] = (struct held){
            .job = h.lease.job, .attempt = h.lease.attempt, .stage = (uint32_t)h.lease.stage};
    if (d->type == MSG_UPLOAD_STATE) {
        bytes_to_cstr(h.upload.upload, f.upload, sizeof f.upload);
        f.upload_have = h.upload.have;
    }
}

static void hear_all(void) {
    for (uint32_t i = 0; i < PEERS; i++) {
        if (!f.peer[i].open || !W->conns[f.peer[i].conn].open) continue;
        for (struct packet *m; (m = net_receive(f.peer[i].conn));) {
            hear(&f.peer[i], m);
            free(m);
        }
    }
}

/* ---- what they say ---- */

static void body(uint64_t n, struct buf *out) {
    struct packer p = packer_of(out);
    actors_body(&p, n, (n % 16) * 160);
}

static void say(uint32_t p, enum msg_type type, const void *header) {
    net_send(f.peer[p].conn, type, header, NULL, 0);
}

static void say_submit(uint32_t p) {
    static const char *const pipelines[] = {"one", "chain", "late", "none"};
    struct buf buf = {0};
    char key[16];
    uint8_t n = u8(), how = u8();
    snprintf(key, sizeof key, "key-%d", n % KEYS);
    body(n, &buf);
    struct bytes payload = buf_bytes(&buf);
    struct msg_submit m = {.req = ++f.req,
                           .kind = bytes_str("text.embed"),
                           .pipeline = bytes_str(pipelines[how % 4]),
                           .priority = how >> 5};
    if (how & 4) m.key = bytes_str(key);
    if (how & 8) m.delay_ms = u8() * 10u;
    if (how & 16) m.ttl_ms = 1 + u8() * 10u;
    bool uploaded = u8() % 8 == 0 && f.upload[0];
    if (uploaded) m.upload = bytes_str(f.upload);
    net_send(f.peer[p].conn, MSG_SUBMIT, &m, &payload, !uploaded);
    buf_fini(&buf);
}

static void say_upload(uint32_t p) {
    struct buf buf = {0};
    uint8_t how = u8();
    if (how % 4 == 0) f.upload_n = 8 + how / 4 % 8; /* 1280 bytes and more */
    body(f.upload_n, &buf);
    struct bytes whole = buf_bytes(&buf);
    uint64_t have = f.upload_have < whole.len ? f.upload_have : 0;
    if (how % 4 == 3) have = u8() % 4 * UPLOAD_CHUNK % whole.len;
    uint64_t left = whole.len - have;
    struct bytes data =
        bytes_of((const uint8_t *)whole.data + have, left < UPLOAD_CHUNK ? left : UPLOAD_CHUNK);
    struct msg_upload_begin begin = {
        .req = ++f.req, .bytes = whole.len, .crc = crc32c(0, whole.data, whole.len)};
    struct msg_upload_chunk chunk = {.req = f.req,
                                     .upload = bytes_str(f.upload),
                                     .offset = have,
                                     .crc = crc32c(0, data.data, data.len)};
    struct msg_upload_drop drop = {.req = f.req, .upload = bytes_str(f.upload)};
    if (how % 4 == 0 || !f.upload[0])
        say(p, MSG_UPLOAD_BEGIN, &begin);
    else if (how % 16 == 1)
        say(p, MSG_UPLOAD_DROP, &drop);
    else
        net_send(f.peer[p].conn, MSG_UPLOAD_CHUNK, &chunk, &data, 1);
    buf_fini(&buf);
}

static void say_question(uint32_t p) {
    uint8_t what = u8();
    uint64_t job = f.job[what / 16];
    struct msg_wait wait = {.req = ++f.req, .job = job, .timeout_ms = u8() * 10u};
    struct msg_result_get get = {.req = f.req, .job = job};
    struct msg_show show = {.req = f.req, .job = job};
    struct msg_cancel cancel = {.req = f.req, .job = job, .reason = bytes_str("enough")};
    struct msg_events events = {.req = f.req, .job = job, .from = UINT64_MAX, .follow = what & 1};
    struct msg_events_stop stop = {.req = f.req - what / 16};
    struct msg_list list = {.req = f.req, .limit = 1 + what / 16};
    struct msg_requeue again = {.req = f.req, .job = what & 128 ? job : 0, .limit = 4};
    struct msg_drop drop = {.req = f.req, .job = what & 128 ? job : 0, .limit = 4};
    struct msg_status status = {.req = f.req};
    switch (what % 10) {
    case 0: say(p, MSG_WAIT, &wait); break;
    case 1: say(p, MSG_RESULT_GET, &get); break;
    case 2: say(p, MSG_SHOW, &show); break;
    case 3: say(p, MSG_CANCEL, &cancel); break;
    case 4: say(p, MSG_EVENTS, &events); break;
    case 5: say(p, MSG_EVENTS_STOP, &stop); break;
    case 6: say(p, MSG_LIST, &list); break;
    case 7: say(p, MSG_REQUEUE, &again); break;
    case 8: say(p, MSG_DROP, &drop); break;
    default: say(p, MSG_STATUS, &status); break;
    }
}

static void say_register(uint32_t p, struct bytes session) {
    struct buf runs = {0}, models = {0};
    struct packer r = packer_of(&runs), q = packer_of(&models);
    static const char *const all[] = {"test.one", "test.a", "test.b", "test.c"};
    uint32_t n = 1 + u8() % 4;
    pack_array(&r, n);
    for (uint32_t i = 0; i < n; i++) pack_str(&r, all[i]);
    pack_array(&q, 1);
    pack_str(&q, "m");
    struct msg_register m = {.session = session,
                             .name = bytes_str("w"),
                             .runs = {.raw = buf_bytes(&runs), .count = n},
                             .models = {.raw = buf_bytes(&models), .count = 1},
                             .credit_jobs = 1 + u8() % CREDIT_MAX,
                             .credit_bytes = 500 + u8() * 20u,
                             .many = n % 2};
    say(p, MSG_REGISTER, &m);
    buf_fini(&runs);
    buf_fini(&models);
}

static void say_done(uint32_t p, const struct held *l, uint8_t how) {
    struct buf out = {0};
    uint64_t stage = l->stage + how / 16 % 4;
    buf_append(&out, (uint8_t[]){0xC6, 0, 0, 0, OUTPUT_BYTES}, 5);
    buf_u64le(&out, l->job);
    buf_u64le(&out, stage);
    buf_u64le(&out, l->attempt);
    struct bytes payload = buf_bytes(&out);
    struct msg_stage_done m = {.job = l->job,
                               .stage = stage,
                               .attempt = l->attempt,
                               .more = how & 128,
                               .numerics_id = bytes_str("sim")};
    net_send(f.peer[p].conn, MSG_STAGE_DONE, &m, &payload, 1);
    buf_fini(&out);
}

static void say_as_worker(uint32_t p) {
    static const char *const errors[] = {"transient", "permanent", "timeout", "worker_died"};
    char session[SESSION_CHARS + 1];
    snprintf(session, sizeof session, "s%u", p);
    uint8_t what = u8();
    const struct held *l = &f.lease[u8() % KNOWN];
    struct msg_heartbeat beat = {.session = bytes_str(session), .epoch = f.peer[p].epoch};
    struct msg_stage_failed failed = {.job = l->job,
                                      .stage = l->stage,
                                      .attempt = l->attempt,
                                      .error_class = bytes_str(errors[what / 16 % 4]),
                                      .reason = bytes_str("it broke")};
    struct msg_return back = {.job = l->job, .stage = l->stage, .attempt = l->attempt};
    struct msg_progress progress = {
        .job = l->job, .stage = l->stage, .attempt = l->attempt, .type = bytes_str("progress")};
    struct msg_goodbye goodbye = {.session = bytes_str(session), .dead = what & 16};
    switch (what % 8) {
    case 0: say_register(p, bytes_str(session)); break;
    case 1: say(p, MSG_HEARTBEAT, &beat); break;
    case 2: say(p, MSG_STAGE_FAILED, &failed); break;
    case 3: say(p, MSG_RETURN, &back); break;
    case 4: say(p, MSG_PROGRESS, &progress); break;
    case 5: say(p, MSG_GOODBYE, &goodbye); break;
    default: say_done(p, l, what); break;
    }
}

/* Any type in any direction, any header; but the output of a stage names its stage (the world reads
 * it), so that outcomes are said in order only. */
static void say_raw(uint32_t p) {
    uint8_t type = u8();
    uint32_t len = u8(), frames = 2;
    struct bytes frame[LIMIT_FRAMES];
    uint8_t tag[MSG_TAG_BYTES] = {'P', 'S', u8() ? 1 : 2, type};
    if (type == MSG_STAGE_DONE || type == MSG_MANY) return; /* MANY: with what is said, see speak */
    if (len > read_left(&f.in)) len = (uint32_t)read_left(&f.in);
    frame[0] = bytes_of(tag, sizeof tag - (len % 16 == 15));
    frame[1] = read_bytes(&f.in, len);
    for (uint32_t more = u8() % 4; more > 0 && frames < LIMIT_FRAMES; more--) {
        uint32_t bytes = u8();
        if (bytes > read_left(&f.in)) bytes = (uint32_t)read_left(&f.in);
        frame[frames++] = read_bytes(&f.in, bytes);
    }
    net_send_frames(f.peer[p].conn, frame, frames);
}

/* A list of raw bytes, with whatever count. What can be read may be anything but an outcome. */
static void say_raw_many(uint32_t p) {
    uint8_t tag[MSG_TAG_BYTES];
    struct buf header = {0};
    struct many_it it;
    struct refusal why;
    struct msg_many m = {.n = 1 + u8() % 4};
    uint32_t len = u8();
    if (len > read_left(&f.in)) len = (uint32_t)read_left(&f.in);
    struct bytes list = read_bytes(&f.in, len);
    for (int e = many_begin(&it, list, m.n, &why); e >= 0 && many_next(&it, &why) == 1;)
        if (it.tag[3] == MSG_STAGE_DONE) return;
    if (msg_encode(MSG_MANY, &m, tag, &header) != 0) abort();
    struct bytes frame[] = {bytes_of(tag, sizeof tag), buf_bytes(&header), list};
    net_send_frames(f.peer[p].conn, frame, 3);
    buf_fini(&header);
}

/* ---- what happens ---- */

static void connect_peer(uint32_t p) {
    if (f.peer[p].open && W->conns[f.peer[p].conn].open) net_close(f.peer[p].conn);
    f.peer[p].conn = net_connect(is_worker(p));
    f.peer[p].open = true;
}

static void speak(uint8_t how) {
    uint32_t p = u8() % PEERS;
    if (!f.peer[p].open || !W->conns[f.peer[p].conn].open) connect_peer(p);
    if (how == 0 && W->gathers)
        say_raw_many(p);
    else if (how == 0)
        say_raw(p);
    else if (is_worker(p))
        say_as_worker(p);
    else if (how % 3 == 0)
        say_upload(p);
    else if (how % 3 == 1)
        say_submit(p);
    else
        say_question(p);
}

/* The broker sleeps: the next thing happens. */
static void play(void) {
    hear_all();
    if (read_left(&f.in) == 0) world_end();
    uint8_t op = u8();
    W->mono_ms++;
    W->gathers = op & 0x40;
    if (op & 0x80) net_run_store(COMMIT_BATCH);
    switch (op & 15) {
    case 0: W->mono_ms += u8() * 4; break;
    case 1: net_run_store(1 + u8() % 8); break;
    case 2: world_kill();
    case 3: W->commit_fails = true; break;
    case 4: connect_peer(u8() % PEERS); break;
    case 5: W->signalled = true; break;
    default: speak((op & 15) - 6); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct pipelines folders[FOLDERS + 1];
    if (folders[0].n == 0) {
        char dir[] = "/tmp/penstock-fuzz-XXXXXX", err[256];
        if (!mkdtemp(dir) || world_pipelines(folders, dir, err, sizeof err) != 0) abort();
        rmdir(dir);
    }
    memset(&f, 0, sizeof f);
    f.in = reader_of(bytes_of(data, bytes < INPUT_MAX ? bytes : INPUT_MAX));
    f.upload_n = 8;
    world_play(&folders[0], play);
    return 0;
}
