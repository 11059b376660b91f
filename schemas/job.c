#include "schemas/job.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const char *const state_names[JOB_STATES] = {
    [JOB_ACCEPTED] = "accepted",   [JOB_READY] = "ready",     [JOB_DELAYED] = "delayed",
    [JOB_LEASED] = "leased",       [JOB_DONE] = "done",       [JOB_FAILED] = "failed",
    [JOB_CANCELLED] = "cancelled", [JOB_EXPIRED] = "expired", [JOB_WAITING] = "waiting",
};

static const char *const error_names[JOB_ERRORS] = {
    [JOB_ERROR_NONE] = "none",           [JOB_ERROR_TRANSIENT] = "transient",
    [JOB_ERROR_PERMANENT] = "permanent", [JOB_ERROR_WORKER_DIED] = "worker_died",
    [JOB_ERROR_TIMEOUT] = "timeout",     [JOB_ERROR_CANCELLED] = "cancelled",
};

static int find_name(const char *const *names, int n, struct bytes name) {
    for (int i = 0; i < n; i++)
        if (bytes_is(name, names[i])) return i;
    return -EINVAL;
}

const char *job_state_name(enum job_state s) {
    assert(s < JOB_STATES);
    return state_names[s];
}

int job_state_parse(struct bytes name, enum job_state *out) {
    int i = find_name(state_names, JOB_STATES, name);
    if (i < 0) return i;
    *out = (enum job_state)i;
    return 0;
}

const char *job_error_name(enum job_error e) {
    assert(e < JOB_ERRORS);
    return error_names[e];
}

int job_error_parse(struct bytes name, enum job_error *out) {
    int i = find_name(error_names, JOB_ERRORS, name);
    if (i < 0) return i;
    *out = (enum job_error)i;
    return 0;
}

/* Crockford's alphabet is in the order of ASCII, so texts sort as the numbers do. */
static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

void job_id_text(uint64_t id, char out[JOB_ID_CHARS + 1]) {
    for (int i = JOB_ID_CHARS - 1; i >= 0; i--, id >>= 5) out[i] = digits[id & 31];
    out[JOB_ID_CHARS] = '\0';
}

/* What people misread counts as what was meant: I and L are 1, O is 0. */
static int digit_of(char c) {
    if (c >= 'a' && c <= 'z') c = (char)(c - 'a' + 'A');
    if (c == 'I' || c == 'L') c = '1';
    if (c == 'O') c = '0';
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

int job_id_parse(struct bytes text, uint64_t *out) {
    if (text.len != JOB_ID_CHARS) return -EINVAL;
    const char *c = text.data;
    uint64_t id = 0;
    for (int i = 0; i < JOB_ID_CHARS; i++) {
        int d = digit_of(c[i]);
        if (d < 0 || (i == 0 && d > 15)) return -EINVAL; /* 13 digits hold 65 bits */
        id = id << 5 | (uint64_t)d;
    }
    *out = id;
    return 0;
}

uint64_t job_id_next(uint64_t last, int64_t wall_ms) {
    assert(last < UINT64_MAX);
    uint64_t id = wall_ms > 0 ? (uint64_t)wall_ms << 20 : 0;
    return id > last ? id : last + 1;
}

int64_t job_id_ms(uint64_t id) {
    return (int64_t)(id >> 20);
}
