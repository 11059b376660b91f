#include "workers/stage_test.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "schemas/pack.h"

/* A number of the job's body. */
static uint64_t wish(const struct stage_item *i, const char *key, uint64_t otherwise) {
    struct pack_doc *doc;
    char err[128];
    if (pack_parse(&doc, i->body, err, sizeof err) != 0) return otherwise;
    uint64_t v = pack_as_u64(pack_get(pack_root(doc), key), otherwise);
    pack_free(doc);
    return v;
}

static void echo(struct stage_item *i, uint32_t batch) {
    struct buf out = {0};
    struct packer p = packer_of(&out);
    pack_map(&p, 4);
    pack_str(&p, "input");
    if (i->input.len > 0)
        pack_raw(&p, i->input);
    else
        pack_nil(&p);
    pack_str(&p, "body");
    pack_raw(&p, i->body);
    pack_kv_u64(&p, "stage", i->stage);
    pack_kv_u64(&p, "batch", batch);
    item_done_buf(i, &out);
    buf_fini(&out);
}

static void echo_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t k = 0; k < n; k++) echo(items[k], n);
}

static void emit_progress(struct stage_item *i, uint64_t done, uint64_t total) {
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_map(&p, 2);
    pack_kv_u64(&p, "done", done);
    pack_kv_u64(&p, "total", total);
    if (b.error == 0) item_emit(i, "progress", buf_bytes(&b));
    buf_fini(&b);
}

static void sleep_one(struct stage_item *i, uint32_t batch) {
    uint64_t ms = wish(i, "ms", 0);
    bool deaf = wish(i, "deaf", 0) != 0;
    int64_t start_ms = clock_mono_ms(), shown_ms = start_ms;
    for (;;) {
        int64_t now_ms = clock_mono_ms();
        uint64_t passed_ms = (uint64_t)(now_ms - start_ms);
        if (passed_ms >= ms) break;
        if (!deaf && item_cancelled(i)) {
            item_fail(i, JOB_ERROR_CANCELLED, "cancelled after %llu ms",
                      (unsigned long long)passed_ms);
            return;
        }
        if (now_ms - shown_ms >= 50) {
            shown_ms = now_ms;
            emit_progress(i, passed_ms, ms);
        }
        uint64_t left_ms = ms - passed_ms;
        usleep((useconds_t)(left_ms < 10 ? left_ms : 10) * 1000);
    }
    echo(i, batch);
}

static void sleep_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t k = 0; k < n; k++) sleep_one(items[k], n);
}

/* The default action, also where a sanitizer handles the signal and though threads block it. */
static void raise_now(int number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    signal(number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
}

static void crash_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t k = 0; k < n; k++) {
        int number = (int)wish(items[k], "signal", 0);
        int status = (int)wish(items[k], "exit", 0);
        if (number > 0) raise_now(number);
        if (status > 0) _exit(status);
        echo(items[k], n);
    }
}

static void fail_one(struct stage_item *i) {
    struct pack_doc *doc;
    char err[128];
    enum job_error error = JOB_ERROR_PERMANENT;
    if (pack_parse(&doc, i->body, err, sizeof err) != 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "%s", err);
        return;
    }
    struct bytes name = pack_as_bytes(pack_get(pack_root(doc), "class"));
    struct bytes reason = pack_as_bytes(pack_get(pack_root(doc), "reason"));
    if (job_error_parse(name, &error) != 0 || error == JOB_ERROR_NONE) error = JOB_ERROR_PERMANENT;
    item_fail(i, error, "%.*s", (int)reason.len, reason.len ? (const char *)reason.data : "");
    pack_free(doc);
}

static void fail_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t k = 0; k < n; k++) fail_one(items[k]);
}

/* ---- a stage that is stepped ---- */

#define STEPS_RUN 2u

struct steps_item {
    struct stage_item *item;
    uint64_t left, ms;
    struct steps_item *next;
};
struct steps {
    struct steps_item *first; /* the lower priority first, then the older */
    uint64_t ended;
};

static int steps_open(void **self, const struct stage_context *c, char *err, size_t err_bytes) {
    (void)c;
    (void)err;
    (void)err_bytes;
    return (*self = calloc(1, sizeof(struct steps))) ? 0 : -ENOMEM;
}

static int steps_join(void *self, struct stage_item *item) {
    struct steps *s = self;
    struct steps_item **at = &s->first, *i = calloc(1, sizeof *i);
    if (!i) return -ENOMEM;
    *i = (struct steps_item){
        .item = item, .left = wish(item, "steps", 1), .ms = wish(item, "ms", 1)};
    while (*at && (!(*at)->item->waits || (*at)->item->priority <= item->priority))
        at = &(*at)->next;
    i->next = *at;
    *at = i;
    return 0;
}

static void steps_end(struct steps *s, struct stage_item *item) {
    struct buf out = {0};
    struct packer p = packer_of(&out);
    pack_map(&p, 1);
    pack_kv_u64(&p, "order", s->ended++);
    item_done_buf(item, &out);
    buf_fini(&out);
}

static uint32_t steps_step(void *self, struct stage_item **ended, uint32_t max) {
    struct steps *s = self;
    uint32_t n = 0, running = 0;
    uint64_t ms = 0;
    for (struct steps_item *i = s->first; i && running < STEPS_RUN; i = i->next, running++) {
        i->item->waits = false;
        if (i->ms > ms) ms = i->ms;
        if (i->left > 0) i->left--;
    }
    usleep((useconds_t)ms * 1000);
    for (struct steps_item **at = &s->first; *at && n < max;) {
        struct steps_item *i = *at;
        bool cancelled = item_cancelled(i->item);
        if (!cancelled && i->left > 0) {
            at = &i->next;
            continue;
        }
        if (cancelled)
            item_fail(i->item, JOB_ERROR_CANCELLED, "cancelled with %llu steps left",
                      (unsigned long long)i->left);
        else
            steps_end(s, i->item);
        ended[n++] = i->item;
        *at = i->next;
        free(i);
    }
    return n;
}

static const struct stage_program programs[] = {{.run = "test.echo", .run_batch = echo_batch},
                                                {.run = "test.sleep", .run_batch = sleep_batch},
                                                {.run = "test.crash", .run_batch = crash_batch},
                                                {.run = "test.fail", .run_batch = fail_batch},
                                                {.run = "test.steps",
                                                 .open = steps_open,
                                                 .join = steps_join,
                                                 .step = steps_step,
                                                 .close = free}};

const struct stage_program *stage_test_find(struct bytes run) {
    for (uint32_t i = 0; i < sizeof programs / sizeof *programs; i++)
        if (bytes_is(run, programs[i].run)) return &programs[i];
    return NULL;
}
