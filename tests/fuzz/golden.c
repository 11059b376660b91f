/* golden.c - fuzzes golden.jsonl beside a model and a tokenizer of this repository: whatever it
 * says is refused or compared without a fault. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/ops.h"
#include "workers/infer/golden.h"
#include "workers/infer/model.h"
#include "workers/infer/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define MODEL "tests/golden/models/llama-tied"

static char path[] = "/tmp/penstock-fuzz-XXXXXX";
static struct golden_model m;
static struct safetensors *tensors;

static void clean_up(void) {
    unlink(path);
    safetensors_close(tensors);
    model_close(m.model);
    ops_close(m.ops);
}

static void set_up(void) {
    const struct model_config c = {.rows_max = 16, .kv_tokens = 64};
    char err[512];
    int fd = m.ops ? -1 : mkstemp(path);
    if (fd < 0) return;
    close(fd);
    if (atexit(clean_up) != 0 ||
        ops_open(&m.ops, &(struct ops_config){.backend = "ref"}, err, sizeof err) != 0 ||
        model_open(&m.model, MODEL, m.ops, &c, err, sizeof err) != 0 ||
        safetensors_open(&tensors, MODEL, err, sizeof err) != 0)
        abort(); /* run it from the project's folder */
    m.tensors = tensors;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct golden_report report;
    char err[512] = "";
    set_up();
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0) abort();
    if (golden_check(path, &m, &report, err, sizeof err) != 0 && !*err) abort();
    return 0;
}
