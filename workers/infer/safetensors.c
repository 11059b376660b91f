#include "workers/infer/safetensors.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"

#define INDEX_BYTES_MAX (64u * 1024u * 1024u)

struct shard {
    char *path;
    struct file_map map;
    size_t header_bytes; /* the length in front of it included */
};
struct safetensors {
    struct shard shard[SAFETENSORS_SHARDS_MAX];
    uint32_t shards;
    struct tensor *tensor; /* [count], sorted by name once all shards are read */
    uint32_t count, cap;
    char *index;       /* NULL: a single file */
    struct note *note; /* [notes] of the files' __metadata__ */
    uint32_t notes;
};
struct note {
    char *key, *value;
};

static const struct {
    const char *name;
    uint8_t bytes;
} types[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8},     {"I64", 8},
             {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
             {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

static size_t type_bytes(const char *name) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) return types[i].bytes;
    return 0;
}

/* Where a message is about: one tensor of one file. */
struct place {
    const char *path, *name;
    char *err;
    size_t err_bytes;
};

static int shape_read(const struct json *shape, struct tensor *t, const struct place *at) {
    if (json_kind(shape) != JSON_ARRAY)
        return err_set(at->err, at->err_bytes, ERR_CORRUPT, "%s: tensor %s: shape is not a list",
                       at->path, at->name);
    if (json_len(shape) > TENSOR_RANK_MAX)
        return err_set(at->err, at->err_bytes, ERR_LIMIT,
                       "%s: tensor %s: %zu dimensions, the limit is %u", at->path, at->name,
                       json_len(shape), TENSOR_RANK_MAX);
    t->rank = (uint32_t)json_len(shape);
    t->elements = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        int64_t d = json_int(json_at(shape, i), -1);
        if (d < 0 || __builtin_mul_overflow(t->elements, (uint64_t)d, &t->elements))
            return err_set(at->err, at->err_bytes, ERR_CORRUPT,
                           "%s: tensor %s: dimension %u is not a size, or the product is too large",
                           at->path, at->name, i);
        t->shape[i] = (uint64_t)d;
    }
    return 0;
}

/* Fills t from one member of the header; data_bytes follow the header at `data`. */
static int tensor_read(const struct json *entry, const uint8_t *data, size_t data_bytes,
                       struct tensor *t, const struct place *at) {
    const char *type = json_str(json_get(entry, "dtype"));
    size_t size = type ? type_bytes(type) : 0;
    if (size == 0)
        return err_set(at->err, at->err_bytes, type ? -ENOTSUP : ERR_CORRUPT,
                       "%s: tensor %s: dtype %s is not known here", at->path, at->name,
                       type ? type : "(missing)");
    snprintf(t->type, sizeof t->type, "%s", type);
    int rc = shape_read(json_get(entry, "shape"), t, at);
    if (rc != 0) return rc;

    const struct json *offsets = json_get(entry, "data_offsets");
    int64_t begin = json_int(json_at(offsets, 0), -1), end = json_int(json_at(offsets, 1), -1);
    if (json_len(offsets) != 2 || begin < 0 || end < begin)
        return err_set(at->err, at->err_bytes, ERR_CORRUPT,
                       "%s: tensor %s: data_offsets are not [begin, end]", at->path, at->name);
    if ((uint64_t)end > data_bytes)
        return err_set(at->err, at->err_bytes, ERR_CORRUPT,
                       "%s: tensor %s ends at byte %" PRId64
                       " of the data, but the file has only %zu:"
                       " it is truncated or lies; fetch it again",
                       at->path, at->name, end, data_bytes);
    uint64_t bytes;
    if (__builtin_mul_overflow(t->elements, size, &bytes) || bytes != (uint64_t)(end - begin))
        return err_set(at->err, at->err_bytes, ERR_CORRUPT,
                       "%s: tensor %s: its shape and dtype %s do not fill its %" PRId64 " bytes",
                       at->path, at->name, type, end - begin);
    t->data = data + begin;
    t->bytes = (size_t)bytes;
    if ((uintptr_t)t->data % size != 0)
        return err_set(at->err, at->err_bytes, -ENOTSUP,
                       "%s: tensor %s is not aligned to its elements; save the file again with a"
                       " current safetensors",
                       at->path, at->name);
    return 0;
}

