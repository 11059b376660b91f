/* help.h - what the inference tests share: backends, goldens, model directories made to measure.
 *
 * Units: elements, bytes.  Owner: goldens go to goldens_free; a scratch directory to scratch_end.
 * Memory: malloc.  Errors: a failed helper fails the test.  Threads: one. */
#ifndef PENSTOCK_TESTS_INFER_HELP_H
#define PENSTOCK_TESTS_INFER_HELP_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "workers/infer/model.h"

/* Under a sanitizer arithmetic takes ten times as long: tests take the first few of their cases. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HELP_SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HELP_SLOW 1
#endif
#endif
#ifndef HELP_SLOW
#define HELP_SLOW 0
#endif

/* Backends of this machine: ref and each level of cpu that opens. */
#define HELP_BACKENDS_MAX 4
struct help_backends {
    struct ops *ops[HELP_BACKENDS_MAX];
    const char *name[HELP_BACKENDS_MAX];
    uint32_t n;
};
void backends_open(struct help_backends *b);
void backends_close(struct help_backends *b);
struct ops *help_open_ref(void);
/* The fastest backend here, with that many threads (0: one a core). */
struct ops *help_open_best(uint32_t threads);

/* Token ids of some cases, and what the reference computes: width floats a row. */
struct goldens {
    uint32_t cases, *begin; /* begin[cases + 1] */
    uint32_t *ids;
    float *expected;
    size_t expected_n;
};
void goldens_load(struct goldens *g, const char *ids_path, const char *floats_path);
void goldens_free(struct goldens *g);

/* Runs all n items to their ends, whatever kind of stage it is. */
struct stage_program;
struct stage_item;
void help_run_stage(const struct stage_program *p, void *self, struct stage_item **items,
                    uint32_t n);
struct model *model_must_open(const char *dir, struct ops *ops, const struct model_config *c);
/* Where all-MiniLM-L6-v2 lies in the user's cache; skips the test when it is not there. */
const char *minilm_dir(void);
double cosine(const float *a, const float *b, uint32_t n);

/* A temporary directory that holds a copy of a golden model (NULL: nothing). */
struct scratch {
    char dir[256];
};
void scratch_begin(struct scratch *s, const char *copy_of);
void scratch_end(struct scratch *s);
void scratch_copy(const struct scratch *s, const char *dir, const char *file);
void scratch_write(const struct scratch *s, const char *file, const void *data, size_t bytes);
void scratch_text(const struct scratch *s, const char *file, const char *text);
/* Replaces the first occurrence of a text in a file by another of any length. */
void scratch_replace(const struct scratch *s, const char *file, const char *from, const char *to);
/* A safetensors file: 8 bytes of length, the header padded with spaces to 8 bytes, the data. */
void scratch_tensors(const struct scratch *s, const char *file, const char *header,
                     const void *data, size_t bytes);
/* Changes the header of DIR/model.safetensors (length adjusted) and keeps its data. */
void scratch_header_replace(const struct scratch *s, const char *from, const char *to);
/* Where the data of a tensor starts in DIR/model.safetensors, in bytes from the file's start. */
size_t scratch_tensor_at(const struct scratch *s, const char *tensor);
void scratch_patch(const struct scratch *s, const char *file, size_t at, const void *data,
                   size_t bytes);
void scratch_truncate(const struct scratch *s, const char *file, size_t bytes_less);

#endif
