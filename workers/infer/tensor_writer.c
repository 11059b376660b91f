#include "workers/infer/tensor_writer.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "workers/infer/safetensors.h"

struct planned {
    char *name, type[8];
    uint32_t rank, shard, place;         /* place: its number in the order of the files */
    uint64_t shape[TENSOR_RANK_MAX], at; /* at: in its file's data */
    size_t bytes;
};
struct out_file {
    char path[PATH_MAX];
    int fd;
    uint64_t header_bytes, data_bytes; /* the length in front of the header included */
};
struct tensor_writer {
    char *dir;
    struct json *notes;
    struct planned *plan;
    uint32_t n;
    struct out_file *file;
    uint32_t files;
};

struct tensor_writer *tensor_writer_new(const char *dir) {
    struct tensor_writer *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->dir = strdup(dir);
    w->notes = json_new_object();
    if (w->dir && w->notes) return w;
    tensor_writer_free(w);
    return NULL;
}

void tensor_writer_free(struct tensor_writer *w) {
    if (!w) return;
    for (uint32_t i = 0; i < w->n; i++) free(w->plan[i].name);
    for (uint32_t i = 0; i < w->files; i++)
        if (w->file[i].fd >= 0) close(w->file[i].fd);
    free(w->plan);
    free(w->file);
    json_free(w->notes);
    free(w->dir);
    free(w);
}

int tensor_writer_note(struct tensor_writer *w, const char *key, const char *value) {
    return json_set(w->notes, key, json_new_str(value, strlen(value)));
}

int tensor_writer_plan(struct tensor_writer *w, const char *name, const char *type, uint32_t rank,
                       const uint64_t *shape, size_t bytes) {
    assert(rank <= TENSOR_RANK_MAX && w->files == 0 && w->n < INT_MAX);
    struct planned *grown = realloc(w->plan, (w->n + 1) * sizeof *grown);
    if (!grown) return -ENOMEM;
    w->plan = grown;
    struct planned *p = &grown[w->n];
    *p = (struct planned){.name = strdup(name), .rank = rank, .bytes = bytes};
    if (!p->name) return -ENOMEM;
    snprintf(p->type, sizeof p->type, "%s", type);
    if (rank) memcpy(p->shape, shape, rank * sizeof *shape);
    return (int)w->n++;
}

static uint32_t alignment(const struct planned *p) {
    return strcmp(p->type, "F32") == 0 ? 4 : strcmp(p->type, "U8") == 0 ? 1 : 2;
}

/* Fills the files one after the other; in a file wide elements go first, so that all are aligned.
 */
static int lay_out(struct tensor_writer *w) {
    uint64_t room = TENSOR_WRITER_SHARD_BYTES;
    w->files = w->n ? 1 : 0;
    for (uint32_t i = 0; i < w->n; i++) {
        if (w->plan[i].bytes > room && room < TENSOR_WRITER_SHARD_BYTES) {
            w->files++;
            room = TENSOR_WRITER_SHARD_BYTES;
        }
        room -= w->plan[i].bytes < room ? w->plan[i].bytes : room;
        w->plan[i].shard = w->files - 1;
    }
    w->file = calloc(w->files ? w->files : 1, sizeof *w->file);
    if (!w->file) return -ENOMEM;
    for (uint32_t i = 0; i < w->files; i++) w->file[i].fd = -1;
    for (uint32_t wide = 4; wide > 0; wide /= 2)
        for (uint32_t i = 0; i < w->n; i++) {
            struct planned *p = &w->plan[i];
            if (alignment(p) != wide) continue;
            p->at = w->file[p->shard].data_bytes;
            w->file[p->shard].data_bytes += p->bytes;
        }
    return 0;
}

static char *header_text(const struct tensor_writer *w, uint32_t shard) {
    struct json *root = json_new_object();
    char *notes = json_text(w->notes, 0);
    struct json *copy = NULL;
    char why[64];
    bool fits = notes && json_parse(&copy, notes, strlen(notes), why, sizeof why) == 0 &&
                json_set(root, "__metadata__", copy) == 0;
    free(notes);
    for (uint32_t i = 0; fits && i < w->n; i++) {
        const struct planned *p = &w->plan[i];
        if (p->shard != shard) continue;
        struct json *entry = json_new_object(), *shape = json_new_array(),
                    *offsets = json_new_array();
        for (uint32_t d = 0; d < p->rank; d++) json_push(shape, json_new_int((int64_t)p->shape[d]));
        json_push(offsets, json_new_int((int64_t)p->at));
        json_push(offsets, json_new_int((int64_t)(p->at + p->bytes)));
        json_set(entry, "dtype", json_new_str(p->type, strlen(p->type)));
        json_set(entry, "shape", shape);
        json_set(entry, "data_offsets", offsets);
        fits = json_set(root, p->name, entry) == 0;
    }
    char *text = fits ? json_text(root, 0) : NULL;
    json_free(root);
    return text;
}

