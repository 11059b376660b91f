/* stage_document.c - encode.document: a contract.analyze job's document or text to the document
 * that the other stages read (document.h).
 *
 * Its output is no checkpoint: reading costs milliseconds a page and a bad document fails for good,
 * so that only a fault of a later stage makes it read again, and never more often than the pipeline
 * retries. */
#include <string.h>

#include "base/err.h"
#include "schemas/kinds.h"
#include "workers/encode/layout.h"
#include "workers/encode/stages.h"
#include "workers/encode/unicode.h"

#define REASONS_MAX 3u /* different ones of pages that are told */

static bool has_text(struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    while (at < end)
        if (!unicode_is_space(unicode_next(&at))) return true;
    return false;
}

static bool is_told(const struct document *d, uint32_t page) {
    for (uint32_t i = 0; i < page; i++)
        if (bytes_eq(d->pages[i].reason, d->pages[page].reason)) return true;
    return false;
}

/* "document: none of its 3 pages has text: page 1: it is a picture" */
static void fail_empty(struct stage_item *i, const struct document *d) {
    struct buf reasons = {0};
    uint32_t told = 0;
    for (uint32_t k = 0; k < d->n_pages && told < REASONS_MAX; k++) {
        if (d->pages[k].reason.len == 0 || (told > 0 && is_told(d, k))) continue;
        buf_printf(&reasons, "%s page %u: %.*s", told++ ? ";" : ":", d->pages[k].number,
                   (int)d->pages[k].reason.len, (const char *)d->pages[k].reason.data);
    }
    struct bytes all = buf_bytes(&reasons);
    if (d->n_pages == 1)
        item_fail(i, JOB_ERROR_PERMANENT, "document: it has no text%.*s", (int)all.len,
                  all.len ? (const char *)all.data : "");
    else
        item_fail(i, JOB_ERROR_PERMANENT, "document: none of its %u pages has text%.*s", d->n_pages,
                  (int)all.len, all.len ? (const char *)all.data : "");
    buf_fini(&reasons);
}

static bool read_document(struct stage_item *i, const struct kind_contract_analyze *body,
                          struct document *d) {
    struct extracted x;
    char err[LIMIT_REASON_BYTES] = "";
    int rc = extract_run(NULL, body->document, body->format, i->cancelled, i->arena, &x, err,
                         sizeof err);
    if (rc == 0 && x.text.len > LIMIT_TEXT_BYTES)
        rc = err_set(err, sizeof err, ERR_LIMIT,
                     "its text has %zu bytes, more than %u: submit it in parts", x.text.len,
                     LIMIT_TEXT_BYTES);
    if (rc == 0) rc = layout_document(d, &x, i->arena);
    if (rc < 0) {
        char reason[LIMIT_REASON_BYTES];
        err_set(reason, sizeof reason, rc, "document: %s", err[0] ? err : err_text(rc));
        item_fail_rc(i, rc, reason);
        return false;
    }
    if (has_text(d->text)) return true;
    fail_empty(i, d);
    return false;
}

static void run_one(struct stage_item *i) {
    struct kind_contract_analyze body;
    struct document d;
    if (!encode_body(i, "contract.analyze", &body)) return;
    if (body.document.len == 0)
        document_of_text(&d, body.text);
    else if (!read_document(i, &body, &d))
        return;
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    document_pack(&p, &d);
    item_done_buf(i, &out);
    buf_fini(&out);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t i = 0; i < n; i++) run_one(items[i]);
}

const struct stage_program stage_encode_document = {.run = "encode.document",
                                                    .run_batch = run_batch};
