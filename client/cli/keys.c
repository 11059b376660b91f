/* penstock keys: the certificates that a broker with --curve lets in. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "client/cli/cli.h"
#include "schemas/cert.h"
#include "schemas/endpoint.h"

#define BROKER "broker"
#define PATH_BYTES 800

enum { OPT_KEYS = 256, OPT_TENANT, OPT_RIGHTS };

struct keys {
    struct cli c;
    const char *tenant, *rights;
    char dir[512];
};

static const struct argp_option options[] = {
    {"keys", OPT_KEYS, "DIR", 0, "The keys' folder (default: keys in the user's state folder)", 1},
    {"dir", 'd', "DIR", 0, "The broker's folder: its keys are in DIR/keys", 1},
    {"tenant", OPT_TENANT, "T", 0, "add: whose jobs it submits and sees (default: NAME)", 1},
    {"rights", OPT_RIGHTS, "LIST", 0,
     "add: of submit,read,admin,worker:STAGE (default: submit,read); STAGE may end with *", 1},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct keys *in = state->input;
    int n = 0;
    switch (key) {
    case OPT_KEYS: n = snprintf(in->dir, sizeof in->dir, "%s", arg); break;
    case 'd': n = snprintf(in->dir, sizeof in->dir, "%s/keys", arg); break;
    case OPT_TENANT: in->tenant = arg; return 0;
    case OPT_RIGHTS: in->rights = arg; return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &in->c; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
    if (n < 0 || (size_t)n >= sizeof in->dir) argp_error(state, "%.40s... is too long", arg);
    return 0;
}

static void path_of(const struct keys *in, const char *name, const char *end, char *out) {
    snprintf(out, PATH_BYTES, "%s/%s%s", in->dir, name, end);
}

/* ---- writing ---- */

static int write_cert(const struct keys *in, const struct cert *c, bool secret) {
    char path[PATH_BYTES], err[PENSTOCK_ERR_BYTES];
    struct buf text = {0};
    path_of(in, c->name, secret ? ".cert_secret" : ".cert", path);
    int rc = cert_print(c, secret, &text);
    if (rc < 0)
        err_set(err, sizeof err, rc, "%s: %s", path, err_text(rc));
    else
        rc = secret ? file_replace_secret(path, text.data, text.len, err, sizeof err)
                    : file_replace(path, text.data, text.len, err, sizeof err);
    buf_fini(&text);
    return rc == 0 ? CLI_OK : cli_fail(PENSTOCK_STOPPED, err);
}

/* The secret first: the broker lets a key in as soon as its public part is there. */
static int make(const struct keys *in, struct cert *c) {
    char path[PATH_BYTES], err[PENSTOCK_ERR_BYTES];
    path_of(in, c->name, ".cert", path);
    if (access(path, F_OK) == 0 && strcmp(c->name, BROKER) == 0)
        return cli_usage(
            "the broker has its keys already, in %s; to give it new ones delete %s and "
            "its secret, and hand the new %s to everybody",
            in->dir, path, BROKER ".cert");
    if (access(path, F_OK) == 0)
        return cli_usage("%s is there already; revoke it first, or choose another name", path);
    int rc = file_mkdirs(in->dir);
    if (rc == 0) rc = sock_curve_pair(c->public_key, c->secret_key);
    if (rc < 0) {
        err_set(err, sizeof err, rc, "%s: %s", in->dir, err_text(rc));
        return cli_fail(PENSTOCK_STOPPED, err);
    }
    int code = write_cert(in, c, true);
    return code == CLI_OK ? write_cert(in, c, false) : code;
}

static int init(struct keys *in) {
    struct cert c = {.name = BROKER};
    int code = make(in, &c);
    if (code != CLI_OK) return code;
    if (in->c.json) printf("{\"keys\": \"%s\", \"public_key\": \"%s\"}\n", in->dir, c.public_key);
    fprintf(stderr,
            "penstock: the broker's keys are in %s\n"
            "  give everybody who connects:  %s/" BROKER ".cert (it is no secret)\n"
            "  let somebody in:              penstock keys add NAME --keys %s\n"
            "  start the broker:             penstock-broker --curve --keys %s --listen "
            "tcp://HOST:PORT\n",
            in->dir, in->dir, in->dir, in->dir);
    return CLI_OK;
}

static void tell_added(const struct keys *in, const struct cert *c, const char *rights) {
    char path[PATH_BYTES];
    path_of(in, c->name, ".cert_secret", path);
    if (in->c.json)
        printf("{\"name\": \"%s\", \"tenant\": \"%s\", \"rights\": \"%s\", \"secret\": \"%s\"}\n",
               c->name, c->tenant, rights, path);
    fprintf(stderr,
            "penstock: %s may %s as tenant %s; a broker that runs lets it in at once\n"
            "  hand over, secretly:  %s (then delete it here)\n"
            "  and, openly:          %s/" BROKER ".cert\n"
            "  used as:              %s --key-file %s.cert_secret --server-key " BROKER ".cert\n",
            c->name, rights, c->tenant, path, in->dir,
            c->rights == CERT_WORKER ? "penstock-worker --broker tcp://HOST:PORT+1"
                                     : "penstock VERB --endpoint tcp://HOST:PORT",
            c->name);
}

