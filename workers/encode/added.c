#include "workers/encode/added.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "workers/encode/unicode.h"

#define ADDED_MAX 65536u

int added_add(struct added *a, struct bytes content, struct added_token flags) {
    if (content.len == 0) return 0;
    if (a->n == ADDED_MAX || content.len > UINT16_MAX) return ERR_LIMIT;
    if (a->n == a->cap) {
        uint32_t cap = a->cap ? a->cap * 2 : 16;
        struct added_token *more = realloc(a->at, cap * sizeof *more);
        if (!more) return -ENOMEM;
        a->at = more;
        a->cap = cap;
    }
    flags.begin = (uint32_t)a->text.len;
    flags.bytes = (uint32_t)content.len;
    int rc = buf_append(&a->text, content.data, content.len);
    if (rc < 0) return rc;
    a->first[*(const unsigned char *)content.data] = true;
    a->at[a->n++] = flags;
    return 0;
}

static int by_content(const void *x, const void *y, void *text) {
    const struct added_token *a = x, *b = y;
    const uint8_t *t = text;
    int c = memcmp(t + a->begin, t + b->begin, a->bytes < b->bytes ? a->bytes : b->bytes);
    if (c == 0) c = (a->bytes > b->bytes) - (a->bytes < b->bytes);
    return c ? c : (a->begin > b->begin) - (a->begin < b->begin);
}

void added_sort(struct added *a) {
    if (a->n) qsort_r(a->at, a->n, sizeof *a->at, by_content, a->text.data);
}

void added_fini(struct added *a) {
    buf_fini(&a->text);
    free(a->at);
    *a = (struct added){0};
}

/* The first token in [lo, hi) whose byte at `depth` is at least `byte`; all of
 * them agree before. */
static uint32_t lower_bound(const struct added *a, uint32_t lo, uint32_t hi, uint32_t depth,
                            uint32_t byte) {
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct added_token *t = &a->at[mid];
        /* a token that ends here sorts before every byte */
        if (t->bytes <= depth || a->text.data[t->begin + depth] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static const struct added_token *longest_at(const struct added *a, const uint8_t *at, size_t left) {
    const struct added_token *best = NULL;
    uint32_t lo = 0, hi = a->n;
    for (uint32_t depth = 0; depth < left; depth++) {
        lo = lower_bound(a, lo, hi, depth, at[depth]);
        hi = lower_bound(a, lo, hi, depth, at[depth] + 1u);
        if (lo == hi) break;
        if (a->at[lo].bytes == depth + 1) best = &a->at[lo]; /* the shortest sorts first */
    }
    return best;
}

static bool word_around(const char *text, size_t bytes, size_t begin, size_t end) {
    const char *start, *at = text + end;
    if (begin > 0 && unicode_is_word(unicode_before(text + begin, &start))) return true;
    return end < bytes && unicode_is_word(unicode_next(&at));
}

bool added_find(const struct added *a, struct bytes text, size_t from, struct added_hit *out) {
    const char *all = text.data, *next;
    for (size_t i = from; i < text.len; i++) {
        if (!a->first[(uint8_t)all[i]]) continue;
        const struct added_token *t = longest_at(a, (const uint8_t *)all + i, text.len - i);
        if (!t) continue;
        size_t begin = i, end = i + t->bytes;
        if (t->single_word && word_around(all, text.len, begin, end)) {
            i = end - 1; /* passed over as a whole */
            continue;
        }
        while (t->lstrip && begin > from && unicode_is_space(unicode_before(all + begin, &next)))
            begin = (size_t)(next - all);
        while (t->rstrip && end < text.len &&
               (next = all + end, unicode_is_space(unicode_next(&next))))
            end = (size_t)(next - all);
        *out = (struct added_hit){begin, end, t->id};
        return true;
    }
    return false;
}
