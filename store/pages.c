#include "store/pages.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/ring.h"
#include "base/thread.h"

#define TURN_SAVES 64u /* taken from the queue at once */
#define READERS_EVERY_MS 10000

struct counters {
    _Atomic uint64_t hits, absent, torn, foreign, shortened, stored, known, evicted, refused;
    _Atomic uint64_t no_room, orphaned, failed, readers_cleared, remade;
};
struct pages {
    char dir[PAGE_GROUP_PATH_BYTES];
    struct page_group group[PAGES_GROUPS_MAX];
    uint32_t n_groups, page_tokens;
    struct counters count;
    struct ring queue; /* of struct pages_save */
    pthread_t writer;
    bool writing;
    int64_t readers_at_ms; /* of the writer thread */
};

static void add(_Atomic uint64_t *counter, uint64_t n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- writing ---- */

/* What a transaction did, counted when it is committed. */
struct turn {
    uint32_t room; /* pages that it may still store */
    uint64_t stored, known, evicted;
};

static void fail(struct pages *p, struct pages_save *s, int code) {
    struct counters *c = &p->count;
    add(code == ERR_FULL  ? &c->no_room
        : code == -ENOENT ? &c->orphaned
                          : &c->failed,
        s->pages - s->next);
    s->code = code;
}

/* Puts pages of a save until it ends or the transaction has its share. 0 goes on; else the
 * transaction is unfit. */
static int put_some(struct pages *p, struct page_group *g, struct env_txn *t, struct pages_save *s,
                    struct turn *turn) {
    int code = 0;
    if (s->next == s->first) {
        uint32_t from = pages_first_needed(p, s->group, s->pages), used;
        code = page_group_use(g, t, s->keys, from, s->pages, &used);
    }
    while (code == 0 && s->code == 0 && s->next < s->pages && turn->room > 0) {
        uint32_t i = s->next;
        int put = page_group_put(g, t, s->keys, i, s->tokens + (size_t)i * p->page_tokens,
                                 s->data[i - s->first], &turn->evicted);
        code = t->error;
        if (code != 0) break;
        if (put != 0 && put != -EEXIST) {
            fail(p, s, put);
            break;
        }
        if (put == 0) turn->room--;
        *(put == 0 ? &turn->stored : &turn->known) += 1;
        s->stored++;
        s->next++;
    }
    return code;
}

/* The map has no run of pages left, though there should be: slots of readers that died may hold
 * them, and what is evicted is free after two more transactions. */
static void relieve(struct pages *p, struct page_group *g) {
    uint32_t cleared = 0;
    uint64_t evicted = 0;
    struct env_txn t;
    if (env_clear_readers(g->env, &cleared) == 0) add(&p->count.readers_cleared, cleared);
    for (int i = 0; i < 2; i++) {
        if (page_group_begin(g, true, &t) != 0) return;
        if (page_group_evict(g, &t, i == 0 ? g->batch_pages : 1, &evicted) == 0)
            page_group_commit(g, &t);
        else
            page_group_abort(g, &t);
    }
    add(&p->count.evicted, evicted);
}

static bool is_over(const struct pages_save *s) {
    return s->code != 0 || s->next == s->pages;
}

/* One transaction over the saves of a group from *at on. */
static int write_turn(struct pages *p, struct page_group *g, struct pages_save *const *s,
                      uint32_t n, uint32_t *at) {
    struct env_txn t;
    struct turn turn = {.room = g->batch_pages};
    uint32_t next[TURN_SAVES], stored[TURN_SAVES];
    for (uint32_t i = 0; i < n; i++) {
        next[i] = s[i]->next;
        stored[i] = s[i]->stored;
    }
    int code = page_group_begin(g, true, &t);
    if (code == 0) code = page_group_drop_bad(g, &t);
    uint32_t i = *at;
    for (; code == 0 && i < n && turn.room > 0; i++) {
        if (s[i]->group != s[*at]->group) continue;
        code = put_some(p, g, &t, s[i], &turn);
        if (!is_over(s[i])) break;
    }
    if (code == 0)
        code = page_group_commit(g, &t);
    else
        page_group_abort(g, &t);
    if (code == 0) {
        add(&p->count.stored, turn.stored);
        add(&p->count.known, turn.known);
        add(&p->count.evicted, turn.evicted);
        *at = i;
        return 0;
    }
    for (i = 0; i < n; i++) { /* as if it had not been */
        s[i]->next = next[i];
        s[i]->stored = stored[i];
    }
    return code;
}

static void write_group(struct pages *p, uint32_t group, struct pages_save *const *s, uint32_t n) {
    struct page_group *g = &p->group[group];
    uint32_t at = 0;
    for (int failures = 0;;) {
        while (at < n && s[at]->group != group) at++;
        if (at == n) return;
        int code = write_turn(p, g, s, n, &at);
        if (code == ERR_FULL && failures++ == 0) {
            relieve(p, g);
        } else if (code != 0) {
            for (uint32_t i = at; i < n; i++)
                if (s[i]->group == group && !is_over(s[i])) fail(p, s[i], code);
            return;
        }
    }
}

void pages_write(struct pages *p, struct pages_save *const *s, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        assert(s[i]->group < p->n_groups && s[i]->first <= s[i]->pages);
        s[i]->next = s[i]->first;
        s[i]->stored = 0;
        s[i]->code = 0;
    }
    for (; n > 0; s += n < TURN_SAVES ? n : TURN_SAVES, n -= n < TURN_SAVES ? n : TURN_SAVES)
        for (uint32_t g = 0; g < p->n_groups; g++)
            write_group(p, g, s, n < TURN_SAVES ? n : TURN_SAVES);
}

