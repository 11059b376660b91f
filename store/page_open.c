#include "store/page_open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "store/tree.h"

#define PAGES_MIN 16u /* a group that holds fewer is of no use */
#define SHAPE_BYTES 14u

static const char *const tables[PAGE_TABLES] = {"data", "nodes", "used", "info"};

static void path_of(const struct page_group *g, const char *name,
                    char out[PAGE_GROUP_PATH_BYTES + 16]) {
    snprintf(out, PAGE_GROUP_PATH_BYTES + 16, "%s/%s", g->dir, name);
}

/* The file `users` stays: two processes that lock two of them would both be alone. */
static void remove_files(const struct page_group *g) {
    static const char *const names[] = {"data.mdb", "lock.mdb", PAGE_DAMAGED_NAME};
    char path[PAGE_GROUP_PATH_BYTES + 16];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        path_of(g, names[i], path);
        unlink(path);
    }
}

/* ---- what a group says of itself ---- */

static bool is_shape(const struct page_group *g, const struct page_group_config *c) {
    const struct page_shape *a = &g->shape, *b = &c->shape;
    return a->data_bytes == b->data_bytes && a->page_tokens == b->page_tokens &&
           a->layout == b->layout && a->dtype == b->dtype && g->window_tokens == c->window_tokens;
}

/* -ENOENT: it says nothing, and has no page. */
static int shape_read(struct page_group *g) {
    struct env_txn t;
    struct bytes value;
    uint64_t pages;
    int code = env_begin(g->env, false, &t);
    if (code != 0) return code;
    code = env_count(&t, PAGE_DATA, &pages);
    if (code == 0) code = env_get(&t, PAGE_INFO, bytes_str("shape"), &value);
    if (code == -ENOENT && pages > 0) code = ERR_CORRUPT;
    if (code == 0) {
        struct reader r = reader_of(value);
        g->shape.data_bytes = read_u32le(&r);
        g->shape.page_tokens = read_u32le(&r);
        g->window_tokens = read_u32le(&r);
        g->shape.layout = read_u8(&r);
        g->shape.dtype = read_u8(&r);
        if (r.bad || value.len != SHAPE_BYTES) code = ERR_CORRUPT;
    }
    env_abort(&t);
    return code;
}

static int shape_put(struct page_group *g, const struct page_group_config *c) {
    struct env_txn t;
    uint8_t shape[SHAPE_BYTES];
    uint32_t numbers[3] = {htole32(c->shape.data_bytes), htole32(c->shape.page_tokens),
                           htole32(c->window_tokens)};
    memcpy(shape, numbers, sizeof numbers);
    shape[12] = c->shape.layout;
    shape[13] = c->shape.dtype;
    g->shape = c->shape;
    g->window_tokens = c->window_tokens;
    int code = env_begin(g->env, true, &t);
    if (code != 0) return code;
    code = env_put(&t, PAGE_INFO, bytes_str("shape"), bytes_of(shape, sizeof shape), ENV_REPLACE);
    if (code == 0)
        code = env_put(&t, PAGE_INFO, bytes_str("about"), bytes_str(c->about ? c->about : ""),
                       ENV_REPLACE);
    if (code == 0) return env_commit(&t);
    env_abort(&t);
    return code;
}

/* How many pages a cap holds: what is left of it by env.h's reserve, and by an eighth for pages
 * that are freed and cannot be used yet, because a reader or the next transaction may need them. */
static uint64_t pages_within(uint64_t cap_bytes, uint64_t page_bytes, size_t value_bytes) {
    uint64_t cap = cap_bytes / page_bytes, reserve = 64 + cap / 32 + cap / 8;
    uint64_t run = (value_bytes + 16) / page_bytes;
    return cap > reserve ? (cap - reserve) / (run + 1) : 0; /* one more for the indexes */
}

