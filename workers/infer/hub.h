/* hub.h - the Hugging Face hub, or what speaks its protocol: files of a repository, with hashes.
 *
 *   GET ENDPOINT/api/models/ORG/NAME/revision/REV?blobs=true    {"sha", "siblings": [{"rfilename",
 *                                      "size", "blobId", "lfs": {"sha256", "size"}}]}
 *   GET ENDPOINT/ORG/NAME/resolve/COMMIT/PATH                   the file, often from another host
 *
 * The endpoint is HF_ENDPOINT, else https://huggingface.co. The token is HF_TOKEN, else the file at
 * HF_TOKEN_PATH, $HF_HOME/token, or ~/.cache/huggingface/token; it is sent by HTTPS, or to this
 * machine.
 * Source: https://huggingface.co/docs/hub/api, and huggingface_hub's own use of it.
 *
 * Units: bytes.  Owner: hub_open gives what hub_close frees; hub_repo_fini after hub_list.
 * Memory: the listing.  Errors: those of transfer.h, and ERR_FIELD, with advice in err.
 * Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_HUB_H
#define PENSTOCK_WORKERS_INFER_HUB_H

#include <stdbool.h>

#include "base/digest.h"
#include "workers/infer/transfer.h"

#define HUB_ID_BYTES 200u /* "ORG/NAME" */
#define HUB_COMMIT_BYTES 65u

struct hub_file {
    char *path; /* in the repository */
    uint64_t bytes;
    char digest[DIGEST_SHA256_CHARS]; /* SHA-256, or 40 letters: git's name of the blob */
};
struct hub_repo {
    char id[HUB_ID_BYTES], revision[HUB_ID_BYTES], commit[HUB_COMMIT_BYTES];
    struct hub_file *file; /* [n]: those that belong to a model, in the hub's order */
    uint32_t n;
    bool other_weights; /* there are some in a format that is not read */
};
/* "hf:ORG/NAME[@REV]" into id and revision ("main" if not said). */
int hub_repo_parse(struct hub_repo *r, const char *spec, char *err, size_t err_bytes);
void hub_repo_fini(struct hub_repo *r); /* accepts zeroed memory */
const struct hub_file *hub_repo_find(const struct hub_repo *r, const char *path);

struct hub;
/* c: all but the token, which is found here. */
int hub_open(struct hub **out, const struct transfer_config *c, char *err, size_t err_bytes);
void hub_close(struct hub *h); /* NULL is fine */
/* Fills commit and files of a parsed repository. */
int hub_list(struct hub *h, struct hub_repo *r, char *err, size_t err_bytes);
/* Begins or continues the file at `to`; its content is not checked yet. */
int hub_fetch(struct hub *h, const struct hub_repo *r, const struct hub_file *f, const char *to,
              char *err, size_t err_bytes);

#endif
