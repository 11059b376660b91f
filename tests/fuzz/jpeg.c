/* jpeg.c - fuzzes JPEG decoding: what is decoded has the declared size, every sample can be read,
 * and whatever is refused says why. The first byte chooses what is wanted. */
#include <stdlib.h>

#include "workers/encode/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const uint8_t soi[3] = {0xFF, 0xD8, 0xFF};
    char err[512] = "";
    struct arena a;
    struct image im;
    struct image_facts facts;
    if (bytes < 4) return 0;
    struct image_want want = {data[0] % 4 == 3 ? 3 : data[0] % 2, data[0] / 4u * 8};
    arena_init(&a, 64u << 20);
    uint8_t *file = arena_copy(&a, data + 1, bytes - 1);
    if (file) {
        for (size_t i = 0; i < sizeof soi && i < bytes - 1; i++) file[i] = soi[i];
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
