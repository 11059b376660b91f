/* What clients ask of uploads (upload.h), and what follows from it. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"

enum { RETRY_MS = 500 };

static void name_of(const struct broker *b, uint64_t id, char out[LIMIT_UPLOAD_NAME_BYTES + 1]) {
    job_id_text(id, out);
    job_id_text(uploads_token(b->store, id), out + JOB_ID_CHARS);
}
_Static_assert(LIMIT_UPLOAD_NAME_BYTES == 2 * JOB_ID_CHARS, "an id and a token");

static void answer(struct broker *b, const struct sock_peer *to, uint64_t req, uint64_t id,
                   uint64_t have, uint64_t bytes) {
    char name[LIMIT_UPLOAD_NAME_BYTES + 1];
    name_of(b, id, name);
    struct msg_upload_state m = {.req = req,
                                 .upload = bytes_str(name),
                                 .have = have,
                                 .bytes = bytes,
                                 .chunk_bytes = b->uploads.chunk_bytes};
    reply_client(b, to, MSG_UPLOAD_STATE, &m);
}

static void refuse_unknown(struct refusal *why) {
    refusal_set(why, "unknown_upload", "upload", "an upload of this broker",
                "begin it again with UPLOAD_BEGIN",
                "there is no such upload: it never was, was dropped, or is a job by now");
}

/* The id in a name, when the name is one that this broker gave. */
static bool id_of(const struct broker *b, struct bytes name, uint64_t *id, struct refusal *why) {
    uint64_t token;
    if (name.len == LIMIT_UPLOAD_NAME_BYTES &&
        job_id_parse(bytes_of(name.data, JOB_ID_CHARS), id) == 0 &&
        job_id_parse(bytes_of((const char *)name.data + JOB_ID_CHARS, JOB_ID_CHARS), &token) == 0 &&
        token == uploads_token(b->store, *id))
        return true;
    refuse_unknown(why);
    return false;
}

/* The upload of this name, when it is open and the asker's; NULL and why. */
static struct upload *named(struct broker *b, const struct request *r, struct bytes name,
                            struct refusal *why) {
    uint64_t id;
    if (!id_of(b, name, &id, why)) return NULL;
    struct upload *u = upload_find(&b->uploads, id);
    if (u && !u->submitted && u->tenant == r->tenant) return u;
    refuse_unknown(why);
    return NULL;
}

static void touch(struct broker *b, struct upload *u) {
    due_set(&b->uploads.due, &u->due, b->now_ms + b->config.upload_ttl_ms);
}

static int describe(const struct upload *u, struct arena *a, struct upload_record *out) {
    *out = (struct upload_record){
        .id = u->id, .bytes = u->bytes, .have = u->have, .crc = u->crc, .have_crc = u->have_crc};
    struct bytes key = bytes_str(u->key), tenant = bytes_str(u->tenant->name);
    const void *k = arena_copy(a, key.data, key.len);
    const void *t = arena_copy(a, tenant.data, tenant.len);
    if ((key.len && !k) || (tenant.len && !t)) return -ENOMEM;
    out->key = bytes_of(k, key.len);
    out->tenant = bytes_of(t, tenant.len);
    return 0;
}

/* An operation on u that is answered to r; NULL: no memory, and why. */
static struct commit_op *prepare(const struct upload *u, enum commit_type type,
                                 const struct request *r, uint64_t req, struct refusal *why) {
    struct commit_op *op = commit_op_new(type);
    if (op && describe(u, &op->arena, &op->upload) == 0) {
        op->peer = r->peer;
        op->req = req;
        op->answer = true;
        return op;
    }
    commit_op_free(op);
    refusal_set(why, "full", "", "memory", "try again later", "the broker is out of memory");
    why->retry_after_ms = RETRY_MS;
    return NULL;
}

/* ---- begin ---- */