/* Before anything is made. */
static int check_cap(const struct page_group_config *c, char *err, size_t err_bytes) {
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), least = c->cap_bytes;
    size_t value_bytes = page_value_bytes(&c->shape, (uint32_t)page_bytes);
    if (c->cap_bytes == 0) return 0;
    while (pages_within(least, page_bytes, value_bytes) < PAGES_MIN) least += 1u << 20;
    if (least == c->cap_bytes) return 0;
    return err_set(err, err_bytes, ERR_LIMIT,
                   "%s: a cap of %llu bytes is too small for pages of %zu; give it %llu at least",
                   c->dir, (unsigned long long)c->cap_bytes, value_bytes,
                   (unsigned long long)least);
}

static int size_up(struct page_group *g, char *err, size_t err_bytes) {
    struct env_txn t;
    struct env_usage u;
    int code = env_begin(g->env, false, &t);
    if (code == 0) {
        code = env_usage(&t, &u);
        env_abort(&t);
    }
    if (code != 0) return err_set(err, err_bytes, code, "%s: %s", g->dir, err_text(code));
    uint64_t page_bytes = env_page_bytes(g->env);
    g->pages_max = pages_within(u.cap_pages * page_bytes, page_bytes, g->value_bytes);
    uint64_t batch = PAGE_GROUP_BATCH_BYTES / g->value_bytes;
    if (batch > PAGE_GROUP_BATCH_PAGES) batch = PAGE_GROUP_BATCH_PAGES;
    if (batch > g->pages_max / 16) batch = g->pages_max / 16;
    g->batch_pages = batch > 0 ? (uint32_t)batch : 1;
    return 0;
}

/* Opens with LMDB, and reads what the group says of itself. */
static int open_env(struct page_group *g, const struct page_group_config *c, bool must_exist,
                    char *err, size_t err_bytes) {
    struct env_config e = {.dir = g->dir,
                           .tables = tables,
                           .n_tables = PAGE_TABLES,
                           .cap_bytes = c->cap_bytes,
                           .must_exist = must_exist,
                           .lazy = true};
    int code = env_open(&g->env, &e, err, err_bytes);
    if (code != 0) return code;
    code = shape_read(g);
    /* New, or its maker was killed before it had written this. */
    if (code == -ENOENT && c->cap_bytes > 0) code = shape_put(g, c);
    if (code == 0 && c->cap_bytes > 0 && !is_shape(g, c))
        return err_set(err, err_bytes, ERR_STALE, "%s: it holds pages of another shape", g->dir);
    if (code != 0) return err_set(err, err_bytes, code, "%s: %s", g->dir, err_text(code));
    g->value_bytes = page_value_bytes(&g->shape, env_page_bytes(g->env));
    return 0;
}

static bool has_data(const struct page_group *g) {
    char path[PAGE_GROUP_PATH_BYTES + 16];
    struct stat st;
    path_of(g, "data.mdb", path);
    return stat(path, &st) == 0 && st.st_size > 0;
}

/* Whether what is there may be opened; only while nobody else has it. ERR_CORRUPT says why not in
 * err, -ENOENT that nothing is there. */
static int inspect(struct page_group *g, const struct page_group_config *c, char *err,
                   size_t err_bytes) {
    char path[PAGE_GROUP_PATH_BYTES + 16];
    struct stat st;
    path_of(g, PAGE_DAMAGED_NAME, path);
    if (access(path, F_OK) == 0)
        return err_set(err, err_bytes, ERR_CORRUPT, "%s: damage was found when it was in use",
                       g->dir);
    if (!has_data(g)) return -ENOENT;
    path_of(g, "data.mdb", path);
    if (stat(path, &st) != 0) return -errno;
    if (c->cap_bytes > 0 && (uint64_t)st.st_size > c->cap_bytes)
        return err_set(err, err_bytes, ERR_CORRUPT, "%s: it is larger than its cap of now", g->dir);
    return tree_check(path, err, err_bytes);
}

static int check_index(struct page_group *g, char *err, size_t err_bytes) {
    struct env_txn t;
    int code = env_begin(g->env, false, &t);
    if (code == 0) {
        code = page_group_check(&t, g->value_bytes);
        env_abort(&t);
    }
    return code == 0 ? 0 : err_set(err, err_bytes, code, "%s: its indexes disagree", g->dir);
}

