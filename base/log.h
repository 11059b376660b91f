/* log.h - structured log lines on stderr, one line an event, in logfmt or as JSON.
 *
 *   log_info("job_accepted", "job=%s kind=%s", id, kind);
 *   -> ts=2026-01-02T03:04:05.678Z level=info app=penstock-broker event=job_accepted job=...
 *   -> {"ts":"2026-01-02T03:04:05.678Z","level":"info","app":"penstock-broker","event":...}
 *
 * Times are UTC. The caller quotes values that may hold spaces with log_quote; in JSON, integers
 * and true and false stay what they are, all else is a string. Of one event LOG_LINES_A_SECOND are
 * written in a second: its next line says how many were not (`suppressed`), or log_flush does. The
 * names and keys of events are stable, and listed in penstock-log(7), which is made from the
 * calls: an event is a literal.
 *
 * Units: none.  Owner: the line is written with one write(2).  Memory: stack buffers of 6 KiB;
 * longer lines are cut and marked.  Errors: none.  Threads: any. */
#ifndef PENSTOCK_BASE_LOG_H
#define PENSTOCK_BASE_LOG_H

#include <stddef.h>

#define LOG_LINES_A_SECOND 100u

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

/* once, before threads; app is borrowed for ever */
void log_init(const char *app, enum log_level level);
void log_write_as(enum log_format format);                  /* once, before threads; else logfmt */
int log_level_parse(const char *name, enum log_level *out); /* "debug|info|warn|error"; -EINVAL */
int log_format_parse(const char *name, enum log_format *out); /* "logfmt|json"; -EINVAL */
/* event is borrowed for ever. */
void log_event(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* About every second: says what was suppressed and had no later line to say so. */
void log_flush(void);
/* Copies text into buf as a quoted logfmt value (quotes, escapes, control bytes); returns buf. */
const char *log_quote(char *buf, size_t buf_bytes, const char *text);

#define log_debug(...) log_event(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_event(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_event(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)

#endif