static bool refuse_room(struct broker *b, const struct request *r, uint64_t bytes,
                        struct refusal *why) {
    struct store_usage u = {0};
    char limit[64] = "";
    if (uploads_of_peer(&b->uploads, &r->peer) >= LIMIT_PEER_UPLOADS)
        snprintf(limit, sizeof limit, "at most %u of one client", LIMIT_PEER_UPLOADS);
    else if (uploads_of_tenant(&b->uploads, r->tenant) >= LIMIT_TENANT_UPLOADS)
        snprintf(limit, sizeof limit, "at most %u of one tenant", LIMIT_TENANT_UPLOADS);
    else if (b->uploads.n == LIMIT_UPLOADS)
        snprintf(limit, sizeof limit, "at most %u", LIMIT_UPLOADS);
    if (limit[0]) {
        refusal_set(why, "full", "", limit, "submit, drop or let expire the ones that are open",
                    "too many uploads are open");
    } else {
        store_usage(b->store, &u);
        uint64_t coming = uploads_missing_bytes(&b->uploads) + bytes;
        uint64_t room = u.blob_cap_bytes / 5 * 4;
        if (u.blob_bytes + coming <= room) return false;
        refusal_set(why, "full", "bytes", "80 % of the store",
                    "wait for retention, or raise the store's cap",
                    "the store has no room for %llu bytes beside what is there and on its way",
                    (unsigned long long)bytes);
    }
    why->retry_after_ms = RETRY_MS;
    return true;
}

void on_upload_begin(struct broker *b, const struct request *r) {
    const struct msg_upload_begin *m = r->header;
    struct refusal why;
    struct upload *u = NULL;
    if (m->key.len) u = upload_by_key(&b->uploads, r->tenant, m->key, m->bytes, (uint32_t)m->crc);
    if (u && !u->submitted) {
        u->peer = r->peer;
        touch(b, u);
        answer(b, &r->peer, m->req, u->id, u->have, u->bytes);
        return;
    }
    struct upload_record fresh = {
        .bytes = m->bytes, .crc = (uint32_t)m->crc, .key = m->key, .tenant = {NULL, 0}};
    if (refuse_writes(b, &why) || load_refuses_upload(b, r->tenant, m->bytes, &why) ||
        refuse_room(b, r, m->bytes, &why))
        goto refuse;
    fresh.id = b->last_id = job_id_next(b->last_id, b->now_wall_ms);
    struct commit_op *op = NULL;
    if (upload_open(&b->uploads, &fresh, r->tenant, &u) == 0)
        op = prepare(u, COMMIT_UPLOAD, r, m->req, &why);
    else
        refusal_set(&why, "full", "", "memory", "try again later", "the broker is out of memory");
    if (!op) {
        if (u) upload_close(&b->uploads, u);
        goto refuse;
    }
    u->peer = r->peer;
    touch(b, u);
    outbox_add(b, op);
    return;
refuse:
    reply_refused(b, r->sock, &r->peer, m->req, &why);
}

/* ---- chunks ---- */

static bool chunk_is_sound(const struct broker *b, const struct upload *u,
                           const struct msg_upload_chunk *m, struct bytes data,
                           struct refusal *why) {
    uint64_t left = u->bytes - u->next;
    uint64_t want = left < b->uploads.chunk_bytes ? left : b->uploads.chunk_bytes;
    char limit[64];
    if (data.len != want) {
        snprintf(limit, sizeof limit, "%llu bytes here", (unsigned long long)want);
        refusal_set(why, "limit", "payload", limit,
                    "send chunks of chunk_bytes, the last one with what is left",
                    "the chunk at offset %llu has %zu bytes", (unsigned long long)m->offset,
                    data.len);
        return false;
    }
    uint32_t crc = crc32c(0, data.data, data.len);
    if (crc == m->crc) return true;
    refusal_set(why, "checksum", "crc", "the CRC32C of the payload", "send the chunk again",
                "the chunk at offset %llu has the checksum %08x, not %08x",
                (unsigned long long)m->offset, crc, (uint32_t)m->crc);
    return false;
}

void on_upload_chunk(struct broker *b, const struct request *r) {
    const struct msg_upload_chunk *m = r->header;
    struct refusal why;
    struct commit_op *op = NULL;
    struct upload *u = named(b, r, m->upload, &why);
    if (!u || refuse_writes(b, &why)) goto refuse;
    u->peer = r->peer;
    touch(b, u);
    if (m->offset != u->next || u->next == u->bytes) { /* sent twice, or one before it was lost */
        answer(b, &r->peer, m->req, u->id, u->have, u->bytes);
        return;
    }
    if (!chunk_is_sound(b, u, m, r->payload[0], &why)) goto refuse;
    if (!(op = prepare(u, COMMIT_CHUNK, r, m->req, &why))) goto refuse;
    if (effects_keep_parts(op, JOB_SLOT_BODY, r->payload, 1) != 0) {
        commit_op_free(op);
        refusal_set(&why, "full", "", "memory", "try again later", "the broker is out of memory");
        why.retry_after_ms = RETRY_MS;
        goto refuse;
    }
    op->offset = u->next;
    u->next += r->payload[0].len;
    b->commit_bytes += op->held = commit_op_bytes(op);
    outbox_add(b, op);
    return;
refuse:
    reply_refused(b, r->sock, &r->peer, m->req, &why);
}

