/* verb_model.c - `penstock model`: the models of this user, imported and looked after. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/args.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "kernels/cpu/team.h"
#include "schemas/model_dir.h"
#include "workers/chat/chat.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/adapter_facts.h"
#include "workers/infer/config.h"
#include "workers/infer/convert.h"
#include "workers/infer/golden.h"
#include "workers/infer/library.h"
#include "workers/infer/model.h"
#include "workers/infer/model_facts.h"
#include "workers/infer/pull.h"
#include "workers/infer/safetensors.h"
#include "workers/infer/stored.h"
#include "workers/verbs.h"

#define GOLDEN_NAME "penstock-golden.jsonl"

struct options {
    const char *action, *word, *name, *golden, *origin, *out;
    enum dtype to; /* DTYPE_F32: not said */
    char root[MODEL_DIR_BYTES];
    uint32_t stall_s;
    bool replace, json, quick;
};
enum {
    OPT_VERIFY = 256,
    OPT_NAME,
    OPT_REPLACE,
    OPT_JSON,
    OPT_ORIGIN,
    OPT_QUICK,
    OPT_STALL,
    OPT_TO,
    OPT_OUT
};
#define STALL_S 30
#define STALL_MOST_S 3600

static const struct argp_option options[] = {
    {"verify", OPT_VERIFY, "FILE", 0,
     "pull, import, verify: a golden.jsonl that the model must give again, or it is refused", 0},
    {"name", OPT_NAME, "NAME", 0,
     "pull, import: its name (default: that of the folder or the repository)", 0},
    {"replace", OPT_REPLACE, NULL, 0, "pull, import: another model of that name goes", 0},
    {"stall", OPT_STALL, "S", 0,
     "pull: a connection that brings nothing for so many seconds is given up and made anew (30)",
     0},
    {"origin", OPT_ORIGIN, "TEXT", 0, "import: where it came from (default: the folder)", 0},
    {"quick", OPT_QUICK, NULL, 0, "verify: sizes only, no hashes and no golden", 0},
    {"to", OPT_TO, "TYPE", 0, "quantize: w8a8 or w4a8", 0},
    {"out", OPT_OUT, "DIR", 0,
     "quantize: the new folder (default: an imported model becomes another one, NAME-TYPE; of a "
     "folder it is the folder DIR-TYPE)",
     0},
    {"json", OPT_JSON, NULL, 0, "print JSON", 0},
    {0}};

/* Names that no model can have are errors of the command line. */
static void check_names(const struct options *o, struct argp_state *state) {
    char err[HUB_ID_BYTES + 200];
    struct hub_repo r = {0};
    if (o->name && !model_dir_is_name(o->name))
        argp_error(state, "--name %s: cannot be a model's name; use letters, digits, - _ .",
                   o->name);
    bool hub = strcmp(o->action, "pull") == 0 ||
               (strcmp(o->action, "rm") == 0 && strncmp(o->word, "hf:", 3) == 0);
    if (hub && hub_repo_parse(&r, o->word, err, sizeof err) != 0) argp_error(state, "%s", err);
    hub_repo_fini(&r);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case OPT_VERIFY: o->golden = arg; return 0;
    case OPT_NAME: o->name = arg; return 0;
    case OPT_ORIGIN: o->origin = arg; return 0;
    case OPT_REPLACE: o->replace = true; return 0;
    case OPT_QUICK: o->quick = true; return 0;
    case OPT_OUT: o->out = arg; return 0;
    case OPT_TO:
        if (!stored_type_parse(arg, &o->to)) argp_error(state, "--to %s: w8a8 or w4a8", arg);
        return 0;
    case OPT_JSON: o->json = true; return 0;
    case OPT_STALL: {
        char *end;
        long v = strtol(arg, &end, 10);
        if (end == arg || *end || v < 1 || v > STALL_MOST_S)
            argp_error(state, "--stall %s: seconds, 1 to %d", arg, STALL_MOST_S);
        o->stall_s = (uint32_t)v;
        return 0;
    }
    case ARGP_KEY_ARG:
        if (o->word) argp_usage(state);
        *(o->action ? &o->word : &o->action) = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->action) argp_error(state, "say pull, import, quantize, verify, ls, show or rm");
        if (strcmp(o->action, "quantize") == 0 && !o->to)
            argp_error(state, "quantize: --to w8a8 or --to w4a8?");
        if (strcmp(o->action, "ls") != 0 && !o->word)
            argp_error(state, "%s: which model?", o->action);
        check_names(o, state);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- what a model must pass ---- */

