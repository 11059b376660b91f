#include "base/digest.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

#define READ_BYTES (1u << 20)
#define SHA1_BLOCK 64u
#define SHA1_BYTES 20u

/* ---- SHA-1 (FIPS 180-4, section 6.1) ---- */

struct sha1 {
    uint32_t h[5];
    uint64_t bytes;
    uint8_t block[SHA1_BLOCK];
};

static uint32_t rotate(uint32_t v, unsigned n) {
    return v << n | v >> (32 - n);
}

static void sha1_block(struct sha1 *s) {
    uint32_t w[80], a = s->h[0], b = s->h[1], c = s->h[2], d = s->h[3], e = s->h[4];
    for (unsigned t = 0; t < 16; t++) {
        memcpy(&w[t], s->block + t * sizeof *w, sizeof *w);
        w[t] = be32toh(w[t]);
    }
    for (unsigned t = 16; t < 80; t++)
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (unsigned t = 0; t < 80; t++) {
        uint32_t f, k;
        if (t < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (t < 40 || t >= 60) {
            f = b ^ c ^ d;
            k = t < 40 ? 0x6ed9eba1 : 0xca62c1d6;
        } else {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        }
        uint32_t next = rotate(a, 5) + f + e + k + w[t];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    s->h[0] += a;
    s->h[1] += b;
    s->h[2] += c;
    s->h[3] += d;
    s->h[4] += e;
}

static void sha1_update(struct sha1 *s, const void *data, size_t len) {
    for (const uint8_t *at = data; len > 0;) {
        size_t used = s->bytes % SHA1_BLOCK, n = SHA1_BLOCK - used < len ? SHA1_BLOCK - used : len;
        memcpy(s->block + used, at, n);
        s->bytes += n;
        at += n;
        len -= n;
        if (s->bytes % SHA1_BLOCK == 0) sha1_block(s);
    }
}

/* Of a blob of so many bytes, which follow. */
static void sha1_begin_blob(struct sha1 *s, uint64_t bytes) {
    char head[32];
    *s = (struct sha1){.h = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}};
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)bytes);
    sha1_update(s, head, (size_t)n + 1);
}

static void sha1_end(struct sha1 *s, char out[DIGEST_GIT_CHARS]) {
    static const uint8_t padding[SHA1_BLOCK] = {0x80};
    uint64_t bits = htobe64(s->bytes * 8);
    uint8_t hash[SHA1_BYTES];
    sha1_update(s, padding, 1 + (2 * SHA1_BLOCK - 9 - s->bytes % SHA1_BLOCK) % SHA1_BLOCK);
    sha1_update(s, &bits, sizeof bits);
    for (unsigned i = 0; i < 5; i++) {
        uint32_t word = htobe32(s->h[i]);
        memcpy(hash + i * sizeof word, &word, sizeof word);
    }
    sodium_bin2hex(out, DIGEST_GIT_CHARS, hash, sizeof hash);
}

/* ---- contents and files ---- */

void digest_sha256(struct bytes content, char out[DIGEST_SHA256_CHARS]) {
    unsigned char hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(hash, content.data, content.len);
    sodium_bin2hex(out, DIGEST_SHA256_CHARS, hash, sizeof hash);
}

void digest_git(struct bytes content, char out[DIGEST_GIT_CHARS]) {
    struct sha1 s;
    sha1_begin_blob(&s, content.len);
    sha1_update(&s, content.data, content.len);
    sha1_end(&s, out);
}

static int fail(const char *verb, const char *path, char *err, size_t err_bytes) {
    int code = -errno;
    return err_set(err, err_bytes, code, "cannot %s %s: %s", verb, path, err_text(code));
}

/* Feeds one of the two with the file's content. */
static int feed(int fd, const char *path, crypto_hash_sha256_state *sha256, struct sha1 *sha1,
                uint64_t *bytes, char *err, size_t err_bytes) {
    uint8_t *room = malloc(READ_BYTES);
    int rc = room ? 0 : err_set(err, err_bytes, -ENOMEM, "no memory to read %s", path);
    for (*bytes = 0; rc == 0;) {
        ssize_t n = read(fd, room, READ_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) rc = fail("read", path, err, err_bytes);
        if (n <= 0) break;
        if (sha256) crypto_hash_sha256_update(sha256, room, (size_t)n);
        if (sha1) sha1_update(sha1, room, (size_t)n);
        *bytes += (uint64_t)n;
    }
    free(room);
    return rc;
}

int digest_file_sha256(const char *path, char out[DIGEST_SHA256_CHARS], uint64_t *bytes, char *err,
                       size_t err_bytes) {
    crypto_hash_sha256_state s;
    unsigned char hash[crypto_hash_sha256_BYTES];
    uint64_t read_bytes;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail("open", path, err, err_bytes);
    crypto_hash_sha256_init(&s);
    int rc = feed(fd, path, &s, NULL, &read_bytes, err, err_bytes);
    close(fd);
    crypto_hash_sha256_final(&s, hash);
    sodium_bin2hex(out, DIGEST_SHA256_CHARS, hash, sizeof hash);
    if (bytes) *bytes = read_bytes;
    return rc;
}

int digest_file_git(const char *path, char out[DIGEST_GIT_CHARS], char *err, size_t err_bytes) {
    struct sha1 s;
    struct stat st;
    uint64_t read_bytes;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail("open", path, err, err_bytes);
    int rc = fstat(fd, &st) == 0 ? 0 : fail("stat", path, err, err_bytes);
    if (rc == 0) {
        sha1_begin_blob(&s, (uint64_t)st.st_size);
        rc = feed(fd, path, NULL, &s, &read_bytes, err, err_bytes);
    }
    if (rc == 0) sha1_end(&s, out);
    close(fd);
    return rc;
}
