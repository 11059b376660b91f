/* The store, simulated: transactions with an undo log, commits that fail, records as real bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "store/record.h"
#include "store/sources.h"
#include "store/uploads.h"
#include "tests/sim/world.h"

struct store_read { /* both kinds of transaction see the one state there is */
    int unused;
};
static struct store_read view;

static struct bytes copy(struct bytes from) {
    if (!from.len) return (struct bytes){NULL, 0};
    void *to = malloc(from.len);
    CHECK(to, "out of memory");
    memcpy(to, from.data, from.len);
    return bytes_of(to, from.len);
}

static void forget_bytes(struct bytes *b) {
    free((void *)b->data);
    *b = (struct bytes){NULL, 0};
}

struct cell *disk_cell(uint64_t id) {
    struct disk *d = &W->disk;
    uint32_t low = 0, high = d->n;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (d->cells[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < d->n && d->cells[low]->id == id ? d->cells[low] : NULL;
}

bool disk_record(const struct cell *c, struct job_record *out, struct arena *a) {
    if (!c || !c->record.len) return false;
    int e = record_decode(c->record, out, a);
    CHECK(e == 0, "a record cannot be read: %s", err_text(e));
    return true;
}

static struct bytes *slot_of(struct cell *c, uint32_t slot) {
    if (slot == JOB_SLOT_BODY) return &c->body;
    if (slot == JOB_SLOT_RESULT) return &c->result;
    CHECK(slot >= JOB_SLOT_STAGE && slot < JOB_SLOT_STAGE + STAGES_MAX, "slot %u", slot);
    return &c->output[slot - JOB_SLOT_STAGE];
}

struct bytes disk_payload(const struct cell *c, const struct job_record *r, uint32_t slot) {
    const struct job_payload *p = slot == JOB_SLOT_BODY     ? &r->body
                                  : slot == JOB_SLOT_RESULT ? &r->result
                                                            : &r->input;
    return p->in_blob ? *slot_of((struct cell *)c, slot) : p->inlined;
}

/* ---- reading ---- */

uint64_t store_epoch(const struct store *s) {
    (void)s;
    return W->disk.epoch;
}
int store_read_begin(struct store *s, struct store_read **out) {
    (void)s;
    *out = &view;
    return 0;
}
void store_read_end(struct store_read *t) {
    (void)t;
}
struct scrub_stats scrub_stats(const struct scrub *s) {
    (void)s;
    return (struct scrub_stats){0};
}
uint64_t store_read_damaged(const struct store_read *t) {
    (void)t;
    return 0;
}
int store_usage(struct store *s, struct store_usage *out) {
    (void)s;
    *out = (struct store_usage){.jobs = W->disk.n, .blob_cap_bytes = 1u << 30};
    return 0;
}
struct store_room store_room_of(uint64_t payload_bytes) {
    return (struct store_room){.blob_bytes = payload_bytes};
}
bool store_has_room(const struct store *s, struct store_room more) {
    (void)s, (void)more;
    return !chance(50);
}
int store_write_room(const struct store_write *w, uint64_t payload_bytes) {
    (void)w, (void)payload_bytes;
    return chance(20) ? ERR_FULL : 0;
}
int store_outcome_room(const struct store_write *w, uint64_t payload_bytes) {
    (void)w, (void)payload_bytes;
    return chance(50) ? ERR_FULL : 0;
}
int store_payload_del(struct store_write *w, uint64_t job, uint32_t slot) {
    (void)w, (void)job, (void)slot;
    return 0;
}

int jobs_get(struct store_read *t, uint64_t id, struct job_record *out, struct arena *a) {
    (void)t;
    return disk_record(disk_cell(id), out, a) ? 0 : -ENOENT;
}

int jobs_last_id(struct store_read *t, uint64_t *id) {
    (void)t;
    uint32_t i = W->disk.n;
    while (i > 0 && !W->disk.cells[i - 1]->record.len) i--;
    *id = i > 0 ? W->disk.cells[i - 1]->id : 0;
    return 0;
}

int jobs_by_key(struct store_read *t, struct bytes tenant, struct bytes key, uint64_t *id) {
    (void)t;
    uint32_t of = sim_tenant(tenant);
    for (uint32_t i = 0; i < KEYS * TENANTS; i++) {
        const struct key *k = &W->disk.keys[i];
        if (!k->id || k->tenant != of || !bytes_is(key, k->text)) continue;
        *id = k->id;
        return 0;
    }
    return -ENOENT;
}

int jobs_walk(struct store_read *t, uint64_t from, bool down, bool live_only, struct arena *a,
              int (*fn)(void *arg, const struct job_record *r), void *arg) {
    (void)t;
    struct disk *d = &W->disk;
    for (uint32_t i = 0; i < d->n; i++) {
        struct cell *c = d->cells[down ? d->n - 1 - i : i];
        struct job_record r;
        arena_reset(a);
        if ((down ? c->id > from : c->id < from) || !disk_record(c, &r, a)) continue;
        if (live_only && job_state_terminal(r.state)) continue;
        int e = fn(arg, &r);
        if (e) return e;
    }
    return 0;
}

int jobs_walk_tenant(struct store_read *t, struct bytes tenant, uint64_t from, struct arena *a,
                     int (*fn)(void *arg, const struct job_record *r), void *arg) {
    (void)t;
    struct disk *d = &W->disk;
    uint32_t of = sim_tenant(tenant);
    for (uint32_t i = d->n; i > 0; i--) {
        struct cell *c = d->cells[i - 1];
        struct job_record r;
        arena_reset(a);
        if (c->id > from || c->tenant != of || !disk_record(c, &r, a)) continue;
        int e = fn(arg, &r);
        if (e) return e;
    }
    return 0;
}

int store_payload_get(struct store_read *t, uint64_t job, uint32_t slot,
                      const struct job_payload *p, struct buf *out) {
    (void)t;
    struct cell *c = disk_cell(job);
    struct bytes data = p->in_blob ? *slot_of(c, slot) : p->inlined;
    CHECK(data.len == p->bytes && crc32c(0, data.data, data.len) == p->crc,
          "slot %u of a job is not what its record says", slot);
    return buf_append(out, data.data, data.len);
}

/* ---- writing ---- */

static void put(struct cell *c, struct bytes *at, struct bytes now) {
    struct disk *d = &W->disk;
    if (d->n_log == d->log_cap) {
        d->log_cap = d->log_cap ? d->log_cap * 2 : 256;
        d->log = realloc(d->log, d->log_cap * sizeof *d->log);
        CHECK(d->log, "out of memory");
    }
    d->log[d->n_log++] = (struct undo){.cell = c, .at = at, .was = *at, .end_was = c->end};
    d->bytes += now.len - at->len;
    *at = copy(now);
}

int store_write_begin(struct store *s, struct store_write **out) {
    (void)s;
    if (W->disk.poisoned) return -EIO;
    *out = (struct store_write *)&view;
    memcpy(W->disk.keys_was, W->disk.keys, sizeof W->disk.keys);
    memcpy(W->disk.sieve_was, W->disk.sieve, sizeof W->disk.sieve);
    W->disk.n_ends_was = W->disk.n_ends;
    return 0;
}

void store_abort(struct store_write *w) {
    (void)w;
    struct disk *d = &W->disk;
    while (d->n_log) {
        struct undo *u = &d->log[--d->n_log];
        d->bytes += u->was.len - u->at->len;
        forget_bytes(u->at);
        *u->at = u->was;
        u->cell->end = u->end_was;
    }
    d->n_gone = 0;
    d->n_ends = d->n_ends_was;
    memcpy(d->keys, d->keys_was, sizeof d->keys);
    memcpy(d->sieve, d->sieve_was, sizeof d->sieve);
}

/* A flush that fails says nothing about what reached the disk. */
int store_commit(struct store_write *w) {
    struct disk *d = &W->disk;
    bool fails = W->commit_fails || chance(15);
    W->commit_fails = false;
    if (fails) {
        d->poisoned = true;
        W->disk_failures++;
        if (toss(500)) store_abort(w);
    }
    ends_committed();
    while (d->n_log) {
        struct undo *u = &d->log[--d->n_log];
        u->cell->unsure = fails;
        forget_bytes(&u->was);
    }
    return fails ? -EIO : 0;
}

int store_reopen(struct store *s, char *err, size_t err_bytes) {
    (void)s;
    if (chance(300)) return err_set(err, err_bytes, -EIO, "not yet");
    W->disk.poisoned = false;
    return 0;
}

struct store_read *store_write_view(struct store_write *w) {
    (void)w;
    return &view;
}

static void put_record(struct cell *c, const struct job_record *r) {
    struct buf b = {0};
    int e = record_encode(r, &b);
    CHECK(e == 0, "a record cannot be written: %s", err_text(e));
    put(c, &c->record, buf_bytes(&b));
    buf_fini(&b);
    ends_put(c, r);
}

static struct cell *cell_for(uint64_t id) {
    struct disk *d = &W->disk;
    struct cell *c = disk_cell(id);
    if (c) return c;
    if (d->n == d->cap) {
        d->cap = d->cap ? d->cap * 2 : 256;
        d->cells = realloc(d->cells, d->cap * sizeof *d->cells);
        CHECK(d->cells, "out of memory");
    }
    CHECK((c = calloc(1, sizeof *c)) != NULL, "out of memory");
    uint32_t at = d->n++; /* an outcome that waited for room comes with older ids */
    for (; at > 0 && d->cells[at - 1]->id > id; at--) d->cells[at] = d->cells[at - 1];
    d->cells[at] = c;
    c->id = id;
    return c;
}

int jobs_add(struct store_write *w, const struct job_record *r, uint64_t *existing) {
    (void)w;
    (void)existing;
    struct cell *c = cell_for(r->id);
    CHECK(!c->record.len && !c->deleted, "an id is used twice");
    oracle_put(c, r, NULL);
    put_record(c, r);
    for (uint32_t i = 0; i < KEYS * TENANTS && r->key.len; i++) {
        struct key *k = &W->disk.keys[i];
        if (k->id) continue;
        k->tenant = c->tenant;
        bytes_to_cstr(r->key, k->text, sizeof k->text);
        k->id = r->id;
        break;
    }
    return 0;
}

int jobs_put(struct store_write *w, const struct job_record *r) {
    (void)w;
    struct cell *c = r->parent ? cell_for(r->id) : disk_cell(r->id);
    struct job_record was;
    bool there = disk_record(c, &was, NULL);
    CHECK(there || r->parent, "an update of a job that is not there");
    struct job_record now = *r;
    if (there && !now.body.in_blob && !now.body.inlined.len) now.body.inlined = was.body.inlined;
    oracle_put(c, &now, there ? &was : NULL);
    put_record(c, &now);
    return 0;
}

int jobs_del(struct store_write *w, uint64_t id) {
    (void)w;
    struct cell *c = disk_cell(id);
    if (!c || !c->record.len) return -ENOENT;
    struct job_record r;
    disk_record(c, &r, NULL);
    struct bytes none = {NULL, 0};
    ends_del(c, &r);
    put(c, &c->record, none);
    if (!c->upload.len) put(c, &c->body, none); /* an upload again: it names the bytes */
    put(c, &c->result, none);
    for (uint32_t s = 0; s < STAGES_MAX; s++) put(c, &c->output[s], none);
    for (uint32_t i = 0; i < KEYS * TENANTS; i++)
        if (W->disk.keys[i].id == id) W->disk.keys[i].id = 0;
    return 0;
}

int store_payload_put(struct store_write *w, uint64_t job, uint32_t slot, const struct bytes *parts,
                      uint32_t n, struct arena *a, struct job_payload *out) {
    (void)w;
    struct buf whole = {0};
    for (uint32_t i = 0; i < n; i++) buf_append(&whole, parts[i].data, parts[i].len);
    struct bytes data = buf_bytes(&whole);
    bool blob = data.len > LIMIT_INLINE_BYTES;
    CHECK(out->bytes == data.len && out->crc == crc32c(0, data.data, data.len) &&
              out->in_blob == blob,
          "the broker describes a payload otherwise than the store keeps it");
    if (blob)
        put(cell_for(job), slot_of(cell_for(job), slot), data);
    else
        out->inlined = bytes_of(arena_copy(a, data.data, data.len), data.len);
    buf_fini(&whole);
    return 0;
}

/* One source of one tenant; its counts are kept with the transaction. */
int sources_add(struct store_write *w, const struct source_record *r) {
    (void)w;
    struct sieve *s = &W->disk.sieve[sim_tenant(r->tenant)][sim_source(r->name)];
    s->dropped += r->dropped;
    s->sampled += r->sampled;
    return 0;
}

int sources_walk(struct store_read *t, int (*fn)(void *arg, const struct source_record *r),
                 void *arg) {
    (void)t;
    for (uint32_t i = 0; i < TENANTS * SOURCES; i++) {
        const struct sieve *s = &W->disk.sieve[i / SOURCES][i % SOURCES];
        struct source_record r = {.tenant = bytes_str(sim_tenant_name(i / SOURCES)),
                                  .name = bytes_str(sim_source_names[i % SOURCES]),
                                  .dropped = s->dropped,
                                  .sampled = s->sampled};
        int e = r.dropped || r.sampled ? fn(arg, &r) : 0;
        if (e) return e;
    }
    return 0;
}

/* ---- uploads ---- */

struct upload_cell { /* what is kept of a record */
    uint64_t bytes, have;
    uint32_t crc, have_crc, tenant;
    char key[LIMIT_KEY_BYTES + 1];
};

bool disk_upload(const struct cell *c, struct upload_record *out, char key[LIMIT_KEY_BYTES + 1]) {
    struct upload_cell u;
    if (!c || !c->upload.len) return false;
    memcpy(&u, c->upload.data, sizeof u);
    strcpy(key, u.key);
    *out = (struct upload_record){.id = c->id,
                                  .bytes = u.bytes,
                                  .have = u.have,
                                  .crc = u.crc,
                                  .have_crc = u.have_crc,
                                  .tenant = bytes_str(sim_tenant_name(u.tenant)),
                                  .key = bytes_str(key)};
    return true;
}

int uploads_add(struct store_write *w, const struct upload_record *u) {
    (void)w;
    struct upload_cell kept = {.bytes = u->bytes,
                               .have = u->have,
                               .crc = u->crc,
                               .have_crc = u->have_crc,
                               .tenant = sim_tenant(u->tenant)};
    CHECK(u->have <= u->bytes && bytes_to_cstr(u->key, kept.key, sizeof kept.key) == 0,
          "a record of an upload that is none");
    struct cell *c = cell_for(u->id);
    put(c, &c->upload, bytes_of(&kept, sizeof kept));
    return 0;
}
int uploads_get(struct store_read *t, uint64_t id, struct upload_record *out) {
    static char key[LIMIT_KEY_BYTES + 1];
    (void)t;
    return disk_upload(disk_cell(id), out, key) ? 0 : -ENOENT;
}
int uploads_append(struct store_write *w, struct upload_record *u, struct bytes data) {
    struct cell *c = disk_cell(u->id);
    struct buf whole = {0};
    CHECK(data.len <= u->bytes - u->have && c->body.len == u->have &&
              (data.len == UPLOAD_CHUNK || u->have + data.len == u->bytes),
          "a chunk that does not fit");
    buf_append(&whole, c->body.data, c->body.len);
    buf_append(&whole, data.data, data.len);
    put(c, &c->body, buf_bytes(&whole));
    buf_fini(&whole);
    u->have += data.len;
    u->have_crc = crc32c(u->have_crc, data.data, data.len);
    return uploads_add(w, u);
}
int uploads_take(struct store_write *w, uint64_t id) {
    (void)w;
    struct cell *c = disk_cell(id);
    if (!c || !c->upload.len) return -ENOENT;
    put(c, &c->upload, (struct bytes){NULL, 0});
    W->uploads++;
    return 0;
}
int uploads_del(struct store_write *w, uint64_t id) {
    int e = uploads_take(w, id);
    if (e == 0) put(disk_cell(id), &disk_cell(id)->body, (struct bytes){NULL, 0});
    return e;
}
int uploads_walk(struct store_read *t, int (*fn)(void *arg, const struct upload_record *u),
                 void *arg) {
    char key[LIMIT_KEY_BYTES + 1];
    struct upload_record u;
    (void)t;
    for (uint32_t i = 0; i < W->disk.n; i++) {
        int e = disk_upload(W->disk.cells[i], &u, key) ? fn(arg, &u) : 0;
        if (e) return e;
    }
    return 0;
}
uint32_t uploads_chunk_bytes(struct store *s) {
    (void)s;
    return UPLOAD_CHUNK;
}
uint64_t uploads_token(const struct store *s, uint64_t id) {
    (void)s;
    return id;
}

void disk_fini(void) {
    struct disk *d = &W->disk;
    for (uint32_t i = 0; i < d->n; i++) {
        struct cell *c = d->cells[i];
        forget_bytes(&c->record);
        forget_bytes(&c->upload);
        forget_bytes(&c->body);
        forget_bytes(&c->result);
        for (uint32_t s = 0; s < STAGES_MAX; s++) forget_bytes(&c->output[s]);
        free(c);
    }
    free(d->cells);
    free(d->ends);
    free(d->gone);
    free(d->log);
}
