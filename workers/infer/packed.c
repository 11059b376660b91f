#include "workers/infer/packed.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/file.h"
#include "workers/infer/library.h"
#include "workers/infer/safetensors.h"

#define MAGIC UINT64_C(0x31444b5041535050) /* "PPSAPKD1" */
#define HEAD_BYTES 32u                     /* magic, header's bytes, matrices, parameters */
#define ROW_BYTES 36u
#define MATRICES_MAX 8192u
#define ALIGNMENT 4096u
#define CONFIG_BYTES_MAX (4u << 20)
#define LEFT_OVER_S 3600 /* a file that was begun so long ago was left by who died */

struct packed {
    const uint8_t *map;
    size_t bytes;
    uint64_t parameters;
    struct reader rows;
};

/* ---- the key ---- */

static void add_file(struct buf *b, const struct stat *st, const struct manifest_file *imported) {
    buf_u64le(b, (uint64_t)st->st_size);
    buf_u64le(b, (uint64_t)st->st_mtim.tv_sec);
    buf_u64le(b, (uint64_t)st->st_mtim.tv_nsec);
    if (imported) {
        buf_append(b, imported->sha256, sizeof imported->sha256);
        return;
    }
    buf_u64le(b, (uint64_t)st->st_dev);
    buf_u64le(b, (uint64_t)st->st_ino);
    buf_u64le(b, (uint64_t)st->st_ctim.tv_sec);
    buf_u64le(b, (uint64_t)st->st_ctim.tv_nsec);
}

static const struct manifest_file *row_of(const struct manifest *m, const char *path) {
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    for (uint32_t i = 0; i < m->n; i++)
        if (strcmp(m->file[i].path, name) == 0) return &m->file[i];
    return NULL;
}

int packed_key(const char *dir, const struct safetensors *st, const char *layout, const char *what,
               char key[HASH_HEX_BYTES], char *err, size_t err_bytes) {
    struct manifest m = {0};
    struct buf b = {0};
    struct bytes header;
    char path[PATH_MAX];
    const char *file;
    void *config = NULL;
    size_t config_bytes = 0;
    int rc = manifest_load(&m, dir, err, err_bytes);
    if (rc == -ENOENT) rc = 0;
    snprintf(path, sizeof path, "%.4000s/config.json", dir);
    if (rc == 0) rc = file_read(path, CONFIG_BYTES_MAX, &config, &config_bytes, err, err_bytes);
    for (uint32_t i = 0; rc == 0 && (file = safetensors_file(st, i, &header)); i++) {
        struct stat s;
        if (stat(file, &s) != 0) {
            rc = err_set(err, err_bytes, -errno, "%s: %s", file, err_text(-errno));
            break;
        }
        add_file(&b, &s, row_of(&m, file));
        buf_lenbytes(&b, header);
    }
    if (rc == 0 && b.error) rc = err_set(err, err_bytes, b.error, "no memory for a key");
    const struct bytes parts[] = {bytes_str("penstock packed 1"), bytes_str(layout),
                                  bytes_str(what), bytes_of(config, config_bytes), buf_bytes(&b)};
    if (rc == 0) hash_hex(parts, sizeof parts / sizeof *parts, key);
    free(config);
    buf_fini(&b);
    manifest_fini(&m);
    return rc;
}

/* ---- reading ---- */

uint64_t packed_parameters(const struct packed *p) {
    return p->parameters;
}

