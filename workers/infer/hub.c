#include "workers/infer/hub.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/term.h"
#include "schemas/model_dir.h"
#include "workers/infer/manifest.h"

#define ENDPOINT "https://huggingface.co"
#define LISTING_BYTES_MAX (64u << 20)
#define TOKEN_BYTES_MAX 1024u
#define PART_BYTES_MAX 96u /* of ORG and of NAME */

struct hub {
    struct transfer *transfer;
    char endpoint[512], token[TOKEN_BYTES_MAX];
    bool withheld; /* there is a token, and the endpoint is no place for it */
};

/* ---- repositories ---- */

static bool is_part(const char *text, size_t len) {
    if (len == 0 || len > PART_BYTES_MAX || text[0] == '.' || text[0] == '-') return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i])) return false;
    return true;
}

int hub_repo_parse(struct hub_repo *r, const char *spec, char *err, size_t err_bytes) {
    const char *id = strncmp(spec, "hf:", 3) == 0 ? spec + 3 : spec;
    size_t len = strcspn(id, "@"), org = strcspn(id, "/");
    const char *revision = id[len] == '@' ? id + len + 1 : "main";
    bool good = id != spec && org < len && is_part(id, org) && is_part(id + org + 1, len - org - 1);
    *r = (struct hub_repo){0};
    for (const char *p = revision; *p; p++)
        good &= isalnum((unsigned char)*p) || strchr("-_./", *p);
    if (!good || !*revision || strlen(revision) >= sizeof r->revision)
        return err_set(err, err_bytes, ERR_FIELD,
                       "\"%s\" does not name a model; say hf:ORG/NAME, or hf:ORG/NAME@REVISION",
                       spec);
    snprintf(r->id, sizeof r->id, "%.*s", (int)len, id);
    snprintf(r->revision, sizeof r->revision, "%s", revision);
    return 0;
}

void hub_repo_fini(struct hub_repo *r) {
    for (uint32_t i = 0; i < r->n; i++) free(r->file[i].path);
    free(r->file);
    *r = (struct hub_repo){0};
}

const struct hub_file *hub_repo_find(const struct hub_repo *r, const char *path) {
    for (uint32_t i = 0; i < r->n; i++)
        if (strcmp(r->file[i].path, path) == 0) return &r->file[i];
    return NULL;
}

/* ---- endpoint and token ---- */

static void token_of_file(char out[TOKEN_BYTES_MAX], const char *folder, const char *name) {
    char path[PATH_MAX];
    void *text;
    size_t bytes;
    int n = folder && *folder ? snprintf(path, sizeof path, "%s%s", folder, name) : -1;
    if (*out || n < 0 || (size_t)n >= sizeof path ||
        file_read(path, TOKEN_BYTES_MAX - 1, &text, &bytes, NULL, 0) != 0)
        return;
    snprintf(out, TOKEN_BYTES_MAX, "%s", (const char *)text);
    free(text);
}

static int find_token(struct hub *h, char *err, size_t err_bytes) {
    const char *token = getenv("HF_TOKEN");
    snprintf(h->token, sizeof h->token, "%s", token ? token : "");
    token_of_file(h->token, getenv("HF_TOKEN_PATH"), "");
    token_of_file(h->token, getenv("HF_HOME"), "/token");
    token_of_file(h->token, getenv("XDG_CACHE_HOME"), "/huggingface/token");
    token_of_file(h->token, getenv("HOME"), "/.cache/huggingface/token");
    size_t begin = strspn(h->token, " \t\r\n");
    memmove(h->token, h->token + begin, strlen(h->token + begin) + 1);
    for (size_t len = strlen(h->token); len > 0 && isspace((unsigned char)h->token[len - 1]);)
        h->token[--len] = '\0';
    for (const char *p = h->token; *p; p++)
        if (!isgraph((unsigned char)*p))
            return err_set(err, err_bytes, ERR_FIELD,
                           "the token (HF_TOKEN or its file) is not one word of ASCII");
    return 0;
}

