#include "tests/bench/engine/sentences.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "schemas/model_dir.h"

enum { RUN_NS = 500000000 };

static void die(const char *what) {
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

bool sentences_open(struct sentences *s, enum dtype weights, uint32_t threads) {
    char dir[MODEL_DIR_BYTES + 32], number[16], err[512] = "";
    struct ops_config c = {"cpu", "auto", threads};
    uint64_t state = 1;
    *s = (struct sentences){0};
    model_dir_root(dir);
    strcat(dir, "/all-MiniLM-L6-v2");
    if (!file_is_folder(dir)) {
        printf("skipped: %s is not there: ops/models fetches it\n", dir);
        return false;
    }
    if (ops_open(&s->ops, &c, err, sizeof err) != 0) die(err);
    int rc = model_open(&s->model, dir, s->ops, &(struct model_config){.weights = weights}, err,
                        sizeof err);
    if (rc == -ENOTSUP) printf("skipped: %s\n", err);
    if (rc == -ENOTSUP) return false;
    if (rc != 0) die(err);
    const struct model_info *info = model_info(s->model);
    s->out = calloc((size_t)SENTENCES * info->dim, sizeof *s->out);
    if (!s->out || file_mkdirs("build/bench") != 0) die("no memory, or build/bench not writable");
    for (uint32_t i = 0; i < SENTENCES; i++) s->begin[i + 1] = s->begin[i] + SENTENCE_TOKENS;
    for (uint32_t i = 0; i < SENTENCES * SENTENCE_TOKENS; i++)
        s->ids[i] = (uint32_t)(rng_next(&state) % info->vocab);
    snprintf(number, sizeof number, "%u", threads);
    python_start(&s->peer, "tests/bench/engine/encoders.py",
                 (const char *const[]){dir, number, "build/bench", NULL});
    return true;
}

void sentences_close(struct sentences *s) {
    python_stop(&s->peer);
    free(s->out);
    model_close(s->model);
    ops_close(s->ops);
}

double sentences_rate(struct sentences *s) {
    char err[256];
    int64_t began = clock_mono_ns(), now;
    uint32_t n = 0;
    do {
        if (model_embed(s->model, SENTENCES, s->begin, s->ids, s->out, err, sizeof err) != 0)
            die(err);
        n += SENTENCES;
        now = clock_mono_ns();
    } while (now - began < RUN_NS);
    return n * 1e9 / (double)(now - began);
}

double sentences_peer_rate(struct sentences *s, const char *peer) {
    char answer[64];
    return python_ask(&s->peer, peer, answer, sizeof answer) ? strtod(answer, NULL) : 0;
}

double sentences_gop(const struct sentences *s) {
    const struct model_info *info = model_info(s->model);
    double inner = 4.0 * info->dim; /* as MiniLM has it */
    double linear = 4.0 * info->dim * info->dim + 2.0 * info->dim * inner;
    double attention = 2.0 * SENTENCE_TOKENS * info->dim;
    return 2 * SENTENCE_TOKENS * info->layers * (linear + attention) * 1e-9;
}
