#include "store/scrub.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "store/record.h"
#include "store/state.h"
#include "store/store.h"

enum { KEY_MAX = 64 };

/* What a round reads, in this order. */
static const struct part {
    bool in_blob;
    uint32_t table;
    const char *what;
    int (*is_bad)(struct bytes key, struct bytes value);
} parts[] = {{false, META_JOBS, "a job's record", record_is_bad},
             {false, META_UPLOADS, "an upload's record", upload_is_bad},
             {true, BLOB_CHUNKS, "a payload's chunk", blob_is_bad},
             {true, BLOB_SMALL, "a payload's chunk", blob_is_bad}};
enum { PARTS = sizeof parts / sizeof *parts };

struct scrub {
    struct store *store;
    uint64_t rate;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
    uint32_t part;
    uint8_t key[KEY_MAX]; /* the last that was read of this part */
    size_t key_bytes;     /* 0: none yet */
    uint64_t found;       /* in this round */
    _Atomic uint64_t bytes, rounds, damaged, stale_readers;
};

static void report(struct scrub *s, const struct part *p, struct bytes key) {
    uint64_t id = 0;
    char text[JOB_ID_CHARS + 1] = "";
    if (key.len >= NUM_KEY_BYTES && num_of(bytes_of(key.data, NUM_KEY_BYTES), &id) == 0)
        job_id_text(id, text);
    log_error("damaged", "what=\"%s\" job=%s next=\"penstock store check\"", p->what, text);
    if (++s->found > atomic_load(&s->damaged)) atomic_store(&s->damaged, s->found);
}

/* Puts the cursor behind what was read last. */
static int go_on(struct scrub *s, struct env_cursor *c, struct bytes *key, struct bytes *value) {
    if (s->key_bytes == 0) return env_move(c, ENV_FIRST, key, value);
    struct bytes last = *key = bytes_of(s->key, s->key_bytes);
    int code = env_move(c, ENV_AT_LEAST, key, value);
    return code == 0 && bytes_eq(*key, last) ? env_move(c, ENV_NEXT, key, value) : code;
}

/* Reads on in this part. -ENOENT: to its end. *bytes: how much it read. */
static int read_slice(struct scrub *s, struct store_read *t, uint64_t *bytes) {
    const struct part *p = &parts[s->part];
    struct env_cursor c;
    struct bytes key, value;
    int code = env_cursor_open(p->in_blob ? &t->blob : &t->meta, p->table, &c);
    if (code != 0) return code;
    code = go_on(s, &c, &key, &value);
    for (; code == 0; code = env_move(&c, ENV_NEXT, &key, &value)) {
        if (p->is_bad(key, value) == ERR_CORRUPT) report(s, p, key);
        s->key_bytes = key.len < KEY_MAX ? key.len : KEY_MAX;
        memcpy(s->key, key.data, s->key_bytes);
        *bytes += key.len + value.len;
        if (*bytes >= SCRUB_SLICE_BYTES) break;
    }
    env_cursor_close(&c);
    return code;
}

/* One slice; how long to wait before the next. */
static int64_t slice_ms(struct scrub *s) {
    struct store_read *t;
    uint64_t bytes = 0;
    int code = store_read_begin(s->store, &t);
    if (code != 0) return 1000; /* the disk fails; the broker says so */
    code = read_slice(s, t, &bytes);
    store_read_end(t);
    atomic_fetch_add(&s->bytes, bytes);
    int64_t wait_ms = (int64_t)(bytes * 1000 / s->rate);
    if (code == 0) return wait_ms;
    s->key_bytes = 0;
    if (code == -ENOENT && ++s->part < PARTS) return wait_ms;
    s->part = 0;
    if (code != -ENOENT) {
        log_error("scrub_failed", "error=\"%s\"", err_text(code));
    } else {
        atomic_store(&s->damaged, s->found);
        atomic_fetch_add(&s->rounds, 1);
    }
    s->found = 0;
    return SCRUB_REST_MS;
}

static bool wait_until(struct scrub *s, int64_t until_ms) {
    struct timespec at = {until_ms / 1000, until_ms % 1000 * 1000000};
    pthread_mutex_lock(&s->lock);
    while (!s->stop && pthread_cond_timedwait(&s->wake, &s->lock, &at) == 0) {
    }
    bool stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    return !stop;
}

static void *scrub_thread_main(void *arg) {
    struct scrub *s = arg;
    int64_t now_ms = clock_mono_ms(), slice_at = s->rate ? now_ms : INT64_MAX, readers_at = now_ms;
    while (wait_until(s, slice_at < readers_at ? slice_at : readers_at)) {
        now_ms = clock_mono_ms();
        if (now_ms >= readers_at) {
            uint32_t cleared = store_clear_readers(s->store);
            if (cleared > 0) log_info("stale_readers", "cleared=%u", cleared);
            atomic_fetch_add(&s->stale_readers, cleared);
            readers_at = now_ms + SCRUB_READERS_MS;
        }
        if (now_ms >= slice_at) slice_at = now_ms + slice_ms(s);
    }
    return NULL;
}

int scrub_start(struct scrub **out, struct store *store, uint64_t bytes_a_second) {
    struct scrub *s = calloc(1, sizeof *s);
    if (!s) return -ENOMEM;
    s->store = store;
    s->rate = bytes_a_second;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int code = thread_start(&s->thread, "scrub", scrub_thread_main, s);
    if (code != 0) {
        free(s);
        return code;
    }
    *out = s;
    return 0;
}

void scrub_stop(struct scrub *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct scrub_stats scrub_stats(const struct scrub *s) {
    if (!s) return (struct scrub_stats){0};
    return (struct scrub_stats){atomic_load(&s->bytes), atomic_load(&s->rounds),
                                atomic_load(&s->damaged), atomic_load(&s->stale_readers)};
}