/* A decoder is asked for texts, which it cannot read or write on ids alone. */
static int need_tokenizer(const char *dir, const struct config *c, char *err, size_t err_bytes) {
    if (c->arch->kind != MODEL_DECODER || model_facts_has_tokenizer(dir)) return 0;
    return err_set(err, err_bytes, ERR_FIELD,
                   "%s: has no tokenizer (tokenizer.json, or vocab.json with merges.txt, or "
                   "vocab.txt); a %s needs one to read and write text",
                   dir, c->arch->name);
}

/* Opens all of it, which checks files, shapes, types and every weight; then the golden one. */
static int examine(const char *dir, const char *golden, struct golden_report *report, char *err,
                   size_t err_bytes) {
    struct ops_config c = {.backend = "auto", .level = "auto"};
    struct golden_model m = {0};
    struct safetensors *tensors = NULL;
    struct tokenizer *tokenizer = NULL;
    struct config config;
    int rc = config_load(&config, dir, err, err_bytes);
    if (rc == 0) rc = need_tokenizer(dir, &config, err, err_bytes);
    if (rc == 0) rc = ops_open(&m.ops, &c, err, err_bytes);
    if (rc == 0) rc = model_open(&m.model, dir, m.ops, NULL, err, err_bytes);
    /* Without a tokenizer an encoder runs on ids alone; one that is there must be read. */
    if (rc == 0 && model_facts_has_tokenizer(dir))
        rc = tokenizer_open(&tokenizer, dir, err, err_bytes);
    if (rc == 0 && golden) {
        rc = safetensors_open(&tensors, dir, err, err_bytes);
        m.tokenizer = tokenizer;
        m.tensors = tensors;
        if (rc == 0) rc = golden_check(golden, &m, report, err, err_bytes);
    }
    if (rc != 0 && err && !*err) snprintf(err, err_bytes, "%s: %s", dir, err_text(rc));
    safetensors_close(tensors);
    tokenizer_close(tokenizer);
    model_close(m.model);
    ops_close(m.ops);
    return rc;
}

/* What can be said without reading a weight, so that nothing is copied for it. */
static int glance(const char *dir, char *err, size_t err_bytes) {
    struct config c;
    struct safetensors *tensors = NULL;
    int rc = config_load(&c, dir, err, err_bytes);
    if (rc == 0) rc = need_tokenizer(dir, &c, err, err_bytes);
    if (rc == 0) rc = safetensors_open(&tensors, dir, err, err_bytes);
    safetensors_close(tensors);
    return rc;
}

/* A model whose chat template is not supported is good for prompts. */
static void warn_of_chat(const char *staged, const char *dir) {
    char err[1024] = "";
    struct chat *chat = NULL;
    if (chat_open(&chat, staged, err, sizeof err) < 0) {
        err_speak_of(err, sizeof err, staged, dir);
        fprintf(stderr, "warning: %s; prompts can be continued, conversations will be refused\n",
                err);
    }
    chat_close(chat);
}

static void tell_golden(const struct golden_report *r, bool decoder) {
    fprintf(stderr, "golden: %u tensors, %u texts", r->tensors, r->texts);
    if (decoder)
        fprintf(stderr, ", %u tokens equal, error %.1e\n", r->tokens, r->error);
    else
        fprintf(stderr, ", cosine %.7f\n", r->cosine);
}

static void print_json(struct json *j) {
    char *text = json_text(j, 0);
    puts(text ? text : "{}");
    free(text);
    json_free(j);
}

static void tell_model(const struct options *o, const char *name, const char *digest,
                       const char *place) {
    if (!o->json) {
        printf("%s %s\n", name, digest);
        return;
    }
    struct json *j = json_new_object();
    json_set(j, "model", json_new_str(name, strlen(name)));
    json_set(j, "digest", json_new_str(digest, strlen(digest)));
    json_set(j, "dir", json_new_str(place, strlen(place)));
    print_json(j);
}

/* ---- the actions ---- */

