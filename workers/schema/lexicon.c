#include "workers/schema/lexicon.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "workers/encode/tokenizer.h"

#define TOKEN_BYTES_MAX 1024u /* longer ones are not written */

struct sorted {
    const uint8_t *text;
    uint32_t bytes, id;
};

static int by_text(const void *left, const void *right) {
    const struct sorted *a = left, *b = right;
    uint32_t n = a->bytes < b->bytes ? a->bytes : b->bytes;
    int order = memcmp(a->text, b->text, n);
    if (order) return order;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static int read_words(struct lexicon *l, const struct tokenizer *t) {
    for (uint32_t id = 0; id < l->vocab; id++) {
        struct lexicon_word *w = &l->word[id];
        size_t begin = l->text.len;
        int rc = tokenizer_piece(t, id, &l->text, &w->differs);
        if (rc < 0) return rc;
        if (l->text.len > UINT32_MAX) return ERR_LIMIT;
        w->begin = (uint32_t)begin;
        w->id = id;
        if (rc > 0 && l->text.len - begin <= TOKEN_BYTES_MAX)
            w->bytes = (uint32_t)(l->text.len - begin);
        if (w->bytes == 1 && !w->differs) l->single[l->text.data[begin]] = true;
        if (w->bytes > l->longest) l->longest = w->bytes;
        l->n_ids += w->bytes > 0;
        if (w->differs) l->differs[id / 32] |= 1u << (id % 32);
    }
    return 0;
}

/* One node a distinct beginning; `open` holds the path to the last token. */
static void lay_out(struct lexicon *l, const struct sorted *s, uint32_t *open) {
    uint32_t depth = 0;
    for (uint32_t i = 0; i < l->n_ids; i++) {
        uint32_t same = 0;
        l->ids[i] = s[i].id;
        while (i > 0 && same < depth && same < s[i].bytes && s[i].text[same] == s[i - 1].text[same])
            same++;
        while (depth > same) l->node[open[--depth]].end = l->nodes;
        for (; depth < s[i].bytes; depth++) {
            open[depth] = l->nodes;
            l->node[l->nodes++] = (struct lexicon_node){
                .token = i, .depth = (uint16_t)(depth + 1), .byte = s[i].text[depth]};
        }
        if (l->node[open[depth - 1]].tokens < UINT16_MAX) l->node[open[depth - 1]].tokens++;
    }
    while (depth > 0) l->node[open[--depth]].end = l->nodes;
    for (uint32_t i = 0, b = 0; b <= 256; b++) {
        while (i < l->nodes && l->node[i].byte < b) i = l->node[i].end;
        l->begin[b] = i;
    }
}

int lexicon_init(struct lexicon *l, const struct tokenizer *t, uint32_t vocab, char *err,
                 size_t err_bytes) {
    *l = (struct lexicon){.vocab = vocab, .word = calloc(vocab + 1, sizeof *l->word)};
    l->differs = calloc(vocab / 32 + 1, sizeof *l->differs);
    int rc = l->word && l->differs ? read_words(l, t) : -ENOMEM;
    struct sorted *s = calloc((size_t)l->n_ids + 1, sizeof *s);
    uint32_t *open = calloc(TOKEN_BYTES_MAX, sizeof *open), n = 0;
    l->ids = calloc((size_t)l->n_ids + 1, sizeof *l->ids);
    l->node = calloc(l->text.len + 1, sizeof *l->node);
    if (rc == 0 && !(s && open && l->ids && l->node)) rc = -ENOMEM;
    for (uint32_t id = 0; rc == 0 && id < vocab; id++)
        if (l->word[id].bytes > 0)
            s[n++] = (struct sorted){l->text.data + l->word[id].begin, l->word[id].bytes, id};
    if (rc == 0) qsort(s, n, sizeof *s, by_text);
    if (rc == 0) lay_out(l, s, open);
    free(s);
    free(open);
    if (rc == 0) return 0;
    lexicon_fini(l);
    return err_set(err, err_bytes, rc,
                   rc == ERR_FIELD ? "schema: this tokenizer joins its tokens by rules: a schema "
                                     "needs one whose tokens have bytes of their own"
                                   : "schema: no memory for the vocabulary");
}

void lexicon_fini(struct lexicon *l) {
    buf_fini(&l->text);
    free(l->word);
    free(l->node);
    free(l->ids);
    free(l->differs);
    *l = (struct lexicon){0};
}
