#include "workers/infer/pull.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "schemas/model_dir.h"
#include "workers/infer/config.h"
#include "workers/infer/library.h"

#define STATE_BYTES_MAX (4u << 20)
#define INDEX_BYTES_MAX (64u << 20)
#define FETCHES_MAX 3u /* of a file whose hash is wrong */
#define ATTEMPTS 5u    /* in a row that bring no byte */
#define PAUSE_MS 250u
#define PART ".part" /* the end of a file's name until it is whole and checked */
#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"

struct pull {
    struct hub *hub;
    struct hub_repo repo;
    struct progress progress;
    uint64_t here, at; /* bytes of all files that are here, and of the one under way */
    const char *root;
    char dir[PATH_MAX / 2];
    int lock;
};

static void moved(void *arg, uint64_t bytes) {
    struct pull *p = arg;
    p->here = p->here - p->at + bytes;
    p->at = bytes;
    p->progress.done = p->here;
    progress_show(&p->progress, clock_mono_ms());
}

static void retrying(void *arg, const char *why) {
    struct pull *p = arg;
    progress_clear(&p->progress);
    fprintf(stderr, "penstock: %s\n", why);
}

/* ---- the folder ---- */

static int find_folder(struct pull *p, const char *root, char *err, size_t err_bytes) {
    const char *id = p->repo.id, *slash = strchr(id, '/');
    int n = snprintf(p->dir, sizeof p->dir, "%s/.pull/%.*s--%s", root, (int)(slash - id), id,
                     slash + 1);
    if (n > 0 && (size_t)n < sizeof p->dir) return 0;
    return err_set(err, err_bytes, -ENAMETOOLONG, "%.200s...: the path is too long", root);
}

static bool path_in(const struct pull *p, const char *file, char out[PATH_MAX]) {
    int n = snprintf(out, PATH_MAX, "%s/%s", p->dir, file);
    return n > 0 && n < PATH_MAX;
}

