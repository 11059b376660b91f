/* stage_part.c - encode.part: a part's image and log to facts, and to texts to be compared.
 *
 * The sequences are first the recipe's descriptions of causes, in its order, then the log's
 * templates (part_facts.h, `chosen`) without their masks. `keep` holds the facts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "schemas/kinds.h"
#include "workers/encode/devlog_words.h"
#include "workers/encode/part_facts.h"
#include "workers/encode/stages.h"

#define DIR_BYTES 4096

struct part_self {
    void *encode;            /* of encode_open */
    char recipes[DIR_BYTES]; /* "": none was found */
    char no_recipes[300];    /* and why */
};

static void part_close(void *self) {
    struct part_self *s = self;
    if (s) encode_close(s->encode);
    free(s);
}

static int part_open(void **self, const struct stage_context *c, char *err, size_t err_bytes) {
    struct part_self *s = calloc(1, sizeof *s);
    if (!s) return err_set(err, err_bytes, -ENOMEM, "encode.part: out of memory");
    int rc = encode_open(&s->encode, c, err, err_bytes);
    if (rc != 0) {
        free(s);
        return rc;
    }
    if (recipes_dir(c->recipes, s->recipes, sizeof s->recipes, s->no_recipes,
                    sizeof s->no_recipes) != 0)
        s->recipes[0] = '\0';
    *self = s;
    return 0;
}

static int get_recipe(struct part_self *s, const struct kind_qc_inspect *body, struct recipe **r,
                      char *err, size_t err_bytes) {
    if (recipe_is_inline(body->recipe))
        return recipe_parse(r, body->recipe, NULL, "recipe", err, err_bytes);
    if (s->recipes[0] == '\0') return err_set(err, err_bytes, -ENOENT, "%s", s->no_recipes);
    return recipe_load(r, s->recipes, body->recipe, err, err_bytes);
}

/* The job's reference, else the recipe's file, else none. */
static int get_reference(const struct kind_qc_inspect *body, const struct recipe *r,
                         struct arena *a, struct bytes *out, char *err, size_t err_bytes) {
    void *data = NULL;
    size_t bytes;
    *out = body->reference;
    if (body->reference.len > 0 || !r->reference) return 0;
    int rc = file_read(r->reference, LIMIT_REFERENCE_BYTES, &data, &bytes, err, err_bytes);
    if (rc != 0) return rc;
    void *copy = arena_copy(a, data, bytes);
    free(data);
    *out = bytes_of(copy, bytes);
    return copy ? 0 : err_set(err, err_bytes, -ENOMEM, "no memory for %s", r->reference);
}

/* ---- texts ---- */

/* What an encoder reads of a template: its words, without masks and signs between names. */
static struct bytes spoken(struct bytes text, char out[DEVLOG_TEMPLATE_BYTES]) {
    const char *s = text.data, *end = s + text.len;
    size_t n = 0;
    while (s < end && n < DEVLOG_TEMPLATE_BYTES) {
        const char *close = *s == '<' ? memchr(s, '>', (size_t)(end - s)) : NULL;
        if (close && close - s <= 5) {
            s = close + 1;
            continue;
        }
        out[n++] = *s == '=' || *s == '_' ? ' ' : *s;
        s++;
    }
    return bytes_of(out, n);
}

static bool encode_text(struct stage_item *i, const struct tokenizer *t, uint32_t context,
                        struct bytes text, struct tokens *out) {
    char err[LIMIT_REASON_BYTES];
    int rc = tokenizer_encode(t, text, true, context, i->arena, out, err, sizeof err);
    if (rc < 0) item_fail_rc(i, rc, err);
    return rc == 0;
}

/* False: the item has failed. */
static bool encode_texts(struct part_self *s, struct stage_item *i, const struct recipe *r,
                         const struct part_facts *f, struct tokens **seqs, uint32_t *n) {
    struct tokenizer *t;
    uint32_t context;
    char words[DEVLOG_TEMPLATE_BYTES];
    *n = 0;
    if (!encode_model(s->encode, i, &t, &context, NULL)) return false;
    *seqs = arena_calloc(i->arena, (size_t)r->n_causes + f->log.n_chosen + 1, sizeof **seqs);
    if (!*seqs) {
        item_fail(i, JOB_ERROR_TRANSIENT, "no memory for the log's events");
        return false;
    }
    if (!f->has_log || f->log.n_chosen == 0) return true;
    for (uint32_t k = 0; k < r->n_causes; k++) {
        const struct recipe_cause *c = &r->causes[k];
        if (!c->describe) continue;
        char *both = arena_printf(i->arena, "%s: %s", c->cause, c->describe);
        struct bytes text = bytes_str(both ? both : c->describe);
        if (!encode_text(i, t, context, text, &(*seqs)[(*n)++])) return false;
    }
    if (*n == 0) return true; /* nothing to compare the events with */
    for (uint32_t k = 0; k < f->log.n_chosen; k++)
        if (!encode_text(i, t, context, spoken(f->log.chosen[k].text, words), &(*seqs)[(*n)++]))
            return false;
    return true;
}

/* ---- the stage ---- */

static void finish(struct part_self *s, struct stage_item *i, const struct recipe *r,
                   const struct part_facts *f) {
    struct tokens *seqs;
    uint32_t n;
    if (!encode_texts(s, i, r, f, &seqs, &n)) return;
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    pack_map(&p, 4);
    encode_pack(&p, i->model, seqs, n);
    pack_str(&p, "keep");
    part_facts_pack(&p, f);
    item_done_buf(i, &out);
    buf_fini(&out);
}

static void run_with(struct part_self *s, struct stage_item *i, const struct kind_qc_inspect *body,
                     const struct recipe *r) {
    char err[LIMIT_REASON_BYTES] = "";
    struct bytes reference;
    struct inspection *in = arena_calloc(i->arena, 1, sizeof *in);
    struct devlog *d = body->log.len > 0 ? arena_calloc(i->arena, 1, sizeof *d) : NULL;
    struct part_facts facts;
    enum devlog_format format = DEVLOG_AUTO;
    int rc = in && (d || body->log.len == 0) ? 0 : -ENOMEM;
    if (rc == 0) rc = get_reference(body, r, i->arena, &reference, err, sizeof err);
    if (rc == 0) rc = image_inspect(body->image, reference, r, i->arena, in, err, sizeof err);
    if (item_cancelled(i)) {
        item_fail(i, JOB_ERROR_CANCELLED, "cancelled after the image");
        return;
    }
    if (rc == 0 && d) {
        devlog_format_parse(body->log_format, &format);
        rc = devlog_parse(body->log, format, i->arena, d, err, sizeof err);
    }
    if (rc == 0) rc = part_facts_make(&facts, r, in, d, i->arena);
    if (rc == 0)
        finish(s, i, r, &facts);
    else
        item_fail_rc(i, rc, err);
}

static void run_one(struct part_self *s, struct stage_item *i) {
    struct kind_qc_inspect body;
    struct recipe *r;
    char err[LIMIT_REASON_BYTES] = "";
    if (!encode_body(i, "qc.inspect", &body)) return;
    int rc = get_recipe(s, &body, &r, err, sizeof err);
    if (rc != 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    run_with(s, i, &body, r);
    recipe_free(r);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) run_one(self, items[i]);
}

const struct stage_program stage_encode_part = {.run = "encode.part",
                                                .needs_model = true,
                                                .open = part_open,
                                                .run_batch = run_batch,
                                                .close = part_close};
