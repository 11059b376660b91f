/* tokenizer.c - fuzzes tokenizer.json together with a text: up to the first NUL is the file, behind
 * it the text. Whatever opens must encode and decode without a fault. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workers/encode/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char dir[] = "/tmp/penstock-fuzz-XXXXXX";

static void remove_dir(void) {
    char path[128];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    unlink(path);
    rmdir(dir);
}

static int write_file(const uint8_t *data, size_t bytes) {
    static int ready;
    char path[128];
    if (!ready && (!mkdtemp(dir) || atexit(remove_dir) != 0)) abort();
    ready = 1;
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0) abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const uint8_t *nul = memchr(data, 0, bytes);
    size_t file_bytes = nul ? (size_t)(nul - data) : bytes;
    struct tokenizer *t;
    char err[256];
    write_file(data, file_bytes);
    if (tokenizer_open(&t, dir, err, sizeof err) < 0) return 0;
    struct bytes text = nul ? bytes_of(nul + 1, bytes - file_bytes - 1) : bytes_of("a b", 3);
    struct arena a;
    struct tokens k;
    struct buf out = {0};
    arena_init(&a, 64u << 20);
    if (tokenizer_encode(t, text, true, 64, &a, &k, err, sizeof err) == 0) {
        if (tokenizer_decode(t, k.ids, k.n, false, &out) == 0 &&
            utf8_check(out.data, out.len) != out.len)
            abort();
    }
    buf_fini(&out);
    arena_fini(&a);
    tokenizer_close(t);
    return 0;
}