static uint64_t bytes_of_file(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

/* What is here of a file, whole or begun. */
static uint64_t bytes_there(const struct pull *p, const char *file) {
    char path[PATH_MAX], part[PATH_MAX + sizeof PART];
    if (!path_in(p, file, path)) return 0;
    snprintf(part, sizeof part, "%s" PART, path);
    uint64_t whole = bytes_of_file(path);
    return whole ? whole : bytes_of_file(part);
}

static void drop(const char *path) {
    char part[PATH_MAX + sizeof PART];
    snprintf(part, sizeof part, "%s" PART, path);
    unlink(part);
    unlink(path);
}

/* A folder that cannot be locked is another pull's; one that was removed before it was locked is
 * made again. */
static int claim(struct pull *p, char *err, size_t err_bytes) {
    for (;;) {
        struct stat mine, there;
        int rc = file_mkdirs(p->dir);
        if (rc != 0) return err_set(err, err_bytes, rc, "cannot make %s: %s", p->dir, err_text(rc));
        p->lock = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (p->lock >= 0 && flock(p->lock, LOCK_EX | LOCK_NB) != 0)
            return err_set(err, err_bytes, -EBUSY, "hf:%s: another pull of it is under way",
                           p->repo.id);
        if (p->lock >= 0 && fstat(p->lock, &mine) == 0 && stat(p->dir, &there) == 0 &&
            mine.st_ino == there.st_ino)
            return 0;
        if (p->lock < 0 && errno != ENOENT)
            return err_set(err, err_bytes, -errno, "cannot open %s: %s", p->dir, err_text(-errno));
        if (p->lock >= 0) close(p->lock);
    }
}

/* Removes what the hub does not list any more; without a state, all. */
static void keep_what_fits(const struct pull *p, const struct json *state) {
    struct dirent **entry;
    const struct json *files = json_get(state, "files"), *digest;
    const char *file;
    char path[PATH_MAX];
    for (size_t it = 0; json_next(files, &it, &file, &digest);) {
        const struct hub_file *f = hub_repo_find(&p->repo, file);
        const char *had = json_str(digest);
        bool same = f && had && strcmp(f->digest, had) == 0;
        if (!same && model_dir_wants(file) && path_in(p, file, path)) drop(path);
    }
    int n = files ? 0 : scandir(p->dir, &entry, NULL, NULL);
    for (int i = 0; i < n; i++) {
        bool self = strcmp(entry[i]->d_name, ".") == 0 || strcmp(entry[i]->d_name, "..") == 0;
        if (!self && path_in(p, entry[i]->d_name, path)) file_remove_tree(path);
        free(entry[i]);
    }
    if (n > 0) free(entry);
}

static int remember(const struct pull *p, char *err, size_t err_bytes) {
    char path[PATH_MAX], why[256];
    struct json *state = NULL, *files = json_new_object();
    const struct hub_repo *r = &p->repo;
    if (!path_in(p, ".state.json", path))
        return err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", p->dir);
    json_load(&state, path, STATE_BYTES_MAX, why, sizeof why);
    keep_what_fits(p, state);
    json_free(state);
    state = json_new_object();
    json_set(state, "repository", json_new_str(r->id, strlen(r->id)));
    json_set(state, "commit", json_new_str(r->commit, strlen(r->commit)));
    for (uint32_t i = 0; i < r->n; i++)
        json_set(files, r->file[i].path,
                 json_new_str(r->file[i].digest, strlen(r->file[i].digest)));
    json_set(state, "files", files);
    char *text = json_text(state, 1);
    int rc = text ? file_replace(path, text, strlen(text), err, err_bytes)
                  : err_set(err, err_bytes, -ENOMEM, "no memory for %s", path);
    json_free(state);
    free(text);
    return rc;
}

/* ---- one file ---- */

/* 0: the content is what the hub lists; ERR_CORRUPT: it is not. */
static int check_content(const struct hub_file *f, const char *path, char *err, size_t err_bytes) {
    char digest[DIGEST_SHA256_CHARS];
    bool git = strlen(f->digest) == DIGEST_GIT_CHARS - 1;
    int rc = git ? digest_file_git(path, digest, err, err_bytes)
                 : digest_file_sha256(path, digest, NULL, err, err_bytes);
    if (rc != 0 || strcmp(digest, f->digest) == 0) return rc;
    return err_set(err, err_bytes, ERR_CORRUPT, "%s: its %s is %.16s..., the hub lists %.16s...",
                   f->path, git ? "git hash" : "SHA-256", digest, f->digest);
}

/* From the hub to part, which may have been begun, and under its own name once it is right. */
static int fetch_part(struct pull *p, const struct hub_file *f, const char *path, char *err,
                      size_t err_bytes) {
    char part[PATH_MAX + sizeof PART];
    snprintf(part, sizeof part, "%s" PART, path);
    for (uint32_t times = 1;; times++) {
        int rc = hub_fetch(p->hub, &p->repo, f, part, err, err_bytes);
        if (rc != 0) return rc;
        rc = check_content(f, part, err, err_bytes);
        if (rc == 0 && rename(part, path) != 0)
            rc = err_set(err, err_bytes, -errno, "cannot name %s: %s", path, err_text(-errno));
        if (rc == 0) moved(p, f->bytes);
        if (rc != ERR_CORRUPT) return rc;
        unlink(part);
        moved(p, 0);
        if (times == FETCHES_MAX) return rc;
        retrying(p, err);
    }
}

/* Whole and as the hub lists it, or an error. */
static int fetch(struct pull *p, const struct hub_file *f, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    const char *slash = strchr(f->path, '/');
    if (!path_in(p, f->path, path))
        return err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", p->dir);
    path[strlen(path) - (slash ? strlen(slash) : 0)] = '\0';
    if (slash && mkdir(path, 0755) != 0 && errno != EEXIST)
        return err_set(err, err_bytes, -errno, "cannot make %s: %s", path, err_text(-errno));
    path_in(p, f->path, path);
    p->at = bytes_there(p, f->path);
    if (access(path, F_OK) == 0) {
        if (check_content(f, path, err, err_bytes) == 0) return 0;
        unlink(path);
        moved(p, bytes_there(p, f->path));
    }
    return fetch_part(p, f, path, err, err_bytes);
}

/* ---- all of them ---- */

static bool is_weights(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot && strcmp(dot, ".safetensors") == 0;
}

/* Marks the shards that the index names. */
static int plan_shards(struct pull *p, bool *wanted, char *err, size_t err_bytes) {
    char path[PATH_MAX];
    struct json *root;
    const struct json *value;
    const char *tensor;
    const struct hub_repo *r = &p->repo;
    int rc = fetch(p, hub_repo_find(r, INDEX), err, err_bytes);
    if (rc == 0 && path_in(p, INDEX, path))
        rc = json_load(&root, path, INDEX_BYTES_MAX, err, err_bytes);
    if (rc != 0) return rc;
    const struct json *map = json_get(root, "weight_map");
    if (json_len(map) == 0)
        rc = err_set(err, err_bytes, ERR_CORRUPT, "%s: weight_map is missing or empty", path);
    for (size_t it = 0; rc == 0 && json_next(map, &it, &tensor, &value);) {
        const char *shard = json_str(value);
        const struct hub_file *f = shard ? hub_repo_find(r, shard) : NULL;
        if (f && is_weights(shard))
            wanted[f - r->file] = true;
        else
            rc =
                err_set(err, err_bytes, ERR_CORRUPT, "%s: tensor %s: the repository has no file %s",
                        path, tensor, shard ? shard : "(not text)");
    }
    json_free(root);
    return rc;
}

/* Which files make the model; those that decide it are fetched. */
static int plan(struct pull *p, bool *wanted, char *err, size_t err_bytes) {
    const struct hub_repo *r = &p->repo;
    const struct hub_file *config = hub_repo_find(r, "config.json"),
                          *single = hub_repo_find(r, SINGLE);
    struct config c;
    if (!config)
        return err_set(err, err_bytes, -ENOTSUP,
                       "hf:%s: has no config.json: not a model of a transformer", r->id);
    if (!single && !hub_repo_find(r, INDEX))
        return err_set(err, err_bytes, -ENOTSUP, "hf:%s: has no " SINGLE "%s", r->id,
                       r->other_weights ? ", only weights in formats that are not read here" : "");
    int rc = fetch(p, config, err, err_bytes);
    if (rc == 0) rc = config_load(&c, p->dir, err, err_bytes);
    for (uint32_t i = 0; i < r->n; i++)
        wanted[i] = !is_weights(r->file[i].path) && (!single || strcmp(r->file[i].path, INDEX));
    if (rc == 0 && single)
        wanted[single - r->file] = true;
    else if (rc == 0)
        rc = plan_shards(p, wanted, err, err_bytes);
    return rc;
}

static void tell_plan(struct pull *p, uint32_t files, uint64_t total) {
    fprintf(stderr, "penstock: hf:%s at %.12s: %u files, %.1f MB", p->repo.id, p->repo.commit,
            files, (double)total / 1e6);
    if (p->here > 0) fprintf(stderr, ", %.1f MB of them here", (double)p->here / 1e6);
    fputs("\n", stderr);
}

static int fetch_all(struct pull *p, const bool *wanted, char *err, size_t err_bytes) {
    const struct hub_repo *r = &p->repo;
    int64_t began_ms = clock_mono_ms();
    uint64_t total = 0;
    uint32_t files = 0;
    p->here = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        if (!wanted[i]) continue;
        files++;
        total += r->file[i].bytes;
        p->here += bytes_there(p, r->file[i].path);
    }
    uint64_t before = p->here;
    int rc = library_check_space(p->root, total > before ? total - before : 0, err, err_bytes);
    if (rc != 0) return rc;
    tell_plan(p, files, total);
    progress_init(&p->progress, total, false, began_ms);
    p->progress.bytes = true;
    p->progress.done = p->progress.free = before;
    for (int weights = 0; weights < 2; weights++)
        for (uint32_t i = 0; rc == 0 && i < r->n; i++)
            if (wanted[i] && is_weights(r->file[i].path) == weights)
                rc = fetch(p, &r->file[i], err, err_bytes);
    progress_clear(&p->progress);
    if (rc == 0)
        fprintf(stderr, "penstock: fetched %.1f MB in %.1f s\n", (double)(total - before) / 1e6,
                (double)(clock_mono_ms() - began_ms) / 1e3);
    return rc;
}