/* What a model is made of: a folder, what messages call it, and what is remembered of it. */
struct source {
    const char *dir, *shown, *origin;
    bool share; /* as library_source has it */
};

static const struct manifest_file *golden_of(const struct manifest *m) {
    for (uint32_t i = 0; i < m->n; i++)
        if (strcmp(m->file[i].path, GOLDEN_NAME) == 0) return &m->file[i];
    return NULL;
}

/* Whether both have the same files; golden outputs are about a model, not of it. */
static bool is_same(const struct manifest *a, const struct manifest *b) {
    uint32_t i = 0, k = 0;
    for (;; i++, k++) {
        if (i < a->n && &a->file[i] == golden_of(a)) i++;
        if (k < b->n && &b->file[k] == golden_of(b)) k++;
        if (i == a->n || k == b->n) return i == a->n && k == b->n && a->n > 0;
        if (strcmp(a->file[i].path, b->file[k].path) != 0 ||
            strcmp(a->file[i].sha256, b->file[k].sha256) != 0)
            return false;
    }
}

/* What has the name already. */
struct place {
    char dir[2 * MODEL_DIR_BYTES];
    struct manifest manifest; /* n 0: nothing, or nothing that is known */
    bool same;                /* as what is staged */
};

/* The golden outputs that go with what is staged, at *golden: those that are given, else those that
 * the same model has at its place; NULL: none. */
static int find_golden(const struct options *o, const struct place *p, char kept[],
                       size_t kept_bytes, const char **golden, char *err, size_t err_bytes) {
    const struct manifest_file *f = golden_of(&p->manifest);
    char sha256[DIGEST_SHA256_CHARS];
    *golden = o->golden;
    if (o->golden || o->replace || !p->same || !f) return 0;
    snprintf(kept, kept_bytes, "%s/" GOLDEN_NAME, p->dir);
    *golden = kept;
    int rc = digest_file_sha256(kept, sha256, NULL, err, err_bytes);
    if (rc == 0 && strcmp(sha256, f->sha256) == 0) return 0;
    return err_set(err, err_bytes, ERR_CORRUPT,
                   "%s: is damaged; give it again with --verify FILE, or --replace the model to go "
                   "without",
                   kept);
}

static int stage(struct library *l, const struct options *o, const struct source *from,
                 const char *name, struct place *p, char *err, size_t err_bytes) {
    const struct library_source source = {
        .dir = from->dir, .origin = o->origin ? o->origin : from->origin, .share = from->share};
    struct golden_report report;
    struct config c;
    char kept[2 * MODEL_DIR_BYTES + 32];
    const char *dir, *golden = NULL;
    int rc = library_stage(l, &source, name, &dir, err, err_bytes);
    p->same = rc == 0 && is_same(&p->manifest, library_staged(l));
    if (rc == 0) rc = find_golden(o, p, kept, sizeof kept, &golden, err, err_bytes);
    if (rc == 0 && golden) rc = library_add(l, golden, GOLDEN_NAME, err, err_bytes);
    if (rc == 0) rc = examine(dir, golden, &report, err, err_bytes);
    if (rc != 0) {
        err_speak_of(err, err_bytes, dir, from->shown);
        return rc;
    }
    warn_of_chat(dir, from->shown);
    if (golden && config_load(&c, dir, err, err_bytes) == 0)
        tell_golden(&report, c.arch->kind == MODEL_DECODER);
    return 0;
}

static int check_name(const char *name, char *err, size_t err_bytes) {
    if (model_dir_is_name(name)) return 0;
    return err_set(err, err_bytes, ERR_FIELD,
                   "\"%s\" cannot be a model's name; choose one of letters, digits, - _ . "
                   "with --name",
                   name);
}

/* What became of a model that had the name, and of its golden outputs. */
static void tell_place(const struct place *p, const char *name, const struct manifest *now) {
    const struct manifest_file *had = golden_of(&p->manifest), *has = golden_of(now);
    if (p->same && had && has && strcmp(had->sha256, has->sha256) == 0)
        fprintf(stderr, "%s is here already, with these golden outputs\n", name);
    else if (p->same)
        fprintf(stderr, "%s is here already\n", name);
    if (had && !has)
        fprintf(stderr, "the golden outputs that %s had are gone; --verify FILE gives them again\n",
                name);
}

/* Makes a checked folder the model NAME. The same again replaces what is there, which may have been
 * damaged since. */
