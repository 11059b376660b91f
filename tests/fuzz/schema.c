/* schema.c - fuzzes JSON Schemas, compiled and written under: what compiles gives texts that parse
 * within their tokens, each mask says what following its tokens says, what is refused says why. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/rng.h"
#include "workers/encode/tokenizer.h"
#include "workers/schema/compile.h"
#include "workers/schema/writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define INPUT_MAX 4096u
#define SPARE 40u /* tokens beyond the shortest text */
#define LEAST_MAX 2000u

static void need(bool ok) {
    if (!ok) abort();
}

static uint32_t chosen(uint64_t *random, const uint32_t *bits, uint32_t vocab) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++) n += bits[i / 32] >> (i % 32) & 1;
    if (n == 0) return UINT32_MAX;
    uint32_t k = (uint32_t)(rng_next(random) % n);
    for (uint32_t i = 0;; i++)
        if ((bits[i / 32] >> (i % 32) & 1) && k-- == 0) return i;
}

static void write_text(const struct masks *m, const struct tokenizer *t, uint32_t most,
                       uint64_t random) {
    struct writer w;
    struct buf text = {0};
    struct json *j = NULL;
    char err[256] = "";
    uint32_t n = 0, *ids = calloc(most + 1, sizeof *ids), vocab = m->l->vocab;
    uint32_t *bits = calloc(vocab / 32 + 1, sizeof *bits);
    need(ids && bits && writer_init(&w, m, most, err, sizeof err) == 0);
    while (!writer_must_end(&w)) {
        need(writer_mask(&w, bits) == 0);
        for (uint32_t i = (uint32_t)(rng_next(&random) % 97); i < vocab; i += 97)
            need(writer_allows(&w, i) == (int)(bits[i / 32] >> (i % 32) & 1));
        uint32_t id = chosen(&random, bits, vocab);
        if (id == UINT32_MAX && writer_may_end(&w)) break;
        need(id != UINT32_MAX && n < most);
        ids[n++] = id;
        need(writer_take(&w, id) == 0);
    }
    need(writer_may_end(&w));
    need(tokenizer_decode(t, ids, n, true, &text) == 0);
    need(json_parse(&j, text.data, text.len, err, sizeof err) == 0 || strstr(err, "deep"));
    json_free(j);
    writer_fini(&w);
    buf_fini(&text);
    free(bits);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct tokenizer *t;
    static struct lexicon l;
    struct grammar g;
    struct masks m;
    char err[512] = "";
    if (bytes > INPUT_MAX) return 0;
    if (!t) {
        need(tokenizer_open(&t, "tests/golden/tokenizers/qwen2", err, sizeof err) == 0);
        need(lexicon_init(&l, t, tokenizer_vocab(t), err, sizeof err) == 0);
    }
    if (schema_compile(&g, bytes_of(data, bytes), err, sizeof err) != 0) {
        need(err[0] != '\0');
        return 0;
    }
    if (masks_init(&m, &g, &l, err, sizeof err) == 0) {
        uint32_t least = writer_shortest(&m);
        for (uint64_t seed = 0; least <= LEAST_MAX && seed < 3; seed++)
            write_text(&m, t, least + (seed > 0 ? SPARE : 0), seed);
        masks_fini(&m);
    } else {
        need(err[0] != '\0');
    }
    grammar_fini(&g);
    return 0;
}
