#include "store/page_key.h"

#include <assert.h>
#include <sodium.h>

static void add(crypto_generichash_state *h, struct bytes part) {
    uint8_t len[8];
    uint64_t le = htole64(part.len);
    memcpy(len, &le, sizeof len);
    crypto_generichash_update(h, len, sizeof len);
    if (part.len) crypto_generichash_update(h, part.data, part.len);
}

static void add_model(crypto_generichash_state *h, const struct page_model *m) {
    uint32_t tokens = htole32(m->page_tokens);
    uint8_t numbers[6] = {m->layout, m->dtype};
    memcpy(numbers + 2, &tokens, sizeof tokens);
    add(h, m->model);
    add(h, m->rope);
    add(h, m->numerics);
    add(h, bytes_of(numbers, sizeof numbers));
}

void page_fingerprint(const struct page_model *m, char out[PAGE_FINGERPRINT_CHARS]) {
    uint8_t hash[crypto_generichash_BYTES];
    crypto_generichash_state h;
    crypto_generichash_init(&h, NULL, 0, sizeof hash);
    add_model(&h, m);
    crypto_generichash_final(&h, hash, sizeof hash);
    sodium_bin2hex(out, PAGE_FINGERPRINT_CHARS, hash, (PAGE_FINGERPRINT_CHARS - 1) / 2);
}

static void root(struct page_key *out, const struct page_model *m, struct bytes adapter,
                 struct bytes key, uint8_t scope) {
    crypto_generichash_state h;
    crypto_generichash_init(&h, key.data, key.len, sizeof out->b);
    add(&h, bytes_of(&scope, 1));
    add_model(&h, m);
    add(&h, adapter);
    crypto_generichash_final(&h, out->b, sizeof out->b);
}

void page_root(struct page_key *out, const struct page_model *m, struct bytes adapter,
               struct bytes secret) {
    assert(secret.len >= PAGE_SECRET_BYTES_MIN && secret.len <= PAGE_SECRET_BYTES_MAX);
    root(out, m, adapter, secret, 1);
}

void page_root_public(struct page_key *out, const struct page_model *m, struct bytes adapter) {
    root(out, m, adapter, bytes_str("penstock public root"), 0);
}

void page_next(struct page_key *out, const struct page_key *parent, const uint32_t *tokens,
               uint32_t n, struct bytes other) {
    crypto_generichash_state h;
    uint8_t count[8];
    uint64_t le = htole64((uint64_t)n * 4);
    memcpy(count, &le, sizeof count);
    crypto_generichash_init(&h, parent->b, sizeof parent->b, sizeof out->b);
    crypto_generichash_update(&h, count, sizeof count);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = htole32(tokens[i]);
        crypto_generichash_update(&h, (const uint8_t *)&token, sizeof token);
    }
    add(&h, other);
    crypto_generichash_final(&h, out->b, sizeof out->b);
}

void page_chain(struct page_key *keys, const uint32_t *tokens, uint32_t pages,
                uint32_t page_tokens) {
    for (uint32_t i = 0; i < pages; i++)
        page_next(&keys[i + 1], &keys[i], tokens + (size_t)i * page_tokens, page_tokens,
                  (struct bytes){NULL, 0});
}