static int by_place(const void *a, const void *b) {
    const struct tensor *x = a, *y = b;
    if (x->data != y->data) return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

/* The tensors from `first` on must cover the data without gap or overlap. Sorts them by place. */
static int check_cover(struct safetensors *s, uint32_t first, const uint8_t *data,
                       size_t data_bytes, const char *path, char *err, size_t err_bytes) {
    const uint8_t *at = data;
    if (s->count > first) qsort(s->tensor + first, s->count - first, sizeof *s->tensor, by_place);
    for (uint32_t i = first; i < s->count; i++) {
        const struct tensor *t = &s->tensor[i];
        if (t->data != at)
            return err_set(err, err_bytes, ERR_CORRUPT, "%s: tensor %s %s", path, t->name,
                           (const uint8_t *)t->data < at ? "overlaps the one before it"
                                                         : "leaves a gap before it");
        at += t->bytes;
    }
    if (at != data + data_bytes)
        return err_set(err, err_bytes, ERR_CORRUPT, "%s: %zu bytes at the end belong to no tensor",
                       path, (size_t)(data + data_bytes - at));
    return 0;
}

static int table_grow(struct safetensors *s, size_t more, char *err, size_t err_bytes) {
    if (more > UINT32_MAX / 2 - s->count)
        return err_set(err, err_bytes, ERR_LIMIT, "too many tensors");
    uint32_t cap = s->count + (uint32_t)more;
    struct tensor *grown = realloc(s->tensor, (cap ? cap : 1) * sizeof *grown);
    if (!grown) return err_set(err, err_bytes, -ENOMEM, "no memory for a table of %u tensors", cap);
    s->tensor = grown;
    s->cap = cap;
    return 0;
}

/* Texts only: the format knows nothing else there. */
static int metadata_read(struct safetensors *s, const struct json *metadata, char *err,
                         size_t err_bytes) {
    const char *key;
    const struct json *value;
    struct note *grown = realloc(s->note, (s->notes + json_len(metadata) + 1) * sizeof *grown);
    if (!grown) return err_set(err, err_bytes, -ENOMEM, "no memory for the notes of a file");
    s->note = grown;
    for (size_t it = 0; json_next(metadata, &it, &key, &value);) {
        if (!json_str(value)) continue;
        struct note note = {strdup(key), strdup(json_str(value))};
        grown[s->notes++] = note;
        if (!note.key || !note.value)
            return err_set(err, err_bytes, -ENOMEM, "no memory for the notes of a file");
    }
    return 0;
}

static int header_read(struct safetensors *s, uint32_t shard, const struct json *header,
                       const uint8_t *data, size_t data_bytes, char *err, size_t err_bytes) {
    const char *path = s->shard[shard].path, *name;
    const struct json *entry;
    uint32_t first = s->count;
    int rc = table_grow(s, json_len(header), err, err_bytes);
    for (size_t it = 0; rc == 0 && json_next(header, &it, &name, &entry);) {
        if (strcmp(name, "__metadata__") == 0) {
            rc = metadata_read(s, entry, err, err_bytes);
            continue;
        }
        struct tensor t = {.shard = shard};
        rc = tensor_read(entry, data, data_bytes, &t, &(struct place){path, name, err, err_bytes});
        if (rc != 0) return rc;
        t.name = strdup(name);
        if (!t.name) return err_set(err, err_bytes, -ENOMEM, "no memory for a tensor's name");
        s->tensor[s->count++] = t;
    }
    return rc ? rc : check_cover(s, first, data, data_bytes, path, err, err_bytes);
}

/* Takes path. Maps the file and adds its tensors. */
static int shard_open(struct safetensors *s, char *path, char *err, size_t err_bytes) {
    if (!path) return err_set(err, err_bytes, -ENOMEM, "no memory for a path");
    uint32_t number = s->shards++;
    struct shard *shard = &s->shard[number];
    shard->path = path;
    int rc = file_map(path, &shard->map, err, err_bytes);
    if (rc != 0) return rc;

    struct reader r = reader_of(bytes_of(shard->map.data, shard->map.bytes));
    uint64_t header_bytes = read_u64le(&r);
    if (r.bad || header_bytes > read_left(&r))
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "%s: the header should have %" PRIu64
                       " bytes, the file has %zu: it is truncated"
                       " or not a safetensors file; fetch it again",
                       path, header_bytes, shard->map.bytes);
    if (header_bytes > SAFETENSORS_HEADER_BYTES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT,
                       "%s: a header of %" PRIu64 " bytes, the limit is %u", path, header_bytes,
                       SAFETENSORS_HEADER_BYTES_MAX);
    struct bytes text = read_bytes(&r, (size_t)header_bytes);
    shard->header_bytes = shard->map.bytes - read_left(&r);
    struct json *header = NULL;
    char why[256];
    rc = json_parse(&header, text.data, text.len, why, sizeof why);
    if (rc != 0)
        return err_set(err, err_bytes, rc == -ENOMEM ? rc : ERR_CORRUPT, "%s: header: %s", path,
                       why);
    if (json_kind(header) == JSON_OBJECT)
        rc = header_read(s, number, header, r.at, read_left(&r), err, err_bytes);
    else
        rc = err_set(err, err_bytes, ERR_CORRUPT, "%s: the header is not a JSON object", path);
    json_free(header);
    return rc;
}

