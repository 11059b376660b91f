/* png.c - fuzzes PNG decoding: what is decoded has the declared size, every sample can be read, and
 * whatever is refused says why. The first byte chooses what is wanted; CRCs are made right, so that
 * the fuzzer gets behind them. */
#include <stdlib.h>
#include <string.h>

#include "workers/encode/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void make_crcs(uint8_t *file, size_t bytes) {
    for (size_t at = 8; at + 12 <= bytes;) {
        size_t len = be32(file + at);
        uint32_t crc = ~0u;
        if (len > bytes - at - 12) return;
        for (size_t i = at + 4; i < at + 8 + len; i++) {
            crc ^= file[i];
            for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        }
        for (int k = 0; k < 4; k++)
            file[at + 8 + len + (size_t)k] = (uint8_t)(~crc >> (24 - 8 * k));
        at += 12 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    char err[512] = "";
    struct arena a;
    struct image im;
    struct image_facts facts;
    if (bytes < 10) return 0;
    struct image_want want = {data[0] % 4 == 3 ? 3 : data[0] % 2, data[0] / 4u * 8};
    arena_init(&a, 64u << 20);
    uint8_t *file = arena_copy(&a, data + 1, bytes - 1);
    if (file) {
        memcpy(file, signature, sizeof signature);
        make_crcs(file, bytes - 1);
        int code = image_decode(bytes_of(file, bytes - 1), &want, &a, &im, &facts, err, sizeof err);
        uint64_t sum = 0;
        if (code == 0)
            for (size_t i = 0; i < (size_t)im.width * im.height * im.channels; i++)
                sum += im.pixels[i];
        if (code == 0 && (facts.orientation < 1 || facts.orientation > 8 || sum == UINT64_MAX))
            abort();
        if (code != 0 && err[0] == '\0') abort();
    }
    arena_fini(&a);
    return 0;
}
