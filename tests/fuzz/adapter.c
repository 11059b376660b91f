/* adapter.c - fuzzes a LoRA adapter of a small decoder: up to the first NUL adapter_config.json, up
 * to the second the header of adapter_model.safetensors, behind it the data. Whatever opens must
 * run a row without a fault. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/ops.h"
#include "workers/infer/adapter.h"
#include "workers/infer/arch.h"

#define WIDTH_MAX 12u /* of what a product reads; the decoder has 2 heads of 4 over 1, dim 8 */
#define RANKS_MAX (3u * 512u)
#define ROW_MAX (2u * WIDTH_MAX)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char dir[] = "/tmp/penstock-fuzz-XXXXXX";
static struct ops *ops;
static struct config config;

static void path_of(char out[128], const char *file) {
    snprintf(out, 128, "%s/%s", dir, file);
}

static void clean_up(void) {
    char path[128];
    path_of(path, "adapter_config.json");
    unlink(path);
    path_of(path, "adapter_model.safetensors");
    unlink(path);
    rmdir(dir);
    ops_close(ops);
}

static void set_up(void) {
    char err[256];
    if (ops || !mkdtemp(dir) || atexit(clean_up) != 0) return;
    if (ops_open(&ops, &(struct ops_config){.backend = "ref"}, err, sizeof err) != 0) abort();
    config = (struct config){.arch = arch_find("LlamaForCausalLM"),
                             .layers = 2,
                             .dim = 8,
                             .heads = 2,
                             .kv_heads = 1,
                             .head_dim = 4,
                             .inner = WIDTH_MAX};
}

/* A file of an 8-byte length (where there is one) and the bytes. */
static void write_file(const char *file, uint64_t length, size_t length_bytes, const uint8_t *data,
                       size_t bytes) {
    char path[128];
    path_of(path, file);
    FILE *f = fopen(path, "wb");
    for (size_t i = 0; f && i < length_bytes; i++) fputc((int)(length >> 8 * i & 255), f);
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0) abort();
}

static void run_row(const struct adapter_pair *p) {
    static float x[WIDTH_MAX], low[RANKS_MAX], y[ROW_MAX];
    if (p->a.n == 0) return;
    if (p->a.k > WIDTH_MAX || p->a.n > RANKS_MAX || p->b.n > ROW_MAX || p->b.k != p->a.n) abort();
    for (uint32_t i = 0; i < p->a.k; i++) x[i] = 1;
    ops->linear(ops, &(struct linear_args){.rows = 1, .x = x, .w = &p->a, .y = low});
    ops->linear(ops, &(struct linear_args){.rows = 1, .x = low, .w = &p->b, .y = y});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const uint8_t *end = data + bytes, *header = memchr(data, 0, bytes);
    struct adapter *a;
    char err[256] = "";
    set_up();
    if (!header) return 0;
    write_file("adapter_config.json", 0, 0, data, (size_t)(header - data));
    header++;
    const uint8_t *tensors = memchr(header, 0, (size_t)(end - header));
    if (!tensors) tensors = end;
    write_file("adapter_model.safetensors", (uint64_t)(tensors - header), 8, header,
               (size_t)(end - header));
    if (adapter_open(&a, ops, &config, dir, err, sizeof err) == 0) {
        for (uint32_t i = 0; i < config.layers; i++)
            for (int k = 0; k < ADAPTER_BLOCKS; k++) run_row(&a->layer[i][k]);
        adapter_close(a);
    } else if (a || !*err) {
        abort(); /* refused without a word */
    }
    return 0;
}
