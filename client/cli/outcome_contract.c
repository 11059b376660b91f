/* The result of contract.analyze: entities, clauses, risks. */
#include <stdio.h>

#include "client/cli/outcome_kinds.h"
#include "client/cli/table.h"

static const char *str(const struct json *j, const char *key) {
    const char *s = json_str(json_get(j, key));
    return s ? s : "";
}

static void span_cell(struct table *t, const struct json *row) {
    const struct json *span = json_get(row, "charspan");
    table_cell(t, "%lld-%lld", (long long)json_int(json_at(span, 0), 0),
               (long long)json_int(json_at(span, 1), 0));
}

/* The page of the first box; a plain text has none. */
static void page_cell(struct table *t, const struct json *row) {
    const struct json *page = json_get(json_at(json_get(row, "prov"), 0), "page");
    if (json_kind(page) == JSON_INT)
        table_cell(t, "%lld", (long long)json_int(page, 0));
    else
        table_cell(t, "-");
}

/* {"currency": "USD", "value": 46.5} reads "USD, 46.5". */
static void normalized_cell(struct table *t, const struct json *row) {
    const struct json *n = json_get(row, "normalized"), *value;
    const char *key;
    char text[256] = "";
    size_t len = 0;
    if (json_kind(n) == JSON_OBJECT) {
        for (size_t it = 0; json_next(n, &it, &key, &value) && len < sizeof text;) {
            const char *comma = len ? ", " : "";
            int w =
                json_str(value)
                    ? snprintf(text + len, sizeof text - len, "%s%s", comma, json_str(value))
                    : snprintf(text + len, sizeof text - len, "%s%.15g", comma, json_num(value, 0));
            len += w > 0 ? (size_t)w : 0;
        }
        table_cell(t, "%s", text);
    } else if (json_str(n)) {
        table_cell(t, "%s", json_str(n));
    } else if (json_kind(n) != JSON_NULL) {
        table_cell(t, "%.15g", json_num(n, 0));
    } else {
        table_cell(t, " ");
    }
}

static void print_risks(const struct json *rows) {
    static const char *const heads[] = {"risk", "rule", "clause", "why:70", NULL};
    struct table t;
    if (json_len(rows) == 0) return;
    putchar('\n');
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(rows); i++) {
        const struct json *row = json_at(rows, i);
        int64_t clause = json_int(json_get(row, "clause"), -1);
        table_cell(&t, "%s", str(row, "level"));
        table_style(&t, term_style_of(str(row, "level")));
        table_cell(&t, "%s", str(row, "rule"));
        if (clause < 0)
            table_cell(&t, "-");
        else
            table_cell(&t, "%lld", (long long)clause);
        table_cell(&t, "%s", str(row, "why"));
    }
    table_print(&t);
    table_fini(&t);
}

static long long count(const struct json *j, const char *key) {
    return (long long)json_int(json_get(j, key), 0);
}

/* Of a document: how its pages were read, and why some were not. */
static void print_pages(const struct json *j) {
    const struct json *rows = json_get(j, "pages");
    if (json_len(rows) == 0) return;
    printf("%lld pages: %lld ok, %lld partial, %lld failed\n", count(j, "pages_in"),
           count(j, "pages_ok"), count(j, "pages_partial"), count(j, "pages_failed"));
    for (size_t i = 0; i < json_len(rows); i++) {
        const struct json *page = json_at(rows, i);
        const char *reason = str(page, "reason");
        if (reason[0])
            printf("  page %lld %s: %s\n", count(page, "page"), str(page, "outcome"), reason);
    }
    putchar('\n');
}

void outcome_contract(const struct json *j) {
    static const char *const entity_heads[] = {"entity", "value:40", "normalized:40",
                                               "page",   "chars",    NULL};
    static const char *const clause_heads[] = {"clause", "type",  "risk",    "score",
                                               "page",   "chars", "text:60", NULL};
    struct table t;
    const struct json *rows = json_get(j, "entities");
    print_pages(j);
    table_init(&t, entity_heads);
    for (size_t i = 0; i < json_len(rows); i++) {
        const struct json *row = json_at(rows, i);
        table_cell(&t, "%s", str(row, "type"));
        table_cell(&t, "%s", str(row, "value"));
        normalized_cell(&t, row);
        page_cell(&t, row);
        span_cell(&t, row);
    }
    table_print(&t);
    table_fini(&t);
    putchar('\n');
    rows = json_get(j, "clauses");
    table_init(&t, clause_heads);
    for (size_t i = 0; i < json_len(rows); i++) {
        const struct json *row = json_at(rows, i);
        table_cell(&t, "%zu", i);
        table_cell(&t, "%s", str(row, "type"));
        const char *level = str(json_get(row, "risk"), "level");
        table_cell(&t, "%s", level);
        table_style(&t, term_style_of(level));
        table_cell(&t, "%.2f", json_num(json_get(row, "score"), 0));
        page_cell(&t, row);
        span_cell(&t, row);
        table_cell(&t, "%s", str(row, "text"));
    }
    table_print(&t);
    table_fini(&t);
    print_risks(json_get(j, "risks"));
}
