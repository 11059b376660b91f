#include "workers/encode/devlog_build.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "workers/encode/devlog_time.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD: what devlog.c puts for bad bytes */

static uint64_t hash_of(struct bytes b) { /* FNV-1a, 64 bits */
    const uint8_t *p = b.data;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < b.len; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static bool is_any(struct bytes name, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (name.len == strlen(list[i]) && strncasecmp(name.data, list[i], name.len) == 0)
            return true;
    return false;
}

bool devlog_is_time_name(struct bytes name) {
    static const char *const names[] = {"time",     "timestamp", "ts",         "@timestamp",
                                        "datetime", "date",      "time_stamp", "date_time",
                                        "时间",     "日期",      "ts_ms",      "time_ms"};
    return is_any(name, names, sizeof names / sizeof *names);
}

static bool speaks_for_itself(struct bytes name) {
    static const char *const names[] = {"message", "msg",  "event",    "text",  "description",
                                        "level",   "lvl",  "severity", "alarm", "error",
                                        "消息",    "信息", "级别",     "事件",  "内容"};
    return is_any(name, names, sizeof names / sizeof *names);
}

static void take_reading(void *arg, struct bytes name, double value) {
    build_reading(arg, name, value);
}

int build_init(struct devlog_build *b, struct devlog *out, uint32_t lines_max, struct arena *a) {
    memset(b, 0, sizeof *b);
    b->out = out;
    b->arena = a;
    b->events_max = lines_max < LIMIT_DEVLOG_LINES ? lines_max : LIMIT_DEVLOG_LINES;
    out->time_first_ms = out->time_last_ms = DEVLOG_NO_TIME;
    out->events = arena_calloc(a, (size_t)b->events_max + 1, sizeof *out->events);
    out->templates = arena_calloc(a, LIMIT_DEVLOG_TEMPLATES, sizeof *out->templates);
    out->features = arena_calloc(a, LIMIT_DEVLOG_FEATURES, sizeof *out->features);
    return out->events && out->templates && out->features ? 0 : -ENOMEM;
}

void build_begin(struct devlog_build *b, uint32_t line, struct bytes text) {
    struct devlog *d = b->out;
    b->skip = d->n_events == b->events_max;
    b->words.len = 0;
    b->words.severity = DEVLOG_PLAIN;
    b->words.reading = take_reading;
    b->words.arg = b;
    if (b->skip) {
        d->events_left_out++;
        return;
    }
    if (text.len > LIMIT_DEVLOG_LINE_BYTES) {
        text.len = utf8_cut(text, LIMIT_DEVLOG_LINE_BYTES);
        d->lines_cut++;
    }
    d->events[d->n_events] = (struct devlog_event){line, DEVLOG_NO_TEMPLATE, DEVLOG_NO_TIME, text};
}

void build_time(struct devlog_build *b, int64_t time_ms) {
    struct devlog *d = b->out;
    if (b->skip || time_ms == DEVLOG_NO_TIME) return;
    d->events[d->n_events].time_ms = time_ms;
    if (d->time_first_ms == DEVLOG_NO_TIME || time_ms < d->time_first_ms)
        d->time_first_ms = time_ms;
    if (d->time_last_ms == DEVLOG_NO_TIME || time_ms > d->time_last_ms) d->time_last_ms = time_ms;
}

void build_words(struct devlog_build *b, struct bytes text) {
    if (!b->skip) devlog_words(&b->words, text);
}

void build_named_words(struct devlog_build *b, struct bytes name, struct bytes value) {
    char both[1024];
    size_t used = 0;
    if (!speaks_for_itself(name)) {
        used = utf8_cut(name, LIMIT_NAME_BYTES);
        memcpy(both, name.data, used);
        both[used++] = '=';
    }
    size_t rest = utf8_cut(value, sizeof both - used);
    if (rest > 0) memcpy(both + used, value.data, rest);
    build_words(b, bytes_of(both, used + rest));
}

static struct devlog_feature *feature_slot(struct devlog_build *b, struct bytes name) {
    struct devlog *d = b->out;
    uint32_t at = (uint32_t)hash_of(name) & (DEVLOG_SLOTS - 1);
    for (; b->feature_slot[at] != 0; at = (at + 1) & (DEVLOG_SLOTS - 1)) {
        struct devlog_feature *f = &d->features[b->feature_slot[at] - 1];
        if (bytes_eq(f->name, name)) return f;
    }
    if (d->n_features == LIMIT_DEVLOG_FEATURES) return NULL;
    char *copy = arena_strndup(b->arena, name.data, name.len);
    if (!copy) return NULL;
    struct devlog_feature *f = &d->features[d->n_features++];
    f->name = bytes_of(copy, name.len);
    b->feature_slot[at] = d->n_features;
    return f;
}

void build_reading(struct devlog_build *b, struct bytes name, double value) {
    uint32_t event = b->out->n_events;
    if (b->skip || name.len == 0) return;
    name.len = name.len > LIMIT_NAME_BYTES ? utf8_cut(name, LIMIT_NAME_BYTES) : name.len;
    struct devlog_feature *f = feature_slot(b, name);
    if (!f) {
        b->out->readings_left_out++;
        return;
    }
    if (f->count == 0 || value < f->min) f->min = value, f->min_event = event;
    if (f->count == 0 || value > f->max) f->max = value, f->max_event = event;
    f->sum += value;
    f->last = value;
    f->last_event = event;
    f->count++;
}

static uint32_t template_of(struct devlog_build *b) {
    struct devlog *d = b->out;
    struct bytes text = bytes_of(b->words.text, b->words.len);
    uint64_t id = hash_of(text);
    uint32_t at = (uint32_t)id & (DEVLOG_SLOTS - 1);
    for (; b->template_slot[at] != 0; at = (at + 1) & (DEVLOG_SLOTS - 1)) {
        struct devlog_template *t = &d->templates[b->template_slot[at] - 1];
        if (t->id != id || !bytes_eq(t->text, text)) continue;
        t->count++;
        t->last_event = d->n_events;
        return b->template_slot[at] - 1;
    }
    char *copy = d->n_templates < LIMIT_DEVLOG_TEMPLATES
                     ? arena_strndup(b->arena, text.data, text.len)
                     : NULL;
    if (!copy) {
        d->words_left_out++;
        return DEVLOG_NO_TEMPLATE;
    }
    d->templates[d->n_templates] = (struct devlog_template){
        id, bytes_of(copy, text.len), b->words.severity, 1, d->n_events, d->n_events};
    b->template_slot[at] = ++d->n_templates;
    return d->n_templates - 1;
}

void build_end(struct devlog_build *b) {
    struct devlog *d = b->out;
    if (b->skip) return;
    if (b->words.len > 0) d->events[d->n_events].template_i = template_of(b);
    d->n_events++;
}

/* The line behind its time, which may stand in brackets. */
static struct bytes after_time(struct bytes text, int64_t *time_ms) {
    const char *s = text.data;
    size_t lead = text.len > 0 && (s[0] == '[' || s[0] == '(') ? 1 : 0;
    size_t n = devlog_time(s + lead, text.len - lead, time_ms);
    if (n == 0) return text;
    n += lead;
    while (n < text.len && strchr(" \t])|,:;-", s[n])) n++;
    return bytes_of(s + n, text.len - n);
}

void build_text(struct devlog_build *b, uint32_t line, struct bytes text, bool malformed) {
    int64_t time_ms;
    malformed = malformed || memmem(text.data, text.len, replacement, 3);
    build_begin(b, line, text);
    b->out->malformed += malformed;
    if (b->skip) return;
    struct bytes kept = b->out->events[b->out->n_events].text;
    struct bytes rest = after_time(kept, &time_ms);
    build_time(b, time_ms);
    build_words(b, rest);
    build_end(b);
}
