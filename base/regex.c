#include "base/regex.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/err.h"

#define REGEX_MATCH_LIMIT 2000000u /* backtracking steps from one start */
#define REGEX_DEPTH_LIMIT 5000u
#define REGEX_HEAP_LIMIT_KIB 16384u
#define REGEX_PATTERN_BYTES_MAX (64u * 1024u)

struct regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    uint32_t groups; /* the whole match included */
};

static int parse_flags(const char *flags, uint32_t *options, char *err, size_t err_bytes) {
    *options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    for (const char *f = flags ? flags : ""; *f; f++) {
        if (*f == 'i')
            *options |= PCRE2_CASELESS;
        else if (*f == 'x')
            *options |= PCRE2_EXTENDED;
        else if (*f == 'm')
            *options |= PCRE2_MULTILINE;
        else
            return err_set(err, err_bytes, ERR_FIELD,
                           "regular expression flag '%c' is unknown; use i, x or m", *f);
    }
    return 0;
}

static int compile(struct regex *r, const char *pattern, uint32_t options, char *err,
                   size_t err_bytes) {
    int code;
    PCRE2_SIZE at;
    r->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options, &code, &at, NULL);
    if (!r->code) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(code, text, sizeof text);
        return err_set(err, err_bytes, ERR_FIELD, "regular expression: %s at offset %zu of '%.80s'",
                       (char *)text, (size_t)at, pattern);
    }
    uint32_t groups = 0;
    pcre2_pattern_info(r->code, PCRE2_INFO_CAPTURECOUNT, &groups);
    if (groups + 1 > REGEX_GROUPS)
        return err_set(err, err_bytes, ERR_FIELD,
                       "regular expression: %u groups, at most %d; make some (?:...): '%.80s'",
                       groups, REGEX_GROUPS - 1, pattern);
    r->groups = groups + 1;
    pcre2_jit_compile(r->code,
                      PCRE2_JIT_COMPLETE); /* where there is no JIT, the interpreter runs */
    return 0;
}

int regex_open(struct regex **out, const char *pattern, const char *flags, char *err,
               size_t err_bytes) {
    *out = NULL;
    if (strlen(pattern) > REGEX_PATTERN_BYTES_MAX)
        return err_set(err, err_bytes, ERR_LIMIT, "regular expression: at most %u bytes",
                       REGEX_PATTERN_BYTES_MAX);
    struct regex *r = calloc(1, sizeof *r);
    if (!r) return err_set(err, err_bytes, -ENOMEM, "regular expression: out of memory");
    uint32_t options;
    int rc = parse_flags(flags, &options, err, err_bytes);
    if (rc == 0) rc = compile(r, pattern, options, err, err_bytes);
    if (rc < 0) goto fail;
    r->limits = pcre2_match_context_create(NULL);
    if (!r->limits) {
        rc = err_set(err, err_bytes, -ENOMEM, "regular expression: out of memory");
        goto fail;
    }
    pcre2_set_match_limit(r->limits, REGEX_MATCH_LIMIT);
    pcre2_set_depth_limit(r->limits, REGEX_DEPTH_LIMIT);
    pcre2_set_heap_limit(r->limits, REGEX_HEAP_LIMIT_KIB);
    *out = r;
    return 0;
fail:
    regex_close(r);
    return rc;
}

void regex_close(struct regex *r) {
    if (!r) return;
    pcre2_match_context_free(r->limits);
    pcre2_code_free(r->code);
    free(r);
}

static int match_error(int rc) {
    switch (rc) {
    case PCRE2_ERROR_NOMATCH: return 0;
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
    case PCRE2_ERROR_HEAPLIMIT: return ERR_LIMIT;
    case PCRE2_ERROR_NOMEMORY: return -ENOMEM;
    default: return ERR_CORRUPT;
    }
}

int regex_find(const struct regex *r, const char *subject, size_t bytes, size_t from,
               struct regex_span spans[REGEX_GROUPS]) {
    if (from > bytes) return 0;
    pcre2_match_data *data = pcre2_match_data_create(r->groups, NULL);
    if (!data) return -ENOMEM;
    /* The caller promises UTF-8; checking the whole subject again at each call would make a scan
     * of a long document quadratic. */
    uint32_t options = PCRE2_NO_UTF_CHECK;
    PCRE2_SPTR text = (PCRE2_SPTR)(subject ? subject : "");
    int rc = pcre2_match(r->code, text, bytes, from, options, data, r->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter's heap is larger, and limited too */
        rc = pcre2_match(r->code, text, bytes, from, options | PCRE2_NO_JIT, data, r->limits);
    if (rc < 0) {
        pcre2_match_data_free(data);
        return match_error(rc);
    }
    assert(rc > 0); /* 0 would mean too few spans, and there is one for each group */
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(data);
    for (uint32_t i = 0; i < REGEX_GROUPS; i++) {
        bool set = i < (uint32_t)rc && o[2 * i] != PCRE2_UNSET;
        spans[i] = set ? (struct regex_span){o[2 * i], o[2 * i + 1]}
                       : (struct regex_span){(size_t)-1, (size_t)-1};
    }
    pcre2_match_data_free(data);
    return 1;
}

int regex_group(const struct regex *r, const char *name) {
    int n = pcre2_substring_number_from_name(r->code, (PCRE2_SPTR)name);
    return n > 0 ? n : -1;
}
