#include "broker/tenant.h"

#include <stdlib.h>

void tenants_fini(struct tenants *t) {
    for (struct tenant *x = t->first, *next; x; x = next) {
        next = x->next;
        sources_free(x);
        free(x);
    }
    *t = (struct tenants){0};
}

struct tenant *tenant_get(struct tenants *t, struct bytes name) {
    for (struct tenant *x = t->first; x; x = x->next)
        if (bytes_is(name, x->name)) return x;
    if (t->n == LIMIT_TENANTS || name.len == 0) return NULL;
    struct tenant *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    if (bytes_to_cstr(name, x->name, sizeof x->name) != 0) {
        free(x);
        return NULL;
    }
    if (t->settings) x->settings = settings_tenant(t->settings, x->name);
    x->next = t->first;
    t->first = x;
    t->n++;
    return x;
}

void tenants_settle(struct tenants *t, const struct settings *s) {
    t->settings = s;
    for (struct tenant *x = t->first; x; x = x->next) {
        x->settings = settings_tenant(s, x->name);
        sources_settle(x, s);
    }
}
