/* random_model.h - a Hugging Face directory of a known shape, with random weights.
 *
 * What a model costs depends on its shape alone, so the speed of a trained one can be measured
 * without it. The shapes are Qwen2.5's; the weights are bf16, normal with a deviation of 0.02 and
 * drawn from a fixed seed: two machines write the same bytes.
 *
 * A model may also be made to write a text that is known beforehand: then the embeddings have unit
 * size, the head is not tied to them, and its row for token random_model_next(t) is the embedding
 * of t, so that greedily t is followed by that, while every layer costs what it always does.
 *
 * Units: elements.  Owner, memory: none.  Errors: a message and exit(1): this is a benchmark.
 * Threads: one. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_RANDOM_MODEL_H
#define PENSTOCK_TESTS_BENCH_ENGINE_RANDOM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct random_shape {
    const char *name; /* "0.5B" */
    uint32_t layers, dim, heads, kv_heads, inner, vocab;
};
const struct random_shape *random_shape_find(const char *name); /* NULL: there is none */

/* Multiply-adds of one token in all linear layers of all blocks; and in the head. */
uint64_t random_shape_layers_macs(const struct random_shape *s);
uint64_t random_shape_head_macs(const struct random_shape *s);

/* Writes config.json, generation_config.json, model.safetensors, and Qwen2's tokenizer where
 * PENSTOCK_DATA has it. `known_text` as said above. */
void random_model_make(const struct random_shape *s, const char *dir, bool known_text);

/* What a model of a known text writes after t: always the next number of the vocabulary. */
static inline uint32_t random_model_next(const struct random_shape *s, uint32_t t) {
    return (t + 1) % s->vocab;
}

#endif