static int add(struct keys *in) {
    struct cert c = {0};
    char err[PENSTOCK_ERR_BYTES], rights[CERT_STAGES_BYTES + 64], broker[PATH_BYTES];
    const char *name = in->c.args[1], *tenant = in->tenant ? in->tenant : name;
    if (!cert_name_ok(bytes_str(name)) || strcmp(name, BROKER) == 0)
        return cli_usage("'%.80s' cannot be a key's name: use A-Z a-z 0-9 . _ -, not " BROKER,
                         name);
    if (!cert_name_ok(bytes_str(tenant)) || strcmp(tenant, "default") == 0)
        return cli_usage("'%.80s' cannot be a tenant: use A-Z a-z 0-9 . _ -, not default, which is "
                         "that of brokers without keys",
                         tenant);
    if (cert_rights_parse(&c, in->rights ? in->rights : "submit,read", err, sizeof err) < 0)
        return cli_usage("--rights: %s", err);
    path_of(in, BROKER, ".cert", broker);
    if (access(broker, R_OK) != 0)
        return cli_usage("%s: %s; make the broker's own keys first: penstock keys init --keys %s",
                         broker, strerror(errno), in->dir);
    snprintf(c.name, sizeof c.name, "%s", name);
    snprintf(c.tenant, sizeof c.tenant, "%s", tenant);
    int code = make(in, &c);
    cert_rights_text(c.rights, c.stages, rights, sizeof rights);
    if (code == CLI_OK) tell_added(in, &c, rights);
    return code;
}

static int end(struct keys *in) {
    int code = CLI_OK;
    for (int i = 1; i < in->c.n; i++) {
        char path[PATH_BYTES];
        const char *name = in->c.args[i];
        bool own = strcmp(name, BROKER) == 0;
        if (own || !cert_name_ok(bytes_str(name))) {
            code = cli_usage(
                "'%.80s' is not a key that can be revoked; `penstock keys ls` lists them", name);
            continue;
        }
        path_of(in, name, ".cert", path);
        if (unlink(path) != 0) {
            fprintf(stderr, "penstock: %s: %s; `penstock keys ls` lists the keys\n", path,
                    strerror(errno));
            code = CLI_FAILED;
            continue;
        }
        path_of(in, name, ".cert_secret", path);
        unlink(path);
        fprintf(stderr, "penstock: %s is revoked; a broker that runs has ended its connections\n",
                name);
    }
    return code;
}

/* ---- looking ---- */

static int is_cert(const struct dirent *e) {
    size_t len = strlen(e->d_name);
    return len > 5 && strcmp(e->d_name + len - 5, ".cert") == 0;
}

static int ls(struct keys *in) {
    struct dirent **list;
    int n = scandir(in->dir, &list, is_cert, alphasort), code = CLI_OK;
    if (n < 0)
        return cli_usage("%s: %s; make it with `penstock keys init`, or name it with --keys",
                         in->dir, strerror(errno));
    if (!in->c.json) printf("%-20s %-20s %s\n", "NAME", "TENANT", "RIGHTS");
    if (in->c.json) putchar('[');
    for (int i = 0, shown = 0; i < n; i++) {
        char path[PATH_BYTES], err[PENSTOCK_ERR_BYTES], rights[CERT_STAGES_BYTES + 64];
        struct cert c;
        snprintf(path, sizeof path, "%s/%s", in->dir, list[i]->d_name);
        int len = (int)strlen(list[i]->d_name) - 5;
        bool own = strcmp(list[i]->d_name, BROKER ".cert") == 0;
        if (cert_load(&c, path, err, sizeof err) < 0) {
            fprintf(stderr, "penstock: %s\n", err);
            code = CLI_FAILED;
        } else {
            cert_rights_text(c.rights, c.stages, rights, sizeof rights);
            if (in->c.json) /* no name, right or key has a character that JSON escapes */
                printf("%s{\"name\": \"%.*s\", \"tenant\": \"%s\", \"rights\": \"%s\", "
                       "\"public_key\": \"%s\"}",
                       shown++ ? ",\n " : "", len, list[i]->d_name, c.tenant, rights, c.public_key);
            else
                printf("%-20.*s %-20s %s\n", len, list[i]->d_name, c.tenant,
                       own ? "(the broker's own)" : rights);
        }
        free(list[i]);
    }
    if (in->c.json) puts("]");
    free(list);
    return code;
}

int cli_verb_keys(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "init | add NAME | ls | revoke NAME...",
        .doc =
            "The keys that a broker with --curve lets in. A broker that runs notices a change at "
            "once: a new key is let in, a revoked one's connections end.",
        .children = cli_common};
    static struct keys in;
    cli_parse(&argp, argc, argv, &in.c);
    if (!in.dir[0]) {
        char state[256];
        endpoint_state_dir(state, sizeof state);
        snprintf(in.dir, sizeof in.dir, "%s/keys", state);
    }
    const char *what = in.c.n > 0 ? in.c.args[0] : "";
    if (strcmp(what, "init") == 0 && in.c.n == 1) return init(&in);
    if (strcmp(what, "add") == 0 && in.c.n == 2) return add(&in);
    if (strcmp(what, "ls") == 0 && in.c.n == 1) return ls(&in);
    if (strcmp(what, "revoke") == 0 && in.c.n >= 2) return end(&in);
    return cli_usage("keys needs `init`, `add NAME`, `ls` or `revoke NAME...`; see `penstock keys "
                     "--help`");
}
