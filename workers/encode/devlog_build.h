/* devlog_build.h - a devlog while its lines are read: what the reader of each format adds to.
 *
 * A reader calls build_begin for each line, then build_words and build_reading for what is in it,
 * then build_end. Between the readers of the formats and the tables there is nothing else.
 *
 * Units, owner, memory: as devlog.h.  Errors: none after build_init; full tables are counted.
 * Threads: one at a time. */
#ifndef PENSTOCK_WORKERS_ENCODE_DEVLOG_BUILD_H
#define PENSTOCK_WORKERS_ENCODE_DEVLOG_BUILD_H

#include "base/limits.h"
#include "workers/encode/devlog_words.h"

#define DEVLOG_SLOTS 2048u /* of each hash table: a power of two, twice the largest cap */
_Static_assert(DEVLOG_SLOTS >= 2 * LIMIT_DEVLOG_TEMPLATES, "templates fit half the slots");
_Static_assert(DEVLOG_SLOTS >= 2 * LIMIT_DEVLOG_FEATURES, "features fit half the slots");

struct devlog_build {
    struct devlog *out;
    struct arena *arena;
    struct devlog_words words;
    bool skip; /* the event is beyond the cap: nothing of it is kept */
    uint32_t events_max;
    uint32_t template_slot[DEVLOG_SLOTS], feature_slot[DEVLOG_SLOTS]; /* index + 1; 0: free */
};
/* lines_max: the most events that can come. -ENOMEM. */
int build_init(struct devlog_build *b, struct devlog *out, uint32_t lines_max, struct arena *a);

void build_begin(struct devlog_build *b, uint32_t line, struct bytes text);
void build_time(struct devlog_build *b, int64_t time_ms); /* DEVLOG_NO_TIME does nothing */
void build_words(struct devlog_build *b, struct bytes text);
/* Words of "name=value"; names such as message, level and event go without the name. */
void build_named_words(struct devlog_build *b, struct bytes name, struct bytes value);
void build_reading(struct devlog_build *b, struct bytes name, double value);
void build_end(struct devlog_build *b);
/* A whole line of text: its time, words and readings. */
void build_text(struct devlog_build *b, uint32_t line, struct bytes text, bool malformed);

/* Columns and members that hold the event's time, by name. */
bool devlog_is_time_name(struct bytes name);
/* The reader of JSON lines: false when the line is not one object. */
bool devlog_json_line(struct devlog_build *b, uint32_t line, struct bytes text);
/* The reader of CSV: everything from text on. -ENOMEM. */
int devlog_csv_read(struct devlog_build *b, struct bytes text, char delimiter);
/* The delimiter of a text that looks like CSV with a header; 0: it does not. */
int devlog_csv_sniff(struct bytes text, struct arena *a, char *delimiter);

#endif