int pull_files(struct pull *p, const char **dir, char *err, size_t err_bytes) {
    bool *wanted = calloc(p->repo.n + 1, sizeof *wanted);
    *dir = p->dir;
    int rc = wanted ? claim(p, err, err_bytes)
                    : err_set(err, err_bytes, -ENOMEM, "no memory for a list of files");
    if (rc == 0) rc = remember(p, err, err_bytes);
    if (rc == 0) rc = plan(p, wanted, err, err_bytes);
    if (rc == 0) rc = fetch_all(p, wanted, err, err_bytes);
    free(wanted);
    return rc;
}

int pull_open(struct pull **out, const struct pull_options *o, char *err, size_t err_bytes) {
    struct pull *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return err_set(err, err_bytes, -ENOMEM, "no memory to pull");
    struct transfer_config c = {.stall_s = o->stall_s,
                                .attempts = ATTEMPTS,
                                .pause_ms = PAUSE_MS,
                                .moved = moved,
                                .retrying = retrying,
                                .arg = p};
    p->lock = -1;
    p->root = o->root;
    int rc = hub_repo_parse(&p->repo, o->spec, err, err_bytes);
    if (rc == 0) rc = find_folder(p, o->root, err, err_bytes);
    if (rc == 0) rc = hub_open(&p->hub, &c, err, err_bytes);
    if (rc == 0) rc = hub_list(p->hub, &p->repo, err, err_bytes);
    if (rc == 0)
        *out = p;
    else
        pull_close(p, false);
    return rc;
}

