/* cert.h - certificates: who a peer is, and what it may do, in a file.
 *
 * A certificate is a file that czmq reads and writes too (ZPL): a section `metadata` with name,
 * tenant, rights and stages, and a section `curve` with the keys in Z85. NAME.cert holds the public
 * key and may be shown to anybody; NAME.cert_secret holds both and is for its owner alone.
 *
 *   metadata
 *       name = "line-2"
 *       tenant = "factory"
 *       rights = "submit,read"
 *   curve
 *       public-key = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
 *
 * Units: bytes.  Owner, memory: the caller's struct.  Errors: ERR_CORRUPT with the line, -EPERM for
 * a secret that others may read, -errno; each with err.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_CERT_H
#define PENSTOCK_SCHEMAS_CERT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/sock.h"

#define CERT_BYTES_MAX 8192u
#define CERT_STAGES_BYTES 1024u
#define CERT_PATH_BYTES 512u

enum cert_right {
    CERT_SUBMIT = 1, /* submit jobs, cancel one's own */
    CERT_READ = 2,   /* read one's own jobs and figures */
    CERT_ADMIN = 4,  /* read and cancel those of all tenants, see all figures */
    CERT_WORKER = 8, /* run the stages that `stages` names */
    CERT_ALL = 15
};

struct cert {
    char name[LIMIT_NAME_BYTES + 1], tenant[LIMIT_NAME_BYTES + 1]; /* empty: not said */
    uint32_t rights;                                               /* of enum cert_right */
    char stages[CERT_STAGES_BYTES];                                /* "infer.embed,post.*" */
    char public_key[SOCK_KEY_BYTES], secret_key[SOCK_KEY_BYTES]; /* secret: empty in a public one */
};

int cert_parse(struct cert *out, struct bytes text, char *err, size_t err_bytes);
/* Appends the file's text, with the secret key or without. */
int cert_print(const struct cert *c, bool secret, struct buf *out);
int cert_load(struct cert *out, const char *path, char *err, size_t err_bytes);
/* What a client or worker connects with: its own certificate (with the secret key), and the
 * server's public key, as a certificate file or as the 40 characters themselves. */
struct cert_pair {
    struct cert own;
    char server_key[SOCK_KEY_BYTES];
    struct sock_curve curve; /* points into this struct: it must not move */
};
/* file and server NULL or empty: *used is false, and the connection is plain. One without the other
 * is an error. */
int cert_pair_load(struct cert_pair *out, const char *file, const char *server, bool *used,
                   char *err, size_t err_bytes);

/* A name of a key or tenant: 1 to LIMIT_NAME_BYTES of A-Z a-z 0-9 . _ -, beginning with none of
 * ".-". */
bool cert_name_ok(struct bytes name);
/* "submit,read,worker:infer.embed,worker:post.*" as the command line takes it, into rights and
 * stages of c; `worker` alone is refused, its stages must be named. */
int cert_rights_parse(struct cert *c, const char *text, char *err, size_t err_bytes);
/* "submit,read,worker:infer.embed": the same back. */
void cert_rights_text(uint32_t rights, const char *stages, char *out, size_t out_bytes);
/* Whether the list names this stage; an entry may end with '*'. */
bool cert_stage_in(const char *stages, struct bytes stage);

#endif