/* Only those who are asked may read the token: not who listens on the way. */
static bool is_private(const char *endpoint) {
    static const char *const local[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};
    for (size_t i = 0; i < sizeof local / sizeof *local; i++) {
        size_t n = strlen(local[i]);
        if (strncmp(endpoint, local[i], n) == 0 && strchr(":/", endpoint[n])) return true;
    }
    return strncmp(endpoint, "https://", 8) == 0;
}

int hub_open(struct hub **out, const struct transfer_config *c, char *err, size_t err_bytes) {
    const char *endpoint = getenv("HF_ENDPOINT");
    struct transfer_config mine = *c;
    *out = NULL;
    if (!endpoint || !*endpoint) endpoint = ENDPOINT;
    size_t len = strlen(endpoint);
    while (len > 0 && endpoint[len - 1] == '/') len--;
    if (len >= sizeof((struct hub *)0)->endpoint || strchr(endpoint, '@') ||
        (strncmp(endpoint, "https://", 8) != 0 && strncmp(endpoint, "http://", 7) != 0))
        return err_set(err, err_bytes, ERR_FIELD,
                       "HF_ENDPOINT: %.200s: not an address like https://HOST", endpoint);
    struct hub *h = calloc(1, sizeof *h);
    if (!h) return err_set(err, err_bytes, -ENOMEM, "no memory for the hub");
    snprintf(h->endpoint, sizeof h->endpoint, "%.*s", (int)len, endpoint);
    int rc = find_token(h, err, err_bytes);
    h->withheld = *h->token && !is_private(h->endpoint);
    mine.token = *h->token && !h->withheld ? h->token : NULL;
    if (rc == 0) rc = transfer_open(&h->transfer, &mine, err, err_bytes);
    if (rc == 0)
        *out = h;
    else
        hub_close(h);
    return rc;
}

void hub_close(struct hub *h) {
    if (!h) return;
    transfer_close(h->transfer);
    free(h);
}

/* What a refusal means here, and what to do; file NULL: the listing's. */
static int explain(const struct hub *h, int rc, const struct hub_repo *r, const char *file,
                   char *err, size_t err_bytes) {
    long status = transfer_status(h->transfer);
    const char *words = transfer_words(h->transfer);
    char said[300] = "", advice[900];
    const char *token = h->withheld ? "; the token was not sent, as HF_ENDPOINT is not https"
                        : *h->token ? "; the token that was sent may not read it"
                                    : "; a private or gated one needs HF_TOKEN";
    if (rc == ERR_CLOSED && status == 0) {
        snprintf(advice, sizeof advice, "%s", err);
        return err_set(err, err_bytes, rc,
                       "%s; HF_ENDPOINT can name a mirror, https_proxy a proxy, and a model that "
                       "was fetched elsewhere comes in by `penstock model import DIR`",
                       advice);
    }
    if (rc != ERR_UNKNOWN || status == 0) return rc;
    if (*words) snprintf(said, sizeof said, " (\"%s\")", words);
    if (status == 404 && file)
        snprintf(advice, sizeof advice, "%s is not in it", file);
    else if (status == 401 || status == 404)
        snprintf(advice, sizeof advice, "there is no such model or revision that we may see%s",
                 token);
    else if (status == 403)
        snprintf(advice, sizeof advice, "access is refused: ask for it at %s/%s%s", h->endpoint,
                 r->id, token);
    else if (status == 429)
        snprintf(advice, sizeof advice, "too many requests; wait a while, then pull again");
    else if (status >= 500)
        snprintf(advice, sizeof advice,
                 "the server fails; pull again later: what has come is kept");
    else
        return rc;
    return err_set(err, err_bytes, rc, "hf:%s@%s: %s; %s answers %ld%s", r->id, r->revision, advice,
                   h->endpoint, status, said);
}

/* ---- the listing ---- */

static bool is_hex(const char *text, size_t len) {
    return text && strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

static bool is_other_weight(const char *path) {
    static const char *const ends[] = {".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx"};
    size_t len = strlen(path);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]);
        if (len > n && strcmp(path + len - n, ends[i]) == 0) return true;
    }
    return false;
}