static char *path_of(const char *dir, const char *file) {
    char *path = NULL;
    return asprintf(&path, "%s/%s", dir, file) < 0 ? NULL : path;
}

/* The shard of that file name, opened now when it is new. */
static int shard_named(struct safetensors *s, const char *dir, const char *file, uint32_t *out,
                       char *err, size_t err_bytes) {
    if (!file || !*file || strchr(file, '/') || *file == '.')
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "%s/model.safetensors.index.json: %s is not a file name", dir,
                       file ? file : "(not text)");
    size_t skip = strlen(dir) + 1;
    for (*out = 0; *out < s->shards; ++*out)
        if (strcmp(s->shard[*out].path + skip, file) == 0) return 0;
    if (s->shards == SAFETENSORS_SHARDS_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "%s: more than %u shards", dir,
                       SAFETENSORS_SHARDS_MAX);
    return shard_open(s, path_of(dir, file), err, err_bytes);
}

static int index_open(struct safetensors *s, const char *dir, const char *index, char *err,
                      size_t err_bytes) {
    struct json *root = NULL;
    int rc = json_load(&root, index, INDEX_BYTES_MAX, err, err_bytes);
    if (rc != 0) return rc;
    const struct json *map = json_get(root, "weight_map"), *file;
    const char *name;
    uint32_t shard;
    if (json_len(map) == 0)
        rc = err_set(err, err_bytes, ERR_CORRUPT, "%s: weight_map is missing or empty", index);
    for (size_t it = 0; rc == 0 && json_next(map, &it, &name, &file);)
        rc = shard_named(s, dir, json_str(file), &shard, err, err_bytes);
    if (rc == 0 && s->count > 0) qsort(s->tensor, s->count, sizeof *s->tensor, by_name);
    for (size_t it = 0; rc == 0 && json_next(map, &it, &name, &file);) {
        const struct tensor *t = safetensors_find(s, name);
        rc = shard_named(s, dir, json_str(file), &shard, err, err_bytes);
        if (rc == 0 && (!t || t->shard != shard))
            rc = err_set(err, err_bytes, ERR_CORRUPT, "%s: tensor %s is not in %s", index, name,
                         json_str(file));
    }
    json_free(root);
    return rc;
}

static int check_twins(const struct safetensors *s, char *err, size_t err_bytes) {
    for (uint32_t i = 1; i < s->count; i++)
        if (strcmp(s->tensor[i - 1].name, s->tensor[i].name) == 0)
            return err_set(err, err_bytes, ERR_CORRUPT, "%s: tensor %s is there twice, also in %s",
                           safetensors_path(s, &s->tensor[i - 1]), s->tensor[i].name,
                           safetensors_path(s, &s->tensor[i]));
    return 0;
}

