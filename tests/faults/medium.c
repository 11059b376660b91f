#include "tests/faults/medium.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/rng.h"

enum { PAGE_BYTES = 4096, SECTORS_A_PAGE = PAGE_BYTES / MEDIUM_SECTOR, PATH_BYTES = 4096 };

static void *must(void *p) {
    if (p && p != MAP_FAILED) return p;
    fprintf(stderr, "replay: out of memory\n");
    abort();
}

static uint8_t *image(void) {
    return must(mmap(NULL, MEDIUM_FILE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
}

void medium_init(struct medium *m, const char *root) {
    *m = (struct medium){.root = must(strdup(root))};
}

static void node_fini(struct medium_node *n) {
    free(n->path);
    free(n->old_path);
    if (n->seen) munmap(n->seen, MEDIUM_FILE_BYTES);
    if (n->kept) munmap(n->kept, MEDIUM_FILE_BYTES);
    free(n->sizes);
    free(n->versions);
}

void medium_fini(struct medium *m) {
    for (uint32_t i = 0; i < m->n; i++) node_fini(&m->node[i]);
    free(m->root);
}

static struct medium_node *find(struct medium *m, const char *path) {
    for (uint32_t i = 0; i < m->n; i++)
        if (strcmp(m->node[i].path, path) == 0) return &m->node[i];
    return NULL;
}

static bool lies_in(const char *path, const char *folder) {
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 && path[len] == '/' && !strchr(path + len + 1, '/');
}

/* ---- records ---- */

static void add_version(struct medium_node *n, uint32_t sector) {
    if (n->n_versions == n->versions_cap) {
        n->versions_cap = n->versions_cap ? n->versions_cap * 2 : 1024;
        n->versions = must(realloc(n->versions, n->versions_cap * sizeof *n->versions));
    }
    struct medium_version *v = &n->versions[n->n_versions++];
    *v = (struct medium_version){.sector = sector, .write = n->writes};
    memcpy(v->data, n->seen + (uint64_t)sector * MEDIUM_SECTOR, MEDIUM_SECTOR);
}

static void resize(struct medium_node *n, uint64_t bytes) {
    if (n->n_sizes == n->sizes_cap) {
        n->sizes_cap = n->sizes_cap ? n->sizes_cap * 2 : 16;
        n->sizes = must(realloc(n->sizes, n->sizes_cap * sizeof *n->sizes));
    }
    n->seen_bytes = n->sizes[n->n_sizes++] = bytes;
}

/* Of one sector only the newest version is flushed, and with it all before it are past. */
static void written_through(struct medium_node *n, uint32_t from, uint32_t to) {
    for (uint32_t s = from; s < to; s++)
        memcpy(n->kept + (uint64_t)s * MEDIUM_SECTOR, n->seen + (uint64_t)s * MEDIUM_SECTOR,
               MEDIUM_SECTOR);
    for (uint32_t i = 0; i < n->n_versions; i++)
        if (n->versions[i].sector >= from && n->versions[i].sector < to)
            n->versions[i].void_ = true;
}

static void node_write(struct medium_node *n, uint64_t at, struct bytes data, bool through) {
    uint64_t end = at + data.len;
    uint32_t from = (uint32_t)(at / MEDIUM_SECTOR);
    uint32_t to = (uint32_t)((end + MEDIUM_SECTOR - 1) / MEDIUM_SECTOR);
    memcpy(n->seen + at, data.data, data.len);
    if (end > n->seen_bytes) resize(n, end);
    n->writes++;
    if (through)
        written_through(n, from, to);
    else
        for (uint32_t s = from; s < to; s++) add_version(n, s);
}

static void node_flush(struct medium_node *n) {
    for (uint32_t i = 0; i < n->n_versions; i++)
        if (!n->versions[i].void_)
            memcpy(n->kept + (uint64_t)n->versions[i].sector * MEDIUM_SECTOR, n->versions[i].data,
                   MEDIUM_SECTOR);
    n->n_versions = n->n_sizes = 0;
    n->kept_bytes = n->seen_bytes;
}

/* The names in a folder are flushed with it. */
static void flush_names(struct medium *m, const char *folder) {
    for (uint32_t i = 0; i < m->n; i++) {
        struct medium_node *n = &m->node[i];
        if (!lies_in(n->path, folder)) continue;
        n->named = true;
        free(n->old_path);
        n->old_path = NULL;
    }
}

static int add_node(struct medium *m, const char *path, bool folder) {
    if (m->n == MEDIUM_NODES) return ERR_LIMIT;
    struct medium_node *n = &m->node[m->n++];
    *n = (struct medium_node){.path = must(strdup(path)), .folder = folder};
    if (!folder) n->seen = image(), n->kept = image();
    return 0;
}

static void forget(struct medium *m, struct medium_node *n) {
    uint32_t at = (uint32_t)(n - m->node);
    node_fini(n);
    memmove(n, n + 1, (--m->n - at) * sizeof *n); /* folders stay before what lies in them */
}

static int node_rename(struct medium *m, struct medium_node *n, struct bytes to) {
    char *path = must(bytes_dup(to));
    if (n->old_path || find(m, path)) { /* replacing a file: nothing here does that yet */
        free(path);
        return -EINVAL;
    }
    n->old_path = n->path;
    n->path = path;
    return 0;
}

static int apply_to(struct medium *m, struct medium_node *n, enum record_type type, uint64_t number,
                    struct bytes data) {
    switch (type) {
    case RECORD_WRITE:
    case RECORD_THROUGH:
        if (n->folder || number + data.len > MEDIUM_FILE_BYTES) return ERR_LIMIT;
        node_write(n, number, data, type == RECORD_THROUGH);
        return 0;
    case RECORD_SIZE:
        if (number < n->seen_bytes || number > MEDIUM_FILE_BYTES) return -EINVAL;
        if (number > n->seen_bytes) resize(n, number);
        return 0;
    case RECORD_FLUSH: node_flush(n); return 0;
    case RECORD_RENAME: return node_rename(m, n, data);
    case RECORD_UNLINK: forget(m, n); return 0;
    default: return -EINVAL;
    }
}

int medium_apply(struct medium *m, enum record_type type, const char *path, uint64_t number,
                 struct bytes data, char *err, size_t err_bytes) {
    struct medium_node *n = find(m, path);
    int e = 0;
    m->records++;
    m->flushes += type == RECORD_FLUSH || type == RECORD_THROUGH;
    if (type == RECORD_FLUSH && (!n || n->folder)) {
        flush_names(m, path);
    } else if (type == RECORD_FILE || type == RECORD_FOLDER) {
        e = n ? -EINVAL : add_node(m, path, type == RECORD_FOLDER);
    } else {
        e = n ? apply_to(m, n, type, number, data) : -ENOENT;
    }
    if (e == 0) return 0;
    return err_set(err, err_bytes, e, "record %llu, of type %d, on %s: %.*s: cannot be imitated",
                   (unsigned long long)m->records, (int)type, path,
                   type == RECORD_STRANGE ? (int)data.len : 0, (const char *)data.data);
}

/* ---- the crash ---- */

/* The same coin for the same thing in one crash. */
static bool coin(uint64_t seed, uint64_t node, uint64_t what) {
    return rng_u32(seed, node, what, 0) & 1;
}

/* Whether this version has reached the disk: a version means that its sector is at least so new. */
static bool reached(const struct medium_version *v, enum medium_loss loss, uint64_t seed,
                    uint64_t node, uint32_t first, uint32_t n_writes) {
    uint64_t unit = loss == LOSS_PAGES ? v->sector / SECTORS_A_PAGE : v->sector;
    if (v->void_ || loss == LOSS_ALL) return false;
    if (loss == LOSS_NONE) return true;
    if (loss == LOSS_WRITES) return coin(seed, node, v->write);
    /* Everything up to a write of the unit's own choice; often all or nothing. */
    uint32_t until = (uint32_t)(rng_unit(seed, node, unit) * 2.0f * (float)(n_writes + 1));
    return v->write - first < until;
}

static uint64_t size_of(const struct medium_node *n, enum medium_loss loss, uint64_t seed,
                        uint64_t node) {
    if (loss == LOSS_ALL || n->n_sizes == 0) return n->kept_bytes;
    if (loss == LOSS_NONE) return n->seen_bytes;
    uint32_t pick = rng_u32(seed, node, UINT64_MAX, 1) % (n->n_sizes + 1);
    return pick == 0 ? n->kept_bytes : n->sizes[pick - 1];
}

static bool all_zero(const uint8_t *p, size_t len) {
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static int put(int fd, const uint8_t *data, size_t bytes, uint64_t at) {
    return pwrite(fd, data, bytes, (off_t)at) == (ssize_t)bytes ? 0 : -EIO;
}

static int write_file(const struct medium_node *n, const char *path, enum medium_loss loss,
                      uint64_t seed, uint64_t node) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), e = 0;
    if (fd < 0) return -errno;
    uint64_t size = size_of(n, loss, seed, node);
    for (uint64_t at = 0; e == 0 && at < n->seen_bytes; at += PAGE_BYTES)
        if (!all_zero(n->kept + at, PAGE_BYTES)) e = put(fd, n->kept + at, PAGE_BYTES, at);
    uint32_t first = n->n_versions ? n->versions[0].write : 0, n_writes = n->writes + 1 - first;
    for (uint32_t i = 0; e == 0 && i < n->n_versions; i++) {
        const struct medium_version *v = &n->versions[i];
        if (reached(v, loss, seed, node, first, n_writes))
            e = put(fd, v->data, MEDIUM_SECTOR, (uint64_t)v->sector * MEDIUM_SECTOR);
    }
    if (e == 0 && ftruncate(fd, (off_t)size) != 0) e = -errno;
    close(fd);
    return e;
}

int medium_crash(const struct medium *m, const char *to, enum medium_loss loss, uint64_t seed) {
    char path[PATH_BYTES], parent[PATH_BYTES];
    int e = file_mkdirs(to);
    size_t root = strlen(m->root);
    for (uint32_t i = 0; e == 0 && i < m->n; i++) { /* folders come before what lies in them */
        const struct medium_node *n = &m->node[i];
        bool kept = n->named || loss == LOSS_NONE || (loss != LOSS_ALL && coin(seed, i, ~0ull));
        const char *name = kept ? n->path : n->old_path;
        if (!name) continue;
        int len = snprintf(path, sizeof path, "%s%s", to, name + root);
        if (len < 0 || (size_t)len >= sizeof path) return -ENAMETOOLONG;
        memcpy(parent, path, (size_t)len + 1);
        *strrchr(parent, '/') = '\0';
        if (!file_is_folder(parent)) continue; /* lost with its folder */
        if (n->folder)
            e = mkdir(path, 0700) == 0 ? 0 : -errno;
        else
            e = write_file(n, path, loss, seed, i);
    }
    return e;
}

int medium_compare(const struct medium *m, char *err, size_t err_bytes) {
    for (uint32_t i = 0; i < m->n; i++) {
        const struct medium_node *n = &m->node[i];
        struct file_map map;
        struct stat st;
        if (n->folder) continue;
        if (n->seen_bytes == 0 && stat(n->path, &st) == 0 && st.st_size == 0) continue;
        int e = file_map(n->path, &map, err, err_bytes);
        if (e) return e;
        bool same = map.bytes == n->seen_bytes && memcmp(map.data, n->seen, map.bytes) == 0;
        file_unmap(&map);
        if (!same)
            return err_set(err, err_bytes, ERR_CORRUPT, "%s is not what was recorded", n->path);
    }
    return 0;
}
