/* llama.h - llama.cpp and its fork ik_llama.cpp, as they were built in the folder PEERS.
 *
 *   PEERS/llama.cpp/build/bin/ and PEERS/ik_llama.cpp/build/bin/: llama-bench, llama-batched-bench
 *   PEERS/models/NAME-FORMAT.gguf: the model under test, NAME the last part of its folder's path
 *
 * Each measurement is a process of its own that loads the model, warms up and runs once.
 *
 * Units: tokens a second.  Owner, memory: none.  Errors: a peer or a file that is not there is
 * left out; one that fails ends the benchmark.  Threads: one caller. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_LLAMA_H
#define PENSTOCK_TESTS_BENCH_ENGINE_LLAMA_H

#include <stdint.h>

enum { LLAMAS_MAX = 8 };
struct llama {     /* one peer with one file */
    char name[64]; /* "ik_llama.cpp Q8_0" */
    char bin[512], model[768];
    const char *options; /* those with which it is the fastest here */
};
/* formats: names between blanks. Returns how many there are, at most LLAMAS_MAX. */
uint32_t llamas_find(struct llama *out, const char *model_dir, const char *formats);

double llama_prefill(const struct llama *l, uint32_t threads, uint32_t tokens);
double llama_decode(const struct llama *l, uint32_t threads, uint32_t tokens);
/* n texts at once, all of them together. */
double llama_decode_batch(const struct llama *l, uint32_t threads, uint32_t n,
                          uint32_t prompt_tokens, uint32_t tokens);

#endif