void on_upload_get(struct broker *b, const struct request *r) {
    const struct msg_upload_get *m = r->header;
    struct refusal why;
    const struct upload *u = named(b, r, m->upload, &why);
    if (u)
        answer(b, &r->peer, m->req, u->id, u->have, u->bytes);
    else
        reply_refused(b, r->sock, &r->peer, m->req, &why);
}

/* ---- the end of an upload ---- */

static void drop(struct broker *b, struct upload *u, const struct request *r, uint64_t req) {
    struct commit_op *op = commit_op_new(COMMIT_DROP);
    if (!op) return; /* it stays, and expires again */
    op->upload.id = u->id;
    if (r) {
        op->peer = r->peer;
        op->req = req;
        op->answer = true;
    }
    upload_close(&b->uploads, u);
    outbox_add(b, op);
}

/* May be repeated: an upload that is gone is dropped. */
void on_upload_drop(struct broker *b, const struct request *r) {
    const struct msg_upload_drop *m = r->header;
    struct refusal why;
    uint64_t id;
    if (!id_of(b, m->upload, &id, &why)) {
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    struct upload *u = named(b, r, m->upload, &why);
    if (u)
        drop(b, u, r, m->req);
    else
        answer(b, &r->peer, m->req, id, 0, 0);
}

void upload_expired(struct broker *b, struct upload *u) {
    char id[JOB_ID_CHARS + 1];
    job_id_text(u->id, id);
    log_info("upload_expired", "upload=%s bytes=%llu have=%llu", id, (unsigned long long)u->bytes,
             (unsigned long long)u->have);
    touch(b, u); /* should there be no memory to drop it now */
    drop(b, u, NULL, 0);
}

/* ---- submit ---- */

int upload_for_submit(struct broker *b, const struct request *r, struct upload **out,
                      struct refusal *why) {
    const struct msg_submit *m = r->header;
    uint64_t id;
    *out = NULL;
    if ((m->upload.len > 0) == (r->n > 0)) {
        refusal_set(why, "frames", "payload", "a payload frame, or an upload",
                    "send the body as the payload, or upload it and name the upload",
                    "the job has %s", r->n ? "two bodies" : "no body");
        return ERR_FIELD;
    }
    if (!m->upload.len) return 0;
    if (!id_of(b, m->upload, &id, why)) return ERR_UNKNOWN;
    struct upload *u = upload_find(&b->uploads, id);
    if (u && u->tenant != r->tenant) {
        refuse_unknown(why);
        return ERR_UNKNOWN;
    }
    if (u && !u->submitted && (u->have < u->bytes || u->have_crc != u->crc)) {
        bool whole = u->have == u->bytes;
        refusal_set(why, whole ? "checksum" : "limit", "upload", "a whole upload",
                    whole ? "begin it again" : "send the chunks that are missing",
                    whole ? "the upload has not the checksum that it was begun with"
                          : "the upload has %llu of %llu bytes",
                    (unsigned long long)u->have, (unsigned long long)u->bytes);
        return ERR_FIELD;
    }
    if (u && !u->submitted) {
        *out = u;
        return 0;
    }
    /* Sent again, its job is on its way or there already: whoever comes behind it will see. */
    struct upload gone = {.id = id, .tenant = r->tenant};
    struct commit_op *op = prepare(&gone, COMMIT_LOOK, r, m->req, why);
    if (!op) return -ENOMEM;
    op->record.kind = bytes_of(arena_copy(&op->arena, m->kind.data, m->kind.len), m->kind.len);
    op->record.tenant = op->upload.tenant;
    outbox_add(b, op);
    return 1;
}

int upload_read(struct broker *b, const struct upload *u, struct bytes *body, struct refusal *why) {
    struct store_read *t;
    struct job_payload p = upload_payload(u);
    buf_clear(&b->payload);
    int e = store_read_begin(b->store, &t);
    if (e == 0) {
        e = store_payload_get(t, u->id, JOB_SLOT_BODY, &p, &b->payload);
        store_read_end(t);
    }
    *body = buf_bytes(&b->payload);
    if (e)
        refusal_set(why, "store", "upload", "", "run `penstock store check`, and begin it again",
                    "the upload cannot be read: %s", err_text(e));
    return e;
}

struct job_payload upload_payload(const struct upload *u) {
    return (struct job_payload){.bytes = u->bytes, .crc = u->crc, .in_blob = true};
}

int upload_submit(struct broker *b, struct upload *u, struct commit_op *op) {
    if (describe(u, &op->arena, &op->upload) != 0) return -ENOMEM;
    due_drop(&b->uploads.due, &u->due);
    u->submitted = true;
    upload_count(u, false);
    return 0;
}

void upload_submitted(struct broker *b, uint64_t id) {
    struct upload *u = upload_find(&b->uploads, id);
    if (u) upload_close(&b->uploads, u);
}

void upload_restored(struct broker *b, const struct commit_op *op) {
    struct upload *u = upload_find(&b->uploads, op->upload.id);
    if (!u) return;
    if (op->upload.bytes == 0) {
        upload_close(&b->uploads, u);
        return;
    }
    u->submitted = false;
    upload_count(u, true);
    touch(b, u);
}

/* ---- back from the disk ---- */

static void chunk_committed(struct broker *b, const struct commit_op *op) {
    struct refusal why;
    struct upload *u = upload_find(&b->uploads, op->upload.id);
    if (!u || op->upload.bytes == 0) {
        if (u && !u->submitted) upload_close(&b->uploads, u);
        refuse_unknown(&why);
        reply_refused(b, b->clients, &op->peer, op->req, &why);
        return;
    }
    u->have = op->upload.have;
    u->have_crc = op->upload.have_crc;
    if (op->behind || u->next < u->have) u->next = u->have;
    answer(b, &op->peer, op->req, u->id, u->have, u->bytes);
}

static void looked(struct broker *b, const struct commit_op *op) {
    struct refusal why;
    if (op->existing && !op->conflict) {
        struct job *j = job_table_find(&b->jobs, op->existing);
        enum job_state state = j ? job_seen_state(j) : op->existing_state;
        struct msg_accepted m = {.req = op->req,
                                 .job = op->existing,
                                 .state = bytes_str(job_state_name(state)),
                                 .seed = op->existing_seed,
                                 .existing = true};
        reply_client(b, &op->peer, MSG_ACCEPTED, &m);
        return;
    }
    refuse_unknown(&why);
    reply_refused(b, b->clients, &op->peer, op->req, &why);
}

void upload_committed(struct broker *b, struct commit_op *op) {
    const struct upload *u;
    switch (op->type) {
    case COMMIT_UPLOAD:
        if ((u = upload_find(&b->uploads, op->upload.id)))
            answer(b, &op->peer, op->req, u->id, u->have, u->bytes);
        break;
    case COMMIT_CHUNK: chunk_committed(b, op); break;
    case COMMIT_LOOK: looked(b, op); break;
    default:
        if (op->answer) answer(b, &op->peer, op->req, op->upload.id, 0, 0);
    }
}

bool upload_failed(struct broker *b, struct commit_op *op) {
    struct upload *u = upload_find(&b->uploads, op->upload.id);
    op->answer = false; /* whoever asked was told so */
    if (op->type == COMMIT_CHUNK && u) u->next = u->have;
    if (op->type == COMMIT_UPLOAD) {
        if (u) upload_close(&b->uploads, u);
        op->type = COMMIT_DROP; /* it may be there all the same */
    }
    return op->type == COMMIT_DROP;
}

/* ---- restart ---- */

static int revive(void *arg, const struct upload_record *r) {
    struct broker *b = arg;
    struct upload *u;
    struct tenant *tenant = tenant_get(&b->tenants, r->tenant);
    int e = tenant ? upload_open(&b->uploads, r, tenant, &u) : ERR_FULL;
    if (e) return e;
    touch(b, u);
    if (r->id > b->last_id) b->last_id = r->id;
    return 0;
}

int upload_recover(struct broker *b, struct store_read *t) {
    uploads_init(&b->uploads, uploads_chunk_bytes(b->store));
    return uploads_walk(t, revive, b);
}
