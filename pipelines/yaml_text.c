#include "pipelines/yaml_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "pipelines/yaml_numbers.h"

/* libcyaml says what was wrong in its first error line and where in the lines that follow, the
 * innermost place first. */
struct story {
    char what[160], where[160];
};

static void listen(cyaml_log_t level, void *ctx, const char *format, va_list args) {
    struct story *s = ctx;
    char line[256];
    if (level < CYAML_LOG_ERROR) return;
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    const char *text = strncmp(line, "Load: ", 6) == 0 ? line + 6 : line;
    bool place = strstr(text, "(line: ") != NULL;
    char *into = place ? s->where : s->what;
    if (into[0] == '\0' && strcmp(text, "Backtrace:") != 0) {
        while (*text == ' ') text++;
        snprintf(into, sizeof s->what, "%.159s", text);
    }
}

static cyaml_config_t config_of(struct story *s) {
    return (cyaml_config_t){.log_fn = listen,
                            .log_ctx = s,
                            .mem_fn = cyaml_mem,
                            .log_level = CYAML_LOG_ERROR,
                            .flags = CYAML_CFG_NO_ALIAS};
}

/* Where `key:` stands as a key at or behind `at`, comments left out; NULL: nowhere. */
static const char *find_key(const char *data, const char *at, const char *key) {
    size_t len = strlen(key);
    for (; *at; at++) {
        bool starts = at == data || strchr(" {,\n\"'", at[-1]);
        if (*at == '#' && (at == data || strchr(" \t\n", at[-1]))) {
            at += strcspn(at, "\n");
            if (!*at) break;
        } else if (starts && strncmp(at, key, len) == 0) {
            const char *end = at + len;
            end += strspn(end, "\"'");
            if (end[strspn(end, " ")] == ':') return at;
        }
    }
    return NULL;
}

static unsigned line_of(const char *data, const char *at) {
    unsigned line = 1;
    for (; data < at; data++) line += *data == '\n';
    return line;
}

unsigned yaml_text_line(const char *data, const char *list, const char *field, unsigned nth) {
    const char *at = find_key(data, data, list);
    for (unsigned i = 0; field && at && i <= nth; i++) at = find_key(data, at + 1, field);
    return at ? line_of(data, at) : 1;
}

/* libcyaml places an unknown key at the value before it: look for the key itself. */
static void place_key(struct story *s, const char *data) {
    static const char before[] = "Unexpected key: ";
    if (strncmp(s->what, before, sizeof before - 1) != 0) return;
    const char *at = find_key(data, data, s->what + sizeof before - 1);
    if (at) snprintf(s->where, sizeof s->where, "line: %u", line_of(data, at));
}

int yaml_text_load(const char *data, size_t bytes, const char *where,
                   const cyaml_schema_value_t *schema, yaml_text_fix *fix, void **out, char *err,
                   size_t err_bytes) {
    struct story story = {{0}, {0}};
    cyaml_config_t config = config_of(&story);
    cyaml_data_t *loaded = NULL;
    cyaml_err_t e = cyaml_load_data((const uint8_t *)data, bytes, &config, schema, &loaded, NULL);
    if (e == CYAML_OK && loaded) {
        int rc = yaml_numbers_check(data, bytes, where, schema, err, err_bytes);
        if (rc == 0)
            *out = loaded;
        else
            cyaml_free(&config, schema, loaded, 0);
        return rc;
    }
    if (e == CYAML_OK) return err_set(err, err_bytes, ERR_FIELD, "%s: the file is empty", where);
    if (e == CYAML_ERR_INVALID_KEY) place_key(&story, data);
    return err_set(err, err_bytes, e == CYAML_ERR_OOM ? -ENOMEM : ERR_FIELD, "%s: %s%s%s%s", where,
                   story.what[0] ? story.what : cyaml_strerror(e), story.where[0] ? ", " : "",
                   story.where, fix(e));
}

void yaml_text_free(const cyaml_schema_value_t *schema, void *loaded) {
    struct story story = {{0}, {0}};
    cyaml_config_t config = config_of(&story);
    if (loaded) cyaml_free(&config, schema, loaded, 0);
}