static int read_file(struct hub_repo *r, const struct json *row, char *err, size_t err_bytes) {
    const char *path = json_str(json_get(row, "rfilename"));
    const struct json *lfs = json_get(row, "lfs");
    bool large = json_kind(lfs) == JSON_OBJECT;
    const char *sha256 = json_str(json_get(lfs, "sha256")),
               *blob = json_str(json_get(row, "blobId"));
    int64_t bytes = json_int(json_get(large ? lfs : row, "size"), -1);
    r->other_weights |= path && is_other_weight(path);
    if (!path || !model_dir_wants(path)) return 0;
    if (bytes < 0 || !(large ? is_hex(sha256, 64) : is_hex(blob, 40)))
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "hf:%s: the hub does not say size and hash of %s", r->id, path);
    if ((uint64_t)bytes > MANIFEST_FILE_BYTES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT,
                       "hf:%s: the hub says that %s has %lld bytes; a file has at most %llu", r->id,
                       path, (long long)bytes, (unsigned long long)MANIFEST_FILE_BYTES_MAX);
    if (hub_repo_find(r, path))
        return err_set(err, err_bytes, ERR_CORRUPT, "hf:%s: the hub lists %s twice", r->id, path);
    if (r->n == MANIFEST_FILES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "hf:%s: a model of more than %u files", r->id,
                       MANIFEST_FILES_MAX);
    struct hub_file *f = realloc(r->file, (r->n + 1) * sizeof *f);
    if (f) r->file = f;
    char *copy = f ? strdup(path) : NULL;
    if (!copy) return err_set(err, err_bytes, -ENOMEM, "no memory for a list of files");
    f += r->n++;
    *f = (struct hub_file){.path = copy, .bytes = (uint64_t)bytes};
    snprintf(f->digest, sizeof f->digest, "%s", large ? sha256 : blob);
    return 0;
}

static int read_listing(struct hub_repo *r, struct bytes text, char *err, size_t err_bytes) {
    struct json *root;
    char why[200];
    if (json_parse(&root, text.data, text.len, why, sizeof why) != 0)
        return err_set(err, err_bytes, ERR_CORRUPT, "hf:%s: the hub's answer is not JSON: %s",
                       r->id, why);
    const char *commit = json_str(json_get(root, "sha"));
    const struct json *files = json_get(root, "siblings");
    int rc = 0;
    if (!is_hex(commit, 40) && !is_hex(commit, 64))
        rc = err_set(err, err_bytes, ERR_CORRUPT, "hf:%s: the hub's answer names no commit", r->id);
    else
        snprintf(r->commit, sizeof r->commit, "%s", commit);
    for (size_t i = 0; rc == 0 && i < json_len(files); i++)
        rc = read_file(r, json_at(files, i), err, err_bytes);
    json_free(root);
    return rc;
}

int hub_list(struct hub *h, struct hub_repo *r, char *err, size_t err_bytes) {
    struct buf text = {.max_bytes = LISTING_BYTES_MAX};
    char *revision = transfer_escape(r->revision, ""), *url;
    if (!revision ||
        asprintf(&url, "%s/api/models/%s/revision/%s?blobs=true", h->endpoint, r->id, revision) < 0)
        url = NULL;
    int rc = url ? transfer_text(h->transfer, url, &text, err, err_bytes)
                 : err_set(err, err_bytes, -ENOMEM, "no memory for an address");
    if (rc == 0)
        rc = read_listing(r, buf_bytes(&text), err, err_bytes);
    else
        rc = explain(h, rc, r, NULL, err, err_bytes);
    buf_fini(&text);
    free(revision);
    free(url);
    return rc;
}

int hub_fetch(struct hub *h, const struct hub_repo *r, const struct hub_file *f, const char *to,
              char *err, size_t err_bytes) {
    char *path = transfer_escape(f->path, "/"), *url;
    if (!path || asprintf(&url, "%s/%s/resolve/%s/%s", h->endpoint, r->id, r->commit, path) < 0)
        url = NULL;
    int rc = url ? transfer_file(h->transfer, url, to, f->bytes, err, err_bytes)
                 : err_set(err, err_bytes, -ENOMEM, "no memory for an address");
    if (rc != 0) rc = explain(h, rc, r, f->path, err, err_bytes);
    free(path);
    free(url);
    return rc;
}