static bool is_of_no_use(int code) {
    return code == ERR_CORRUPT || code == ERR_VERSION || code == ERR_STALE;
}

/* Nobody else has the group: it is looked at, and made anew where it is no use. */
static int open_alone(struct page_group *g, const struct page_group_config *c, char *err,
                      size_t err_bytes) {
    bool as_is = c->cap_bytes == 0;
    int code = inspect(g, c, err, err_bytes);
    if (code == 0) code = open_env(g, c, true, err, err_bytes);
    if (code == 0) code = check_index(g, err, err_bytes);
    if (code == -ENOENT && !as_is) return open_env(g, c, false, err, err_bytes);
    if (!is_of_no_use(code) || as_is) return code;
    env_close(g->env);
    g->env = NULL;
    g->remade = true;
    snprintf(g->why_remade, sizeof g->why_remade, "%s", err);
    remove_files(g);
    return open_env(g, c, false, err, err_bytes);
}

/* Opens it alone, or beside those who have it. LMDB has it open before the lock is shared: who gets
 * the lock alone in between finds it sound, and nobody writing. */
static int open_locked(struct page_group *g, const struct page_group_config *c, char *err,
                       size_t err_bytes) {
    for (;;) {
        if (flock(g->users_fd, LOCK_EX | LOCK_NB) == 0) {
            int code = open_alone(g, c, err, err_bytes);
            return code == 0 && flock(g->users_fd, LOCK_SH) != 0 ? -errno : code;
        }
        if (errno != EWOULDBLOCK || flock(g->users_fd, LOCK_SH) != 0) return -errno;
        if (has_data(g)) return open_env(g, c, true, err, err_bytes);
        flock(g->users_fd, LOCK_UN); /* whoever was making it was killed, or took it away */
    }
}

int page_group_open(struct page_group *g, const struct page_group_config *c, char *err,
                    size_t err_bytes) {
    char path[PAGE_GROUP_PATH_BYTES + 16];
    *g = (struct page_group){.users_fd = -1};
    int n = snprintf(g->dir, sizeof g->dir, "%s", c->dir);
    if (n <= 0 || (size_t)n >= sizeof g->dir) {
        g->dir[0] = '\0';
        return err_set(err, err_bytes, -ENAMETOOLONG, "%s: no path for a cache", c->dir);
    }
    pthread_rwlock_init(&g->map, NULL);
    pthread_mutex_init(&g->lock, NULL);
    int code = check_cap(c, err, err_bytes);
    if (code != 0) {
        page_group_close(g);
        return code;
    }
    if (c->cap_bytes > 0) code = file_mkdirs(g->dir);
    path_of(g, "users", path);
    if (code == 0) {
        g->users_fd = open(path, O_RDWR | O_CLOEXEC | (c->cap_bytes > 0 ? O_CREAT : 0), 0600);
        if (g->users_fd < 0) code = -errno;
    }
    if (code != 0) err_set(err, err_bytes, code, "%s: cannot be opened: %s", path, err_text(code));
    if (code == 0) code = open_locked(g, c, err, err_bytes);
    if (code == 0) code = size_up(g, err, err_bytes);
    if (code != 0) page_group_close(g);
    return code;
}

void page_group_close(struct page_group *g) {
    if (g->dir[0] == '\0') return;
    env_close(g->env);
    if (g->users_fd >= 0) close(g->users_fd);
    pthread_rwlock_destroy(&g->map);
    pthread_mutex_destroy(&g->lock);
    *g = (struct page_group){0};
}

int page_group_remove(const char *dir) {
    struct page_group g = {0};
    char path[PAGE_GROUP_PATH_BYTES + 16];
    int n = snprintf(g.dir, sizeof g.dir, "%s", dir), code = 0;
    if (n <= 0 || (size_t)n >= sizeof g.dir) return -ENAMETOOLONG;
    path_of(&g, "users", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) code = errno == EWOULDBLOCK ? -EBUSY : -errno;
    if (code == 0) remove_files(&g);
    close(fd);
    return code;
}
