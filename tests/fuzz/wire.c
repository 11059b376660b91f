/* wire.c - fuzzes what the broker reads from strangers: frames, headers of every message, bodies of
 * every kind. What is taken must encode again to something that decodes; what is refused must say
 * so in words. */
#include <stdlib.h>
#include <string.h>

#include "schemas/json_schema.h"
#include "schemas/kinds.h"
#include "schemas/msg.h"
#include "schemas/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void need(bool ok) {
    if (!ok) abort();
}

static void header(const struct msg_desc *d, struct bytes document) {
    struct refusal why = {.code = ""};
    void *in = calloc(1, d->struct_bytes), *again = calloc(1, d->struct_bytes);
    if (msg_decode(d, document, in, &why) == 0) {
        uint8_t tag[MSG_TAG_BYTES];
        struct buf b = {0};
        need(msg_encode(d->type, in, tag, &b) == 0);
        need(msg_decode(d, buf_bytes(&b), again, &why) == 0);
        buf_fini(&b);
    } else {
        need(why.code[0] && why.message[0] && why.fix[0] && why.limit[0]);
    }
    free(in);
    free(again);
}

static void document(struct bytes d) {
    struct pack_doc *doc;
    struct json *j;
    if (pack_check(d, NULL, 0) != 0) return;
    need(pack_parse(&doc, d, NULL, 0) == 0);
    pack_free(doc);
    if (json_from_pack(d, &j, NULL, 0) == 0) {
        struct buf b = {0};
        need(json_to_pack(j, &b, NULL, 0) == 0);
        buf_fini(&b);
        json_free(j);
    }
}

/* The first byte chooses the message or kind; the rest is its document. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < 1) return 0;
    struct bytes rest = bytes_of(data + 1, bytes - 1);
    const struct msg_desc *d = msg_desc(data[0]);
    if (d) header(d, rest);
    for (uint32_t i = 0; kind_at(i); i++) {
        struct refusal why = {.code = ""};
        if (kind_decode(kind_at(i), rest, NULL, &why) != 0) need(why.code[0] && why.fix[0]);
    }
    msg_req(rest);
    document(rest);
    struct bytes frame[3] = {bytes_of(data, bytes < 4 ? bytes : 4), rest, rest};
    struct refusal why = {.code = ""};
    if (msg_open(frame, 3, (enum msg_direction)15, &d, &why) != 0) need(why.code[0] != '\0');
    return 0;
}
