/* devlog.h - a device log to templated events and numeric features.
 *
 * Lines of text, CSV (RFC 4180) and JSON lines become events: a line, its time where it has one
 * that names a date, and a template, which is the line's words with what varies masked ("axis
 * <num> following error <num>mm"). Numbers that carry a name (pressure=4.2, a CSV column, a JSON
 * member) become features with count, least, mean, greatest and last value. A line that is not
 * what its format says (wrong columns, broken JSON, bytes of no known encoding) is counted as
 * malformed and kept as text; nothing in a log makes the parser fail but its caps. UTF-8, UTF-16
 * and GB18030 are read (charset.h).
 *
 * Units: lines count from 1, milliseconds since 1970 (UTC where the log names no offset).
 * Owner: everything lies in the arena and is valid UTF-8; the log is borrowed for the call.
 * Memory: about 6 times the log, and 64 bytes a line.  Errors: -ENOMEM; ERR_LIMIT beyond
 * LIMIT_BODY_BYTES.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_DEVLOG_H
#define PENSTOCK_WORKERS_ENCODE_DEVLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"

enum devlog_format { DEVLOG_AUTO, DEVLOG_TEXT, DEVLOG_CSV, DEVLOG_JSONL };
const char *devlog_format_name(enum devlog_format f);                /* "auto", "text" ... */
int devlog_format_parse(struct bytes name, enum devlog_format *out); /* -EINVAL */

#define DEVLOG_NO_TIME INT64_MIN
#define DEVLOG_NO_TEMPLATE UINT32_MAX

struct devlog_event {
    uint32_t line;       /* the first, when a CSV record spans several */
    uint32_t template_i; /* in templates; DEVLOG_NO_TEMPLATE: readings without words, or too many */
    int64_t time_ms;
    struct bytes text; /* the line, cut to LIMIT_DEVLOG_LINE_BYTES */
};

enum devlog_severity { DEVLOG_PLAIN, DEVLOG_WARNING, DEVLOG_ERROR };
struct devlog_template {
    uint64_t id; /* FNV-1a of its text: the same words give the same id in any log */
    struct bytes text;
    enum devlog_severity severity;
    uint32_t count, first_event, last_event; /* in events */
};

struct devlog_feature {
    struct bytes name;
    uint32_t count;
    double min, max, sum, last;
    uint32_t min_event, max_event, last_event; /* where it first was so; in events */
};

struct devlog {
    enum devlog_format format; /* what it was read as */
    uint32_t lines;            /* of the file, empty ones too */
    uint32_t malformed;
    uint32_t lines_cut;         /* longer than is kept */
    uint32_t events_left_out;   /* beyond LIMIT_DEVLOG_LINES */
    uint32_t words_left_out;    /* events whose template is beyond LIMIT_DEVLOG_TEMPLATES */
    uint32_t readings_left_out; /* values of names beyond LIMIT_DEVLOG_FEATURES */
    int64_t time_first_ms, time_last_ms; /* least and greatest; DEVLOG_NO_TIME: none */
    struct devlog_event *events;
    struct devlog_template *templates;
    struct devlog_feature *features;
    uint32_t n_events, n_templates, n_features;
};

int devlog_parse(struct bytes log, enum devlog_format format, struct arena *a, struct devlog *out,
                 char *err, size_t err_bytes);
const struct devlog_feature *devlog_feature(const struct devlog *d,
                                            struct bytes name); /* or NULL */

#endif
