#include "store/page_group.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "store/page_open.h"

#define STAMP_GAP 8u /* transactions within which a chain is as good as used now */
#define USED_KEY_BYTES (8u + 4u + PAGE_KEY_BYTES)
#define NODE_BYTES 12u

/* ---- records ---- */

static struct bytes key_bytes(const struct page_key *key) {
    return bytes_of(key->b, sizeof key->b);
}

static struct bytes used_key(uint8_t out[USED_KEY_BYTES], const struct page_node *n) {
    uint64_t stamp = htobe64(n->stamp);
    uint32_t depth = htobe32(~n->depth);
    memcpy(out, &stamp, sizeof stamp);
    memcpy(out + 8, &depth, sizeof depth);
    memcpy(out + 12, n->key.b, sizeof n->key.b);
    return bytes_of(out, USED_KEY_BYTES);
}

static int used_node(struct bytes key, struct page_node *out) {
    uint32_t depth;
    if (key.len != USED_KEY_BYTES) return ERR_CORRUPT;
    struct reader r = reader_of(key);
    out->stamp = read_u64be(&r);
    memcpy(&depth, read_bytes(&r, 4).data, sizeof depth);
    out->depth = ~be32toh(depth);
    memcpy(out->key.b, read_bytes(&r, PAGE_KEY_BYTES).data, PAGE_KEY_BYTES);
    return 0;
}

static int get_node(const struct env_txn *t, const struct page_key *key, struct page_node *out) {
    struct bytes value;
    int code = env_get(t, PAGE_NODES, key_bytes(key), &value);
    if (code != 0) return code;
    struct reader r = reader_of(value);
    *out = (struct page_node){.key = *key, .stamp = read_u64le(&r), .depth = read_u32le(&r)};
    return r.bad || value.len != NODE_BYTES ? ERR_CORRUPT : 0;
}

static int put_node(struct env_txn *t, const struct page_node *n) {
    uint8_t value[NODE_BYTES], key[USED_KEY_BYTES];
    uint64_t stamp = htole64(n->stamp);
    uint32_t depth = htole32(n->depth);
    memcpy(value, &stamp, sizeof stamp);
    memcpy(value + 8, &depth, sizeof depth);
    int code =
        env_put(t, PAGE_NODES, key_bytes(&n->key), bytes_of(value, sizeof value), ENV_REPLACE);
    if (code == 0) code = env_put(t, PAGE_USED, used_key(key, n), bytes_of("", 0), ENV_REPLACE);
    return code;
}

/* Whether one entry of NODES has its others. */
static int check_node(const struct env_txn *t, struct bytes key, size_t value_bytes) {
    struct page_node n;
    struct page_key k;
    struct bytes data, nothing;
    uint8_t used[USED_KEY_BYTES];
    if (key.len != sizeof k.b) return ERR_CORRUPT;
    memcpy(k.b, key.data, sizeof k.b);
    int code = get_node(t, &k, &n);
    if (code == 0) code = env_get(t, PAGE_USED, used_key(used, &n), &nothing);
    if (code == 0) code = env_get(t, PAGE_DATA, key, &data);
    if (code == 0 && data.len != value_bytes) code = ERR_CORRUPT;
    return code == -ENOENT ? ERR_CORRUPT : code;
}

