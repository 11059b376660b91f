#include "tests/wire/random_msg.h"

#include <assert.h>
#include <string.h>

#include "base/rng.h"
#include "schemas/pack.h"

static uint64_t within(uint64_t *seed, uint64_t min, uint64_t max) {
    uint64_t r = rng_next(seed), wide = max - min;
    switch (rng_next(seed) % 8) { /* the edges are where the bugs are */
    case 0: return min;
    case 1: return max;
    case 2: return min + (wide < 300 ? r % (wide + 1) : r % 300);
    default: return wide == UINT64_MAX ? r : min + r % (wide + 1);
    }
}

static size_t length(uint64_t *seed, uint64_t min, uint64_t max) {
    uint64_t few = max < min + 70 ? max : min + 70;
    return (size_t)within(seed, min, rng_next(seed) % 32 ? few : max < 5000 ? max : 5000);
}

static struct bytes random_text(uint64_t *seed, struct arena *pool, size_t len) {
    static const char *const chars[] = {
        "a", "Z", "9", " ", "\n", "\xC3\xA9", "\xE5\x90\x88", "\xF0\x9F\x98\x80", "\x7F"};
    char *text = arena_alloc(pool, len ? len : 1);
    assert(text);
    for (size_t at = 0; at < len;) {
        const char *c = chars[rng_next(seed) % (sizeof chars / sizeof *chars)];
        if (strlen(c) > len - at) c = "x";
        memcpy(text + at, c, strlen(c));
        at += strlen(c);
    }
    return bytes_of(text, len);
}

static struct bytes random_choice(const struct field *f, uint64_t *seed) {
    const char *at = f->choices;
    for (uint64_t skip = rng_next(seed) % 4; skip; skip--) {
        const char *bar = strchr(at, '|');
        if (!bar) break;
        at = bar + 1;
    }
    return bytes_of(at, strcspn(at, "|"));
}

static struct bytes keep(struct arena *pool, struct buf *b) {
    assert(b->error == 0);
    struct bytes out = bytes_of(arena_copy(pool, b->data, b->len), b->len);
    assert(out.data);
    buf_fini(b);
    return out;
}

static struct field_strs random_strs(const struct field *f, uint64_t *seed, struct arena *pool) {
    uint32_t n = (uint32_t)within(seed, f->min, f->max < 20 ? f->max : 20);
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_array(&p, n);
    for (uint32_t i = 0; i < n; i++)
        pack_strn(&p, random_text(seed, pool, length(seed, 0, f->item_max)));
    return (struct field_strs){keep(pool, &b), n};
}

static struct bytes random_pack(uint64_t *seed, struct arena *pool) {
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_map(&p, 3);
    pack_kv_u64(&p, "n", rng_next(seed));
    pack_kv_str(&p, "text", "\xE5\x90\x88\xE5\x90\x8C");
    pack_str(&p, "list");
    uint32_t n = (uint32_t)(rng_next(seed) % 20);
    pack_array(&p, n);
    for (uint32_t i = 0; i < n; i++) {
        if (i % 3 == 0)
            pack_f64(&p, (double)i / 3);
        else if (i % 3 == 1)
            pack_i64(&p, -(int64_t)(rng_next(seed) >> 33));
        else
            pack_bin(&p, bytes_of("\x00\xFF", 2));
    }
    return keep(pool, &b);
}

void random_fields(const struct field *fields, uint32_t n, uint64_t *seed, struct arena *pool,
                   void *out) {
    uint64_t ones = 0, chosen = rng_next(seed);
    for (uint32_t i = 0; i < n; i++) ones += fields[i].one_of;
    for (uint32_t i = 0, one = 0; i < n; i++) {
        const struct field *f = &fields[i];
        void *at = (char *)out + f->offset;
        if (f->one_of && one++ != chosen % ones) continue; /* the others stay as they are: empty */
        uint64_t least = f->one_of && f->min == 0 ? 1 : f->min; /* the one of them has something */
        switch (f->type) {
        case FIELD_U64: *(uint64_t *)at = within(seed, f->min, f->max); break;
        case FIELD_ID: *(uint64_t *)at = within(seed, f->required ? 0 : 1, UINT64_MAX); break;
        case FIELD_BOOL: *(bool *)at = rng_next(seed) % 2; break;
        case FIELD_F64:
            *(double *)at = f->fmin + (f->fmax - f->fmin) * (double)(rng_next(seed) % 65) / 64;
            break;
        case FIELD_STR:
            *(struct bytes *)at = f->choices ? random_choice(f, seed)
                                             : random_text(seed, pool, length(seed, least, f->max));
            break;
        case FIELD_BIN:
            *(struct bytes *)at = random_text(seed, pool, length(seed, f->min, f->max));
            break;
        case FIELD_STRS: *(struct field_strs *)at = random_strs(f, seed, pool); break;
        case FIELD_PACK: *(struct bytes *)at = random_pack(seed, pool); break;
        }
    }
}

static bool value_equal(const struct field *f, const void *a, const void *b) {
    switch (f->type) {
    case FIELD_U64:
    case FIELD_ID: return *(const uint64_t *)a == *(const uint64_t *)b;
    case FIELD_BOOL: return *(const bool *)a == *(const bool *)b;
    case FIELD_F64: return memcmp(a, b, sizeof(double)) == 0;
    case FIELD_STRS: {
        const struct field_strs *x = a, *y = b;
        return x->count == y->count && (x->count == 0 || bytes_eq(x->raw, y->raw));
    }
    default: return bytes_eq(*(const struct bytes *)a, *(const struct bytes *)b);
    }
}

bool fields_equal(const struct field *fields, uint32_t n, const void *a, const void *b) {
    for (uint32_t i = 0; i < n; i++)
        if (!value_equal(&fields[i], (const char *)a + fields[i].offset,
                         (const char *)b + fields[i].offset))
            return false;
    return true;
}
