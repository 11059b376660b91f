/* stage_contract.c - encode.contract: a contract's document to clauses, and each clause with its
 * heading to tokens.
 *
 * `keep` carries what the post stage cannot know (clauses_pack.h), and the document. */
#include <string.h>

#include "base/err.h"
#include "schemas/kinds.h"
#include "workers/encode/clauses.h"
#include "workers/encode/clauses_pack.h"
#include "workers/encode/document.h"
#include "workers/encode/stages.h"

static bool encode_clauses(struct stage_item *i, const struct tokenizer *t, uint32_t context,
                           struct bytes text, const struct clauses *cs, struct tokens *seqs) {
    struct buf room = {0};
    char err[LIMIT_REASON_BYTES] = "";
    int rc = 0;
    for (uint32_t k = 0; rc == 0 && k < cs->n; k++) {
        if (item_cancelled(i)) {
            item_fail(i, JOB_ERROR_CANCELLED, "cancelled after %u of %u clauses", k, cs->n);
            buf_fini(&room);
            return false;
        }
        buf_clear(&room);
        rc = clause_seen(text, &cs->at[k], &room, NULL);
        if (rc == 0)
            rc = tokenizer_encode(t, buf_bytes(&room), true, context, i->arena, &seqs[k], err,
                                  sizeof err);
    }
    buf_fini(&room);
    if (rc < 0) item_fail_rc(i, rc, err);
    return rc == 0;
}

static void run_with(struct encode_self *s, struct stage_item *i,
                     const struct kind_contract_analyze *body, const struct document *d) {
    struct tokenizer *t;
    struct clauses cs;
    uint32_t context;
    if (!encode_model(s, i, &t, &context, NULL)) return;
    int rc = clauses_split(d->text, i->arena, &cs);
    if (rc == 0 && cs.n == 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "text: holds nothing but white space");
        return;
    }
    struct tokens *seqs = rc == 0 ? arena_calloc(i->arena, cs.n, sizeof *seqs) : NULL;
    if (!seqs) {
        if (rc == ERR_LIMIT)
            item_fail(i, JOB_ERROR_PERMANENT, "text: more than %u clauses: submit it in parts",
                      CLAUSES_MAX);
        else
            item_fail(i, JOB_ERROR_TRANSIENT, "no memory for the clauses");
        return;
    }
    if (!encode_clauses(i, t, context, d->text, &cs, seqs)) return;
    enum clause_language language = bytes_is(body->language, "zh")   ? LANGUAGE_ZH
                                    : bytes_is(body->language, "en") ? LANGUAGE_EN
                                                                     : clauses_language(d->text);
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    pack_map(&p, 4);
    encode_pack(&p, i->model, seqs, cs.n);
    pack_str(&p, "keep");
    clauses_pack(&p, language, &cs, i->input);
    item_done_buf(i, &out);
    buf_fini(&out);
}

static void run_one(struct encode_self *s, struct stage_item *i) {
    struct kind_contract_analyze body;
    struct pack_doc *doc;
    struct document d;
    char err[LIMIT_REASON_BYTES] = "";
    if (!encode_body(i, "contract.analyze", &body)) return;
    if (i->input.len == 0) {
        item_fail_rc(i, ERR_FIELD,
                     "encode.contract needs the document that encode.document reads: put "
                     "{name: read, run: encode.document} before it in the pipeline file");
        return;
    }
    int rc = pack_parse(&doc, i->input, err, sizeof err);
    if (rc == 0) {
        rc = document_read(&d, pack_root(doc), i->arena, err, sizeof err);
        if (rc == 0) run_with(s, i, &body, &d);
        pack_free(doc);
    }
    if (rc < 0) item_fail_rc(i, rc, err);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) run_one(self, items[i]);
}

const struct stage_program stage_encode_contract = {.run = "encode.contract",
                                                    .needs_model = true,
                                                    .open = encode_open,
                                                    .run_batch = run_batch,
                                                    .close = encode_close};