const struct hub_repo *pull_repo(const struct pull *p) {
    return &p->repo;
}

void pull_close(struct pull *p, bool done) {
    if (!p) return;
    if (done && p->lock >= 0) file_remove_tree(p->dir);
    if (p->lock >= 0) close(p->lock);
    hub_close(p->hub);
    hub_repo_fini(&p->repo);
    free(p);
}

/* ---- what was not finished ---- */

int pull_forget(const char *spec, const char *root, char *err, size_t err_bytes) {
    struct pull p = {.lock = -1, .root = root};
    int rc = hub_repo_parse(&p.repo, spec, err, err_bytes);
    if (rc == 0) rc = find_folder(&p, root, err, err_bytes);
    if (rc != 0) return rc;
    if (!file_is_folder(p.dir))
        return err_set(err, err_bytes, ERR_UNKNOWN, "hf:%s: no pull of it is unfinished",
                       p.repo.id);
    rc = claim(&p, err, err_bytes);
    if (rc == 0 && (rc = file_remove_tree(p.dir)) != 0)
        err_set(err, err_bytes, rc, "cannot remove %s: %s", p.dir, err_text(rc));
    if (p.lock >= 0) close(p.lock);
    return rc;
}

void pull_tell_unfinished(const char *root) {
    char path[PATH_MAX], why[256];
    snprintf(path, sizeof path, "%.3000s/.pull", root);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct json *state;
        snprintf(path, sizeof path, "%.3000s/.pull/%s/.state.json", root, e->d_name);
        if (e->d_name[0] == '.' || json_load(&state, path, STATE_BYTES_MAX, why, sizeof why) != 0)
            continue;
        const char *id = json_str(json_get(state, "repository"));
        if (id)
            fprintf(stderr,
                    "unfinished: hf:%s; `penstock model pull` goes on with it, "
                    "`penstock model rm hf:%s` removes it\n",
                    id, id);
        json_free(state);
    }
    if (d) closedir(d);
}