int page_group_check(struct env_txn *t, size_t value_bytes) {
    uint64_t count[PAGE_TABLES];
    struct env_cursor c;
    struct bytes key, value;
    int code = 0;
    for (uint32_t i = 0; code == 0 && i < PAGE_TABLES; i++) code = env_count(t, i, &count[i]);
    if (code == 0 &&
        (count[PAGE_DATA] != count[PAGE_NODES] || count[PAGE_DATA] != count[PAGE_USED]))
        return ERR_CORRUPT;
    if (code == 0) code = env_cursor_open(t, PAGE_NODES, &c);
    if (code != 0) return code;
    code = env_move(&c, ENV_FIRST, &key, &value);
    while (code == 0) {
        code = check_node(t, key, value_bytes);
        if (code == 0) code = env_move(&c, ENV_NEXT, &key, &value);
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

/* ---- transactions ---- */

/* Nothing more can be relied on until a process opens the group alone and looks. */
static int condemn(struct page_group *g, int code) {
    char path[PAGE_GROUP_PATH_BYTES + 16];
    if (code != ERR_CORRUPT) return code;
    atomic_store(&g->off, true);
    snprintf(path, sizeof path, "%s/%s", g->dir, PAGE_DAMAGED_NAME);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) close(fd);
    return code;
}

int page_group_begin(struct page_group *g, bool write, struct env_txn *out) {
    for (int tries = 0;; tries++) {
        if (atomic_load(&g->off)) return -EIO;
        pthread_rwlock_rdlock(&g->map);
        int code = env_begin(g->env, write, out);
        if (code == 0) return 0;
        pthread_rwlock_unlock(&g->map);
        if (code == -EIO) atomic_store(&g->off, true); /* LMDB could not put its meta page right */
        if (code != ERR_STALE || tries == 3) return condemn(g, code);
        pthread_rwlock_wrlock(&g->map);
        code = env_remap(g->env);
        pthread_rwlock_unlock(&g->map);
        if (code != 0) return condemn(g, code);
    }
}

int page_group_commit(struct page_group *g, struct env_txn *t) {
    int code = condemn(g, env_commit(t));
    pthread_rwlock_unlock(&g->map);
    return code;
}

void page_group_abort(struct page_group *g, struct env_txn *t) {
    if (!t->txn) return;
    env_abort(t);
    pthread_rwlock_unlock(&g->map);
}

/* ---- reading ---- */

bool page_group_has(const struct page_group *g, const struct env_txn *t,
                    const struct page_key *key) {
    struct page_node n;
    (void)g;
    return get_node(t, key, &n) == 0;
}

static void note_bad(struct page_group *g, const struct page_key *key) {
    pthread_mutex_lock(&g->lock);
    bool known = g->bad_n == PAGE_GROUP_BAD_MAX;
    for (uint32_t i = 0; i < g->bad_n; i++) known |= memcmp(&g->bad[i], key, sizeof *key) == 0;
    if (!known) g->bad[g->bad_n++] = *key;
    pthread_mutex_unlock(&g->lock);
}

int page_group_get(struct page_group *g, const struct env_txn *t, const struct page_key *key,
                   const struct page_key *parent, const uint32_t *tokens, struct bytes *data) {
    struct bytes value;
    int code = env_get(t, PAGE_DATA, key_bytes(key), &value);
    if (code != 0) return condemn(g, code);
    code = value.len == g->value_bytes
               ? page_value_open(value, &g->shape, key, parent, tokens, data)
               : ERR_CORRUPT;
    if (code != 0) note_bad(g, key);
    return code;
}

void page_group_prefetch(const struct page_group *g, const struct env_txn *t,
                         const struct page_key *keys, uint32_t n) {
    uintptr_t page = env_page_bytes(g->env);
    for (uint32_t i = 0; i < n; i++) {
        struct bytes value;
        if (env_get(t, PAGE_DATA, key_bytes(&keys[i]), &value) != 0) return;
        uintptr_t at = (uintptr_t)value.data / page * page;
        madvise((void *)at, (uintptr_t)value.data + value.len - at, MADV_WILLNEED);
    }
}

/* ---- writing ---- */

static int restamp(struct env_txn *t, struct page_node *n, uint64_t stamp) {
    uint8_t key[USED_KEY_BYTES];
    if (n->stamp == stamp) return 0;
    int code = env_del(t, PAGE_USED, used_key(key, n));
    n->stamp = stamp;
    if (code == 0) code = put_node(t, n);
    return code == -ENOENT ? ERR_CORRUPT : code;
}

int page_group_use(struct page_group *g, struct env_txn *t, const struct page_key *keys,
                   uint32_t from, uint32_t n, uint32_t *used) {
    bool chained = g->window_tokens == 0;
    uint64_t now = env_txn_id(t), oldest = now;
    struct page_node node;
    int code = 0;
    *used = 0;
    if (chained) from = 0;
    uint32_t end = from;
    for (uint32_t i = from; i < n; i++) {
        code = get_node(t, &keys[i + 1], &node);
        if (code == -ENOENT && !chained) continue;
        if (code != 0) break;
        if (node.stamp < oldest) oldest = node.stamp;
        end = i + 1;
        ++*used;
    }
    if (code == -ENOENT) code = 0;
    if (oldest + STAMP_GAP >= now) return condemn(g, code);
    for (uint32_t i = from; code == 0 && i < end; i++) {
        code = get_node(t, &keys[i + 1], &node);
        if (code == 0) code = restamp(t, &node, now);
        if (code == -ENOENT && !chained) code = 0;
    }
    return condemn(g, code);
}

int page_group_drop(struct page_group *g, struct env_txn *t, const struct page_key *key) {
    struct page_node n;
    struct bytes value;
    uint8_t used[USED_KEY_BYTES];
    int code = get_node(t, key, &n);
    if (code == -ENOENT) return code;
    if (code == 0) code = env_get(t, PAGE_DATA, key_bytes(key), &value);
    if (code == 0 && !env_run_is_sound(t, value)) code = ERR_CORRUPT;
    if (code == 0) code = env_del(t, PAGE_DATA, key_bytes(key));
    if (code == 0) code = env_del(t, PAGE_NODES, key_bytes(key));
    if (code == 0) code = env_del(t, PAGE_USED, used_key(used, &n));
    return condemn(g, code == -ENOENT ? ERR_CORRUPT : code);
}

int page_group_drop_bad(struct page_group *g, struct env_txn *t) {
    struct page_key bad[PAGE_GROUP_BAD_MAX];
    pthread_mutex_lock(&g->lock);
    uint32_t n = g->bad_n;
    memcpy(bad, g->bad, n * sizeof *bad);
    g->bad_n = 0;
    pthread_mutex_unlock(&g->lock);
    int code = 0;
    for (uint32_t i = 0; i < n && (code == 0 || code == -ENOENT); i++)
        code = page_group_drop(g, t, &bad[i]);
    return code == -ENOENT ? 0 : code;
}

int page_group_next(const struct page_group *g, struct env_txn *t, struct page_node *at) {
    struct env_cursor c;
    uint8_t room[USED_KEY_BYTES];
    struct bytes key = used_key(room, at), value, last = key;
    (void)g;
    int code = env_cursor_open(t, PAGE_USED, &c);
    if (code != 0) return code;
    code = env_move(&c, at->stamp ? ENV_AT_LEAST : ENV_FIRST, &key, &value);
    if (code == 0 && at->stamp && bytes_eq(key, last)) code = env_move(&c, ENV_NEXT, &key, &value);
    if (code == 0) code = used_node(key, at);
    env_cursor_close(&c);
    return code;
}

int page_group_evict(struct page_group *g, struct env_txn *t, uint64_t n, uint64_t *evicted) {
    int code = 0;
    for (; code == 0 && n > 0; n--) {
        struct page_node first = {0};
        code = page_group_next(g, t, &first);
        if (code == 0) code = page_group_drop(g, t, &first.key);
        if (code == 0) ++*evicted;
    }
    return code == -ENOENT ? 0 : condemn(g, code);
}

/* Evicts until one more page may be stored, but nothing that would go after it. */
static int make_room(struct page_group *g, struct env_txn *t, const struct page_node *for_it,
                     uint64_t *evicted) {
    uint8_t ours[USED_KEY_BYTES], theirs[USED_KEY_BYTES];
    used_key(ours, for_it);
    for (;;) {
        uint64_t pages;
        struct page_node first = {0};
        int code = env_count(t, PAGE_DATA, &pages);
        if (code != 0 || pages < g->pages_max) return code;
        code = page_group_next(g, t, &first);
        if (code != 0) return code == -ENOENT ? ERR_CORRUPT : code;
        used_key(theirs, &first);
        if (memcmp(theirs, ours, sizeof ours) > 0) return ERR_FULL;
        code = page_group_drop(g, t, &first.key);
        if (code != 0) return code;
        ++*evicted;
    }
}

int page_group_put(struct page_group *g, struct env_txn *t, const struct page_key *keys,
                   uint32_t depth, const uint32_t *tokens, const void *data, uint64_t *evicted) {
    struct page_node node, parent;
    const struct page_key *key = &keys[depth + 1];
    int code = get_node(t, key, &node);
    if (code != -ENOENT) return code == 0 ? -EEXIST : condemn(g, code);
    node = (struct page_node){.key = *key, .depth = depth, .stamp = env_txn_id(t)};
    if (g->window_tokens == 0 && depth > 0) {
        code = get_node(t, &keys[depth], &parent);
        if (code != 0) return condemn(g, code);
        if (parent.stamp < node.stamp) node.stamp = parent.stamp;
    }
    code = make_room(g, t, &node, evicted);
    if (code == ERR_FULL) return code;
    if (code == 0) code = env_room(t, g->value_bytes);
    if (code == ERR_FULL) return code;
    void *value;
    if (code == 0) code = env_reserve(t, PAGE_DATA, key_bytes(key), g->value_bytes, &value);
    if (code == 0)
        page_value_write(value, g->value_bytes, &g->shape, key, &keys[depth], tokens, data);
    if (code == 0) code = put_node(t, &node);
    return condemn(g, code);
}

int page_group_clear(struct page_group *g) {
    struct env_txn t;
    int code = page_group_begin(g, true, &t);
    if (code != 0) return code;
    for (uint64_t left = 1, ignored = 0; code == 0 && left > 0;) {
        code = page_group_evict(g, &t, g->batch_pages, &ignored);
        if (code == 0) code = env_count(&t, PAGE_DATA, &left);
        if (code != 0 || left == 0) break;
        code = page_group_commit(g, &t);
        if (code == 0) code = page_group_begin(g, true, &t);
        if (code != 0) return code;
    }
    if (code == 0) return page_group_commit(g, &t);
    page_group_abort(g, &t);
    return code;
}

int page_group_usage(struct page_group *g, struct page_group_usage *out) {
    struct env_txn t;
    struct env_usage u;
    int code = page_group_begin(g, false, &t);
    if (code != 0) return code;
    uint64_t page = env_page_bytes(g->env);
    *out = (struct page_group_usage){.pages_max = g->pages_max};
    code = env_usage(&t, &u);
    if (code == 0) code = env_count(&t, PAGE_DATA, &out->pages);
    if (code == 0) {
        out->live_bytes = u.live_pages * page;
        out->file_bytes = u.file_pages * page;
        out->cap_bytes = u.cap_pages * page;
    }
    page_group_abort(g, &t);
    return code;
}

int page_group_about(struct page_group *g, char *out, size_t out_bytes) {
    struct env_txn t;
    struct bytes value;
    int code = page_group_begin(g, false, &t);
    if (code != 0) return code;
    code = env_get(&t, PAGE_INFO, bytes_str("about"), &value);
    if (code == 0) code = bytes_to_cstr(value, out, out_bytes);
    page_group_abort(g, &t);
    return code;
}