static int fail(const char *verb, const char *path, char *err, size_t err_bytes) {
    int code = errno ? -errno : -EIO;
    return err_set(err, err_bytes, code, "cannot %s %s: %s", verb, path, err_text(code));
}

static int write_at(const struct out_file *f, uint64_t at, const void *data, size_t bytes,
                    char *err, size_t err_bytes) {
    const char *from = data;
    while (bytes > 0) {
        ssize_t n = pwrite(f->fd, from, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return fail("write", f->path, err, err_bytes);
        from += n;
        at += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static void file_name(const struct tensor_writer *w, uint32_t shard, char out[64]) {
    if (w->files == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05u-of-%05u.safetensors", shard + 1, w->files);
}

int tensor_writer_begin(struct tensor_writer *w, char *err, size_t err_bytes) {
    int rc = lay_out(w);
    if (rc != 0) return err_set(err, err_bytes, rc, "no memory for a list of tensors");
    for (uint32_t i = 0; rc == 0 && i < w->files; i++) {
        struct out_file *f = &w->file[i];
        char name[64], *text = header_text(w, i);
        if (!text) return err_set(err, err_bytes, -ENOMEM, "no memory for a list of tensors");
        file_name(w, i, name);
        snprintf(f->path, sizeof f->path, "%.4000s/%s", w->dir, name);
        f->fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (f->fd < 0) rc = fail("create", f->path, err, err_bytes);
        size_t len = strlen(text), padded = (len + 7) / 8 * 8;
        f->header_bytes = 8 + padded;
        struct buf b = {0};
        buf_u64le(&b, padded);
        buf_append(&b, text, len);
        buf_append(&b, "       ", padded - len);
        free(text);
        if (rc == 0 && b.error) rc = err_set(err, err_bytes, b.error, "no memory for a header");
        struct bytes head = buf_bytes(&b);
        if (rc == 0) rc = write_at(f, 0, head.data, head.len, err, err_bytes);
        if (rc == 0 && ftruncate(f->fd, (off_t)(f->header_bytes + f->data_bytes)) != 0)
            rc = fail("extend", f->path, err, err_bytes);
        buf_fini(&b);
    }
    return rc;
}

int tensor_writer_put(struct tensor_writer *w, uint32_t tensor, size_t at, const void *data,
                      size_t bytes, char *err, size_t err_bytes) {
    const struct planned *p = &w->plan[tensor];
    const struct out_file *f = &w->file[p->shard];
    assert(tensor < w->n && at + bytes <= p->bytes);
    return write_at(f, f->header_bytes + p->at + at, data, bytes, err, err_bytes);
}

uint64_t tensor_writer_bytes(const struct tensor_writer *w) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < w->n; i++) bytes += w->plan[i].bytes;
    return bytes;
}

/* Which file holds which tensor. */
static int write_index(const struct tensor_writer *w, char *err, size_t err_bytes) {
    struct json *root = json_new_object(), *map = json_new_object(), *meta = json_new_object();
    char path[PATH_MAX], name[64];
    uint64_t total = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        file_name(w, w->plan[i].shard, name);
        json_set(map, w->plan[i].name, json_new_str(name, strlen(name)));
        total += w->plan[i].bytes;
    }
    json_set(meta, "total_size", json_new_int((int64_t)total));
    json_set(root, "metadata", meta);
    json_set(root, "weight_map", map);
    char *text = json_text(root, 2);
    json_free(root);
    if (!text) return err_set(err, err_bytes, -ENOMEM, "no memory for an index");
    snprintf(path, sizeof path, "%.4000s/model.safetensors.index.json", w->dir);
    int rc = file_replace(path, text, strlen(text), err, err_bytes);
    free(text);
    return rc;
}

int tensor_writer_end(struct tensor_writer *w, char *err, size_t err_bytes) {
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < w->files; i++) {
        struct out_file *f = &w->file[i];
        if (fsync(f->fd) != 0) rc = fail("flush", f->path, err, err_bytes);
        if (close(f->fd) != 0 && rc == 0) rc = fail("close", f->path, err, err_bytes);
        f->fd = -1;
    }
    return rc == 0 && w->files > 1 ? write_index(w, err, err_bytes) : rc;
}