static void clear_readers(struct pages *p) {
    int64_t now_ms = clock_mono_ms();
    if (now_ms < p->readers_at_ms) return;
    p->readers_at_ms = now_ms + READERS_EVERY_MS;
    for (uint32_t i = 0; i < p->n_groups; i++) {
        uint32_t cleared;
        if (env_clear_readers(p->group[i].env, &cleared) == 0)
            add(&p->count.readers_cleared, cleared);
    }
}

static void *writer_thread_main(void *arg) {
    struct pages *p = arg;
    while (!ring_done(&p->queue)) {
        struct pages_save *s[TURN_SAVES];
        ring_wait(&p->queue, READERS_EVERY_MS);
        clear_readers(p);
        uint32_t n = ring_pop_many(&p->queue, (void **)s, TURN_SAVES);
        pages_write(p, s, n);
        for (uint32_t i = 0; i < n; i++) s[i]->done(s[i]);
    }
    return NULL;
}

int pages_save(struct pages *p, struct pages_save *s) {
    assert(s->done);
    int code = ring_push(&p->queue, s);
    if (code == ERR_FULL) add(&p->count.refused, 1);
    return code;
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool done;
};

static void wake_waiter(struct pages_save *s) {
    struct waiter *w = s->arg;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void pages_flush(struct pages *p) {
    struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    struct page_key root = {{0}};
    struct pages_save s = {.keys = &root, .done = wake_waiter, .arg = &w};
    int code;
    while ((code = ring_push(&p->queue, &s)) == ERR_FULL) usleep(1000);
    if (code != 0) return;
    pthread_mutex_lock(&w.lock);
    while (!w.done) pthread_cond_wait(&w.wake, &w.lock);
    pthread_mutex_unlock(&w.lock);
}

/* ---- opening ---- */

int pages_open(struct pages **out, const struct pages_config *c, char *err, size_t err_bytes) {
    char fingerprint[PAGE_FINGERPRINT_CHARS], dir[PAGE_GROUP_PATH_BYTES + 128];
    assert(c->n_groups > 0 && c->n_groups <= PAGES_GROUPS_MAX && c->groups[0].window_tokens == 0);
    struct pages *p = calloc(1, sizeof *p);
    if (!p) return err_set(err, err_bytes, -ENOMEM, "no memory for the pages of %s", c->dir);
    page_fingerprint(&c->model, fingerprint);
    int n = snprintf(p->dir, sizeof p->dir, "%s/%s", c->dir, fingerprint), code = 0;
    if (n < 0 || (size_t)n >= sizeof p->dir)
        code = err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", c->dir);
    p->page_tokens = c->model.page_tokens;
    for (uint32_t i = 0; code == 0 && i < c->n_groups; i++) {
        const struct pages_group_config *g = &c->groups[i];
        snprintf(dir, sizeof dir, "%s/%s", p->dir, g->name);
        code = page_group_open(
            &p->group[i],
            &(struct page_group_config){
                .dir = dir,
                .about = c->about,
                .shape = {g->data_bytes, c->model.page_tokens, c->model.layout, c->model.dtype},
                .cap_bytes = g->cap_bytes,
                .window_tokens = g->window_tokens},
            err, err_bytes);
        if (code == 0) p->n_groups++;
        if (code == 0 && p->group[i].remade) add(&p->count.remade, 1);
    }
    if (code == 0) {
        code = ring_init(&p->queue, LIMIT_PAGES_QUEUED);
        if (code == 0) code = thread_start(&p->writer, "pages", writer_thread_main, p);
        p->writing = code == 0;
        if (code != 0)
            err_set(err, err_bytes, code, "the writer of %s: %s", p->dir, err_text(code));
    }
    if (code == 0)
        *out = p;
    else
        pages_close(p);
    return code;
}

void pages_close(struct pages *p) {
    if (!p) return;
    if (p->writing) {
        ring_close(&p->queue);
        pthread_join(p->writer, NULL);
    }
    ring_fini(&p->queue);
    for (uint32_t i = 0; i < p->n_groups; i++) page_group_close(&p->group[i]);
    free(p);
}

const char *pages_dir(const struct pages *p) {
    return p->dir;
}

const char *pages_remade(const struct pages *p, uint32_t group) {
    return p->group[group].remade ? p->group[group].why_remade : NULL;
}

/* ---- reading ---- */

int pages_read_begin(struct pages *p, int64_t now_ms, struct pages_read *out) {
    *out = (struct pages_read){
        .pages = p, .until_ms = now_ms + PAGES_READ_MS, .pages_left = PAGES_READ_PAGES};
    int code = 0;
    for (uint32_t i = 0; code == 0 && i < p->n_groups; i++)
        code = page_group_begin(&p->group[i], false, &out->txn[i]);
    if (code != 0) pages_read_end(out);
    return code;
}

void pages_read_end(struct pages_read *r) {
    for (uint32_t i = 0; r->pages && i < r->pages->n_groups; i++)
        page_group_abort(&r->pages->group[i], &r->txn[i]);
    *r = (struct pages_read){0};
}

uint32_t pages_first_needed(const struct pages *p, uint32_t group, uint32_t pages) {
    uint64_t window = p->group[group].window_tokens;
    uint64_t end = (uint64_t)pages * p->page_tokens; /* the next token's place */
    if (window == 0 || end < window) return 0;
    return (uint32_t)((end + 1 - window) / p->page_tokens);
}

/* The longest prefix of at most so many pages of which the group has all that is needed. */
static uint32_t fits(struct pages_read *r, uint32_t group, const struct page_key *keys,
                     uint32_t pages) {
    const struct page_group *g = &r->pages->group[group];
    uint32_t from = pages_first_needed(r->pages, group, pages);
    for (uint32_t i = pages; i > from; i--) {
        if (page_group_has(g, &r->txn[group], &keys[i])) continue;
        pages = i - 1;
        from = pages_first_needed(r->pages, group, pages);
    }
    return pages;
}

int pages_find(struct pages_read *r, int64_t now_ms, const struct page_key *keys, uint32_t n,
               struct pages_hit *out) {
    struct pages *p = r->pages;
    *out = (struct pages_hit){0};
    if (now_ms > r->until_ms) return ERR_LIMIT;
    while (out->stored < n && page_group_has(&p->group[0], &r->txn[0], &keys[out->stored + 1]))
        out->stored++;
    uint32_t before;
    out->pages = out->stored;
    do { /* what one window shortens, another may not hold any more */
        before = out->pages;
        for (uint32_t g = 1; g < p->n_groups; g++) out->pages = fits(r, g, keys, out->pages);
    } while (out->pages < before && p->n_groups > 2);
    if (out->pages < out->stored) add(&p->count.shortened, 1);
    return 0;
}

int pages_get(struct pages_read *r, int64_t now_ms, uint32_t group, const struct page_key *keys,
              uint32_t i, const uint32_t *tokens, struct bytes *data) {
    struct pages *p = r->pages;
    if (now_ms > r->until_ms || r->pages_left == 0) return ERR_LIMIT;
    r->pages_left--;
    int code = page_group_get(&p->group[group], &r->txn[group], &keys[i + 1], &keys[i],
                              tokens + (size_t)i * p->page_tokens, data);
    add(code == 0             ? &p->count.hits
        : code == ERR_CORRUPT ? &p->count.torn
        : code == ERR_STALE   ? &p->count.foreign
                              : &p->count.absent,
        1);
    return code;
}

void pages_prefetch(struct pages_read *r, uint32_t group, const struct page_key *keys,
                    uint32_t from, uint32_t n) {
    if (from < n)
        page_group_prefetch(&r->pages->group[group], &r->txn[group], &keys[from + 1], n - from);
}

/* ---- looking after it ---- */

struct pages_stats pages_stats(const struct pages *p) {
    const struct counters *c = &p->count;
    return (struct pages_stats){
        .hits = atomic_load(&c->hits),
        .absent = atomic_load(&c->absent),
        .torn = atomic_load(&c->torn),
        .foreign = atomic_load(&c->foreign),
        .shortened = atomic_load(&c->shortened),
        .stored = atomic_load(&c->stored),
        .known = atomic_load(&c->known),
        .evicted = atomic_load(&c->evicted),
        .refused = atomic_load(&c->refused),
        .no_room = atomic_load(&c->no_room),
        .orphaned = atomic_load(&c->orphaned),
        .failed = atomic_load(&c->failed),
        .readers_cleared = atomic_load(&c->readers_cleared),
        .remade = atomic_load(&c->remade),
    };
}

int pages_usage(struct pages *p, uint32_t group, struct page_group_usage *out) {
    return page_group_usage(&p->group[group], out);
}
