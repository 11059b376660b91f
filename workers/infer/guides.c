#include "workers/infer/guides.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "workers/infer/model.h"
#include "workers/schema/compile.h"
#include "workers/schema/writer.h"

struct compiled {
    char name[HASH_HEX_BYTES]; /* empty: no schema */
    struct grammar grammar;
    struct masks masks;
    uint64_t used; /* the clock of its last use */
    uint32_t texts;
};
struct guides {
    const struct model_info *info;
    struct lexicon lexicon;
    struct compiled *kept[GUIDES_KEPT];
    uint64_t clock;
};
struct guide {
    struct gen_guide gen;
    struct guides *of;
    struct compiled *schema;
    bool kept;   /* schema is in the list; else it is this guide's own */
    bool failed; /* no memory: no token is legal */
    struct writer writer;
    uint32_t *bits;
};

int guides_open(struct guides **out, const struct tokenizer *t, const struct model_info *info,
                char *err, size_t err_bytes) {
    struct guides *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return err_set(err, err_bytes, -ENOMEM, "schema: no memory");
    s->info = info;
    int rc = lexicon_init(&s->lexicon, t, info->vocab, err, err_bytes);
    if (rc == 0)
        *out = s;
    else
        free(s);
    return rc;
}

static void compiled_free(struct compiled *c) {
    if (!c) return;
    masks_fini(&c->masks);
    grammar_fini(&c->grammar);
    free(c);
}

void guides_close(struct guides *s) {
    if (!s) return;
    for (uint32_t i = 0; i < GUIDES_KEPT; i++) {
        assert(!s->kept[i] || s->kept[i]->texts == 0);
        compiled_free(s->kept[i]);
    }
    lexicon_fini(&s->lexicon);
    free(s);
}

/* A place for one more schema of so many bytes, made by forgetting those used longest ago; NULL
 * when the others are all in use. */
static struct compiled **place_for(struct guides *s, size_t bytes) {
    for (;;) {
        struct compiled **oldest = NULL, **empty = NULL;
        size_t total = bytes;
        for (uint32_t i = 0; i < GUIDES_KEPT; i++) {
            struct compiled *c = s->kept[i];
            if (!c) empty = &s->kept[i];
            if (c) total += masks_bytes(&c->masks);
            if (c && c->texts == 0 && (!oldest || c->used < (*oldest)->used)) oldest = &s->kept[i];
        }
        if (empty && total <= GUIDES_BYTES_MAX) return empty;
        if (!oldest) return NULL;
        compiled_free(*oldest);
        *oldest = NULL;
    }
}

static int compile(struct guides *s, struct bytes schema, struct compiled **out, char *err,
                   size_t err_bytes) {
    struct compiled *c = calloc(1, sizeof *c);
    if (!c) return err_set(err, err_bytes, -ENOMEM, "schema: no memory");
    int rc = schema_compile(&c->grammar, schema, err, err_bytes);
    if (rc == 0) rc = masks_init(&c->masks, &c->grammar, &s->lexicon, err, err_bytes);
    if (rc == 0)
        *out = c;
    else
        compiled_free(c);
    return rc;
}

static int find(struct guide *g, struct bytes schema, char *err, size_t err_bytes) {
    struct guides *s = g->of;
    char name[HASH_HEX_BYTES];
    hash_hex(&schema, 1, name);
    for (uint32_t i = 0; i < GUIDES_KEPT && !g->schema; i++)
        if (s->kept[i] && strcmp(s->kept[i]->name, name) == 0) g->schema = s->kept[i];
    g->kept = g->schema != NULL;
    if (!g->schema) {
        int rc = compile(s, schema, &g->schema, err, err_bytes);
        if (rc != 0) return rc;
        struct compiled **place = place_for(s, masks_bytes(&g->schema->masks));
        memcpy(g->schema->name, name, sizeof name);
        g->kept = place != NULL;
        if (place) *place = g->schema;
    }
    g->schema->used = ++s->clock;
    g->schema->texts++;
    return 0;
}

/* ---- one text ---- */

static const uint32_t *mask(void *self, uint32_t left) {
    struct guide *g = self;
    const struct model_info *info = g->of->info;
    assert(g->failed || left == g->writer.left);
    bool end = !g->failed && writer_may_end(&g->writer);
    if (g->failed || writer_mask(&g->writer, g->bits) != 0)
        memset(g->bits, 0, (info->vocab + 31) / 32 * sizeof *g->bits);
    for (uint32_t i = 0; i < info->n_eos; i++) {
        if (info->eos[i] >= info->vocab) continue;
        uint32_t *word = &g->bits[info->eos[i] / 32], bit = 1u << (info->eos[i] % 32);
        *word = end ? *word | bit : *word & ~bit;
    }
    return g->bits;
}

static bool take(void *self, uint32_t id) {
    struct guide *g = self;
    g->failed = writer_take(&g->writer, id) != 0;
    if (g->failed) return true;
    bool end = writer_may_end(&g->writer);
    return !(writer_must_end(&g->writer) ||
             (end && (g->writer.left == 0 || g->of->info->n_eos == 0)));
}

int guide_new(struct guides *s, struct bytes schema, uint32_t tokens_max, struct guide **out,
              char *err, size_t err_bytes) {
    struct guide *g = calloc(1, sizeof *g);
    *out = NULL;
    if (!g) return err_set(err, err_bytes, -ENOMEM, "schema: no memory");
    *g = (struct guide){.gen = {mask, take, g}, .of = s};
    g->bits = calloc(s->info->vocab / 32 + 1, sizeof *g->bits);
    int rc = g->bits ? find(g, schema, err, err_bytes)
                     : err_set(err, err_bytes, -ENOMEM, "schema: no memory");
    if (rc == 0) rc = writer_init(&g->writer, &g->schema->masks, tokens_max, err, err_bytes);
    if (rc == 0)
        *out = g;
    else
        guide_free(g);
    return rc;
}

void guide_free(struct guide *g) {
    if (!g) return;
    writer_fini(&g->writer);
    if (g->schema) g->schema->texts--;
    if (g->schema && !g->kept) compiled_free(g->schema);
    free(g->bits);
    free(g);
}

const struct gen_guide *guide_of(struct guide *g) {
    return &g->gen;
}
