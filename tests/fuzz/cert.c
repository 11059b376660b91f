/* cert.c - fuzzes the parser of certificates: what is taken prints to something that says the same,
 * what is refused says where. */
#include <stdlib.h>
#include <string.h>

#include "schemas/cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void need(bool ok) {
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct cert c, again;
    struct buf b = {0};
    char err[256] = "", text[64];
    if (cert_parse(&c, bytes_of(data, bytes), err, sizeof err) < 0) {
        need(err[0] != '\0');
        return 0;
    }
    cert_rights_text(c.rights, c.stages, text, sizeof text);
    if (!c.name[0]) strcpy(c.name, "unnamed");
    need(cert_print(&c, c.secret_key[0] != '\0', &b) == 0);
    need(cert_parse(&again, buf_bytes(&b), err, sizeof err) == 0);
    need(memcmp(c.public_key, again.public_key, sizeof c.public_key) == 0);
    need(strcmp(c.secret_key, again.secret_key) == 0 && strcmp(c.tenant, again.tenant) == 0);
    need(c.rights == again.rights && strcmp(c.stages, again.stages) == 0);
    buf_fini(&b);
    return 0;
}