int safetensors_open(struct safetensors **out, const char *dir, char *err, size_t err_bytes) {
    struct safetensors *s = calloc(1, sizeof *s);
    char *single = path_of(dir, "model.safetensors");
    char *index = path_of(dir, "model.safetensors.index.json");
    int rc = -ENOMEM;
    *out = NULL;
    if (!s || !single || !index) {
        err_set(err, err_bytes, rc, "no memory to open %s", dir);
        goto done;
    }
    if (access(single, F_OK) != 0 && access(index, F_OK) == 0) {
        rc = index_open(s, dir, index, err, err_bytes);
        s->index = index;
        index = NULL;
    } else {
        rc = shard_open(s, single, err, err_bytes);
        single = NULL;
        if (rc == 0 && s->count > 0) qsort(s->tensor, s->count, sizeof *s->tensor, by_name);
    }
    if (rc == 0) rc = check_twins(s, err, err_bytes);
    if (rc == 0) {
        *out = s;
        s = NULL;
    }
done:
    safetensors_close(s);
    free(single);
    free(index);
    return rc;
}

int safetensors_open_file(struct safetensors **out, const char *path, char *err, size_t err_bytes) {
    struct safetensors *s = calloc(1, sizeof *s);
    char *copy = strdup(path);
    int rc = -ENOMEM;
    *out = NULL;
    if (s && copy) {
        rc = shard_open(s, copy, err, err_bytes);
        copy = NULL;
        if (rc == 0 && s->count > 0) qsort(s->tensor, s->count, sizeof *s->tensor, by_name);
        if (rc == 0) rc = check_twins(s, err, err_bytes);
    } else {
        err_set(err, err_bytes, rc, "no memory to open %s", path);
    }
    if (rc == 0)
        *out = s;
    else
        safetensors_close(s);
    free(copy);
    return rc;
}

void safetensors_close(struct safetensors *s) {
    if (!s) return;
    for (uint32_t i = 0; i < s->count; i++) free(s->tensor[i].name);
    for (uint32_t i = 0; i < s->notes; i++) {
        free(s->note[i].key);
        free(s->note[i].value);
    }
    free(s->note);
    free(s->tensor);
    free(s->index);
    for (uint32_t i = 0; i < s->shards; i++) {
        file_unmap(&s->shard[i].map);
        free(s->shard[i].path);
    }
    free(s);
}

uint32_t safetensors_count(const struct safetensors *s) {
    return s->count;
}

const struct tensor *safetensors_at(const struct safetensors *s, uint32_t i) {
    return i < s->count ? &s->tensor[i] : NULL;
}

const struct tensor *safetensors_find(const struct safetensors *s, const char *name) {
    struct tensor key = {.name = (char *)(uintptr_t)name};
    return s->count ? bsearch(&key, s->tensor, s->count, sizeof key, by_name) : NULL;
}

const char *safetensors_path(const struct safetensors *s, const struct tensor *t) {
    return s->shard[t->shard].path;
}

const char *safetensors_where(const struct safetensors *s) {
    return s->index ? s->index : s->shard[0].path;
}

const char *safetensors_metadata(const struct safetensors *s, const char *key) {
    for (uint32_t i = 0; i < s->notes; i++)
        if (strcmp(s->note[i].key, key) == 0) return s->note[i].value;
    return NULL;
}

bool safetensors_metadata_at(const struct safetensors *s, uint32_t i, const char **key,
                             const char **value) {
    if (i >= s->notes) return false;
    *key = s->note[i].key;
    *value = s->note[i].value;
    return true;
}

const char *safetensors_file(const struct safetensors *s, uint32_t i, struct bytes *header) {
    if (i >= s->shards) return NULL;
    *header = bytes_of(s->shard[i].map.data, s->shard[i].header_bytes);
    return s->shard[i].path;
}

void safetensors_release(const struct tensor *t) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)t->data;
    uintptr_t first = (begin + page - 1) / page * page, end = (begin + t->bytes) / page * page;
    if (end > first) madvise((void *)first, end - first, MADV_DONTNEED);
}
