#include "base/hash.h"

#include <sodium.h>

#define HASH_BYTES 32u

void hash_hex(const struct bytes *parts, uint32_t n, char out[HASH_HEX_BYTES]) {
    crypto_generichash_state h;
    unsigned char hash[HASH_BYTES];
    crypto_generichash_init(&h, NULL, 0, sizeof hash);
    for (uint32_t i = 0; i < n; i++) {
        unsigned char len[8];
        for (uint32_t k = 0; k < sizeof len; k++)
            len[k] = (unsigned char)((uint64_t)parts[i].len >> 8 * k);
        crypto_generichash_update(&h, len, sizeof len);
        if (parts[i].len) crypto_generichash_update(&h, parts[i].data, parts[i].len);
    }
    crypto_generichash_final(&h, hash, sizeof hash);
    sodium_bin2hex(out, HASH_HEX_BYTES, hash, sizeof hash);
}
