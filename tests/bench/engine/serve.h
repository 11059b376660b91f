/* serve.h - 64 clients that each ask for one text after the other: ours, or a llama-server.
 *
 * Ours is a broker and a worker of PENSTOCK_BIN, and a client of client/penstock.h for each of the
 * 64; the peer is llama-server on loopback, its /completion streamed to plain sockets. Both get the
 * same prompts of common words, each of which is one token of Qwen2's, and write greedily.
 *
 * Units: tokens a second, prompts included; ms.  Owner: what is started is stopped at the end.
 * Memory: a thread a client.  Errors: a message and exit(1): this is a benchmark.
 * Threads: one caller. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_SERVE_H
#define PENSTOCK_TESTS_BENCH_ENGINE_SERVE_H

#include <stdbool.h>

#include "tests/bench/engine/llama.h"

enum { SERVE_CLIENTS = 64, SERVE_REQUESTS_MAX = 4096 };

struct serve_result {
    double tokens_per_s;
    double p99_gap_ms; /* between two pieces of a text, the first left out */
};
/* What a client does with a request: says it, and calls serve_token whenever a piece has come. */
struct serve_request {
    char *prompt;
    uint32_t prompt_tokens, tokens;
    int64_t last_ns; /* when a piece came last; 0: none has */
    struct serve *serve;
};
void serve_token(struct serve_request *r);

/* weights: as the worker's --weights takes them; requests: in all, at most SERVE_REQUESTS_MAX. */
struct serve_result serve_ours(const char *model_dir, const char *weights, uint32_t threads,
                               uint32_t requests);
/* slots: -np, how many texts it writes at once. */
struct serve_result serve_llama(const struct llama *l, uint32_t threads, uint32_t requests,
                                uint32_t slots);
bool serve_llama_found(const struct llama *l);

#endif
