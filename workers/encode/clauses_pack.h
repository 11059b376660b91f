/* clauses_pack.h - a contract's clauses as a document between the stages.
 *
 * { language: "en"|"zh", clauses: bin of nine u32le a clause, document: document.h }, the nine in
 * the order of struct clause. Read back, every offset is checked against the text, because it may
 * have come from another process.
 *
 * Units: bytes, characters.  Owner: the list read lives in the arena.  Memory: 64 bytes a clause.
 * Errors: ERR_CORRUPT with err, -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_CLAUSES_PACK_H
#define PENSTOCK_WORKERS_ENCODE_CLAUSES_PACK_H

#include "schemas/pack.h"
#include "workers/encode/clauses.h"

/* document is packed already. */
void clauses_pack(struct packer *p, enum clause_language language, const struct clauses *cs,
                  struct bytes document);
int clauses_unpack(const struct pack_val *keep, struct bytes text, struct arena *a,
                   enum clause_language *language, struct clauses *out, char *err,
                   size_t err_bytes);

#endif
