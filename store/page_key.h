/* page_key.h - the names of KV pages: a chain of hashes from a root over the tokens.
 *
 *   k_0      H(secret of the tenant; model, rope, numerics, layout, dtype, page tokens, adapter)
 *   k_(i+1)  H(k_i; tokens of page i, digest of what stands for tokens that are no text)
 *
 * H is keyed BLAKE2b-256, its key in front of the semicolon; all that is hashed counts with its
 * length. So a page is found only by who knows the tenant's secret and all the tokens before it,
 * and is the same for all requests that begin alike. The public root has a key that everybody
 * knows: it is for what all tenants share, such as a system prompt of the operator's own, and is
 * asked for by name.
 *
 * Units: tokens.  Owner, memory: the caller's.  Errors: none.  Threads: any. */
#ifndef PENSTOCK_STORE_PAGE_KEY_H
#define PENSTOCK_STORE_PAGE_KEY_H

#include "base/bytes.h"

#define PAGE_KEY_BYTES 32u
#define PAGE_SECRET_BYTES_MIN 16u
#define PAGE_SECRET_BYTES_MAX 64u
#define PAGE_FINGERPRINT_CHARS 33u /* 128 bits as hexadecimal, and a NUL */

struct page_key {
    uint8_t b[PAGE_KEY_BYTES];
};
/* What must be alike for pages to be exchangeable. */
struct page_model {
    struct bytes model;    /* digest of configuration and weights */
    struct bytes rope;     /* of what positions mean */
    struct bytes numerics; /* the numerics_id of what computes */
    uint8_t layout, dtype; /* of the values of a page: numbers that their writer knows */
    uint32_t page_tokens;
};
/* The name of a model's folder. */
void page_fingerprint(const struct page_model *m, char out[PAGE_FINGERPRINT_CHARS]);
/* adapter: the digest of an adapter's content; absent: the plain model. */
void page_root(struct page_key *out, const struct page_model *m, struct bytes adapter,
               struct bytes secret);
void page_root_public(struct page_key *out, const struct page_model *m, struct bytes adapter);
/* other: digests of the images or audio whose placeholders are among these tokens; absent: none.
 * out may be parent. */
void page_next(struct page_key *out, const struct page_key *parent, const uint32_t *tokens,
               uint32_t n, struct bytes other);
/* Of plain text: keys[0] is the root, keys[i + 1] becomes the key of page i, for whole pages. */
void page_chain(struct page_key *keys, const uint32_t *tokens, uint32_t pages,
                uint32_t page_tokens);

#endif