/* The header and every matrix, against their checksums. */
static bool check(struct packed *p) {
    struct reader r = reader_of(bytes_of(p->map, p->bytes));
    uint64_t magic = read_u64le(&r), header = read_u64le(&r), count = read_u64le(&r);
    p->parameters = read_u64le(&r);
    if (r.bad || magic != MAGIC || count > MATRICES_MAX ||
        header != HEAD_BYTES + count * ROW_BYTES + 4 || header > p->bytes)
        return false;
    struct bytes rows = read_bytes(&r, count * ROW_BYTES);
    if (read_u32le(&r) != crc32c(0, p->map, header - 4)) return false;
    p->rows = reader_of(rows);
    struct reader row = p->rows;
    uint64_t end = (header + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    for (uint64_t i = 0; i < count; i++) {
        read_bytes(&row, 16);
        uint64_t at = read_u64le(&row), bytes = read_u64le(&row);
        uint32_t crc = read_u32le(&row);
        if (row.bad || at != end || at > p->bytes || bytes > p->bytes - at ||
            crc != crc32c(0, p->map + at, bytes))
            return false;
        end = (at + bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        if (end > p->bytes) return false;
    }
    return end == p->bytes;
}

struct packed *packed_open(const char *root, const char *key) {
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%.4000s/" PACKED_FOLDER "/%s", root, key);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct packed *p = fd >= 0 ? calloc(1, sizeof *p) : NULL;
    void *map = MAP_FAILED;
    if (p && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (map != MAP_FAILED) {
        p->map = map;
        p->bytes = (size_t)st.st_size;
        if (check(p)) {
            futimens(fd, NULL); /* used now; whoever may not say so says nothing */
            close(fd);
            return p;
        }
    }
    packed_close(p);
    if (fd >= 0) close(fd);
    return NULL;
}

void packed_close(struct packed *p) {
    if (!p) return;
    if (p->map) munmap((void *)(uintptr_t)p->map, p->bytes);
    free(p);
}

int packed_next(struct packed *p, struct ops *ops, uint32_t n, uint32_t k, bool pair,
                struct weight *out, char *err, size_t err_bytes) {
    struct weight w = {.n = read_u32le(&p->rows)};
    w.k = read_u32le(&p->rows);
    uint8_t dtype = read_u8(&p->rows), is_pair = read_u8(&p->rows), zeros = read_u8(&p->rows);
    read_u8(&p->rows);
    w.group = read_u32le(&p->rows);
    uint64_t at = read_u64le(&p->rows), bytes = read_u64le(&p->rows);
    read_u32le(&p->rows);
    w.dtype = (enum dtype)dtype;
    w.pair = is_pair != 0;
    w.zeros = zeros != 0;
    if (p->rows.bad || w.n != n || w.k != k || w.pair != pair || dtype > DTYPE_W4)
        return err_set(err, err_bytes, ERR_CORRUPT, "a packed weight is not the one looked for");
    int rc = ops->weight_borrow(ops, &w, p->map + at, bytes, err, err_bytes);
    if (rc == 0) *out = w;
    return rc;
}

/* ---- writing ---- */

struct old_file {
    char name[HASH_HEX_BYTES + 8];
    uint64_t bytes;
    struct timespec used;
};

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const struct old_file *)a)->used,
                          *y = &((const struct old_file *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

/* Makes room for `bytes` below the cap, and takes away what was never finished. */
static void sweep(const char *folder, uint64_t bytes) {
    struct old_file *old = NULL;
    uint32_t n = 0;
    uint64_t total = bytes;
    int64_t now_s = clock_wall_ms() / 1000; /* file times are the wall's */
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[PATH_MAX];
        struct stat st;
        snprintf(path, sizeof path, "%.3800s/%s", folder, e->d_name);
        if (strlen(e->d_name) >= sizeof old->name || stat(path, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        struct old_file *grown = realloc(old, (n + 1) * sizeof *grown);
        if (!grown) break;
        old = grown;
        if (e->d_name[0] == '.') {
            if (now_s - st.st_mtim.tv_sec > LEFT_OVER_S) unlink(path);
            continue;
        }
        snprintf(old[n].name, sizeof old[n].name, "%s", e->d_name);
        old[n].bytes = (uint64_t)st.st_size;
        old[n].used = st.st_mtim;
        total += old[n++].bytes;
    }
    if (d) closedir(d);
    if (n > 1) qsort(old, n, sizeof *old, by_use);
    for (uint32_t i = 0; i < n && total > PACKED_FOLDER_BYTES; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%.3800s/%s", folder, old[i].name);
        if (unlink(path) == 0) total -= old[i].bytes;
    }
    free(old);
}

static uint64_t aligned(uint64_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The header and its rows; *total is the size of the file. */
static void put_header(struct buf *b, const struct weight *const *weight, uint32_t n,
                       uint64_t parameters, uint64_t *total) {
    uint64_t header = HEAD_BYTES + (uint64_t)n * ROW_BYTES + 4, at = aligned(header);
    buf_u64le(b, MAGIC);
    buf_u64le(b, header);
    buf_u64le(b, n);
    buf_u64le(b, parameters);
    for (uint32_t i = 0; i < n; i++) {
        const struct weight *w = weight[i];
        buf_u32le(b, w->n);
        buf_u32le(b, w->k);
        buf_u8(b, (uint8_t)w->dtype);
        buf_u8(b, w->pair);
        buf_u8(b, w->zeros);
        buf_u8(b, 0);
        buf_u32le(b, w->group);
        buf_u64le(b, at);
        buf_u64le(b, w->bytes);
        buf_u32le(b, crc32c(0, w->data, w->bytes));
        at = aligned(at + w->bytes);
    }
    struct bytes so_far = buf_bytes(b);
    buf_u32le(b, crc32c(0, so_far.data, so_far.len));
    *total = at;
}

static int write_at(int fd, uint64_t at, const void *data, size_t bytes) {
    const char *from = data;
    while (bytes > 0) {
        ssize_t n = pwrite(fd, from, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? -errno : -EIO;
        from += n;
        at += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* All of it into a file of another name, flushed, then renamed. */
static int write_file(const char *folder, const char *key, struct bytes header,
                      const struct weight *const *weight, uint32_t n, uint64_t total) {
    char temp[PATH_MAX], path[PATH_MAX];
    snprintf(temp, sizeof temp, "%.4000s/.new-XXXXXX", folder);
    snprintf(path, sizeof path, "%.4000s/%s", folder, key);
    int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) return -errno;
    int rc = write_at(fd, 0, header.data, header.len);
    uint64_t at = aligned(header.len);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        rc = write_at(fd, at, weight[i]->data, weight[i]->bytes);
        at = aligned(at + weight[i]->bytes);
    }
    if (rc == 0 && (ftruncate(fd, (off_t)total) != 0 || fchmod(fd, 0644) != 0 || fsync(fd) != 0))
        rc = -errno;
    if (close(fd) != 0 && rc == 0) rc = -errno;
    if (rc == 0 && rename(temp, path) != 0) rc = -errno;
    if (rc != 0) unlink(temp);
    return rc;
}

int packed_save(const char *root, const char *key, const struct weight *const *weight, uint32_t n,
                uint64_t parameters, char *err, size_t err_bytes) {
    char folder[PATH_MAX];
    struct buf b = {0};
    uint64_t total = 0, payload = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!weight[i]->owned) return 0; /* the backend takes the files as they are */
        payload += weight[i]->bytes;
    }
    if (n > MATRICES_MAX) return 0;
    snprintf(folder, sizeof folder, "%.4000s/" PACKED_FOLDER, root);
    int rc = file_mkdirs(folder);
    if (rc != 0) return err_set(err, err_bytes, rc, "cannot make %s: %s", folder, err_text(rc));
    sweep(folder, payload);
    rc = library_check_space(folder, payload, err, err_bytes);
    if (rc != 0) return rc;
    put_header(&b, weight, n, parameters, &total);
    rc = b.error ? b.error : write_file(folder, key, buf_bytes(&b), weight, n, total);
    buf_fini(&b);
    if (rc == 0) return 1;
    return err_set(err, err_bytes, rc, "cannot write %s/%.8s...: %s", folder, key, err_text(rc));
}