static int take(const struct options *o, const struct source *from, const char *name, char *err,
                size_t err_bytes) {
    struct place p = {0};
    struct library *l = NULL;
    char why[256];
    int rc = glance(from->dir, err, err_bytes);
    if (rc == 0) rc = library_open(&l, o->root, err, err_bytes);
    snprintf(p.dir, sizeof p.dir, "%s/%s", o->root, name);
    if (rc == 0 && manifest_load(&p.manifest, p.dir, why, sizeof why) != 0)
        p.manifest = (struct manifest){0};
    if (rc == 0) rc = stage(l, o, from, name, &p, err, err_bytes);
    if (rc == 0) rc = library_keep(l, o->replace || p.same, err, err_bytes);
    if (rc == 0) {
        tell_place(&p, name, library_staged(l));
        tell_model(o, name, library_staged(l)->digest, p.dir);
    }
    manifest_fini(&p.manifest);
    library_close(l);
    return rc;
}

static int import(const struct options *o, char *err, size_t err_bytes) {
    char from[MODEL_DIR_BYTES];
    if (!realpath(o->word, from))
        return err_set(err, err_bytes, -errno,
                       "%s: %s; import takes the folder of a model, pull hf:ORG/NAME fetches one",
                       o->word, err_text(-errno));
    const char *name = o->name ? o->name : strrchr(from, '/') + 1;
    const struct source source = {.dir = from, .shown = from, .origin = from};
    if (adapter_facts_is_one(from))
        return err_set(err, err_bytes, -ENOTSUP,
                       "%s: is a LoRA adapter: it is used from where it lies, beside the models of "
                       "--models DIR or by --model NAME=DIR",
                       from);
    int rc = check_name(name, err, err_bytes);
    return rc ? rc : take(o, &source, name, err, err_bytes);
}

/* 1: the model is here as the hub has it; 0: it is not; -EEXIST: another has its name. */
static int is_here(const struct options *o, const char *name, const char *origin, char *err,
                   size_t err_bytes) {
    char place[2 * MODEL_DIR_BYTES];
    struct manifest m = {0};
    snprintf(place, sizeof place, "%s/%s", o->root, name);
    if (o->replace || !file_is_folder(place)) return 0;
    bool known = manifest_load(&m, place, err, err_bytes) == 0;
    bool ours = known && strcmp(m.origin, origin) == 0, whole = false;
    if (ours) whole = manifest_check(&m, place, false, err, err_bytes) == 0;
    if (whole && !o->golden) tell_model(o, name, m.digest, place);
    manifest_fini(&m);
    if (ours) return whole && !o->golden;
    return err_set(err, err_bytes, -EEXIST,
                   "%s: there is another model of that name; choose one with --name, or "
                   "--replace it",
                   place);
}

static int pull(const struct options *o, char *err, size_t err_bytes) {
    const struct pull_options from = {o->word, o->root, o->stall_s};
    struct pull *p;
    struct source source = {.share = true};
    char shown[HUB_ID_BYTES + 8], origin[HUB_ID_BYTES + HUB_COMMIT_BYTES + 8];
    int rc = pull_open(&p, &from, err, err_bytes);
    if (rc != 0) return rc;
    const char *id = pull_repo(p)->id, *name = o->name ? o->name : strchr(id, '/') + 1;
    snprintf(shown, sizeof shown, "hf:%s", id);
    snprintf(origin, sizeof origin, "hf:%s@%s", id, pull_repo(p)->commit);
    source.shown = shown;
    source.origin = origin;
    rc = check_name(name, err, err_bytes);
    if (rc == 0) rc = is_here(o, name, origin, err, err_bytes);
    bool here = rc == 1;
    if (rc == 0) rc = pull_files(p, &source.dir, err, err_bytes);
    if (rc == 0) rc = take(o, &source, name, err, err_bytes);
    if (rc < 0 && source.dir) err_speak_of(err, err_bytes, source.dir, shown);
    pull_close(p, rc == 0);
    return here ? 0 : rc;
}

