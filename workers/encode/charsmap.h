/* charsmap.h - the Precompiled normalizer of tokenizer.json: SentencePiece's table of replacements.
 *
 * The table is a Darts double array over the UTF-8 of what is replaced, and the replacements, each
 * ended by a NUL. As in Hugging Face's tokenizers a grapheme of less than six bytes is replaced as
 * a whole by what its shortest matching prefix says, else each of its characters is looked up.
 *
 * Units: bytes of valid UTF-8.  Owner: charsmap_read makes what charsmap_fini frees.  Memory: the
 * table.  Errors: ERR_FIELD with the place in err, -ENOMEM.  Threads: immutable once read. */
#ifndef PENSTOCK_WORKERS_ENCODE_CHARSMAP_H
#define PENSTOCK_WORKERS_ENCODE_CHARSMAP_H

#include "base/bytes.h"

struct charsmap {
    void *data; /* decoded: units, then replacements */
    const uint32_t *units;
    uint32_t n_units;
    struct bytes replacements; /* ends with a NUL */
};

/* base64: member precompiled_charsmap. */
int charsmap_read(struct charsmap *m, struct bytes base64, const char *where, char *err,
                  size_t err_bytes);
void charsmap_fini(struct charsmap *m); /* accepts zeroed memory */
int charsmap_run(const struct charsmap *m, struct bytes text, struct buf *out);

#endif
