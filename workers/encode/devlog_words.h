/* devlog_words.h - the words of a log line: masked to a template, and the numbers that have a name.
 *
 * Words are what spaces separate; punctuation around a word stays. What varies from line to line is
 * replaced: <num> (a unit behind it stays), <hex>, <id> (UUIDs, serial numbers: letters with three
 * or more digits; with fewer only the digits become <num>), <ip>, <path> (of files, and URLs),
 * <time>. Readings are name=12.5mm, name:12.5 and name: 12.5.
 *
 * Units: bytes.  Owner: names are borrowed from the text.  Memory: none.  Errors: none, what does
 * not fit is cut.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_DEVLOG_WORDS_H
#define PENSTOCK_WORKERS_ENCODE_DEVLOG_WORDS_H

#include "workers/encode/devlog.h"

#define DEVLOG_TEMPLATE_BYTES 384u

struct devlog_words {
    char text[DEVLOG_TEMPLATE_BYTES]; /* the template, not terminated */
    size_t len;
    enum devlog_severity severity; /* by words such as ERROR, alarm, WARN, 报警 */
    /* Called for each reading. */
    void (*reading)(void *arg, struct bytes name, double value);
    void *arg;
};
/* text is valid UTF-8. */
void devlog_words(struct devlog_words *w, struct bytes text);
/* A whole text as one number, spaces around it allowed, no unit; finite. */
bool devlog_number(struct bytes text, double *out);

#endif
