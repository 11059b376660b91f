/* sentences.h - a MiniLM of ours: 32 sentences of 128 tokens at a time, beside PyTorch and ONNX.
 *
 * Units: sentences a second.  Owner: sentences_open gives what sentences_close ends.
 * Memory: the model's, and a process of the peers'.
 * Errors: false, and a line that says so, where the model is not there or these weights are not
 * supported; else a message and exit(1): this is a benchmark.
 * Threads: one caller; the model has its own. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_SENTENCES_H
#define PENSTOCK_TESTS_BENCH_ENGINE_SENTENCES_H

#include "tests/bench/report/python.h"
#include "workers/infer/model.h"

enum { SENTENCE_TOKENS = 128, SENTENCES = 32 };

struct sentences {
    struct ops *ops;
    struct model *model;
    struct python peer;
    uint32_t begin[SENTENCES + 1], ids[SENTENCES * SENTENCE_TOKENS];
    float *out;
};
/* all-MiniLM-L6-v2 in the user's cache. */
bool sentences_open(struct sentences *s, enum dtype weights, uint32_t threads);
void sentences_close(struct sentences *s);

double sentences_rate(struct sentences *s);
/* By the name that encoders.py gives it; 0: it does not run here. */
double sentences_peer_rate(struct sentences *s, const char *peer);
/* Operations of one sentence, 10^9. */
double sentences_gop(const struct sentences *s);

#endif