/* The directory of a model by its name. */
static int find(const struct options *o, char dir[MODEL_DIR_BYTES], char *err, size_t err_bytes) {
    int n = snprintf(dir, MODEL_DIR_BYTES, "%s/%s", o->root, o->word);
    if (model_dir_is_name(o->word) && n > 0 && (size_t)n < MODEL_DIR_BYTES && file_is_folder(dir))
        return 0;
    return err_set(err, err_bytes, ERR_UNKNOWN,
                   "model %s is not here; `penstock model ls` lists those that are", o->word);
}

static void tell_progress(uint32_t done, uint32_t of) {
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\rquantized %u of %u matrices", done, of);
    if (isatty(STDERR_FILENO) && done == of) fputc('\n', stderr);
}

static void tell_quantized(const struct convert_report *r, enum dtype to) {
    fprintf(stderr,
            "%u matrices to %s: %.1f MB of weights became %.1f MB, relative error of the weights "
            "%.4f\n",
            r->matrices, stored_type_name(to), (double)r->from_bytes / 1e6,
            (double)r->to_bytes / 1e6, r->error);
}

/* Into a folder beside the target, which appears by one rename. */
static int quantize_into(const struct options *o, const char *dir, const char *out, char *err,
                         size_t err_bytes) {
    const struct convert_options how = {
        .to = o->to, .threads = team_processors(), .on_matrix = tell_progress};
    struct convert_report report;
    char temp[MODEL_DIR_BYTES + 32];
    snprintf(temp, sizeof temp, "%s.new-XXXXXX", out);
    if (file_is_folder(out))
        return err_set(err, err_bytes, -EEXIST, "%s: is there already; say another with --out",
                       out);
    if (!mkdtemp(temp) || chmod(temp, 0755) != 0)
        return err_set(err, err_bytes, -errno, "cannot make %s: %s", temp, err_text(-errno));
    int rc = convert_model(dir, temp, &how, &report, err, err_bytes);
    if (rc == 0 && renameat2(AT_FDCWD, temp, AT_FDCWD, out, RENAME_NOREPLACE) != 0)
        rc = err_set(err, err_bytes, -errno, "cannot rename into %s: %s", out, err_text(-errno));
    if (rc == 0)
        tell_quantized(&report, o->to);
    else
        file_remove_tree(temp);
    return rc;
}

/* An imported model, as another one of the library. */
static int quantize_named(const struct options *o, const char *dir, char *err, size_t err_bytes) {
    char place[MODEL_DIR_BYTES + 128], name[80], origin[128];
    snprintf(name, sizeof name, "%.64s-%s", o->word, stored_type_name(o->to));
    if (o->name) snprintf(name, sizeof name, "%.64s", o->name);
    snprintf(origin, sizeof origin, "%.64s, quantized", o->word);
    int rc = check_name(name, err, err_bytes);
    snprintf(place, sizeof place, "%s/.quantized-%s", o->root, name);
    if (rc == 0) file_remove_tree(place); /* of one that was killed */
    if (rc == 0) rc = quantize_into(o, dir, place, err, err_bytes);
    const struct source source = {.dir = place, .shown = dir, .origin = origin, .share = true};
    if (rc == 0) rc = take(o, &source, name, err, err_bytes);
    file_remove_tree(place);
    return rc;
}

static int quantize(const struct options *o, char *err, size_t err_bytes) {
    char room[MODEL_DIR_BYTES], out[MODEL_DIR_BYTES];
    const char *dir = model_dir_find(o->word, room);
    int rc = model_dir_need(dir, err, err_bytes);
    if (rc != 0) return rc;
    if (dir == room && !o->out) return quantize_named(o, dir, err, err_bytes);
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') len--;
    snprintf(out, sizeof out, "%.*s-%s", (int)(len < 4000 ? len : 4000), dir,
             stored_type_name(o->to));
    if (o->out) snprintf(out, sizeof out, "%.4000s", o->out);
    rc = quantize_into(o, dir, out, err, err_bytes);
    if (rc == 0) puts(out);
    return rc;
}

static int verify(const struct options *o, char *err, size_t err_bytes) {
    char dir[MODEL_DIR_BYTES], kept[MODEL_DIR_BYTES + 64];
    const char *golden = o->golden;
    struct golden_report report;
    struct manifest m = {0};
    int rc = find(o, dir, err, err_bytes);
    if (rc != 0) return rc;
    rc = manifest_load(&m, dir, err, err_bytes);
    if (rc == -ENOENT)
        return err_set(err, err_bytes, ERR_UNKNOWN,
                       "%s: has no manifest; import it to have it verified", dir);
    if (rc == 0) rc = manifest_check(&m, dir, !o->quick, err, err_bytes);
    snprintf(kept, sizeof kept, "%s/" GOLDEN_NAME, dir);
    if (!golden && golden_of(&m)) golden = kept;
    if (rc == 0 && !o->quick) rc = examine(dir, golden, &report, err, err_bytes);
    if (rc == 0 && o->json)
        printf("{\"model\": \"%s\", \"digest\": \"%s\", \"files\": %u}\n", o->word, m.digest, m.n);
    else if (rc == 0)
        printf("%s %s: %u files as imported\n", o->word, m.digest, m.n);
    if (rc == 0 && golden && !o->quick) {
        struct config c;
        if (config_load(&c, dir, err, err_bytes) == 0)
            tell_golden(&report, c.arch->kind == MODEL_DECODER);
    }
    manifest_fini(&m);
    return rc;
}

static int show(const struct options *o, char *err, size_t err_bytes) {
    char room[MODEL_DIR_BYTES];
    struct model_facts f;
    const char *dir = model_dir_find(o->word, room);
    int rc = model_dir_need(dir, err, err_bytes);
    if (rc != 0) return rc;
    if (adapter_facts_is_one(dir)) return adapter_facts_show(dir, o->json, err, err_bytes);
    rc = model_facts_read(&f, dir, err, err_bytes);
    if (rc == 0) rc = model_facts_show(&f, o->json);
    model_facts_fini(&f);
    return rc;
}

static int rm(const struct options *o, char *err, size_t err_bytes) {
    char dir[MODEL_DIR_BYTES];
    struct library *l = NULL;
    if (strncmp(o->word, "hf:", 3) == 0) return pull_forget(o->word, o->root, err, err_bytes);
    int rc = find(o, dir, err, err_bytes);
    if (rc == 0) rc = library_open(&l, o->root, err, err_bytes);
    if (rc == 0) rc = library_remove(l, o->word, err, err_bytes);
    library_close(l);
    return rc;
}

static int ls(const struct options *o, char *err, size_t err_bytes) {
    if (!o->json) pull_tell_unfinished(o->root);
    return model_facts_list(o->root, o->json, err, err_bytes);
}

int verb_model(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(const struct options *o, char *err, size_t err_bytes);
    } actions[] = {{"pull", pull},     {"import", import}, {"quantize", quantize},
                   {"verify", verify}, {"ls", ls},         {"show", show},
                   {"rm", rm}};
    static const struct argp argp = {
        options,
        parse,
        "pull hf:ORG/NAME[@REVISION]\nimport DIR\nquantize NAME|DIR --to w8a8|w4a8\nverify NAME\n"
        "ls\nshow NAME|DIR\n"
        "rm NAME|hf:ORG/NAME",
        "The models of this user, in $PENSTOCK_CACHE/models or ~/.cache/penstock/models.\n\n"
        "pull fetches a model from the Hugging Face hub, or from HF_ENDPOINT, with the token of "
        "HF_TOKEN or its file, and imports it; repeated after it was stopped, it goes on where it "
        "was. import copies a Hugging Face directory there after all of it was checked, and prints "
        "its name and digest. quantize writes a model with its linear weights in 8 or 4 bits, "
        "which is "
        "smaller and faster and not quite the same; it runs wherever the other one does. verify "
        "hashes the files of a model again and repeats what it was "
        "imported with. show says what a model or an adapter is and takes. rm hf:ORG/NAME removes "
        "what a pull that was not finished has left. What is imported can be named wherever a "
        "model is asked for.",
        NULL,
        NULL,
        NULL};
    struct options o = {.stall_s = STALL_S};
    char err[1024] = "";
    args_parse(&argp, argc, argv, &o);
    model_dir_root(o.root);
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(o.action, actions[i].name) != 0) continue;
        int rc = actions[i].run(&o, err, sizeof err);
        if (rc != 0) fprintf(stderr, "%s: %s\n", argv[0], *err ? err : err_text(rc));
        return rc == 0 ? 0 : 1;
    }
    fprintf(stderr, "%s: there is no \"%s\"; say pull, import, quantize, verify, ls, show or rm\n",
            argv[0], o.action);
    return 2;
}
